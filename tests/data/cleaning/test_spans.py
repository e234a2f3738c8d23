"""Tests that of repeated spans of sentences all but the first are removed, however work is cut."""

import json
import lzma
from pathlib import Path

import numpy as np
import pytest
import zstandard

from configs.data import cleaning
from data.cleaning import filter_pass, pipeline, settings
from data.cleaning.duplicates import spans
from data.cleaning.text import c4
from data.sources import corpus
from tests.golden.cleaning import make_decisions, sample

ONLY_SPANS = {stage: {"on": False} for stage in settings.STAGES} | {
    "spans": {"on": True, "min_sentences": 0, "min_words": 0}
}
WORKED = [  # (what is read, what is left)
    ("One is here. Two is here. Three is here. Four is here.",) * 2,
    # Two, three and four are a span of the first document; upper and lower case are the same.
    ("New begins. two IS here. Three is here. Four is here. New ends.", "New begins. New ends."),
    ("Two is here. Three is here. Only two are shared.",) * 2,
    # A document that repeats itself.
    ("A be. C do. E fa. A be. C do. E fa. G ho.", "A be. C do. E fa. G ho."),
    # Four sentences on lines of their own: two spans that overlap.
    (
        "Some line\n\nOne is here.\nTwo is here.\nThree is here.\nFour is here. So it ends.",
        "Some line\n\nSo it ends.",
    ),
    ("A be. C do.\nE fa. G ho.", ""),
]


def cleaned(texts: list[str], folder: Path, workers: int = 1, **changes) -> tuple[list[str], dict]:
    """(the texts left of some documents, cleaning.json). `changes` are sections of the config."""
    folder.mkdir(parents=True, exist_ok=True)
    raw, cfg = folder / "raw.jsonl", json.loads(cleaning.get_config().to_json())
    raw.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    for section, keys in {**ONLY_SPANS, "input": {"corpora": [str(raw)]}}.items():
        cfg[section] |= keys
    for section, keys in changes.items():
        cfg[section] |= keys
    about = pipeline.clean(cfg, folder / "out", workers)
    left = about["written"]["documents"]
    return list(corpus.documents(str(folder / "out" / "text"))) if left else [], about


def test_a_worked_example(tmp_path):
    given, expected = zip(*WORKED, strict=True)
    texts, about = cleaned(given, tmp_path / "a")
    assert texts == [text for text in expected if text]
    counts = about["rules"]["repeated_span"]
    assert (counts["changed"], counts["times"]) == (4, 1 + 1 + 2 + 2)
    assert counts["bytes"] == len("".join(given)) - len("".join(expected))
    assert {one["text"] for one in counts["examples"]} <= {
        "two IS here. Three is here. Four is here.",
        "A be. C do. E fa.",
        "One is here.\nTwo is here.\nThree is here.\nFour is here.",
        "A be. C do.\nE fa. G ho.",
    }
    assert about["rules"]["empty"]["documents"] == 1
    # Without the stage, and with spans that are too long to repeat, nothing is removed.
    assert cleaned(given, tmp_path / "b", spans={"on": False})[0] == list(given)
    assert cleaned(given, tmp_path / "c", spans={"sentences": 5})[0] == list(given)
    assert "repeated_span" not in cleaned(given, tmp_path / "d", spans={"sentences": 5})[1]["rules"]


def test_a_document_that_becomes_too_short_is_removed(tmp_path):
    first = "One is here. Two is here. Three is here."
    given = [first, f"{first} Four is new. Five is new.", f"{first} {'Many words are new. ' * 3}"]
    assert len(cleaned(given, tmp_path / "a")[0]) == 3
    texts, about = cleaned(given, tmp_path / "b", spans={"min_sentences": 3, "min_words": 12})
    assert texts == [first, ("Many words are new. " * 3).strip()]
    assert about["rules"]["few_sentences_left"]["examples"][0]["value"] == 2
    texts, about = cleaned(given, tmp_path / "c", spans={"min_sentences": 2, "min_words": 9})
    assert texts == [first, ("Many words are new. " * 3).strip()]
    assert about["rules"]["few_words_left"]["examples"][0]["text"] == "Four is new. Five is new."


def test_the_first_occurrence_is_lost_in_two_cases(tmp_path):
    """As docs/data.md says: equal sentences in a row, and a document that is then too short."""
    chorus = "All of us sing. " * 6
    assert cleaned([f"It begins. {chorus}It ends."], tmp_path / "a")[0] == [
        "It begins. All of us sing. It ends."
    ]
    first, second = "One is here. Two is here. Three is here.", "A be. C do. E fa."
    given = [
        f"{first} More.",
        f"{first} {second}",
        f"{second} Many more. Go on. And so on. It ends.",
    ]
    texts, about = cleaned(given, tmp_path / "b", spans={"min_sentences": 4})
    assert about["rules"]["few_sentences_left"]["documents"] == 1
    assert texts == [given[0], "Many more. Go on. And so on. It ends."]
    assert len(cleaned(given, tmp_path / "c", spans={"min_sentences": 3})[0]) == 3


def test_words_that_are_left_are_counted_without_spaces_too(tmp_path):
    """One repeated footer does not remove a page in Chinese."""
    rng = np.random.default_rng(0)
    lines = ["".join(map(chr, rng.integers(0x4E00, 0x9000, 40))) + "。" for _ in range(90)]
    footer = [
        "这是页脚一号的固定内容。",
        "请关注我们的公众号获取更多。",
        "版权所有侵权必究谢谢合作。",
    ]
    given = ["\n".join([*lines[start : start + 30], *footer]) for start in (0, 30, 60)]
    texts, about = cleaned(given, tmp_path, spans={"min_sentences": 3, "min_words": 50})
    assert texts == [given[0], "\n".join(lines[30:60]), "\n".join(lines[60:])]
    assert about["rules"]["repeated_span"]["changed"] == 2


@pytest.mark.parametrize("remove", ["document", "span"])
def test_a_document_that_goes_holds_no_first_occurrence(remove, tmp_path):
    exam = "which harbour of the seven would a careful captain choose before the winter storm"
    (tmp_path / "exam.jsonl").write_text(json.dumps({"text": exam}))
    shared = "One is here. Two is here. Three is here."
    given = [f"{shared} They asked, {exam}.", f"{shared} And more.", f"{shared} {exam}. Again."]
    against = {"on": True, "against": [str(tmp_path / "exam.jsonl")], "remove": remove, "around": 0}
    texts, _ = cleaned(given, tmp_path / "a", decontaminate=against)
    if remove == "document":
        assert texts == [given[1]]
    else:
        assert texts == [f"{shared} They asked,", "And more.", "Again."]
    assert cleaned(given, tmp_path / "b")[0][1:] == ["And more.", f"{exam}. Again."]


def test_copies_of_documents_hold_no_first_occurrence(tmp_path):
    """A near duplicate of the first document goes as a whole, with the sentences it has more."""
    rng = np.random.default_rng(0)
    long = ". ".join(" ".join(f"w{n}" for n in rng.integers(0, 999, 9)) for _ in range(40)) + "."
    added = "One is here. Two is here. Three is here."
    given = [long, f"{long} {added}", f"{added} And more."]
    on = {"minhash": {"on": True}, "exact": {"on": True}}
    assert cleaned(given, tmp_path / "a", **on)[0] == [given[0], given[2]]
    assert cleaned(given, tmp_path / "b")[0] == [long, added, "And more."]


def random_documents(seed: int = 0) -> list[str]:
    """60 documents of a few sentences, many of them in the same order as elsewhere."""
    rng = np.random.default_rng(seed)
    pool = [f"{'The word' if i % 3 else 'the word'} number {i} stands here{'.?!'[i % 3]}"
            for i in range(60)]  # fmt: skip
    found = []
    for _ in range(60):
        text = ""
        for _ in range(rng.integers(1, 5)):
            begin = rng.integers(0, 60)
            stretch = [*pool[begin : begin + rng.integers(1, 7)]]
            text += "".join(one + str(rng.choice([" ", "\n", "\n\n"])) for one in stretch)
        found.append(text)
    return found


def sentences(text: str) -> list[str]:
    return [sentence.rstrip().lower() for sentence in c4.split(text)]


def one_by_one(texts: list[str]) -> list[list[str]]:
    """The sentences left of each document, by the definition: a set of all spans seen so far."""
    seen, left = set(), []
    for text in texts:
        every, gone = sentences(text), set()
        for place in range(len(every) - 2):
            span = tuple(every[place : place + 3])
            gone |= {place, place + 1, place + 2} if span in seen else set()
            seen.add(span)
        left.append([one for place, one in enumerate(every) if place not in gone])
    return [one for one in left if one]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> list[str]:
    """What one worker leaves of the random documents, in one unit and one range of hashes."""
    return cleaned(random_documents(), tmp_path_factory.mktemp("whole"))[0]


def test_what_is_left_is_what_the_definition_leaves(whole):
    texts = random_documents()
    assert [sentences(text) for text in whole] == one_by_one(texts)
    # One of each sentence is always left, and much was removed.
    every, left = ([one for text in some for one in sentences(text)] for some in (texts, whole))
    assert set(every) == set(left) and len(left) < 0.8 * len(every)


@pytest.mark.parametrize(
    ("unit_bytes", "at_once", "ranges"), [(3000, 1 << 22, 1), (700, 40, 7), (1 << 20, 1, 3)]
)
def test_units_files_and_ranges_change_nothing(
    unit_bytes, at_once, ranges, whole, tmp_path, monkeypatch
):
    monkeypatch.setattr(filter_pass, "SENTENCES_AT_ONCE", at_once)
    monkeypatch.setattr(filter_pass, "BATCH_DOCUMENTS", 7)
    monkeypatch.setattr(pipeline.clusters, "ranges", lambda *_: ranges)
    files = []
    repeated = spans.repeated
    monkeypatch.setattr(spans, "repeated", lambda *a: files.append(len(a[0])) or repeated(*a))
    texts, _ = cleaned(random_documents(), tmp_path, input={"unit_bytes": unit_bytes})
    assert texts == whole
    assert len(files) == ranges and files[0] > 5


def test_sentences_are_those_of_c4():
    texts = [*sample.documents()[:300], "a.\x0bb\u2028 c. \r\n\n D? e\n", "  \n ", "", "x\x85\x85"]
    for text in texts:
        lines = [line.strip() for line in text.splitlines()]
        found = c4.split(text)
        assert len(found) == sum(c4.sentences(line) for line in lines if line)
        assert "".join(found) == text.strip() and all(map(str.strip, found))


def hashes_left(folder: Path) -> list[str]:
    """What our stage leaves of the repeating documents, as `make_decisions.spans` has it."""
    given = sample.repeating()
    cleaned(given, folder, spans={"min_sentences": 3, "min_words": 50})
    sizes = [len(json.dumps({"text": text})) + 1 for text in given]
    numbers = {f"raw.jsonl byte {sum(sizes[:n])}": n for n in range(len(sizes))}
    found = [""] * len(given)
    for file in (folder / "out" / "text").iterdir():
        raw = zstandard.ZstdDecompressor().decompressobj().decompress(file.read_bytes())
        for line in raw.splitlines():
            row = json.loads(line)
            found[numbers[row["source"]]] = make_decisions.words_hash(row["text"])
    return found


def differing(ours: list[str], other: list[str]) -> tuple[int, int]:
    """(documents of which something else is left, documents that only one of the two removes)."""
    pairs = list(zip(ours, other, strict=True))
    return sum(a != b for a, b in pairs), sum(bool(a) != bool(b) for a, b in pairs)


def test_what_is_left_is_what_datatrove_leaves(tmp_path):
    """With our sentences and words, all of it; docs/data.md explains the others."""
    golden = json.loads(lzma.decompress(make_decisions.FILE.read_bytes()))["spans"]
    ours = hashes_left(tmp_path)
    assert ours == golden["ours"] and len(ours) == 400
    changed = sum(
        a not in ("", make_decisions.words_hash(b))
        for a, b in zip(ours, sample.repeating(), strict=True)
    )
    assert (changed, ours.count("")) == (216, 11)
    differ = {kind: differing(ours, other) for kind, other in golden.items()}
    assert differ == {"as_is": (180, 5), "lower": (175, 5), "ours": (0, 0)}


def test_marks():
    marks = spans.Marks(21)
    marks.add(np.array([20, 0, 7, 8, 8, 13], np.uint64))
    assert marks.between(0, 21).tolist() == [0, 7, 8, 13, 20]
    assert marks.between(7, 13).tolist() == [0, 1] and marks.between(8, 8).tolist() == []
    counts = np.array([0, 8, 0, 0, 3, 10], np.uint32)
    assert spans.by_document(marks.between(0, 21), counts) == {1: [0, 7], 4: [0], 5: [2, 9]}
