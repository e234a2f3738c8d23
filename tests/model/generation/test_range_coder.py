"""Tests that the range coder gives symbols back, and at what size."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.generation.range_coder import MOST, Decoder, Encoder

Symbols = list[tuple[int, int, int]]  # (start, size, total) of each


def coded(symbols: Symbols) -> bytes:
    coder = Encoder()
    for symbol in symbols:
        coder.add(*symbol)
    return coder.finish()


def gives_back(content: bytes, symbols: Symbols) -> bool:
    """Whether each target lies in the part of its symbol."""
    coder = Decoder(content)
    for start, size, total in symbols:
        if not start <= coder.target(total) < start + size:
            return False
        coder.take(start, size)
    return True


@st.composite
def symbols(draw) -> Symbols:
    found = []
    for _ in range(draw(st.integers(0, 25))):
        total = draw(st.sampled_from([1, 2, 3, 256, 1 << 30, MOST - 1, MOST]))
        start = draw(st.integers(0, total - 1))
        found.append((start, draw(st.integers(1, total - start)), total))
    return found


@settings(max_examples=60, deadline=None)
@given(given_symbols=symbols())
def test_any_symbols_come_back(given_symbols):
    assert gives_back(coded(given_symbols), given_symbols)


@pytest.mark.parametrize("byte", [0, 255])
def test_a_carry_runs_through_many_bytes(byte):
    """The last part of each interval, then one that lifts the low end over a byte."""
    total = 256
    before = [(byte, 1, total)] * 40
    for last in range(total):
        written = [*before, (0, 255, total), (last, 1, total), (total - 1, 1, total)]
        assert gives_back(coded(written), written)
        other = [*before, (0, 255, total), ((last + 1) % total, 1, total)]
        assert not gives_back(coded(written), other)  # control


def test_the_size_is_that_of_the_information():
    rng = np.random.default_rng(0)
    size_V = rng.geometric(0.02, 300)
    ends_V, total = size_V.cumsum(), int(size_V.sum())
    drawn = rng.choice(300, 20_000, p=size_V / total)
    written = [(int(ends_V[v] - size_V[v]), int(size_V[v]), total) for v in drawn]
    bits = sum(math.log2(total / size) for _, size, _ in written)
    content = coded(written)
    assert bits / 8 <= len(content) <= bits / 8 * (1 + 1e-6) + 1
    assert gives_back(content, written)


def test_symbols_without_information_take_no_bytes():
    assert coded([]) == b"" and coded([(0, 7, 7)] * 100) == b""
