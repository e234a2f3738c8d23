"""Tests the kind `cooccurrence`: counts against loops, the split of the entries, pure batches."""

from collections import Counter

import numpy as np
import pytest

from data.kinds.words import cooccurrence
from data.kinds.words.cooccurrence import count_pairs, split_entries
from data.kinds.words.running_words import words_of
from launch.config.config_file import load_config
from tests.data.kinds.words import config, store

V = 12


@pytest.fixture(scope="module")
def text() -> list[list[int]]:
    rng = np.random.default_rng(0)
    return [rng.integers(V - 1, size=n).tolist() for n in rng.integers(1, 40, 30)]


def by_loops(text: list[list[int]], window: int) -> Counter:
    """X_ij: for each word, 1 / d for each word around it."""
    counts: Counter = Counter()
    for words in text:
        for t, word in enumerate(words):
            for d in range(1, window + 1):
                for other in (t - d, t + d):
                    if 0 <= other < len(words):
                        counts[word, words[other]] += 1 / d
    return counts


@pytest.mark.parametrize("chunk", [1 << 20, 5])
def test_counts_are_those_of_a_loop(text, chunk, monkeypatch):
    monkeypatch.setattr(cooccurrence, "CHUNK", chunk)
    found = count_pairs(words_of(store(text, V), "train"), 4, V)
    entries = split_entries(*found, V, held_out=0.0)["train"]
    ours = {(i, j): x for i, j, x in zip(*map(np.ndarray.tolist, entries), strict=True)}
    theirs = by_loops(text, 4)
    assert ours.keys() == theirs.keys() and len(ours) == len(entries.row)
    assert all(abs(ours[pair] - x) < 1e-5 * x for pair, x in theirs.items())
    joined = by_loops([[word for words in text for word in words]], 4)  # across documents
    assert max(abs(ours.get(pair, 0) - x) for pair, x in joined.items()) > 0.2


def test_a_pair_of_words_is_held_out_in_both_orders(text):
    found = count_pairs(words_of(store(text, V), "train"), 4, V)
    splits = split_entries(*found, V, held_out=0.25)
    pairs = {
        split: {frozenset((i, j)) for i, j in zip(*e[:2], strict=True)}
        for split, e in splits.items()
    }
    assert not pairs["train"] & pairs["validation"]
    assert len(pairs["validation"]) == round(0.25 * len(found[0]))
    total = sum(len(e.row) for e in splits.values())
    assert total == len(by_loops(text, 4))


def test_batches_are_pure_and_an_epoch_has_every_entry_once(text):
    keys = config({}, dict(window=4, entries=3, held_out_pairs=0.1), batch_size=2)
    data = cooccurrence.Dataset(store(text, V)).for_run(keys)
    n = len(data.entries["train"].row)
    whole = data.batches("train", 5, 0, -(-n // 6))
    np.testing.assert_array_equal(data.batch("train", 5, 3, [1])["count"], whole["count"][3][[1]])
    key = (whole["row"] * V + whole["column"]).ravel()[:n]
    assert len(set(key.tolist())) == n
    later = data.batches("train", 5, 1, -(-n // 6))
    np.testing.assert_array_equal(later["row"][0], whole["row"][1])
    examples = list(data.examples("validation"))
    assert sum((batch["count"] > 0).sum() for batch in examples) == min(
        4 * 3, len(data.entries["validation"].row)
    )


def test_a_matrix_that_is_too_small_says_which_key_would_do(text):
    data = dict(window=4, entries=3, held_out_pairs=0.1)
    dataset = cooccurrence.Dataset(store(text, V))
    with pytest.raises(
        ValueError, match=r"held_out_pairs=0.0 holds out none .* use a larger share"
    ):
        dataset.for_run(config({}, data | {"held_out_pairs": 0.0}))
    with pytest.raises(ValueError, match=r"fewer than a row of data.entries=9999; .*entries=\d+$"):
        dataset.for_run(config({}, data | {"entries": 9999}))


def test_text_is_prepared_with_the_keys_of_the_kind(tmp_path):
    (tmp_path / "text.txt").write_text("to be or not to be\n\n" * 200)
    chosen = {"model.family": "glove", "objective.name": "glove", "data.kind": "cooccurrence"}
    paths = {"data.corpora": tmp_path / "text.txt", "data.cache": tmp_path / "cache"}
    words = {"data.tokenizer": "words", "data.vocab_size": 6}
    given = {key: str(value) for key, value in (chosen | paths | words).items()}
    data = load_config("configs/base.py", given).data
    assert data.held_out_pairs == 0.05 and not data.held_out
    assert cooccurrence.prepare(data).vocab_size == 6
