"""The n-gram family: counts with interpolated, modified Kneser-Ney smoothing.

Chen & Goodman 1998 (TR-10-98, Harvard), section 3. With h a context of n - 1 tokens and h' the same
without its first,

    p(w | h) = (c(hw) - D(c(hw))) / c(h·) + γ(h) p(w | h'),   γ(h) = Σ_w D(c(hw)) / c(h·)

and p(w | h') itself where h was never seen; below the unigram lies 1 / V. c is how often the n-gram
occurs at the highest order, and at the others how many distinct tokens come before it, which is
Kneser & Ney's (1995) point. So the probabilities of all V tokens sum to 1 after any context.

Counting sorts: O(order · N log N) for N tokens, any vocabulary, no table of its size.
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
    """The keys of the family. Raises ValueError, naming the key, its value and what is valid."""

    vocab_size: int = key(0, least=1)  # tokens; 0: the tokenizer's
    context_length: int = key(128, least=1)  # tokens of one scored sequence
    order: int = key(5, least=1)  # tokens of the longest n-gram
    __post_init__ = check


def derive(keys: Mapping[str, Any]) -> Config:
    """The Config of a `model` section."""
    return Config(**keys)


def flops(cfg: Config) -> dict[str, float]:
    """One addition for each order per token, by every convention; sorting and smoothing are left
    out."""
    return dict.fromkeys(CONVENTIONS, float(cfg.order))


def fit(cfg: Config, texts: Sequence[np.ndarray]) -> "NGram":
    """The model of these token sequences; no n-gram spans two of them."""
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
    """The model that `save` wrote."""
    with np.load(file, allow_pickle=False) as found:
        orders = sum(name.startswith("keys_") for name in found)
        names = ("keys", "share", "back_off")
        levels = (Level(*(found[f"{name}_{n}"] for name in names)) for n in range(1, orders + 1))
        return NGram(int(found["vocab_size"]), tuple(levels))


@dataclass(frozen=True)
class Level:
    """The n-grams of one order that the text has, by number from 0.

    The n-gram that continues the (n-1)-gram number h with token w has the key h V + w; numbers are
    places in the sorted keys. The empty context is number 0.
    """

    keys: np.ndarray  # sorted, int64 [U]
    share: np.ndarray  # (c - D(c)) / c(h·) [U]
    back_off: np.ndarray  # γ(h) of each (n-1)-gram, 1 where nothing follows it [contexts]

    def find(self, keys: np.ndarray, known: np.ndarray) -> np.ndarray:
        """The numbers of these keys, -1 where there is none or not `known`."""
        place = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(known & (self.keys[place] == keys), place, -1)


@dataclass(frozen=True)
class NGram:
    """A fitted model: a Level for each order from 1 on."""

    vocab_size: int
    levels: tuple[Level, ...]

    @property
    def n_parameters(self) -> int:
        """N-grams of all orders, a number each."""
        return sum(len(level.keys) for level in self.levels)

    def nats(self, tokens_BT: np.ndarray) -> np.ndarray:
        """-log p of each token given those before it in its row [B, T], float64.

        The first tokens of a row have shorter contexts, as at the beginning of a text.
        """
        tokens_BT = np.asarray(tokens_BT, np.int64)
        if tokens_BT.size and not 0 <= tokens_BT.min() <= tokens_BT.max() < self.vocab_size:
            raise ValueError(
                f"token {tokens_BT.max()} is outside the model's vocab_size={self.vocab_size}; "
                "use the tokenizer of its text"
            )
        p_BT = np.full(tokens_BT.shape, 1 / self.vocab_size)
        context_BT = np.zeros(tokens_BT.shape, np.int64)
        for level in self.levels:
            known_BT = context_BT >= 0
            found_BT = level.find(context_BT * self.vocab_size + tokens_BT, known_BT)
            share_BT = np.where(found_BT >= 0, level.share[found_BT], 0.0)
            back_off_BT = np.where(known_BT, level.back_off[context_BT], 1.0)
            p_BT = share_BT + back_off_BT * p_BT
            context_BT = _shifted(found_BT)
        return -np.log(p_BT)


def count_ngrams(texts: Sequence[np.ndarray], vocab_size: int, order: int = 5) -> NGram:
    """The model of token sequences; ValueError without any text."""
    if order < 1:
        raise ValueError(f"order={order} must be at least 1; use 5, say")
    if not sum(map(len, texts)):
        raise ValueError("an n-gram model needs text; the training split is empty")
    # Row by row with a border of its own each: -1 is the number of an n-gram that is not there.
    token = np.concatenate([np.asarray(text, np.int64) for text in texts])
    first = np.zeros(len(token), bool)
    first[np.cumsum([0, *map(len, texts)])[:-1][[len(text) > 0 for text in texts]]] = True
    counted, context, n_contexts = [], np.zeros(len(token), np.int64), 1
    for _ in range(order):
        there = np.flatnonzero(context >= 0)
        if not len(there):
            break  # no text is that long
        keys, example, number, count = np.unique(
            context[there] * vocab_size + token[there],
            return_index=True,
            return_inverse=True,
            return_counts=True,
        )
        found = np.full(len(token), -1)
        found[there] = number
        if counted:  # an n-gram is the end of as many (n+1)-grams as tokens come before it
            counted[-1]["count"] = np.bincount(
                counted[-1]["found"][there[example]], minlength=len(counted[-1]["keys"])
            )
        counted.append(dict(keys=keys, count=count, found=found, n_contexts=n_contexts))
        context, n_contexts = np.where(first, -1, _shifted(found)), len(keys)
    levels = (
        _level(of["keys"], of["count"], of["keys"] // vocab_size, of["n_contexts"])
        for of in counted
    )
    return NGram(vocab_size, tuple(levels))


def _shifted(number_BT: np.ndarray) -> np.ndarray:
    """What stands one place before, -1 at the beginning of a row."""
    before = np.full_like(number_BT, -1)
    before[..., 1:] = number_BT[..., :-1]
    return before


def _level(keys: np.ndarray, count: np.ndarray, context: np.ndarray, n_contexts: int) -> Level:
    discount = discounts(count)[np.minimum(count, 3)]
    total = np.bincount(context, count, n_contexts)
    set_aside = np.bincount(context, discount, n_contexts)
    seen = total > 0
    back_off = np.divide(set_aside, total, out=np.ones(n_contexts), where=seen)
    share = np.divide(count - discount, total[context], out=np.zeros(len(keys)), where=count > 0)
    return Level(keys, share, back_off)


def discounts(count: np.ndarray) -> np.ndarray:
    """D(0) = 0, D(1), D(2) and D(3 or more), from how many n-grams have counts of 1 to 4.

    Chen & Goodman 1998, eq. 26. If one of them is outside (0, c], as small or unusual text can
    make it, all are Ney's single discount n1 / (n1 + 2 n2); if that is outside (0, 1) too, 1/2.
    """
    n1, n2, n3, n4 = (int(np.sum(count == c)) for c in (1, 2, 3, 4))
    y = n1 / (n1 + 2 * n2) if n1 else 0.5
    if n1 and n2 and n3:
        found = np.array([0, 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3])
        if (found[1:] > 0).all() and (found[1:] <= (1, 2, 3)).all():
            return found
    return np.array([0, y, y, y])
