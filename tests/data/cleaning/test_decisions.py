"""Tests the rules of C4 and Gopher against datatrove's decisions on 2,000 documents."""

import hashlib
import json
import lzma
from pathlib import Path

import numpy as np
import pytest

from configs.data import cleaning
from data.cleaning.rules import RULES, judged
from data.cleaning.text import c4, gopher
from data.cleaning.text.words import TOKEN, Vocabulary
from tests.golden.cleaning import sample

GOLDEN = Path(sample.__file__).with_name("decisions.json.xz")
# Our rule → datatrove's reason.
NAMES = {
    "few_words": "gopher_short_doc",
    "many_words": "gopher_long_doc",
    "short_words": "gopher_below_avg_threshold",
    "long_words": "gopher_above_avg_threshold",
    "hashes": "gopher_too_many_hashes",
    "ellipses": "gopher_too_many_ellipsis",
    "bullet_lines": "gopher_too_many_bullets",
    "ellipsis_lines": "gopher_too_many_end_ellipsis",
    "few_letters": "gopher_below_alpha_threshold",
    "few_stop_words": "gopher_enough_stop_words",
    "few_sentences": "too_few_sentences",
    "duplicate_paragraphs": "dup_para_frac",
    "duplicate_paragraph_characters": "dup_para_char_frac",
    "duplicate_lines": "dup_line_frac",
    "duplicate_line_characters": "dup_line_char_frac",
    **{f"duplicate_{n}_grams": f"duplicated_{n}_n_grams" for n in range(5, 11)},
}
STAGES = ("c4", "gopher_quality", "gopher_repetition")


@pytest.fixture(scope="module")
def golden() -> dict:
    return json.loads(lzma.decompress(GOLDEN.read_bytes()))


@pytest.fixture(scope="module")
def measures() -> dict[str, dict[str, np.ndarray]]:
    """What Gopher's rules measure of the documents, by stage."""
    config, texts = cleaning.get_config().to_dict(), sample.documents()
    vocabulary = Vocabulary(config["gopher_quality"]["stop_words"])
    words, bounds = vocabulary.split(texts), config["gopher_repetition"]
    return {
        "gopher_quality": gopher.quality(texts, words, vocabulary),
        "gopher_repetition": gopher.repetition(texts, words, vocabulary, bounds),
    }


@pytest.fixture(scope="module")
def ours(measures) -> dict[str, list[str]]:
    """The reasons of our rules, as datatrove calls them; each stage judges the raw documents."""
    config, texts = cleaning.get_config().to_dict(), sample.documents()
    found = {"c4": [], "c4_text": []}
    for text in texts:
        left = c4.clean(text, config["c4"])
        rule = left.rule or ("few_sentences" if left.sentences < 3 else "")
        found["c4"].append(NAMES.get(rule, rule))
        digest = hashlib.sha256(left.text.encode()).hexdigest()[:8]
        found["c4_text"].append("" if rule else digest)
    for stage, values in measures.items():
        first, rules = judged(values, stage, config[stage])
        names = ["", *(NAMES.get(rule.name, rule.name) for rule in rules)]
        found[stage] = [names[index + 1] for index in first]
    return found


def differ(left: list[str], right: list[str]) -> int:
    """How many documents one of the two removes and the other keeps."""
    return sum(bool(a) != bool(b) for a, b in zip(left, right, strict=True))


@pytest.mark.parametrize("stage", STAGES)
def test_decisions_are_those_of_datatrove_with_the_same_words(golden, ours, stage):
    assert len(ours[stage]) == len(golden["ours"][stage]) == 2000
    assert differ(ours[stage], golden["ours"][stage]) == 0
    # The first of several reasons differs once: • is punctuation to us, and a word to datatrove.
    other = [i for i in range(2000) if ours[stage][i] != golden["ours"][stage][i]]
    assert other == ([353] if stage == "gopher_quality" else [])


def test_the_text_that_c4_leaves_is_that_of_datatrove(golden, ours):
    assert ours["c4_text"] == golden["ours"]["c4_text"]


def test_spacy_words_change_few_decisions(golden, ours):
    """What docs/data.md says of the difference between spaCy's words and ours."""
    found = {stage: differ(ours[stage], golden["spacy"][stage]) for stage in STAGES}
    assert found == {"c4": 2, "gopher_quality": 11, "gopher_repetition": 1}


def test_every_rule_decides_about_some_documents(golden):
    """The sample would not notice a rule that removes nothing."""
    reasons = {name for stage in STAGES for name in golden["ours"][stage]}
    rules = [rule.name for rule in RULES if rule.measure]
    unseen = [name for name in rules if NAMES.get(name, name) not in reasons]
    assert unseen == ["many_words"]


@pytest.mark.parametrize(
    ("key", "factor"), [("min_alphabetic", 1.02), ("max_ellipsis_ends", 0.9), ("min_words", 1.1)]
)
def test_another_bound_changes_decisions(golden, measures, key, factor):
    section = cleaning.get_config().to_dict()["gopher_quality"]
    section[key] *= factor
    first = judged(measures["gopher_quality"], "gopher_quality", section)[0]
    assert differ(["x" * bool(i >= 0) for i in first], golden["ours"]["gopher_quality"]) > 5


def test_bounds_of_repetition_are_never_too_low():
    """With thresholds of 0 every document is counted word by word, with the usual ones few are."""
    texts = sample.documents()[:400]
    section = cleaning.get_config().to_dict()["gopher_repetition"]
    vocabulary = Vocabulary()
    words = vocabulary.split(texts)
    quick = gopher.repetition(texts, words, vocabulary, section)
    exact = gopher.repetition(texts, words, vocabulary, {**section, **dict.fromkeys(quick, 0.0)})
    left_out = 0
    for name, values in exact.items():
        assert ((quick[name] == values) | ((quick[name] == 0) & (values <= section[name]))).all()
        left_out += int(np.sum(quick[name] != values))
    assert left_out > 500


def test_words():
    text = "U.S. and Mr. Hall's don't end... 3.5 or 10,000, o'clock—C++ 7/8 a,b"
    assert TOKEN.findall(text) == [
        *("U.S.", "and", "Mr.", "Hall", "'s", "don", "'t", "end", "...", "3.5", "or", "10,000"),
        *(",", "o'clock", "—", "C", "+", "+", "7/8", "a", ",", "b"),
    ]
    assert c4.sentences("Mr. J. Hall left the U.S. early... Why? He said so.") == 2
