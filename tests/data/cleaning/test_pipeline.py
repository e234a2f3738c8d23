"""Tests of the whole pipeline: any number of workers, resumed runs, counts, faults, the text."""

import json
from pathlib import Path

import numpy as np
import pytest

from configs.data import cleaning
from data.atomic import lock
from data.cleaning import filter_pass, pipeline, result, settings, write_pass
from data.sources import corpus

WORDS = """the river and a harbour of morning that was with people to have little time for these
mountains of evening weather because children question reason many other good""".split()
DATA = "write to someone@example.org or 192.168.1.20 today, they said to all the people."
EXAM = "which harbour of the seven would a careful captain choose before the storm of the winter"


def document(seed: int, n: int = 12) -> str:
    """English of some sentences, different for each seed."""
    rng = np.random.default_rng(seed)
    lines = [" ".join(rng.choice(WORDS, rng.integers(8, 20))).capitalize() for _ in range(n)]
    return "\n".join(f"{line} {i}{seed}." for i, line in enumerate(lines))


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> Path:
    """Files with good documents, duplicates, other faults, and damage."""
    folder = tmp_path_factory.mktemp("raw")
    texts = [document(seed) for seed in range(40)]
    texts += [texts[3], texts[5] + "\n" + texts[5][:150] + ".", texts[3]]
    texts += ["too short.", "no end at all " * 50, "{" + document(90) + "}", "", "\x00\x07"]
    texts += [document(91) + "\n" + DATA, document(92) + f"\nQuestion: {EXAM}, they asked of us."]
    texts += ["Der Hund läuft schnell über die Straße und die Katze schläft.\n" * 9]
    texts += [document(93) + "\r\nThe Ko\u0308ln harbour was a good place for the people."]
    texts += [document(96) + "\n" + "\n".join(document(7).split("\n")[2:6])]  # repeated sentences
    for part in range(3):
        rows = [json.dumps({"text": text}) for text in texts[part::3]]
        (folder / f"{part}.jsonl").write_text("\n".join(rows) + "\n")
    (folder / "x.jsonl.gz").write_bytes(b"not gzip")
    (folder / "y.jsonl").write_bytes(b"{broken\n")
    (folder / "exam.txt").write_text(document(95))
    return folder


def config(raw: Path, **changes) -> dict:
    cfg = json.loads(cleaning.get_config().to_json())
    cfg["input"] |= {"corpora": [str(raw)], "unit_bytes": 3000}
    for key, value in changes.items():
        section, leaf = key.split("__")
        cfg[section][leaf] = value
    return cfg


def content(out: Path) -> dict[str, bytes]:
    """The files of a result."""
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def exam(tmp_path_factory) -> str:
    file = tmp_path_factory.mktemp("exam") / "exam.jsonl"
    file.write_text(json.dumps({"text": EXAM}))
    return str(file)


@pytest.fixture(scope="module")
def whole(raw, exam, tmp_path_factory) -> tuple[Path, dict]:
    """The result of one worker without an interruption, and its cleaning.json."""
    out = tmp_path_factory.mktemp("whole") / "out"
    return out, pipeline.clean(config(raw, decontaminate__against=[exam]), out, 1)


def test_every_rule_counts_what_it_removes(whole):
    _, about = whole
    removed = {rule: n["documents"] for rule, n in about["rules"].items() if n["documents"]}
    assert removed == {
        "empty": 2, "other_language": 1, "unsure_language": 1, "curly_bracket": 1,
        "few_sentences": 1, "exact_duplicate": 2, "near_duplicate": 1, "contaminated": 1,
    }  # fmt: skip
    assert about["read"]["documents"] == about["written"]["documents"] + sum(removed.values())
    repeated = about["rules"]["repeated_span"]
    assert (repeated["changed"], repeated["times"]) == (1, 2)
    assert about["rules"]["email"]["times"] == about["rules"]["ip_address"]["times"] == 1
    assert about["rules"]["unicode"]["changed"] == 2  # one becomes empty
    assert about["faults"]["files"] == about["faults"]["rows"] == 1
    assert [one["where"] for one in about["faults"]["named"]] == ["x.jsonl.gz", "y.jsonl byte 0"]
    assert about["groups"] == {"2": 1, "3–4": 1}
    assert about["largest_groups"][0]["size"] == 3
    assert about["languages"]["de"] == 1 and about["languages"]["en"] >= 45
    assert sum(about["lengths"]["read"].values()) == about["read"]["documents"]
    examples = about["rules"]["email"]["examples"]
    assert examples[0]["text"] == "xxxxxxx@xxxxxxx.xxx"


def test_the_text_is_what_training_reads(whole):
    out, about = whole
    texts = list(corpus.documents(str(out / "text")))
    assert len(texts) == about["written"]["documents"]
    assert sum(len(text.encode()) for text in texts) == about["written"]["bytes"]
    assert document(0) in texts and texts.count(document(3)) == 1
    assert any("<EMAIL> or <IP_ADDRESS>" in text for text in texts)
    assert document(7) in texts and document(96) in texts
    assert not any(EXAM in text or "example.org" in text or "\r" in text for text in texts)
    assert any("Köln" in text for text in texts)


def test_the_first_duplicate_in_the_order_of_the_input_is_kept(whole, raw):
    kept = [json.loads(line) for file in sorted(raw.glob("?.jsonl"))
            for line in file.read_text().splitlines() if line[1] == '"']  # fmt: skip
    firsts = [row["text"] for row in kept].index(document(3))
    texts = list(corpus.documents(str(whole[0] / "text")))
    before = {row["text"] for row in kept[:firsts]}
    assert sum(text in before for text in texts) == texts.index(document(3))


@pytest.mark.parametrize("workers", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_the_result_is_the_same_for_any_number_of_workers(whole, raw, exam, tmp_path, workers):
    pipeline.clean(config(raw, decontaminate__against=[exam]), tmp_path / "out", workers)
    assert content(tmp_path / "out") == content(whole[0])


class Killed(Exception):
    pass


def after(calls: int, function):
    """The function; it fails after so many calls."""
    left = [calls]

    def call(*args):
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        return function(*args)

    return call


@pytest.mark.parametrize(
    ("target", "name", "calls"),
    [
        (filter_pass.Filter, "unit", 3),
        (pipeline.clusters, "join", 2),
        (pipeline.Marks, "add", 0),
        (write_pass.Writer, "unit", 3),
        (write_pass.Writer, "_final", 20),
    ],
)
def test_a_killed_run_goes_on(whole, raw, exam, tmp_path, monkeypatch, target, name, calls):
    cfg, out = config(raw, decontaminate__against=[exam]), tmp_path / "out"
    with monkeypatch.context() as patched:
        patched.setattr(target, name, after(calls, getattr(target, name)))
        with pytest.raises(Killed):
            pipeline.clean(cfg, out, 1)
    done = {p: p.stat().st_mtime_ns for p in (out / ".work").glob("*.json")}
    assert done and not (out / "cleaning.json").exists()
    worked = []
    unit = filter_pass.Filter.unit
    monkeypatch.setattr(filter_pass.Filter, "unit", lambda *a: worked.append(a[1]) or unit(*a))
    pipeline.clean(cfg, out, 1)
    assert content(out) == content(whole[0])
    finished = sum("written" not in p.name for p in done)
    total = len(pipeline.plan(cfg["input"]["corpora"], cfg["input"]["unit_bytes"]))
    assert len(worked) == total - finished and finished >= 3


def test_a_finished_run_is_not_run_again_and_another_config_is_refused(
    whole, raw, exam, monkeypatch
):
    cfg = config(raw, decontaminate__against=[exam])
    monkeypatch.setattr(pipeline.processes, "started", None)
    (whole[0] / ".work").mkdir()  # as a run leaves it that is killed as it ends
    assert pipeline.clean(cfg, whole[0], 5) == json.loads((whole[0] / "cleaning.json").read_text())
    assert not (whole[0] / ".work").exists()
    cfg["c4"]["min_sentences"] = 4
    with pytest.raises(ValueError, match="holds the result of another config"):
        pipeline.clean(cfg, whole[0], 1)


def test_a_folder_has_one_process(raw, tmp_path):
    (tmp_path / "out" / ".work").mkdir(parents=True)
    with open(tmp_path / "out" / ".work" / "lock", "w") as file:
        lock(file)
        with pytest.raises(ValueError, match="is in use by another process"):
            pipeline.clean(config(raw), tmp_path / "out", 1)


def test_what_another_process_made_meanwhile_is_not_made_again(tmp_path, monkeypatch):
    """It ends after this one has looked at the folder, and before this one has the lock."""
    (tmp_path / "a.txt").write_text(document(1))
    cfg, locked, made = config(tmp_path / "a.txt"), result.lock, []

    def later(file):
        monkeypatch.setattr(result, "lock", locked)
        pipeline.clean(cfg, tmp_path / "out", 1)
        return locked(file)

    cleaned = pipeline._cleaned
    monkeypatch.setattr(result, "lock", later)
    monkeypatch.setattr(pipeline, "_cleaned", lambda *a: made.append(1) or cleaned(*a))
    about = pipeline.clean(cfg, tmp_path / "out", 1)
    assert about == json.loads((tmp_path / "out" / "cleaning.json").read_text())
    assert len(made) == 1 and not (tmp_path / "out" / ".work").exists()


def test_stages_and_rules_are_switched_off(raw, tmp_path):
    off = {f"{stage}__on": False for stage in settings.STAGES}
    about = pipeline.clean(config(raw, **off), tmp_path / "a", 1)
    assert set(about["rules"]) == {"empty"}
    cfg = config(raw, language__on=False, minhash__on=False)
    cfg["skip"] = ["exact_duplicate", "few_sentences", "email"]
    about = pipeline.clean(cfg, tmp_path / "b", 1)
    assert not {"other_language", "near_duplicate", *cfg["skip"]} & set(about["rules"])
    assert "curly_bracket" in about["rules"] and about["languages"] == {}


def test_spans_are_cut_and_text_is_lowercased(raw, exam, tmp_path):
    cfg = config(raw, decontaminate__against=[exam], decontaminate__remove="span",
                 decontaminate__around=0, final__lowercase=True)  # fmt: skip
    about = pipeline.clean(cfg, tmp_path / "out", 1)
    assert about["rules"]["contaminated"]["changed"] == 1
    texts = list(corpus.documents(str(tmp_path / "out" / "text")))
    assert any("question:\nthey asked of us." in text for text in texts)
    assert all(text == text.lower() for text in texts)


def test_too_much_damage_ends_the_run(raw, tmp_path):
    with pytest.raises(ValueError, match=r"^1 files are damaged.*max_damaged=0 \(x.jsonl.gz: "):
        pipeline.clean(config(raw, input__max_damaged=0), tmp_path / "a", 1)
    about = pipeline.clean(config(raw, input__max_damaged=1), tmp_path / "a", 1)  # goes on
    assert about["faults"]["files"] == 1
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"txt": "a"}\n' * 30)
    with pytest.raises(ValueError, match=r"^30 of 30 rows cannot be read.*keys found: txt"):
        pipeline.clean(config(bad), tmp_path / "b", 1)


def test_bad_rows_are_judged_over_all_of_the_input(tmp_path):
    off = {f"{stage}__on": False for stage in settings.STAGES} | {"input__unit_bytes": 20000}
    (tmp_path / "in").mkdir()
    bad, good = json.dumps({"txt": "a"}) + "\n", json.dumps({"text": "a word"}) + "\n"
    (tmp_path / "in" / "a.jsonl").write_text(bad * 30)
    (tmp_path / "in" / "b.jsonl").write_text(good * 3100)
    about = pipeline.clean(config(tmp_path / "in", **off), tmp_path / "a", 1)
    assert (about["faults"]["rows"], about["read"]["documents"]) == (30, 3100)
    (tmp_path / "in" / "b.jsonl").write_text(good * 2900)
    with pytest.raises(ValueError, match=r"^30 of 2930 rows cannot be read, more than"):
        pipeline.clean(config(tmp_path / "in", **off), tmp_path / "b", 1)
    about = pipeline.clean(
        config(tmp_path / "in", **off, input__max_bad_rows=0.02), tmp_path / "b", 1
    )
    assert about["read"]["documents"] == 2900
    # Long bad rows come first: they are most of the bytes and few of the rows.
    (tmp_path / "in" / "a.jsonl").write_text((json.dumps({"txt": "x" * 60000}) + "\n") * 12)
    about = pipeline.clean(config(tmp_path / "in", **off), tmp_path / "c", 1)
    assert (about["faults"]["rows"], about["read"]["documents"]) == (12, 2900)


def test_files_without_a_byte_are_no_documents(tmp_path, monkeypatch):
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    (folder / "a.jsonl").write_text("")
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "_second_step", after(0, pipeline._second_step))
        with pytest.raises(Killed):
            pipeline.clean(config(folder), out, 1)
    assert pipeline.clean(config(folder), out, 1)["read"]["documents"] == 0
    assert pipeline.clean(config(folder), tmp_path / "b", 1)["read"]["documents"] == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input__corpora": ["nowhere"]}, "input.corpora='nowhere' does not exist"),
        ({"normalise__form": "NFX"}, r"normalise.form='NFX' is unknown; use NFC \|"),
        ({"minhash__bands": 0}, "minhash.bands=0 is too small; use 1 or more"),
        ({"decontaminate__against": ["gone.txt"]}, "decontaminate.against='gone.txt' does not"),
        ({"c4__bad_words": "gone.txt"}, "c4.bad_words=gone.txt does not exist"),
        ({"language__keep": []}, "language.keep is empty"),
        (
            {"language__keep": ["english"]},
            "language.keep=english is not a known language; use one of af,",
        ),
        ({"input__corpora": ["corrupted:nowhere"]}, "input.corpora='nowhere' does not exist"),
    ],
)
def test_a_wrong_config_is_refused(raw, changes, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        settings.check(config(raw, **changes), cleaning.bounds(), "x")
    settings.check(config(raw), cleaning.bounds(), "x")


def test_rules_that_always_hold_are_not_skipped(raw):
    with pytest.raises(ValueError, match="skip=empty is a rule that always holds"):
        settings.check(config(raw) | {"skip": ["empty"]}, cleaning.bounds(), "x")


def test_a_wrong_key_of_evaluation_text_is_named(raw, exam, tmp_path):
    cfg = config(raw, decontaminate__against=[exam], decontaminate__text_key="body")
    with pytest.raises(ValueError, match=r"no key decontaminate\.text_key='body'; keys"):
        pipeline.clean(cfg, tmp_path / "out", 1)
    table = tmp_path / "a.csv"
    table.write_text("body\nsome words\n")
    about = pipeline.clean(config(table), tmp_path / "b", 1)
    assert "no key input.text_key='text'" in about["faults"]["named"][0]["why"]


def test_documents_of_which_nothing_is_left_are_counted_and_those_without_words_differ(
    exam, tmp_path
):
    off = {f"{stage}__on": False for stage in settings.STAGES}
    rows = (json.dumps({"text": text}) + "\n" for text in (EXAM, "!!!", "***", "*** ***", "***"))
    (tmp_path / "a.jsonl").write_text("".join(rows))
    on = {"decontaminate__on": True, "decontaminate__against": [exam],
          "decontaminate__remove": "span", "minhash__on": True, "exact__on": True}  # fmt: skip
    about = pipeline.clean(config(tmp_path / "a.jsonl", **off | on), tmp_path / "out", 1)
    removed = {rule: n["documents"] for rule, n in about["rules"].items()}
    assert removed == {"contaminated": 0, "empty": 1, "exact_duplicate": 1}
    assert about["written"]["documents"] == 3 and about["rules"]["empty"]["bytes"] == 0


def test_a_result_inside_its_input_is_refused(raw):
    for out in (raw / "x" / ".." / "out", raw):
        with pytest.raises(ValueError, match=f"lies inside input.corpora={raw}; name a folder"):
            pipeline.clean(config(raw), out, 1)


def test_input_that_changes_while_it_is_read_is_noticed(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("Too few words.\n")

    def change(step: str, done: int, total: int) -> None:
        file.write_text("Too few words, but more.\n")

    with pytest.raises(ValueError, match="the input changed while it was read"):
        pipeline.clean(config(file), tmp_path / "out", 1, change)
    assert not (tmp_path / "out" / "cleaning.json").exists()


def test_a_corpus_of_which_nothing_is_left(tmp_path):
    (tmp_path / "few.txt").write_text("Too few words.\n")
    about = pipeline.clean(config(tmp_path / "few.txt"), tmp_path / "out", 1)
    assert about["rules"]["few_sentences"]["documents"] == 1
    with pytest.raises(ValueError, match="is an empty folder"):
        list(corpus.documents(str(tmp_path / "out" / "text")))
