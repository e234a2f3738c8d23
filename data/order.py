"""Shuffles range(n) without storing it: each permutation is a pure function of its key.

A Feistel network on the smallest grid of about √n × √n that holds n points (Black & Rogaway 2002,
"Ciphers with arbitrary finite domains"). A position is (left, right). Each round adds a keyed hash
of one half to the other, which is invertible, so each round is a bijection of the grid. Fewer than
`rows` points are outside range(n). A position that lands there is permuted again.
"""

import hashlib
from math import isqrt

import numpy as np

ROUNDS = 6
MIX_1, MIX_2 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD6E8FEB86659FD93)
HALF = np.uint64(32)


def permute(index: np.ndarray, n: int, *key: int) -> np.ndarray:
    """Maps `index` by the permutation of range(n) that `key`, usually (seed, epoch), selects.

    Returns int64 of the shape of `index`, whose values must be in range(n). ValueError for n < 1.
    """
    if n < 1:
        raise ValueError(f"cannot permute range(n) with n={n}; n must be at least 1")
    rows = isqrt(n - 1) + 1
    columns = -(-n // rows)
    round_keys = _round_keys(key)
    position = _feistel(np.asarray(index).astype(np.uint64), rows, columns, round_keys)
    outside = position >= n
    while outside.any():
        position[outside] = _feistel(position[outside], rows, columns, round_keys)
        outside = position >= n
    return position.astype(np.int64)


def _round_keys(key: tuple[int, ...]) -> np.ndarray:
    digest = hashlib.sha512("/".join(str(int(part)) for part in key).encode()).digest()
    return np.frombuffer(digest, "<u8")[:ROUNDS]


def _feistel(position: np.ndarray, rows: int, columns: int, round_keys: np.ndarray) -> np.ndarray:
    rows, columns = np.uint64(rows), np.uint64(columns)
    left, right = np.divmod(position, columns)
    for key in round_keys:
        left = left + _hash(right, key, rows)
        left -= (left >= rows) * rows
        left, right, rows, columns = right, left, columns, rows
    # ROUNDS is even, so both halves are back in their original places.
    return left * columns + right


def _hash(value: np.ndarray, key: np.uint64, below: np.uint64) -> np.ndarray:
    """A keyed hash of `value` in range(below), by multiply-and-shift, as % is slow on arrays."""
    mixed = (value + key) * MIX_1
    mixed ^= mixed >> HALF
    mixed *= MIX_2
    mixed >>= HALF
    mixed *= below
    mixed >>= HALF
    return mixed
