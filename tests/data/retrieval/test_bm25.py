"""Tests BM25 against rank_bm25 (tests/golden/bm25.json) and the choice of the best passages."""

import json

import numpy as np
import pytest

from data.retrieval import bm25
from tests.house import ROOT

GOLDEN = json.loads((ROOT / "tests/golden/bm25.json").read_text())


def scores(folder, *how) -> np.ndarray:
    """The scores of all queries [Q, P] under an index of the golden passages."""
    bm25.build(folder, GOLDEN["passages"], *how)
    scored = bm25.Scores(folder)
    return np.stack([scored(query) for query in GOLDEN["queries"]])


@pytest.mark.parametrize(
    ("oracle", "how"),
    [
        ("okapi", ()),
        ("okapi_k1_0.9_b_0.4", ("okapi", 0.9, 0.4)),
        ("bm25+", ("bm25+", 1.5, 0.75, 1.0)),
    ],
)
def test_scores_are_those_of_rank_bm25(oracle, how, tmp_path):
    found = scores(tmp_path, *how)
    np.testing.assert_allclose(found, GOLDEN["scores"][oracle], rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("variant", ["lucene", "robertson", "atire", "bm25l"])
def test_other_variants_give_other_scores(variant, tmp_path):
    found = scores(tmp_path, variant)
    assert np.abs(found - GOLDEN["scores"]["okapi"]).max() > 0.1


def test_the_floor_of_the_idf_counts(tmp_path, monkeypatch):
    # The first query is a word of more than half of the passages.
    assert GOLDEN["idf_floor"] > 0 and max(GOLDEN["scores"]["okapi"][0]) > 0
    monkeypatch.setattr(bm25, "EPSILON", 0.0)
    found = scores(tmp_path)
    assert found[0].max() == 0
    np.testing.assert_allclose(found[2], GOLDEN["scores"]["okapi"][2], atol=1e-6)


def test_the_best_are_in_order():
    values = np.array([0.0, 2.0, 3.0, 2.0, -1.0, 1.0], np.float32)
    every = np.ones(6, bool)
    assert bm25.best(values, 3, every) == [(2, 3.0), (1, 2.0), (3, 2.0)]
    allowed = np.array([False, True, False, False, True, True])
    assert bm25.best(values, 2, allowed) == [(1, 2.0), (5, 1.0)]
    assert bm25.best(values, 9, allowed) == [(1, 2.0), (5, 1.0), (4, -1.0)]


@pytest.mark.parametrize("variant", bm25.VARIANTS)
def test_a_shared_word_counts_and_not_the_sign_of_the_score(variant, tmp_path):
    bm25.build(tmp_path, [["the", "king"], ["the", "sea", "king"], ["a"]], variant)
    found = bm25.Scores(tmp_path)
    assert found.sharing(["sea", "king", "zebra"]).tolist() == [True, True, False]
    assert found.sharing(["zebra"]).tolist() == [False] * 3
    bm25.build(tmp_path / "two", [["the", "king"], ["the", "sea"]])
    okapi = bm25.Scores(tmp_path / "two")
    assert okapi(["the"]).max() < 0 == okapi(["king"]).max()
    assert okapi.sharing(["the"]).all() and okapi.sharing(["king"]).tolist() == [True, False]


def test_texts_without_words_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no passage holds a word"):
        bm25.build(tmp_path, [[], []])
    assert bm25.words("self._Config = {'ä': 1}") == ["self", "_config", "ä", "1"]
