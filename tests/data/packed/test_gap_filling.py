"""Tests that gaps of packed rows are filled by documents that are cut anyway, at few more cuts."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.packed import gap_filling
from data.packed.best_fit import best_fit_decreasing
from data.packed.gap_filling import MAX_PADDING, Pieces, cut, fill_gaps
from data.packed.packed_rows import PackedStore
from data.paired.packing import Rows
from tests.data.packed.test_packed_text import EOD, segments_of, store_of

# Lengths of the 630 training documents of the standard library of Python 3.11, in bytes.
STDLIB = np.array((Path(__file__).parent / "standard_library.txt").read_text().split(), int)


def packed(lengths: np.ndarray, capacity: int) -> tuple[tuple[Pieces, Rows], tuple[Pieces, Rows]]:
    """Pieces and rows before gaps are filled, and after."""
    pieces = cut(lengths, capacity)
    before = pieces, best_fit_decreasing(pieces.lengths_P, capacity)
    return before, fill_gaps(*before, capacity)


def loads_of(pieces: Pieces, rows: Rows) -> np.ndarray:
    return np.add.reduceat(pieces.lengths_P[rows.pairs_P], rows.begins[:-1])


def padding(lengths: np.ndarray, rows: Rows, capacity: int) -> float:
    return 1 - lengths.sum() / (len(rows) * capacity)


def require_documents(lengths: np.ndarray, pieces: Pieces, rows: Rows, capacity: int) -> None:
    """Each token is in one piece, each piece in one row, and documents that fit a row are whole."""
    order = np.argsort(pieces.begins_P)
    ends = (pieces.begins_P + pieces.lengths_P)[order]
    assert np.array_equal(pieces.begins_P[order], [0, *ends[:-1]]) and ends[-1] == lengths.sum()
    firsts = np.cumsum(lengths) - lengths
    assert np.array_equal(np.sort(pieces.begins_P[pieces.first_P]), firsts)
    short = lengths <= capacity
    whole = dict(zip(pieces.begins_P.tolist(), pieces.lengths_P.tolist(), strict=True))
    assert [whole[first] for first in firsts[short].tolist()] == lengths[short].tolist()
    assert sorted(rows.pairs_P.tolist()) == list(range(len(pieces.lengths_P)))
    loads = loads_of(pieces, rows)
    assert 0 < loads.min() and loads.max() <= capacity


@pytest.mark.parametrize(
    ("capacity", "saved", "more_cuts"), [(2048, 11, 15), (4096, 1, 4), (1024, 0, 0), (128, 0, 0)]
)
def test_the_standard_library_has_less_padding_than_the_bound(capacity, saved, more_cuts):
    (pieces, rows), (filled, fewer) = packed(STDLIB, capacity)
    assert padding(STDLIB, fewer, capacity) <= MAX_PADDING
    assert (padding(STDLIB, rows, capacity) > MAX_PADDING) == (saved > 0)  # control
    assert len(rows) - len(fewer) == saved
    assert len(filled.lengths_P) - len(pieces.lengths_P) == more_cuts
    require_documents(STDLIB, filled, fewer, capacity)
    if not saved:
        assert filled is pieces and fewer is rows


def contents(pieces: Pieces, rows: Rows) -> list[list[tuple[int, int]]]:
    """(begin, length) of the pieces of each row."""
    about = np.stack(pieces[:2], 1)[rows.pairs_P].tolist()
    return [[tuple(one) for one in about[a:b]] for a, b in itertools.pairwise(rows.begins)]


def test_the_largest_gaps_are_filled_by_the_longest_document():
    """100 tokens in 11 rows of 10: one row of the document of 35 is worth the gaps of 4, 3, 2, 1.
    The document of 10 fills a row too, but is whole."""
    (pieces, rows), (filled, fewer) = packed(np.array([10, 25, 35, 9, 8, 7, 6]), 10)
    a = 35  # where the document of 35 begins
    expected = {
        6: [(94, 6), (a, 4)],
        7: [(87, 7), (a + 4, 3)],
        8: [(79, 8), (a + 7, 2)],
        9: [(70, 9), (a + 9, 1)],
    }
    by_length = {row[0][1]: row for row in contents(filled, fewer) if row[0][1] in expected}
    assert by_length == expected
    assert len(fewer) == len(rows) - 1 and len(filled.lengths_P) == len(pieces.lengths_P) + 3
    require_documents(np.array([10, 25, 35, 9, 8, 7, 6]), filled, fewer, 10)


def test_neighbours_that_are_taken_join():
    """Two rows of one document fill five gaps of 4 as five pieces: the cut between them is gone."""
    (pieces, rows), (filled, fewer) = packed(np.array([40, 6, 6, 6, 6, 6]), 10)
    new = sorted(contents(filled, fewer))
    assert [row for row in new if len(row) == 1] == [[(20, 10)], [(30, 10)]]
    assert [row[1] for row in new if len(row) == 2] == [(0, 4), (4, 4), (8, 4), (12, 4), (16, 4)]
    assert (len(rows), len(fewer)) == (9, 7)
    assert len(filled.lengths_P) == len(pieces.lengths_P) + 3


def test_documents_that_are_taken_whole_do_not_join():
    """Gaps of 3 do not end where a document of 20 does, so one gap holds the end of one and the
    beginning of the other."""
    lengths = np.array([20, 20, *[7] * 14])
    (_, rows), (filled, fewer) = packed(lengths, 10)
    assert (len(rows), len(fewer)) == (18, 14)
    require_documents(lengths, filled, fewer, 10)
    assert [(18, 2), (20, 1)] in [row[1:] for row in contents(filled, fewer)]


def test_documents_of_equal_length_are_cut_most():
    """The worst case of docs/tokenizers.md."""
    lengths = np.full(1000, 2900)
    (before, rows), (after, fewer) = packed(lengths, 1000)
    assert [len(pieces.lengths_P) - 1000 for pieces in (before, after)] == [2000, 2882]
    assert [len(rows), len(fewer)] == [3000, 2902]
    require_documents(lengths, after, fewer, 1000)


def test_documents_that_fit_stay_whole_whatever_the_padding():
    for lengths in ([10, 6, 6, 6], [10] * 3 + [6] * 9, [13, 7, 7]):
        before, after = packed(np.array(lengths), 10)
        assert after[0] is before[0] and after[1] is before[1]
    nothing = packed(np.empty(0, np.int64), 10)
    assert len(nothing[1][1]) == 0


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    capacity=st.integers(2, 60),
    count=st.integers(1, 80),
    shape=st.floats(0.4, 2),
    least=st.integers(1, 40),
)
def test_rows_of_heavy_tailed_lengths(seed, capacity, count, shape, least):
    tail = np.random.default_rng(seed).pareto(shape, count)
    lengths = np.minimum(least + tail * least, 20 * capacity).astype(int)
    (pieces, rows), (filled, fewer) = packed(lengths, capacity)
    require_documents(lengths, filled, fewer, capacity)
    old, new = contents(pieces, rows), contents(filled, fewer)
    kept = {piece for row in new for piece in row}
    taken = [row for row in old if row[0] not in kept]
    # The rows of the taken pieces are gone. The others hold what they held, and new pieces.
    before = {piece for row in old for piece in row}
    left = [[piece for piece in row if piece in before] for row in new]
    assert left == [row for row in old if row[0] in kept]
    assert all(row == [(row[0][0], capacity)] for row in taken)
    # The bound is met, or no row can be saved, or no long document has a whole row left.
    ends = np.cumsum(lengths)
    document = {row[0]: int(np.searchsorted(ends, row[0][0], "right")) for row in old}
    whole = [
        row
        for row in left
        if row == [(row[0][0], capacity)] and lengths[document[row[0]]] > capacity
    ]
    least_rows = -(-lengths.sum() // capacity)
    assert (
        padding(lengths, fewer, capacity) <= MAX_PADDING + 1e-12
        or len(fewer) == least_rows
        or not whole
    )
    # No more rows are saved, and no more cuts made, than needed.
    if taken:
        one_more = lengths.sum() / (capacity * (len(fewer) + 1))
        assert 1 - one_more > MAX_PADDING - 1e-12
        gaps, room = 0, 0
        for gap in sorted(capacity - loads_of(pieces, rows), reverse=True):
            if room < len(taken) * capacity:
                gaps, room = gaps + 1, room + gap
        documents = len({document[row[0]] for row in taken})
        more = len(filled.lengths_P) - len(pieces.lengths_P)
        assert more <= gaps + documents - 1 - len(taken)


def test_batches_hold_each_token_once_and_no_token_sees_another_document():
    """All tokens differ, so that each says where it is from."""
    sizes = [49, 10, 8, 8, 8, 8, 8, 8, 15, 33]
    begins = 100 + np.cumsum([0, *sizes[:-1]])
    documents = [np.arange(a, a + n) for a, n in zip(begins, sizes, strict=True)]
    part = PackedStore(store_of(documents), 12).parts[0]
    lengths = np.array(sizes) + 1
    assert len(part.rows) < len(packed(lengths, 12)[0][1])  # gaps are filled
    segments = segments_of(part.read(np.arange(len(part.rows))))
    targets = sorted(target for _, targets in segments for target in targets)
    assert targets == sorted([EOD] * len(sizes) + np.concatenate(documents).tolist())
    firsts = {int(document[0]) for document in documents}
    lasts = {int(document[-1]) for document in documents}
    for inputs, targets in segments:
        assert inputs[1:] == targets[:-1]
        if targets[0] == EOD:
            assert inputs[0] in lasts
        else:
            assert inputs[0] == (EOD if targets[0] in firsts else targets[0] - 1)
        assert EOD not in targets[:-1]
    pieces = len(segments)
    assert part.counts()["cuts"] == pieces - len(sizes)
    assert part.counts()["cut_documents"] == (lengths > 12).sum()


def test_the_bound_is_the_one_of_the_module(monkeypatch):
    assert len(packed(STDLIB, 2048)[1][1]) == 4713
    monkeypatch.setattr(gap_filling, "MAX_PADDING", 0.002)
    assert len(packed(STDLIB, 2048)[1][1]) == 4718
    monkeypatch.setattr(gap_filling, "MAX_PADDING", 0)
    assert len(packed(STDLIB, 2048)[1][1]) == -(-STDLIB.sum() // 2048)
