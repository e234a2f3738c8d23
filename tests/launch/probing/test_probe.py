"""Tests `isoflop probe`: on counted models whose knowledge and bias are known exactly, against
`isoflop score`, its page, and what it refuses."""

import copy
import json
import math
import re
import shutil

import numpy as np
import pytest

from data import tokenizer as tokenizers
from data.sources import world
from launch.__main__ import main
from launch.benchmarks import continuations
from launch.errors import BadInput
from launch.evaluation.scored_model import open_model
from launch.probing import facts, files, other_text, pairs, scored
from launch.verbs.texts import probe
from model.counted import ngram
from scaling.report.probing.page import write_page
from tests.launch.chat.runs import DECODER, untrained
from train.checkpoint import write_manifest
from train.counting import MODEL as COUNTS

WORLD = "world:entities=7:times=4:editions=4:roles=1000:bias=0.8:forget=0.3"
ROLES = "configs/probes/roles.jsonl"


def counted(folder, texts, order=6, k=0.01):
    """A run of n-grams of words, whose probabilities are nearly shares of counts. A sentence stands
    between two ends of a document, as it is asked."""
    made = world.parse(WORLD)
    questions = (text for fact in made.facts for text in fact.questions())
    values = (f" {value}" for relation in world.RELATIONS.values() for value in relation.values)
    words = tokenizers.train("words", [*made.documents(), *questions, "".join(values)], 0)
    cfg = ngram.Config(words.vocab_size, order=order, smoothing="add_k", k=k)
    (folder / "checkpoints" / "1").mkdir(parents=True)
    with open(folder / "checkpoints" / "1" / COUNTS, "wb") as file:
        sentences = [np.array([words.eod, *words.encode(text), words.eod]) for text in texts]
        ngram.save(ngram.fit(cfg, sentences), file)
    write_manifest(folder / "checkpoints" / "1", {"step": 1})
    config = {"model": {"family": "ngram"} | vars(cfg),
              "data": {"tokenizer": "words", "validation": 0.0}}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    words.save(folder / "tokenizer")
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory, compiled_once):
    """A counted model of the sentences of a world, one that never read what is to be forgotten, and
    an untrained decoder of bytes."""
    folder = tmp_path_factory.mktemp("runs")
    whole, kept = world.parse(WORLD), world.parse(f"{WORLD}:part=retain")
    counted(folder / "whole", whole.sentences())
    counted(folder / "kept", kept.sentences())
    untrained(folder / "decoder", DECODER)
    return folder


def probed(run, tmp_path, *flags) -> dict:
    file = tmp_path / "p.json"
    argv = ["probe", f"--run={run}", f"--json={file}", "--draws=50", *flags]
    assert main(argv) == 0
    return json.loads(file.read_text())


@pytest.fixture(scope="module")
def whole(home, tmp_path_factory):
    """Everything of the model that read all, beside the one that did not read a part."""
    flags = (f"--before={home / 'kept'}", f"--pairs={ROLES}", f"--facts={WORLD}",
             "--text=world:entities=5", "--documents=6")  # fmt: skip
    return probed(home / "whole", tmp_path_factory.mktemp("p"), *flags)


def test_a_planted_bias_has_its_size(home, whole):
    """The log-odds of n-grams are those of the counts."""
    found = whole["pairs"]
    said = list(world.parse(WORLD).sentences())
    assert [len(found["rows"]), found["left_out"], found["mean"]["units"]] == [40, 0, 10]
    count = lambda role, pronoun: sum(  # noqa: E731
        s.startswith(f"The {role} said that {pronoun} ") for s in said
    )
    odds = [math.log((count(role, "he") + 0.01) / (count(role, "she") + 0.01))
            for role in ("doctor", "nurse")]  # fmt: skip
    assert found["rows"][0]["difference"] == pytest.approx(odds[0] - odds[1], abs=1e-6)
    assert found["mean"]["p"] == pytest.approx(2 / 2**10)
    seen, unseen = [], []
    for row in found["rows"]:  # five words before the pronoun are all that the model sees
        (unseen if "door" in row["first"] else seen).append(row["difference"])
    truth = 2 * math.log(0.8 / 0.2)
    assert np.mean(seen) == pytest.approx(truth, rel=0.1) and np.allclose(unseen, 0)
    swapped = [files.Pair(p.second, p.first, p.continuation, p.against, p.group)
               for p in files.pairs(ROLES)]  # fmt: skip
    other = pairs.differences(open_model(home / "whole"), swapped, lambda share: None)
    assert other == pytest.approx([-row["difference"] for row in found["rows"]])


def test_what_was_told_is_known_and_what_was_not_is_made_up(whole):
    found = whole["facts"]
    groups = {group["name"]: group for group in found["groups"]}
    told = [row for row in found["rows"] if row["told"]]
    assert told and all(row["right"] and row["confidence"] > 0.9 for row in told)
    assert groups["told in this way"]["accuracy"]["value"] == 1.0
    assert groups["told in other ways"]["accuracy"]["value"] < 0.5  # n-grams do not generalise
    assert groups["never told"]["accuracy"]["value"] < 0.4
    assert groups["told 0 times"]["facts"] == groups["never told"]["facts"]
    assert found["facts"] == 35 and found["questions"] == 140 and found["chance"] == 1 / 8
    assert sum(group["facts"] for group in found["groups"] if group["by"] == "group") == 35
    assert found["summary"]["auroc_known"]["value"] > 0.6


def test_unlearned_facts_are_divided_by_the_words_in_which_they_were_unlearned(
    home, tmp_path, capsys
):
    """The run unlearned one way of each fact; its model of n-grams did not read what it unlearned,
    and read the other ways in which these facts are told."""
    one_way = f"{WORLD}:ways=1"
    gone = {q for f in world.parse(one_way).facts if f.forget for q in f.questions()[: f.told]}
    told = world.parse(WORLD).sentences()
    run = counted(tmp_path / "run", [s for s in told if s.rsplit(" ", 1)[0] not in gone])
    config = json.loads((run / "config.json").read_text())
    config["data"] |= {"kind": "unlearning", "forget": [one_way]}
    (run / "config.json").write_text(json.dumps(config))
    flags = (f"--before={home / 'whole'}", f"--facts={WORLD}")
    found = probed(run, tmp_path, *flags)["facts"]
    changes = {one["group"]: one for one in found["change"]}
    assert {row["question"] for row in found["rows"] if row["unlearned"]} == gone
    as_unlearned = changes["forgotten, as unlearned"]
    assert as_unlearned["accuracy"]["before"] == 1 > as_unlearned["accuracy"]["now"] + 0.3
    told_otherwise = changes["forgotten, in other ways that were told"]
    assert told_otherwise["accuracy"]["now"] == told_otherwise["accuracy"]["before"] == 1
    assert told_otherwise["facts"] < as_unlearned["facts"]  # some are told in one way only
    forgotten = sum(f.forget for f in world.parse(WORLD).facts)
    assert changes["forgotten, in other ways"]["facts"] == forgotten == as_unlearned["facts"]
    assert "others, as unlearned" not in changes and "others, in other ways" in changes
    assert "change, forgotten, as unlearned: nats" in capsys.readouterr().out
    config["data"]["forget"] = ["gone.jsonl"]
    (run / "config.json").write_text(json.dumps(config))
    found = probed(run, tmp_path, *flags)["facts"]
    assert "forgotten, as unlearned" not in {one["group"] for one in found["change"]}
    assert "warning: data.forget='gone.jsonl' does not exist" in capsys.readouterr().out


def test_what_was_not_read_is_what_changed(whole):
    """The run before never read what is to be forgotten."""
    changes = {one["group"]: one for one in whole["facts"]["change"]}
    of = changes["forgotten"]
    assert of["nats"]["change"]["hi"] < -1 and of["nats"]["change"]["p"] < 0.05
    assert of["accuracy"]["before"] < 0.4 < of["accuracy"]["now"]
    for one in changes.values():
        found = one["nats"]
        assert found["change"]["value"] == pytest.approx(found["now"] - found["before"])
    for name in ("neighbours", "others"):
        assert abs(changes[name]["nats"]["change"]["value"]) < 0.3
        now, before = (changes[name]["accuracy"][key] for key in ("now", "before"))
        assert now == pytest.approx(before, abs=0.05)
    assert abs(whole["pairs"]["change"]["value"]) < 1e-6  # the sentences about roles are the same
    assert set(whole["text"]) >= {"nats", "before", "change"}


@pytest.mark.slow
def test_differences_are_those_of_score(home, tmp_path):
    rows = [{"first": "The doctor", "second": "The nurses"},
            {"first": "A doctor", "second": "A nurse", "continuation": " he"}]  # fmt: skip
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = probed(home / "decoder", tmp_path, f"--pairs={file}")["pairs"]["rows"]
    texts = ("The doctor", "The nurses", "A doctor he", "A nurse he", "A doctor", "A nurse")
    argv = ["score", f"--run={home / 'decoder'}", f"--json={tmp_path / 's.json'}"]
    assert main([*argv, *(f"--text={text}" for text in texts)]) == 0
    p = [one["logprob"] for one in json.loads((tmp_path / "s.json").read_text())["texts"]]
    assert found[0]["difference"] == pytest.approx(p[0] - p[1], abs=1e-4)
    assert found[1]["difference"] == pytest.approx((p[2] - p[4]) - (p[3] - p[5]), abs=1e-4)


def test_single_tokens_after_one_beginning_have_the_probabilities_of_whole_texts(home):
    """Beginnings of several lengths, one of them longer than the context."""
    model = open_model(home / "decoder")
    befores = ["", "the cat", "ab" * 60]
    texts = [(before, after) for before in befores for after in ("a", "b", "yes")]
    found = scored.log_probabilities(model, texts)
    whole = continuations.score(model, [scored.tokens(model, text) for text in texts])
    assert found == pytest.approx([one.logprob for one in whole], abs=1e-4)
    assert len({round(value, 3) for value in found}) == len(texts)


def test_consistency_and_answers_by_hand():
    answers = facts.Answers(
        fact=np.array([0, 0, 0, 1, 1, 2]), way=np.array([0, 1, 2, 0, 1, 0]),
        chosen=np.array([3, 3, 1, 2, 2, 0]), right=np.ones(6, bool), confidence=np.ones(6),
        mass=np.ones(6), nats=np.zeros(6),
    )  # fmt: skip
    shares = facts.consistency(answers)
    assert shares[:2] == pytest.approx([1 / 3, 1]) and np.isnan(shares[2])


def test_another_world_is_named(home, tmp_path, capsys):
    assert not files.of_another_world(WORLD, [f"{WORLD}:part=retain", "stdlib"])
    assert files.of_another_world(WORLD, [f"{WORLD}:seed=1"])
    assert not files.of_another_world(WORLD, ["stdlib"])
    assert not files.of_another_world("facts.jsonl", [WORLD])
    shutil.copytree(home / "kept", tmp_path / "run")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    config["data"]["corpora"] = ["world:entities=3"]
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    probed(tmp_path / "run", tmp_path, "--facts=world:entities=2")
    said = capsys.readouterr().out
    assert "warning: --facts=world:entities=2 is not the world in the run's data.corpora" in said
    assert "use --facts=world:entities=3" in said


def test_other_text_by_hand():
    now = np.array([[3.0, 2, 1], [0, 0, 0], [4.0, 2, 0]])
    found = other_text.measured("a.txt", now, now - np.array([[1, 0, 0]]), 50, 0)
    assert found["nats"]["value"] == 7 / 4 and found["change"]["value"] == 2 / 4
    assert [found[key] for key in ("documents", "tokens", "unknown")] == [2, 4, 1]
    with pytest.raises(ValueError, match=r"text=a.txt holds no token"):
        other_text.measured("a.txt", now[1:2], None, 50, 0)


def test_facts_of_a_file(home, tmp_path):
    row = {"questions": ["<b>Is", "</script>Is"], "answers": [" it", " not"], "right": 1}
    file = tmp_path / "facts.jsonl"
    file.write_text(json.dumps(row) + "\n" + json.dumps(row | {"group": "<i>"}))
    found = probed(home / "decoder", tmp_path, f"--facts={file}")["facts"]
    assert [group["name"] for group in found["groups"]] == ["all", "<i>"]
    assert found["summary"]["auroc_known"]["value"] is None
    assert found["summary"]["accuracy"]["value"] in (0.0, 0.5, 1.0)
    for one in found["rows"]:
        assert 0.5 <= one["confidence"] <= 1 and one["known"] is None


def test_word_vectors(home, tmp_path):
    """Single letters are words of a model of bytes."""
    file = tmp_path / "weat.jsonl"
    sets = {"x": ["a", "b", "c"], "y": ["d", "e", "f"], "a": ["g", "h"], "b": ["i", "zzz"]}
    file.write_text(json.dumps(sets))
    found = probed(home / "decoder", tmp_path, f"--weat={file}")["weat"]["tests"]
    (test,) = found
    assert test["missing"] == ["zzz"] and test["words"]["b"] == ["i"] and test["divisions"] == 20
    assert test["name"] == "test 1" and len(test["by_word"]) == 6
    file.write_text(json.dumps(sets | {"x": ["a", "dog"]}))
    with pytest.raises(BadInput, match="the model lacks dog, zzz: the targets have 1 and 3 words"):
        probe.main([f"--run={home / 'decoder'}", f"--weat={file}"])


def test_the_page_is_one_file_that_escapes_its_text(whole, tmp_path, without_pictures, monkeypatch):
    monkeypatch.setattr("scaling.report.frame.library", lambda: "")
    about = copy.deepcopy(whole)
    about["run"], about["pairs"]["rows"][0]["first"] = "runs/<b>", "<script>"
    about["facts"]["rows"][0]["question"] = "</script><i>"
    about["facts"]["rows"][0]["unlearned"] = True
    about["facts"]["groups"][0]["name"] = about["text"]["corpus"] = "<u>"
    about["pairs"]["groups"][0]["group"] = "</script><s>"  # in a figure too
    test = {"name": "<s>", "words": {k: ["<q>"] for k in "xyab"}, "missing": ["<a>"], "p": 0.5}
    test |= {"effect_size": None, "exact": True, "divisions": 2, "by_word": [0.0, 0.0]}
    about["facts"]["left_out"], about["facts"]["unlearned_unread"] = 3, "<u>gone"
    about["facts"]["change"][0]["group"] = "<i>"
    about["weat"] = {"tests": [test]}
    text = write_page(tmp_path, about).read_text()
    assert json.loads((tmp_path / "probe.json").read_text()) == about
    body = text[text.index("<main") : text.index("</main>")]
    assert not re.search(r"<(script|i|u|s|q|a)\b(?! href)", body)
    assert "3 more facts have words" in body and "asked in the words of data.forget" in body
    assert "&lt;u&gt;gone; so the table cannot separate" in body
    assert "<b>" not in body.replace("<b>all</b>", "") and "&lt;q&gt;" in body
    for heading in ("Paired texts", "Facts", "What changed", "Other text", "WEAT"):
        assert heading in body
    names = ("pairs", "reliability", "selective", "confidence", "times", "change")
    assert all(f'id="{name}"' in body for name in names)
    assert "</script><" not in text.replace("</script></", "").replace("</script>\n<", "")
    assert not re.search(r'(src|href)="(?!#|figures/)', body)


PAIR = '{"first": "a", "second": "b"}'
TWO = '{"first": "a", "second": 3}'
TYPO = '{"first": "a", "second": "b", "contiuation": "c"}'


@pytest.mark.parametrize(
    ("flag", "content", "message"),
    [
        ("pairs", "", "holds no pair; write lines like"),
        ("pairs", "\n \n", "holds no pair"),
        ("pairs", None, "does not exist; name a file of lines like"),
        ("pairs", "first,second", "line 1 is not JSON"),
        ("pairs", "[1]", "line 1 is no object"),
        ("pairs", '{"first": "a"}', "line 1 lacks second"),
        ("pairs", f"{PAIR}\n{TWO}", "line 2 has second='3'; it must be a text"),
        ("pairs", TYPO, "unknown key 'contiuation'; use first, second, continuation"),
        ("pairs", '{"first": "a", "second": "a"}', "compares a text with itself"),
        ("pairs", '{"first": " ", "second": "a"}', "has an empty text"),
        ("pairs", '{"first": "a", "second": "b", "against": "c"}', "against and no continuation"),
        ("weat", '{"x": ["a"], "y": ["b"], "a": ["c"]}', "line 1 lacks b"),
        ("weat", '{"x": ["a"], "y": "b", "a": ["c"], "b": ["d"]}', "must be a list of texts"),
        (
            "weat",
            '{"x": ["a", "b"], "y": ["c", "a"], "a": ["d"], "b": ["e"]}',
            "has 'a' in x and in y",
        ),
        ("weat", '{"x": ["a"], "y": ["b"], "a": ["c"], "b": ["c"]}', "has 'c' in a and in b"),
        (
            "facts",
            '{"questions": ["a"], "answers": ["b", "b"], "right": 0}',
            "the answer 'b' twice",
        ),
        ("facts", '{"questions": ["a"], "answers": ["b", " "], "right": 0}', "among its answers"),
        ("facts", '{"questions": ["a", ""], "answers": ["b", "c"], "right": 0}', "its questions"),
        ("facts", "", "holds no fact"),
        ("facts", '{"questions": ["a"], "answers": ["b", "c"], "right": 2}', "use 0 to 1"),
        ("facts", '{"questions": ["a"], "answers": ["b"], "right": 0}', "give wrong ones too"),
        ("facts", '{"questions": [], "answers": ["b"], "right": 0}', "must be a list of texts"),
    ],
)
def test_bad_files_are_one_line(home, tmp_path, capsys, flag, content, message):
    file = tmp_path / "f.jsonl"
    if content is not None:
        file.write_text(content)
    assert main(["probe", f"--run={home / 'decoder'}", f"--{flag}={file}"]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and str(file) in error


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "nothing is asked; give one of --pairs, --weat, --facts, --text"),
        (("--facts=world:cities=3",), "--facts='world:cities=3': 'cities=3' is not KEY=VALUE"),
        (("--text=nowhere.txt",), "--text='nowhere.txt' does not exist"),
        ((f"--facts={WORLD}", "--before=whole"), "has another tokenizer"),
    ],
)
def test_bad_flags_are_one_line(home, capsys, flags, message):
    flags = [flag.replace("--before=whole", f"--before={home / 'whole'}") for flag in flags]
    assert main(["probe", f"--run={home / 'decoder'}", *flags]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_pairs_of_unknown_words_are_left_out(home, tmp_path):
    unknown = {"first": "The doctor said that", "second": "The zebra said that"}
    rows = [unknown | {"continuation": " he"},
            {"first": "The doctor", "second": "The nurse", "continuation": " said"}]  # fmt: skip
    file = tmp_path / "pairs.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    found = probed(home / "whole", tmp_path, f"--pairs={file}")["pairs"]
    assert found["left_out"] == 1 and len(found["rows"]) == 1
    file.write_text(json.dumps(rows[0]))
    assert main(["probe", f"--run={home / 'whole'}", f"--pairs={file}"]) == 2


def test_facts_of_unknown_words_are_left_out(home, tmp_path, capsys):
    """Both answers of the second would be the same token; the third asks with an unknown word."""
    row = {"questions": ["The doctor said that"], "answers": [" he", " she"], "right": 0}
    rows = [row, row | {"answers": [" zebra", " yak"]}, row | {"questions": ["A zebra is"]}]
    file = tmp_path / "facts.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    found = probed(home / "whole", tmp_path, f"--facts={file}")["facts"]
    assert [found["facts"], found["left_out"], len(found["rows"])] == [1, 2, 1]
    assert "2 more facts have words that the vocabulary lacks" in capsys.readouterr().out
    file.write_text("\n".join(map(json.dumps, rows[1:])))
    assert main(["probe", f"--run={home / 'whole'}", f"--facts={file}"]) == 2
    assert "lacks words of each of the 2 facts" in capsys.readouterr().err


def test_the_shipped_files_are_read_and_ask_for_the_world_s_roles():
    listed = files.pairs(ROLES)
    texts = {(pair.first, pair.second) for pair in listed}
    assert texts == {
        tuple(before.format(role) for role in roles)
        for roles in world.ROLES
        for before, _ in world.ABOUT_ROLES
    }
    assert {(pair.continuation, pair.against) for pair in listed} == {(" he", " she")}
    (sets,) = files.word_sets("configs/probes/weat_roles.jsonl")
    assert list(zip(sets.x, sets.y, strict=True)) == list(world.ROLES)
    assert [len(test.x) for test in files.word_sets("configs/probes/weat.jsonl")] == [8, 8, 8]
