"""Tests the kind `word_pairs`: pure batches, subsampling, noise words and documents."""

import numpy as np
import pytest

from data.kinds.words import word_pairs
from data.kinds.words.running_words import words_of
from tests.data.kinds.words import config, store

V, T = 40, 16
MODEL = dict(context_length=T, window=3, dynamic_window=True, negatives=2)


def zipf(n: int) -> list[int]:
    p = 1 / np.arange(1, V - 1)
    return np.random.default_rng(0).choice(V - 2, n, p=p / p.sum()).tolist()


@pytest.fixture(scope="module")
def text() -> list[list[int]]:
    words = zipf(20_000)
    return [words[i : i + 97] for i in range(0, len(words), 97)]


def dataset(text, subsample=0.05, noise_power=0.75, **model):
    keys = config(MODEL | model, dict(subsample=subsample, noise_power=noise_power))
    return word_pairs.Dataset(store(text, V)).for_run(keys)


@pytest.mark.parametrize("negatives", [2, 0])
def test_rows_of_a_batch_do_not_depend_on_what_is_read_with_them(text, negatives):
    data, other = dataset(text, negatives=negatives), dataset(text, negatives=negatives)
    whole = data.batches("train", 7, 500, 3)
    for step in range(3):
        for rows in ([1, 3], slice(2, 4)):
            part = other.batch("train", 7, 500 + step, rows)
            for name, array in part.items():
                np.testing.assert_array_equal(array, whole[name][step][rows])
    assert (whole["tokens"] != data.batches("train", 8, 500, 3)["tokens"]).any()
    assert {name: (a.shape[2:], a.dtype) for name, a in whole.items()} == {
        name: (field.shape, field.dtype) for name, field in data.spec().items()
    }


def test_an_epoch_holds_nearly_every_word_that_subsampling_leaves(text):
    data = dataset(text, subsample=0.0)
    rows = data.n_rows_of["train"]
    steps = -(-rows // 4)
    read = data.batches("train", 0, 0, 2 * steps)["tokens"].reshape(-1, T)
    asked = np.bincount(words_of(store(text, V), "train").ids, minlength=V)
    found = np.bincount(read[:rows].ravel(), minlength=V)
    assert rows == asked.sum() // T and np.abs(found - asked).max() <= T
    assert (read[rows : 2 * rows] != read[:rows]).any()  # in another order


def test_subsampling_keeps_words_by_the_formula(text):
    """Within 5 standard errors; the formula of the paper, √(s / f) alone, would differ by more."""
    data, s = dataset(text, subsample=0.05), 0.05
    ids = data.words["train"].ids
    f = np.bincount(ids, minlength=V) / len(ids)
    kept = sum(np.bincount(data.left("train", 3, epoch).ids, minlength=V) for epoch in range(10))
    share = np.divide(kept, 10 * f * len(ids), out=np.zeros(V), where=f > 0)
    expected = np.minimum(1, np.sqrt(s / np.maximum(f, 1e-9)) + s / np.maximum(f, 1e-9))
    error = np.sqrt(expected * (1 - expected) / np.maximum(10 * f * len(ids), 1))
    assert (np.abs(share - expected)[f > 0] <= 5 * error[f > 0] + 1e-12).all()
    assert np.abs(share - np.sqrt(s / f.max()))[0] > 20 * error[0]


@pytest.mark.parametrize(("power", "wrong"), [(0.75, 1.0), (0.0, 0.75)])
def test_noise_words_follow_their_counts_to_a_power(text, power, wrong):
    data = dataset(text, noise_power=power, negatives=20)
    drawn = np.bincount(data.batches("train", 0, 0, 60)["negatives"].ravel(), minlength=V)
    counts = np.bincount(words_of(store(text, V), "train").ids, minlength=V)

    def distance(power: float) -> float:
        p = np.where(counts > 0, counts, 0.0 if power else 1.0) ** power
        expected = p / p.sum() * drawn.sum()
        kept = expected > 5
        return float((np.square(drawn - expected)[kept] / expected[kept]).sum() / kept.sum())

    assert distance(power) < 2 < distance(wrong) / 10


def test_reach_is_uniform_or_the_whole_window(text):
    reach = dataset(text).batches("train", 0, 0, 40)["reach"]
    assert set(np.unique(reach)) == {1, 2, 3} and abs(reach.mean() - 2) < 0.05
    assert set(np.unique(dataset(text, dynamic_window=False).batch("train", 0, 0)["reach"])) == {3}


def test_documents_end_and_unknown_words_are_left_out():
    words = words_of(store([[1, 2, 5, 3], [5, 4], [5], [6, 1]], 9, unknown=5), "train")
    assert words.ids.tolist() == [1, 2, 3, 4, 6, 1]
    assert words.document.tolist() == [1, 1, 1, 2, 4, 4]
    known = words_of(store([[1, 2, 5, 3], [5, 4], [5], [6, 1]], 9), "train")
    assert known.ids.tolist() == [1, 2, 5, 3, 5, 4, 5, 6, 1]


def test_the_evaluation_set_is_fixed_and_padded_with_segment_0(text):
    def rows(sequences: int):
        keys = config(MODEL, dict(subsample=0.05, noise_power=0.75), sequences=sequences)
        return list(word_pairs.Dataset(store(text, V)).for_run(keys).examples("validation"))

    five = rows(5)
    assert len(five) == 2 and [(b["segments"] > 0).all(-1).sum() for b in five] == [4, 1]
    for one, other in zip(five, rows(5), strict=True):
        np.testing.assert_array_equal(one["negatives"], other["negatives"])


def test_too_little_text_says_how_much_there_is():
    with pytest.raises(ValueError, match=r"8 words are left .* model\.context_length=16; use more"):
        dataset([[1, 2, 3, 4], [1, 2, 3, 4]], subsample=0.0)
