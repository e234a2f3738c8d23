"""The smoothings of the n-gram family: how much probability a context leaves to other tokens.

Let h be a context of n - 1 tokens, h' the same without its first token, c(hw) the count of an
n-gram, c(h·) = Σ_w c(hw), and N1+(h·) the number of distinct tokens after h. A smoothing gives each
n-gram a share and each context a back-off weight:

    p(w | h) = share(hw) + back_off(h) p(w | h')

The back-off weight is what the shares leave of 1. If h never occurs, p(w | h) = p(w | h'). The
unigram backs off to 1 / V, so each of the V tokens has a positive probability.

    add_k                (c(hw) + k) / (c(h·) + k V), Lidstone's rule; k = 1 is Laplace's. It backs
                         off to 1 / V at every order, also after a context that never occurs
    witten_bell          back_off = N1+(h·) / (N1+(h·) + c(h·)); Witten & Bell 1991, method C, as
                         interpolated in Chen & Goodman 1998, eq. 15
    absolute             share = (c(hw) - D) / c(h·) with one D of each order; Ney et al. 1994
    kneser_ney           the same, where c of a lower order is the number of distinct tokens before
                         the n-gram; Kneser & Ney 1995, as interpolated in Chen & Goodman 1998
    modified_kneser_ney  D depends on c(hw): Chen & Goodman 1998, section 3

Chen & Goodman 1998 is TR-10-98, Harvard.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class Counts(NamedTuple):
    """The n-grams of one order that occur in the text."""

    count: np.ndarray  # c(hw) [U]; of continuations 0, if the n-gram only begins texts
    context: np.ndarray  # number of each n-gram's context [U]
    total: np.ndarray  # c(h·) [contexts]


Weights = tuple[np.ndarray, np.ndarray]
"""(share of each n-gram [U], back-off weight of each context [contexts])."""


class Smoothing(NamedTuple):
    """One entry of SMOOTHINGS. `cfg` of `weigh` is the family's Config."""

    weigh: Callable[[Counts, Any], Weights]
    continuations: bool = False  # lower orders count the distinct tokens before an n-gram
    interpolated: bool = True  # False: every order backs off to 1 / V instead of the next lower one


def add_k(counts: Counts, cfg: Any) -> Weights:
    """Shares of counts to which cfg.k is added for each token of the vocabulary."""
    added = cfg.k * cfg.vocab_size
    whole = counts.total + added
    return counts.count / whole[counts.context], added / whole


def witten_bell(counts: Counts, cfg: Any) -> Weights:
    """A new token is as likely as new tokens were: once for each distinct token after h."""
    types = np.bincount(counts.context, minlength=len(counts.total))
    whole = counts.total + types
    back_off = np.divide(types, whole, out=np.ones(len(whole)), where=whole > 0)
    return counts.count / whole[counts.context], back_off


def one_discount(counts: Counts, cfg: Any) -> Weights:
    """The same discount for every count: cfg.discount, or Ney's estimate if that is 0."""
    d = cfg.discount or ney(counts.count)
    return discounted(counts, np.array([0, d, d, d]))


def three_discounts(counts: Counts, cfg: Any) -> Weights:
    """A discount for counts of 1, of 2, and of 3 or more."""
    return discounted(counts, discounts(counts.count))


def discounted(counts: Counts, discount: np.ndarray) -> Weights:
    """Shares (c - D(c)) / c(h·), where `discount` has D(0), D(1), D(2) and D(3 or more)."""
    count, context, total = counts
    each = discount[np.minimum(count, 3)]
    reserved = np.bincount(context, each, len(total))
    back_off = np.divide(reserved, total, out=np.ones(len(total)), where=total > 0)
    share = np.divide(count - each, total[context], out=np.zeros(len(count)), where=count > 0)
    return share, back_off


def discounts(count: np.ndarray) -> np.ndarray:
    """D(0) = 0, D(1), D(2) and D(3 or more), from the numbers of n-grams with counts 1 to 4.

    Chen & Goodman 1998, eq. 26. For small or unusual text, a D(c) may be outside (0, c]. Then all
    are Ney's single discount.
    """
    n1, n2, n3, n4 = (int(np.sum(count == c)) for c in (1, 2, 3, 4))
    y = ney(count)
    if n1 and n2 and n3:
        result = np.array([0, 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3])
        if (result[1:] > 0).all() and (result[1:] <= (1, 2, 3)).all():
            return result
    return np.array([0, y, y, y])


def ney(count: np.ndarray) -> float:
    """n1 / (n1 + 2 n2) from the numbers of n-grams that occur once and twice, Ney et al. 1994; 1/2
    if none occurs once."""
    n1, n2 = int(np.sum(count == 1)), int(np.sum(count == 2))
    return n1 / (n1 + 2 * n2) if n1 else 0.5


SMOOTHINGS: dict[str, Smoothing] = {
    "modified_kneser_ney": Smoothing(three_discounts, continuations=True),
    "kneser_ney": Smoothing(one_discount, continuations=True),
    "absolute": Smoothing(one_discount),
    "witten_bell": Smoothing(witten_bell),
    "add_k": Smoothing(add_k, interpolated=False),
}
