"""Random numbers that are pure functions of their key.

`permute` shuffles range(n) without storing it, by a Feistel network on the smallest grid of about
√n × √n that holds n points (Black & Rogaway 2002, "Ciphers with arbitrary finite domains"). A
position is (left, right). Each round adds a keyed hash of one half to the other, which is
invertible, so each round is a bijection of the grid. Fewer than `rows` points are outside range(n).
A position that lands there is permuted again.

`noise` fills rows with numbers.
"""

import hashlib
from math import isqrt

import numpy as np

ROUNDS = 6
MIX_1, MIX_2 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD6E8FEB86659FD93)
HALF = np.uint64(32)
SPLIT_MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))


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


def noise(rows: np.ndarray, count: int, *key: int) -> np.ndarray:
    """Uint64 [R, count] for the rows with these numbers [R]: SplitMix64 (Steele et al. 2014) of a
    counter, whose upper half is the row and whose lower half is the place."""
    counter = (np.asarray(rows).astype(np.uint64) << HALF)[:, None] + np.arange(count, dtype="u8")
    return split_mix(_round_keys(key)[0] + counter * MIX_1)


def split_mix(z: np.ndarray) -> np.ndarray:
    """The output function of SplitMix64 (Steele et al. 2014) of uint64 states."""
    for shift, factor in SPLIT_MIX:
        z = (z ^ (z >> np.uint64(shift))) * np.uint64(factor)
    return z ^ (z >> np.uint64(31))


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
