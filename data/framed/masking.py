"""Which tokens of a row are masked, and by what: Devlin et al. 2019, section 3.1.

A share of each row's tokens is to be predicted. Of these, 80 % become [MASK], 10 % another token
drawn uniformly from the tokenizer's vocabulary, and 10 % stay as they are. All draws are a pure
function of the key and of the row's number.
"""

import hashlib

import numpy as np

from data.framed.marks import Marks
from data.order import MIX_1, split_mix

MASKED, REPLACED = 0.8, 0.1  # the rest stays


def places_in(length: int, share: float) -> int:
    """The number of masked tokens of a row with `length` tokens of text: at least one."""
    return min(length, max(1, round(share * length)))


def masked(
    text_RN: np.ndarray, marks: Marks, ordinary: int, share: float, key: tuple, row_R: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(tokens [R, N] with masks, places [R, K] of the tokens to predict in ascending order, those
    tokens [R, K]) of rows of text with the numbers `row`. Replacements are below `ordinary`."""
    R, N = text_RN.shape
    draws_3RN = uniform(key, row_R, 3 * N).reshape(R, 3, N).transpose(1, 0, 2)
    order_RN = np.argsort(draws_3RN[0], axis=1, kind="stable")
    place_RK = np.sort(order_RN[:, : places_in(N, share)], axis=1)
    take = lambda x_RN: np.take_along_axis(x_RN, place_RK, 1)  # noqa: E731
    wanted_RK, how_RK = take(text_RN), take(draws_3RN[1])
    other_RK = (take(draws_3RN[2]) * ordinary).astype(np.int32)
    shown_RK = np.where(how_RK < MASKED + REPLACED, other_RK, wanted_RK)
    shown_RK = np.where(how_RK < MASKED, marks.mask, shown_RK)
    tokens_RN = text_RN.astype(np.int32)
    np.put_along_axis(tokens_RN, place_RK, shown_RK.astype(np.int32), 1)
    return tokens_RN, place_RK.astype(np.int32), wanted_RK.astype(np.int32)


def uniform(key: tuple, row_R: np.ndarray, columns: int) -> np.ndarray:
    """Numbers in [0, 1), float64 [R, columns], of rows with these numbers.

    SplitMix64 (Steele et al. 2014) of row and column, started by a hash of the key.
    """
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    start, stride = np.frombuffer(digest[:16], "<u8")
    with np.errstate(over="ignore"):
        row_R1 = split_mix(np.asarray(row_R).astype(np.uint64)[:, None] * MIX_1 + start)
        x = row_R1 + np.arange(1, columns + 1, dtype=np.uint64) * (stride | np.uint64(1))
        return (split_mix(x) >> np.uint64(11)) * 2.0**-53
