"""Tests that batches are a pure function of (dataset, seed, step) and cover the text."""

import gc
import itertools
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.loader import epochs_of_data, eval_batches, n_windows, read_batch, read_chunk
from data.prefetch import prefetch
from data.store import integral_weights
from tests.data.conftest import make_dataset, make_split


def same(a, b) -> bool:
    return all(np.array_equal(a[name], b[name]) for name in ("tokens", "targets", "weights"))


def test_shapes_types_and_shift():
    batch = read_batch(make_dataset(1000), 0, 3, 4, 16)
    assert {name: (a.shape, a.dtype.name) for name, a in batch.items()} == {
        "tokens": ((4, 16), "int32"),
        "targets": ((4, 16), "int32"),
        "weights": ((4, 16), "float32"),
    }
    assert np.array_equal(batch["targets"], batch["tokens"] + 1)  # token i of this dataset is i
    assert batch["weights"].min() == 1


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_every_target_once_an_epoch(batch_size):
    dataset, context = make_dataset(24 * 5 + 1 + 3), 5  # 24 windows; 3 tokens are left over
    for epoch in range(3):
        steps = 24 // batch_size
        chunk = read_chunk(dataset, 7, epoch * steps, steps, batch_size, context)
        assert np.array_equal(np.sort(chunk["targets"].ravel()), np.arange(1, 24 * 5 + 1))
    # Negative control: across an epoch boundary, 24 windows repeat some text and miss other text.
    straddling = read_chunk(dataset, 7, 4, 8, 3, context)["targets"]
    assert len(np.unique(straddling)) < 24 * 5


def test_epochs_and_seeds_have_orders_of_their_own():
    dataset = make_dataset(101)
    orders = [read_chunk(dataset, 0, 10 * epoch, 10, 1, 10)["tokens"] for epoch in range(4)]
    orders += [read_chunk(dataset, seed, 0, 10, 1, 10)["tokens"] for seed in (1, 2)]
    assert len({order.tobytes() for order in orders}) == 6


@pytest.mark.parametrize("hosts", [1, 2, 4])
@pytest.mark.parametrize("weights", [(1,), (2, 1)])
def test_hosts_see_one_global_batch(hosts, weights):
    dataset = make_dataset(*[997] * len(weights), weights=weights)
    whole = read_batch(dataset, 0, 11, 8, 16)
    share = 8 // hosts
    parts = [
        read_batch(dataset, 0, 11, 8, 16, range(h * share, (h + 1) * share)) for h in range(hosts)
    ]
    joined = {name: np.concatenate([part[name] for part in parts]) for name in whole}
    assert same(joined, whole)
    sliced = read_batch(dataset, 0, 11, 8, 16, slice(0, share))
    assert same(sliced, parts[0])
    assert not same(read_batch(dataset, 0, 12, 8, 16), whole)


def test_chunk_is_its_batches():
    dataset = make_dataset(400, 300, weights=(2, 1))  # several epochs within the chunk
    chunk = read_chunk(dataset, 3, 5, 20, 6, 16)
    for k in range(20):
        batch = read_batch(dataset, 3, 5 + k, 6, 16)
        assert same({name: array[k] for name, array in chunk.items()}, batch)
    assert not np.array_equal(chunk["tokens"][0], chunk["tokens"][1])


@settings(max_examples=50, deadline=None)
@given(borders=st.lists(st.integers(1, 199), unique=True, max_size=12), length=st.integers(1, 40))
def test_shard_borders_are_invisible(borders, length):
    tokens = np.random.default_rng(0).integers(0, 2**32, 200)
    split = make_split(tokens, tuple(sorted(borders)))
    starts = np.random.default_rng(1).integers(0, 200 - length + 1, 30)
    expected = np.stack([tokens[start : start + length] for start in starts])
    assert np.array_equal(split.read(starts, length), expected)
    with pytest.raises(IndexError):
        split.read(np.array([201 - length]), length)


@pytest.mark.parametrize("weights", [(2, 1), (1, 1), (333, 667), (5, 3, 2)])
def test_mixture_is_exact_in_every_block(weights):
    dataset = make_dataset(*[170 * (c + 1) for c in range(len(weights))], weights=weights)
    block = sum(weights)
    chunk = read_chunk(dataset, 0, 0, 3 * block, 1, 10)
    component = chunk["tokens"][:, 0, 0] // 10**6
    for first in range(0, 3 * block, block):
        counts = np.bincount(component[first : first + block], minlength=len(weights))
        assert tuple(counts) == weights
    # Evenly spread: after any number of rows, each count is within two of its share.
    for c, weight in enumerate(weights):
        drawn = np.cumsum(component == c)
        assert np.abs(drawn - weight / block * np.arange(1, 3 * block + 1)).max() < 2


def test_components_of_a_mixture_walk_through_their_own_epochs():
    dataset = make_dataset(101, 201, weights=(2, 1))  # 10 and 20 windows of 10 tokens
    starts = read_chunk(dataset, 0, 0, 60, 1, 10)["tokens"][:, 0, 0]
    first, second = starts[starts < 10**6], starts[starts >= 10**6]
    assert all(len(np.unique(first[e * 10 : e * 10 + 10])) == 10 for e in range(4))
    assert len(np.unique(second)) == 20 == len(second)


@pytest.mark.parametrize(
    ("weights", "rows"),
    [
        ((1.0,), (1,)),
        ((0.7, 0.3), (7, 3)),
        ((1, 1, 2), (1, 1, 2)),
        ((1 / 3, 2 / 3), (1, 2)),
        ((0.999, 0.001), (999, 1)),
        ((20, 30), (2, 3)),
    ],
)
def test_weights_become_rows_of_the_smallest_block(weights, rows):
    assert integral_weights(weights) == rows


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=8))
def test_shares_are_right_to_a_thousandth(weights):
    rows = np.array(integral_weights(tuple(weights)))
    error = rows / rows.sum() - np.array(weights) / sum(weights)
    assert np.abs(error).max() <= 0.001 and rows.sum() <= 1000


def test_evaluation_set_is_fixed_spread_and_padded():
    dataset = make_dataset(1001)  # 100 windows of 10
    batches = list(eval_batches(dataset, 10, 4, 10))
    assert [batch["tokens"].shape for batch in batches] == [(4, 10)] * 3
    tokens = np.concatenate([batch["tokens"] for batch in batches])
    weights = np.concatenate([batch["weights"] for batch in batches])
    assert np.array_equal(tokens[:10, 0], np.arange(50, 1001, 100))
    assert weights[:10].min() == 1 and weights[10:].max() == 0
    text_bytes = np.concatenate([batch["bytes"] for batch in batches])
    targets = tokens[:10] + 1  # token t stands for 1 + t % 5 bytes
    assert text_bytes.dtype == np.float32
    assert np.array_equal(text_bytes[:10], (1 + targets % 5).sum(1)) and not text_bytes[10:].any()
    again = list(eval_batches(dataset, 10, 4, 10))
    assert all(same(a, b) for a, b in zip(batches, again, strict=True))


def test_evaluation_of_hosts_and_of_few_windows():
    dataset = make_dataset(61, 31, weights=(1, 1))
    whole = list(eval_batches(dataset, 1000, 4, 10))
    tokens = np.concatenate([batch["tokens"][batch["weights"][:, 0] > 0] for batch in whole])
    assert len(np.unique(tokens[:, 0])) == 6 + 3 == len(tokens)  # every window, once
    halves = [list(eval_batches(dataset, 1000, 4, 10, range(h, h + 2))) for h in (0, 2)]
    for batch, left, right in zip(whole, *halves, strict=True):
        joined = {name: np.concatenate([left[name], right[name]]) for name in batch}
        assert same(joined, batch) and np.array_equal(joined["bytes"], batch["bytes"])


def test_epochs_of_data():
    assert epochs_of_data(make_dataset(1001), 25, 8, 10) == 2.0
    assert epochs_of_data(make_dataset(1001, 101, weights=(1, 1)), 20, 2, 10) == 2.0
    assert n_windows(make_split(np.arange(10)), 10) == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: read_batch(make_dataset(16), 0, 0, 1, 16), "16 train tokens.*context_length=16"),
        (lambda: read_batch(make_dataset(50), 0, 0, 8, 16), "3 sequences.*batch_size=8"),
        (lambda: next(eval_batches(make_dataset(16), 4, 2, 16)), "16 validation tokens"),
        (lambda: next(eval_batches(make_dataset(90), 0, 2, 16)), "eval.sequences=0"),
        (lambda: read_batch(make_dataset(500), 0, 0, 4, 16, range(2, 6)), "batch_size=4"),
        (lambda: epochs_of_data(make_dataset(16), 1, 1, 16), "16 train tokens"),
    ],
)
def test_too_little_text_is_refused_with_numbers(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_prefetch_keeps_the_order_and_works_ahead_by_depth():
    made = []

    def items():
        for i in range(10):
            made.append(i)
            yield i

    with prefetch(items(), depth=2) as ahead:
        assert next(ahead) == 0
        time.sleep(0.1)
        assert len(made) == 4  # one consumed, two queued, one held by the thread
        assert list(ahead) == list(range(1, 10))


def test_prefetch_passes_an_exception_on_at_its_turn():
    def items():
        yield 1
        raise RuntimeError("no more")

    ahead = prefetch(items())
    assert next(ahead) == 1
    with pytest.raises(RuntimeError, match="no more"):
        next(ahead)
    with pytest.raises(StopIteration):
        next(ahead)


@pytest.mark.parametrize("leave", ["close", "forget"])
def test_prefetch_leaves_no_thread(leave):
    before = threading.active_count()
    ahead = prefetch(itertools.count(), depth=1)
    next(ahead)
    assert threading.active_count() == before + 1
    if leave == "close":
        ahead.close()
    del ahead
    gc.collect()
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before
