"""The n-gram family: counts of n-grams with a smoothing of `model/counted/smoothing.py`.

The default is interpolated, modified Kneser-Ney smoothing. The probabilities of all V tokens sum
to 1 after any context.

Counting uses sorting: O(order · N log N) for N tokens, without a table of vocabulary size.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from model.conventions import CONVENTIONS
from model.counted.smoothing import SMOOTHINGS, Counts
from model.keys import check, key

INPUTS = ("tokens",)


@dataclass(frozen=True)
class Config:
    """The keys of the family. Raises ValueError that names the key, its value and valid values."""

    vocab_size: int = key(0, least=1)  # tokens; 0: the tokenizer's
    context_length: int = key(128, least=1)  # tokens of one scored sequence
    order: int = key(5, least=1)  # tokens of the longest n-gram
    smoothing: str = key("modified_kneser_ney", choices=tuple(SMOOTHINGS))
    k: float = key(1.0, above=0, needs={"smoothing": ("add_k",)})  # added to each count
    # Subtracted from each count; 0: estimated for each order from how many n-grams occur once and
    # twice.
    discount: float = key(0.0, least=0, below=1, needs={"smoothing": ("absolute", "kneser_ney")})
    __post_init__ = check


def derive(keys: Mapping[str, Any]) -> Config:
    """The Config of a `model` section."""
    return Config(**keys)


def flops(cfg: Config) -> dict[str, float]:
    """One addition per order and token, by every convention; no sorting and smoothing."""
    return dict.fromkeys(CONVENTIONS, float(cfg.order))


def fit(cfg: Config, texts: Sequence[np.ndarray]) -> "NGram":
    """Fits the model to token sequences. No n-gram spans two sequences. ValueError without any
    token."""
    smoothing = SMOOTHINGS[cfg.smoothing]
    levels = []
    counted = count_ngrams(texts, cfg.vocab_size, cfg.order, smoothing.continuations)
    for keys, count, n_contexts in counted:
        context = keys // cfg.vocab_size
        total = np.bincount(context, count, n_contexts)
        levels.append(Level(keys, *smoothing.weigh(Counts(count, context, total), cfg)))
    return NGram(cfg.vocab_size, tuple(levels), smoothing.interpolated)


def count(model: "NGram") -> dict[str, int]:
    """N-grams of each order: {"1-grams": …, "2-grams": …}."""
    return {f"{n}-grams": len(level.keys) for n, level in enumerate(model.levels, start=1)}


def nats(model: "NGram", tokens: np.ndarray) -> np.ndarray:
    """-log p of each token [N] of a text given those before it."""
    return model.nats(tokens)


def distribution(model: "NGram", context: np.ndarray) -> np.ndarray:
    """p of each token [V] after a context [N], float64."""
    return model.distribution(context)


def save(model: "NGram", file: BinaryIO) -> None:
    """Writes the model as .npz."""
    arrays = {"vocab_size": np.int64(model.vocab_size), "interpolated": model.interpolated}
    for n, level in enumerate(model.levels, start=1):
        arrays |= {f"{name}_{n}": array for name, array in vars(level).items()}
    np.savez(file, **arrays)


def load(file: BinaryIO) -> "NGram":
    """Reads the model that `save` wrote. Older files are of interpolated models."""
    with np.load(file, allow_pickle=False) as arrays:
        orders = sum(name.startswith("keys_") for name in arrays)
        names = ("keys", "share", "back_off")
        levels = (Level(*(arrays[f"{name}_{n}"] for name in names)) for n in range(1, orders + 1))
        interpolated = bool(arrays["interpolated"]) if "interpolated" in arrays else True
        return NGram(int(arrays["vocab_size"]), tuple(levels), interpolated)


@dataclass(frozen=True)
class Level:
    """The n-grams of one order that occur in the text, numbered from 0.

    The n-gram that extends (n-1)-gram number h by token w has the key h V + w. Its number is the
    index of its key in the sorted keys. The empty context has number 0.
    """

    keys: np.ndarray  # sorted, int64 [U]
    share: np.ndarray  # the probability that its own count gives it [U]
    back_off: np.ndarray  # of each (n-1)-gram; 1 if no token follows it [contexts]

    def find(self, keys: np.ndarray, known: np.ndarray) -> np.ndarray:
        """The numbers of these keys; -1 if a key does not occur or is not `known`."""
        index = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(known & (self.keys[index] == keys), index, -1)


@dataclass(frozen=True)
class NGram:
    """A fitted model: a Level for each order from 1 on. One that is not `interpolated` backs off
    to 1 / V at every order."""

    vocab_size: int
    levels: tuple[Level, ...]
    interpolated: bool = True

    @property
    def n_parameters(self) -> int:
        """The number of n-grams of all orders."""
        return sum(len(level.keys) for level in self.levels)

    def nats(self, tokens_BT: np.ndarray) -> np.ndarray:
        """-log p of each token given those before it in its row [B, T], float64.

        The first tokens of a row have shorter contexts, as at the beginning of a text.
        """
        tokens_BT = np.asarray(tokens_BT, np.int64)
        self._check(tokens_BT)
        uniform = 1 / self.vocab_size
        p_BT = np.full(tokens_BT.shape, uniform)
        context_BT = np.zeros(tokens_BT.shape, np.int64)
        for n, level in enumerate(self.levels, start=1):
            known_BT = context_BT >= 0
            number_BT = level.find(context_BT * self.vocab_size + tokens_BT, known_BT)
            share_BT = np.where(number_BT >= 0, level.share[number_BT], 0.0)
            back_off_BT = np.where(known_BT, level.back_off[context_BT], 1.0)
            if self.interpolated:
                p_BT = share_BT + back_off_BT * p_BT
            else:  # the first n - 1 tokens keep the order that their shorter context has
                p_BT[..., n - 1 :] = (share_BT + back_off_BT * uniform)[..., n - 1 :]
            context_BT = _shifted(number_BT)
        return -np.log(p_BT)

    def distribution(self, context_N: np.ndarray) -> np.ndarray:
        """p of each token [V] after a context of any length, float64."""
        context_N = np.asarray(context_N, np.int64)
        self._check(context_N)
        uniform_V = np.full(self.vocab_size, 1 / self.vocab_size)
        p_V = uniform_V
        for n, level in enumerate(self.levels[: len(context_N) + 1], start=1):
            context = self._number(context_N[len(context_N) - n + 1 :])
            p_V = p_V if self.interpolated else uniform_V
            if context >= 0:
                first, last = np.searchsorted(
                    level.keys, [context * self.vocab_size, (context + 1) * self.vocab_size]
                )
                p_V = level.back_off[context] * p_V
                p_V[level.keys[first:last] % self.vocab_size] += level.share[first:last]
        return p_V

    def _number(self, tokens_N: np.ndarray) -> int:
        """The number of an n-gram; -1 if it does not occur."""
        number = 0
        for level, token in zip(self.levels, tokens_N.tolist(), strict=False):
            key = number * self.vocab_size + token
            number = int(level.keys.searchsorted(key))
            if number == len(level.keys) or level.keys[number] != key:
                return -1
        return number

    def _check(self, tokens: np.ndarray) -> None:
        """ValueError for tokens outside the vocabulary."""
        if tokens.size and not 0 <= tokens.min() <= tokens.max() < self.vocab_size:
            raise ValueError(
                f"token {tokens.max()} is outside the model's vocab_size={self.vocab_size}; "
                "use the tokenizer of the training text"
            )


def count_ngrams(
    texts: Sequence[np.ndarray], vocab_size: int, order: int, continuations: bool
) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
    """(sorted keys [U], count of each [U], number of contexts) of each order from 1 on, up to the
    longest that occurs. With `continuations` the count of an n-gram that is not of the last order
    is the number of distinct tokens before it.

    Raises ValueError if there is no token.
    """
    if not sum(map(len, texts)):
        raise ValueError("an n-gram model needs text; the training split is empty")
    # All texts in one array, with their first tokens marked, so that no n-gram crosses a border.
    token = np.concatenate([np.asarray(text, np.int64) for text in texts])
    first = np.zeros(len(token), bool)
    first[np.cumsum([0, *map(len, texts)])[:-1][[len(text) > 0 for text in texts]]] = True
    context, n_contexts = np.zeros(len(token), np.int64), 1
    numbers, shorter = np.full(len(token), -1), None
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
        if shorter:
            if continuations:  # the n-grams of this order that end with each shorter one
                ends = numbers[known[example]]
                shorter[1] = np.bincount(ends, minlength=len(shorter[0]))
            yield tuple(shorter)
        numbers = np.full(len(token), -1)
        numbers[known] = number
        shorter = [keys, count, n_contexts]
        context, n_contexts = np.where(first, -1, _shifted(numbers)), len(keys)
    yield tuple(shorter)


def _shifted(number_BT: np.ndarray) -> np.ndarray:
    """The number at the previous position; -1 at the beginning of a row."""
    before = np.full_like(number_BT, -1)
    before[..., 1:] = number_BT[..., :-1]
    return before
