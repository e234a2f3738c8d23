"""The n-gram family: counts with interpolated, modified Kneser-Ney smoothing.

Chen & Goodman 1998 (TR-10-98, Harvard), section 3. Let h be a context of n - 1 tokens, and h' the
same context without its first token. Then

    p(w | h) = (c(hw) - D(c(hw))) / c(h·) + γ(h) p(w | h'),   γ(h) = Σ_w D(c(hw)) / c(h·)

If h never occurs, p(w | h) = p(w | h'). The unigram backs off to 1 / V. At the highest order c is
the number of occurrences of the n-gram; at lower orders it is the number of distinct tokens before
it (Kneser & Ney 1995). The probabilities of all V tokens sum to 1 after any context.

Counting uses sorting: O(order · N log N) for N tokens, without a table of vocabulary size.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from model.conventions import CONVENTIONS
from model.keys import check, key

INPUTS = ("tokens",)


@dataclass(frozen=True)
class Config:
    """The keys of the family. Raises ValueError that names the key, its value and valid values."""

    vocab_size: int = key(0, least=1)  # tokens; 0: the tokenizer's
    context_length: int = key(128, least=1)  # tokens of one scored sequence
    order: int = key(5, least=1)  # tokens of the longest n-gram
    __post_init__ = check


def derive(keys: Mapping[str, Any]) -> Config:
    """The Config of a `model` section."""
    return Config(**keys)


def flops(cfg: Config) -> dict[str, float]:
    """One addition per order and token, by every convention; no sorting and smoothing."""
    return dict.fromkeys(CONVENTIONS, float(cfg.order))


def fit(cfg: Config, texts: Sequence[np.ndarray]) -> "NGram":
    """Fits the model to token sequences. No n-gram spans two sequences."""
    return count_ngrams(texts, cfg.vocab_size, cfg.order)


def count(model: "NGram") -> dict[str, int]:
    """N-grams of each order: {"1-grams": …, "2-grams": …}."""
    return {f"{n}-grams": len(level.keys) for n, level in enumerate(model.levels, start=1)}


def nats(model: "NGram", tokens: np.ndarray) -> np.ndarray:
    """-log p of each token [N] of a text given those before it."""
    return model.nats(tokens)


def save(model: "NGram", file: BinaryIO) -> None:
    """Writes the counts as .npz."""
    arrays = {"vocab_size": np.int64(model.vocab_size)}
    for n, level in enumerate(model.levels, start=1):
        arrays |= {f"{name}_{n}": array for name, array in vars(level).items()}
    np.savez(file, **arrays)


def load(file: BinaryIO) -> "NGram":
    """Reads the model that `save` wrote."""
    with np.load(file, allow_pickle=False) as arrays:
        orders = sum(name.startswith("keys_") for name in arrays)
        names = ("keys", "share", "back_off")
        levels = (Level(*(arrays[f"{name}_{n}"] for name in names)) for n in range(1, orders + 1))
        return NGram(int(arrays["vocab_size"]), tuple(levels))


@dataclass(frozen=True)
class Level:
    """The n-grams of one order that occur in the text, numbered from 0.

    The n-gram that extends (n-1)-gram number h by token w has the key h V + w. Its number is the
    index of its key in the sorted keys. The empty context has number 0.
    """

    keys: np.ndarray  # sorted, int64 [U]
    share: np.ndarray  # (c - D(c)) / c(h·) [U]
    back_off: np.ndarray  # γ(h) of each (n-1)-gram; 1 if no token follows it [contexts]

    def find(self, keys: np.ndarray, known: np.ndarray) -> np.ndarray:
        """The numbers of these keys; -1 if a key does not occur or is not `known`."""
        index = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(known & (self.keys[index] == keys), index, -1)


@dataclass(frozen=True)
class NGram:
    """A fitted model: a Level for each order from 1 on."""

    vocab_size: int
    levels: tuple[Level, ...]

    @property
    def n_parameters(self) -> int:
        """The number of n-grams of all orders."""
        return sum(len(level.keys) for level in self.levels)

    def nats(self, tokens_BT: np.ndarray) -> np.ndarray:
        """-log p of each token given those before it in its row [B, T], float64.

        The first tokens of a row have shorter contexts, as at the beginning of a text.
        """
        tokens_BT = np.asarray(tokens_BT, np.int64)
        if tokens_BT.size and not 0 <= tokens_BT.min() <= tokens_BT.max() < self.vocab_size:
            raise ValueError(
                f"token {tokens_BT.max()} is outside the model's vocab_size={self.vocab_size}; "
                "use the tokenizer of the training text"
            )
        p_BT = np.full(tokens_BT.shape, 1 / self.vocab_size)
        context_BT = np.zeros(tokens_BT.shape, np.int64)
        for level in self.levels:
            known_BT = context_BT >= 0
            number_BT = level.find(context_BT * self.vocab_size + tokens_BT, known_BT)
            share_BT = np.where(number_BT >= 0, level.share[number_BT], 0.0)
            back_off_BT = np.where(known_BT, level.back_off[context_BT], 1.0)
            p_BT = share_BT + back_off_BT * p_BT
            context_BT = _shifted(number_BT)
        return -np.log(p_BT)


def count_ngrams(texts: Sequence[np.ndarray], vocab_size: int, order: int = 5) -> NGram:
    """Fits the model to token sequences. Raises ValueError if they are empty."""
    if order < 1:
        raise ValueError(f"order={order} must be at least 1; for example, use 5")
    if not sum(map(len, texts)):
        raise ValueError("an n-gram model needs text; the training split is empty")
    # All texts in one array, with their first tokens marked, so that no n-gram crosses a border.
    token = np.concatenate([np.asarray(text, np.int64) for text in texts])
    first = np.zeros(len(token), bool)
    first[np.cumsum([0, *map(len, texts)])[:-1][[len(text) > 0 for text in texts]]] = True
    counted, context, n_contexts = [], np.zeros(len(token), np.int64), 1
    for _ in range(order):
        known = np.flatnonzero(context >= 0)
        if not len(known):
            break  # no text is that long
        keys, example, number, count = np.unique(
            context[known] * vocab_size + token[known],
            return_index=True,
            return_inverse=True,
            return_counts=True,
        )
        numbers = np.full(len(token), -1)
        numbers[known] = number
        if counted:  # the number of distinct tokens before an n-gram: (n+1)-grams that end with it
            counted[-1]["count"] = np.bincount(
                counted[-1]["numbers"][known[example]], minlength=len(counted[-1]["keys"])
            )
        counted.append(dict(keys=keys, count=count, numbers=numbers, n_contexts=n_contexts))
        context, n_contexts = np.where(first, -1, _shifted(numbers)), len(keys)
    levels = (
        _level(of["keys"], of["count"], of["keys"] // vocab_size, of["n_contexts"])
        for of in counted
    )
    return NGram(vocab_size, tuple(levels))


def _shifted(number_BT: np.ndarray) -> np.ndarray:
    """The number at the previous position; -1 at the beginning of a row."""
    before = np.full_like(number_BT, -1)
    before[..., 1:] = number_BT[..., :-1]
    return before


def _level(keys: np.ndarray, count: np.ndarray, context: np.ndarray, n_contexts: int) -> Level:
    discount = discounts(count)[np.minimum(count, 3)]
    total = np.bincount(context, count, n_contexts)
    reserved = np.bincount(context, discount, n_contexts)
    seen = total > 0
    back_off = np.divide(reserved, total, out=np.ones(n_contexts), where=seen)
    share = np.divide(count - discount, total[context], out=np.zeros(len(keys)), where=count > 0)
    return Level(keys, share, back_off)


def discounts(count: np.ndarray) -> np.ndarray:
    """D(0) = 0, D(1), D(2) and D(3 or more), from the numbers of n-grams with counts 1 to 4.

    Chen & Goodman 1998, eq. 26. For small or unusual text, a D(c) may be outside (0, c]. Then all
    are Ney's single discount n1 / (n1 + 2 n2), or 1/2 if that is not in (0, 1).
    """
    n1, n2, n3, n4 = (int(np.sum(count == c)) for c in (1, 2, 3, 4))
    y = n1 / (n1 + 2 * n2) if n1 else 0.5
    if n1 and n2 and n3:
        result = np.array([0, 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3])
        if (result[1:] > 0).all() and (result[1:] <= (1, 2, 3)).all():
            return result
    return np.array([0, y, y, y])
