"""Tests span corruption: a hand-worked row, T5's published sizes, and batches that are pure."""

import dataclasses
import itertools
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from data.kinds import spans
from tests.data.conftest import make_dataset

END = 0


def config(**changes) -> SimpleNamespace:
    keys = dict(corruption=0.15, mean_span=3.0, sentinels=100, source_length=32, context_length=12)
    keys |= dict(batch_size=4, sequences=6, eval_batch=4) | changes
    return SimpleNamespace(
        data=SimpleNamespace(**{k: keys[k] for k in ("corruption", "mean_span", "sentinels")}),
        model=Model({k: keys[k] for k in ("source_length", "context_length") if keys[k]}),
        train=SimpleNamespace(batch_size=keys["batch_size"]),
        eval=SimpleNamespace(sequences=keys["sequences"], batch_size=keys["eval_batch"]),
    )


class Model(dict):
    __getattr__ = dict.get


def dataset(tokens: int = 1000, **changes) -> spans.Dataset:
    store = make_dataset(tokens)
    store.tokenizer.eod = END
    made = config(**changes)
    return spans.Dataset(store, made.data.sentinels).for_run(made)


def test_a_row_by_hand(monkeypatch):
    """The row of the module's docstring: a b c d e f g, of which c and f g are cut."""
    mask = np.array([0, 0, 1, 0, 0, 1, 1], bool)
    monkeypatch.setattr(spans, "masks", lambda sizes, seed, row_R: mask[None])
    made = dataclasses.replace(dataset(), sizes=spans.Sizes(7, 3, 2), source=9, target=8)
    x = made.vocab_size - 100  # the first sentinel, after the tokenizer's ids
    assert x == made.tokenizer.vocab_size
    batch = made.cut(np.array([[11, 12, 13, 14, 15, 16, 17]]), seed=0, row_R=[0])
    assert {name: array[0].tolist() for name, array in batch.items()} == {
        "source": [11, 12, x, 14, 15, x + 1, END, 0, 0],
        "source_segments": [1, 1, 1, 1, 1, 1, 1, 0, 0],
        "tokens": [END, x, 13, x + 1, 16, 17, 0, 0],
        "targets": [x, 13, x + 1, 16, 17, END, 0, 0],
        "weights": [1, 1, 1, 1, 1, 1, 0, 0],
        "segments": [1, 1, 1, 1, 1, 1, 0, 0],
    }
    assert list(batch) == list(made.spec()) == list(spans.FIELDS)
    for name, field in made.spec().items():
        assert batch[name].shape[1:] == field.shape and batch[name].dtype == field.dtype


def test_sizes_are_t5s():
    """568 tokens of text make 512 source and 114 target tokens: compute_input_and_target_lengths of
    T5's code."""
    sizes = spans.fitting(config(source_length=512, context_length=114))
    assert (sizes.text, sizes.source, sizes.target) == (568, 512, 114)
    assert (sizes.cut, sizes.spans) == (85, 28)
    longer = spans.sizes_of(569, 0.15, 3.0)
    assert longer.source == 513


@pytest.mark.parametrize("corruption", [0.15, 0.5])
@pytest.mark.parametrize("mean_span", [1.0, 3.0])
@pytest.mark.parametrize("source_length", [3, 17, 100])
def test_source_and_target_together_are_the_text(corruption, mean_span, source_length):
    keys = dict(corruption=corruption, mean_span=mean_span, source_length=source_length)
    made = dataset(2000, context_length=200, **keys)
    batch, sentinel = made.batch("train", 0, 3), made.tokenizer.vocab_size
    for row in range(4):
        source = batch["source"][row][batch["source_segments"][row] > 0].tolist()
        target = batch["targets"][row][batch["weights"][row] > 0].tolist()
        assert len(source) == made.sizes.source and len(target) == made.sizes.target
        assert batch["tokens"][row][: len(target)].tolist() == [END, *target[:-1]]
        assert source.pop() == END == target.pop()
        pieces, filled = {}, []
        for token in target:
            if token >= sentinel:
                pieces[token] = []
            else:
                pieces[max(pieces)].append(token)
        for token in source:
            filled += pieces[token] if token >= sentinel else [token]
        assert filled == list(range(filled[0], filled[0] + made.sizes.text))
        assert sorted(pieces) == list(range(sentinel, sentinel + made.sizes.spans))


def test_all_lengths_of_pieces_are_equally_likely():
    """Of 6 cut tokens in 3 spans there are 10 lists of lengths. Control: adjacent rows differ."""
    sizes = spans.Sizes(20, 6, 3)
    rows = spans.masks(sizes, 0, np.arange(4000))
    assert all(row.sum() == 6 and not row[0] and row[-1] for row in rows)
    lengths = Counter(
        tuple(map(len, "".join("x" if c else " " for c in row).split())) for row in rows
    )
    assert len(lengths) == 10 and all(320 < n < 480 for n in lengths.values()), lengths
    assert sum((a != b).any() for a, b in itertools.pairwise(rows)) > 3900


def test_batches_are_a_function_of_seed_step_and_row():
    made = dataset()
    chunk = made.batches("train", 7, 20, 3)
    for step in range(3):
        one = made.batch("train", 7, 20 + step)
        assert all(np.array_equal(chunk[name][step], one[name]) for name in one)
    part = made.batch("train", 7, 21, rows=slice(1, 3))
    assert all(np.array_equal(chunk[name][1, 1:3], part[name]) for name in part)
    other = made.batch("train", 8, 20)
    assert not np.array_equal(other["source"], chunk["source"][0])
    # The same text in another epoch is cut elsewhere.
    windows = (1000 - 1) // made.sizes.text
    seen = {row.tobytes() for step in range(100) for row in made.batch("train", 0, step)["source"]}
    assert len(seen) > 10 * windows


def test_the_evaluation_set_is_fixed_and_padded_with_rows_of_weight_0():
    made = dataset()
    first, second = list(made.examples("validation")), list(made.examples("validation"))
    assert all(np.array_equal(a[k], b[k]) for a, b in zip(first, second, strict=True) for k in a)
    assert [batch["weights"].any(1).sum() for batch in first] == [4, 2]
    halves = list(dataset(eval_batch=2).examples("validation"))
    whole = np.concatenate([batch["source"] for batch in first])[:6]
    assert np.array_equal(np.concatenate([batch["source"] for batch in halves]), whole)
    assert made.epochs(100) == 100 * 4 / ((1000 - 1) // made.sizes.text)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (dict(context_length=7), "model.context_length=7 is too small: .* use 8"),
        (dict(source_length=2), "model.source_length=2 has no room"),
        (dict(source_length=None), "needs model.source_length, which model.family"),
        (dict(sentinels=1), "data.sentinels=1, .* has 2 spans in a row; use 2 or more"),
    ],
)
def test_sizes_that_do_not_fit_are_named(changes, told):
    with pytest.raises(ValueError, match=told):
        spans.spec(config(**changes))


def test_too_little_text():
    with pytest.raises(ValueError, match="one sequence needs"):
        dataset(20)
