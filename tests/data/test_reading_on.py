"""Tests that the rows of successive batches read on."""

import numpy as np
import pytest

from data import loader
from tests.data.conftest import make_dataset

WINDOWS, CONTEXT = 24, 5
STORE = make_dataset(WINDOWS * CONTEXT + 1 + 3)  # token i is i; 3 tokens are left over


def ends_meet(chunk: dict) -> np.ndarray:
    """Whether each row of a step begins at the last target of that row in the step before."""
    return chunk["tokens"][1:, :, 0] == chunk["targets"][:-1, :, -1]


@pytest.mark.parametrize("batch_size", [1, 3, 5])
def test_each_row_goes_on_where_it_ended(batch_size):
    chunk = loader.read_on_chunk(STORE, 7, 0, 10, batch_size, CONTEXT)
    wraps = chunk["tokens"][1:, :, 0] == 0  # after the last window comes the first
    assert (ends_meet(chunk) | wraps).all()
    later = loader.read_on_chunk(STORE, 7, 6, 4, batch_size, CONTEXT, rows=[batch_size - 1])
    assert np.array_equal(later["tokens"][:, 0], chunk["tokens"][6:, -1])
    # Negative control: shuffled windows do not go on.
    assert not ends_meet(loader.read_chunk(STORE, 7, 0, 10, batch_size, CONTEXT)).all()


def test_every_target_once_an_epoch_from_a_place_that_the_seed_sets():
    first = []
    for seed in range(5):
        chunk = loader.read_on_chunk(STORE, seed, 0, WINDOWS // 3, 3, CONTEXT)
        assert np.array_equal(
            np.sort(chunk["targets"].ravel()), np.arange(1, WINDOWS * CONTEXT + 1)
        )
        first.append(chunk["tokens"][0, 0, 0])
    assert len(set(first)) > 1


def test_the_evaluation_set_goes_on_and_reads_no_token_twice():
    batches = list(loader.read_on_eval(STORE, 1000, 5, CONTEXT, "validation"))
    chunk = {name: np.stack([batch[name] for batch in batches]) for name in batches[0]}
    counts = chunk["weights"].any(-1)
    assert ends_meet(chunk)[counts[1:]].all()
    assert sorted(chunk["targets"][counts].ravel()) == list(range(1, WINDOWS * CONTEXT + 1))
    assert not counts.all() and (chunk["bytes"][~counts] == 0).all()  # 24 windows in 5 rows
    starts = loader.read_on_starts(STORE, 1000, 5, CONTEXT, "validation")
    found = np.concatenate([start_B[counts_B] for start_B, counts_B in starts])
    assert np.array_equal(found, chunk["tokens"][counts][:, 0])
    assert len(list(loader.read_on_eval(STORE, 6, 5, CONTEXT, "validation"))) == 2


def test_a_mixture_is_refused():
    with pytest.raises(ValueError, match=r"carry_state=True reads one text .* data.corpora has 2"):
        loader.require_one_corpus(make_dataset(100, 100, weights=(1, 1)))
