"""Tests kNN language models and retrieval in context against their definitions."""

import numpy as np
import pytest

from data.retrieval import folder
from launch.retrieval import in_context, knn, scored
from launch.retrieval.retriever import Found
from tests.launch.trial.test_trial import TINY

CONTEXT = TINY["model.context_length"]


def test_the_neighbours_of_a_token_are_those_of_brute_force(tmp_path):
    rng = np.random.default_rng(0)
    keys, values = rng.normal(size=(3000, 4)).astype(np.float16), rng.integers(0, 9, 3000)
    with folder.building(tmp_path / "made", {}):
        for number in range(3):
            rows = slice(1000 * number, 1000 * number + 1000)
            for name, array in (("keys", keys), ("values", values.astype(np.uint16))):
                path = tmp_path / "made" / folder.shard_name(name, number)
                folder.write_array(path, array[rows])
        about = {"kind": "knn", "tokens": 3000}
        index = folder.finish(tmp_path / "made", {}, about)
    targets, nats = rng.integers(0, 9, 50), np.ones(50)
    asked = knn.Queries(rng.normal(size=(50, 4)), targets, nats, np.arange(50))
    square = np.square(asked.states[:, None] - keys[None].astype(float)).sum(-1)
    seen = []
    for size, near in knn.neighbourhoods(index, asked, 5, [500, 2200], "numpy", lambda share: None):
        nearest = np.argsort(square[:, :size], axis=1)[:, :5]
        weights = np.exp(-np.take_along_axis(square, nearest, 1) / 2.0)
        expected = (weights * (values[nearest] == targets[:, None])).sum(1) / weights.sum(1)
        np.testing.assert_allclose(near.probability(2.0), expected, atol=1e-4)
        assert np.abs(near.probability(0.2) - expected).max() > 0.05
        seen.append(size)
    assert seen == [500, 2200]


def test_constants_are_tuned_on_one_half_and_measured_on_the_other():
    count, k = 400, 4
    rng = np.random.default_rng(0)
    asked = knn.Queries(
        np.zeros((count, 1)),
        np.zeros(count, int),
        np.full(count, 2.0),
        np.repeat(np.arange(40), 10),
    )
    scores = -np.sort(rng.uniform(0, 1, (count, k)), axis=1)
    right = knn.Neighbourhood(scores, np.ones((count, k), bool))
    wrong = knn.Neighbourhood(scores, np.zeros((count, k), bool))
    helped, hurt = knn.measured(asked, right), knn.measured(asked, wrong)
    assert helped["weight"] == knn.WEIGHTS[-1] and helped["saved"] > 1.9
    assert (hurt["weight"], hurt["saved"]) == (0.0, 0.0)
    assert (helped["tuned_on"], helped["scored"]) == (200, 200)
    # Neighbours that are right in the first half only are trusted, and cost in the second.
    half = np.arange(count) < 200
    fooled = knn.measured(asked, knn.Neighbourhood(scores, np.repeat(half[:, None], k, 1)))
    assert fooled["saved"] < -1
    # λ p_kNN + (1 - λ) p_LM
    assert knn.mixed(np.log([2.0]), np.array([0.9]), 0.25) == pytest.approx(
        -np.log(0.25 * 0.9 + 0.75 * 0.5)
    )


class Repeats:
    """A model for which a token that occurs before costs 1 nat, another one 5."""

    start = (0,)
    cfg = type("C", (), {"context_length": 16})
    tokenizer = type("T", (), {
        "encode": lambda self, text: np.array([ord(c) for c in text]),
        "decode": lambda self, ids: "".join(chr(i) for i in ids),
    })()  # fmt: skip

    def nats(self, tokens_BT, targets_BT):
        seen = [
            [t in row[: i + 1] for i, t in enumerate(of)]
            for row, of in zip(tokens_BT, targets_BT, strict=True)
        ]
        return np.where(seen, 1.0, 5.0)


class Finds:
    """An index whose only passage is a text that is given."""

    def __init__(self, text):
        self.text = text

    def search_all(self, queries, count, allowed=None):
        found = Found(0, 1.0, type("P", (), {"text": self.text}))
        return [[found] if query and (allowed is None or allowed[0]) else [] for query in queries]


def test_passages_take_the_place_of_the_oldest_tokens():
    how = in_context.How(stride=2, query=3, passages=1, room=6)
    text = np.array([ord(c) for c in "abcdefghijklmnopqrst"])
    (part,) = in_context.parts([text], (0,), 0)
    model, nothing = Repeats(), lambda share: None
    alone = in_context.score(model, None, [part], how, None, nothing)
    assert alone[0] == 5 * 20  # no letter occurs twice
    helped = in_context.score(model, Finds("efgh"), [part], how, None, nothing)
    assert helped[0] == 5 * 20 - 4 * 4
    assert in_context.score(model, Finds("efgh"), [part], how, np.array([False]), nothing)[0] == 100
    row = in_context.row_of(model, part, 19, 21, Finds("efghij").search_all(["x"], 1)[0], how)
    assert bytes(row.tolist()) == b"\0efgh\n\nklmnopqrst" and len(row) == 17
    # Near the beginning of a text, nothing is between a passage and it.
    row = in_context.row_of(model, part, 3, 5, Finds("efgh").search_all(["x"], 1)[0], how)
    assert bytes(row.tolist()) == b"\0efgh\n\nabcd"
    assert bytes(in_context.row_of(model, part, 3, 5, [], how).tolist()) == b"\0abcd"
    assert len(in_context.row_of(model, part, 19, 21, [], how)) == 17
    assert (
        in_context.query_of(model, part, 3, how) == "ab"
        and in_context.query_of(model, part, 9, how) == "fgh"
    )
    found = in_context.measured([part], alone, helped)
    assert (found["base"], found["saved"], found["scored"]) == (5.0, 0.8, 20)


def test_passages_that_do_not_fit_are_refused():
    how = lambda passages, room: in_context.How(2, 3, passages, room)  # noqa: E731
    for passages, room, message in (
        (1, 14, "every=2 and passage_tokens=14 fill the context of 16"),
        (3, 8, "passages=3 and passage_tokens=8 leave no token to a passage, as 2 follow each"),
    ):
        with pytest.raises(ValueError, match=message):
            how(passages, room).check(Repeats())
    how(1, 13).check(Repeats())
    how(3, 9).check(Repeats())


def test_a_share_of_each_text_is_scored():
    texts = [np.arange(100), np.arange(300), np.zeros(0, int)]
    found = in_context.parts(texts, (7,), 40)
    assert [(one.text, one.end - one.first) for one in found] == [(0, 10), (1, 30)]
    assert all(
        one.tokens[0] == 7 and one.first >= 1 and one.end <= len(one.tokens) for one in found
    )


def test_smaller_indexes_are_random_parts_of_larger_ones():
    fair, lengths = np.arange(50) % 5 > 0, np.full(50, 10)
    small, whole = scored.nested(fair, lengths, [100, 400])
    assert small.sum() == 10 and whole.tolist() == fair.tolist()
    assert not (small & ~whole).any() and small[25:].any() and small[:25].any()


def test_sizes_are_read():
    assert scored.sizes_wanted("", 300_000) == [4687, 18_750, 75_000, 300_000]
    assert scored.sizes_wanted("all,10k", 300_000) == [10_000, 300_000]
    for text in ("0", "1M", "x"):
        with pytest.raises(ValueError, match=f"sizes={text}: "):
            scored.sizes_wanted(text, 300_000)
