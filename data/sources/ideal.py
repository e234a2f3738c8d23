"""The loss of ideal learners of a synthetic language: a scaling law known in advance.

An ideal learner (Bayesian, with a uniform prior over h of every word) knows everything about a
language of `data/sources/synthetic.py` except h. It keeps only the N most frequent words, and has
seen D tokens. After n values of a word, its expected loss above the oracle's on the next one is

    e_n = E[H(value | n values of the same word)] - H(w),    e_0 = ln S - H(w),

which falls about fourfold with each occurrence (ε = .1). With the frequency q_u = p Π(1-p)p_i of
word u,

    L(N, D) = H + p [ Σ_{u among N} q_u Σ_n P(n; pD, q_u) e_n  +  e_0 Σ_{other u} q_u ],

where P is binomial. D tokens contain pD words on average, and the learner has seen exactly this
number, rounded. All sums are exact to 1e-9 nats: words of equal probability are counted, not
listed.

N counts words and D tokens; they are the `params` and `tokens` of a points table. L is not a sum of
powers. A word is unknown if N *or* D is too small, so the larger deficit hides the smaller one, and
L is closer to H + max(A N^-α_N, B D^-α_D), which resembles Kaplan's joint law with a floor. A fit
of the additive law gives α_N and α_D only where one deficit is much smaller than the other.
"""

import functools
import math
from collections import Counter
from collections.abc import Iterator

import numpy as np

from data.sources.synthetic import Language, entropy

UNLIMITED = 1e40  # an N or D with no deficit
LARGEST = 1e60  # words of equal probability; rarer words count as unknown
NEGLIGIBLE = 1e-10  # in nats, and as a share of the values
MOST_CLASSES = 400_000
MOST_COUNTS = 50_000


def ideal_loss(language: Language, params: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """L(N, D) in nats per token, for `params` words kept and `tokens` seen, up to 1e40.

    Arrays broadcast. Raises ValueError for a language whose sums would be too long.
    """
    frequency, words = word_classes(language)
    loss_after = excess_losses(language.n_values, language.noise)
    before = np.cumsum(words) - words  # words more frequent than those of each class
    rare = 1 - frequency @ words  # share of values after words that are in no class
    params, tokens = np.broadcast_arrays(np.asarray(params, float), np.asarray(tokens, float))
    excess = np.empty(params.shape)
    losses: dict[float, np.ndarray] = {}
    for index in np.ndindex(params.shape):
        d = float(tokens[index])
        if d not in losses:
            losses = {d: _expected_loss(frequency, round(language.p * d), loss_after)}
        kept = np.clip(params[index] - before, 0, words)
        dropped = (words - kept) @ frequency + rare
        excess[index] = (kept * frequency) @ losses[d] + loss_after[0] * dropped
    return language.entropy + language.p * excess


@functools.lru_cache(maxsize=8)
def word_classes(language: Language) -> tuple[np.ndarray, np.ndarray]:
    """Words by frequency: q [k], falling, and the number of words of each frequency [k].

    Word lengths are geometric, so words longer than a length with negligible (1-p)^length are
    dropped.
    """
    letters, times = np.unique(language.letters, return_counts=True)
    log_letter = np.log1p(-language.p) + np.log(letters)
    log_q, count = np.array([math.log(language.p)]), np.array([1.0])
    classes = []
    total = 0
    while np.exp(log_q) @ count > NEGLIGIBLE * language.p and count.max() < LARGEST:
        classes.append((np.exp(log_q), count))
        total += len(count)
        if total > MOST_CLASSES:
            raise ValueError(
                f"letters: these {len(letters)} make words of more than {MOST_CLASSES} "
                "different frequencies; use fewer letters or equal ones"
            )
        longer = (log_q[:, None] + log_letter).ravel()
        # Rounded, so that the same letters give the same number in any order.
        _, first, which = np.unique(longer.round(9), return_index=True, return_inverse=True)
        count = np.bincount(which.ravel(), np.outer(count, times).ravel())
        log_q = longer[first]
    frequency, words = (np.concatenate(parts) for parts in zip(*classes, strict=True))
    order = np.argsort(-frequency, kind="stable")
    return frequency[order], words[order]


def _expected_loss(frequency: np.ndarray, n_words: int, loss_after: np.ndarray) -> np.ndarray:
    """The expected loss at each frequency [k] after `n_words` words: Σ_n P(n; n_words, q) e_n."""
    n = np.arange(len(loss_after))
    with np.errstate(divide="ignore"):
        choices = np.log(np.maximum(float(n_words) - n[:-1], 0)) - np.log(n[1:])
    log_choices = np.concatenate([[0.0], np.cumsum(choices)])
    loss = np.zeros(len(frequency))
    for k in n[n <= n_words]:
        others = float(n_words - int(k)) * np.log1p(-frequency)
        loss += np.exp(log_choices[k] + k * np.log(frequency) + others) * loss_after[k]
    return loss


@functools.lru_cache(maxsize=32)
def excess_losses(n_values: int, noise: float) -> np.ndarray:
    """e_n for n = 0, 1, …, until it is negligible.

    The prediction depends only on how often each of the n values occurred, in any order: on a
    partition of n. There are 42 partitions of n = 10.
    """
    if noise == 0:
        return np.array([math.log(n_values), 0.0])
    offsets = np.array([1 - noise] + [noise / (n_values - 1)] * (n_values - 1))
    excess, total = [], 0
    while not excess or excess[-1] > NEGLIGIBLE:
        n = len(excess)
        counts = np.array(list(_partitions(n, n_values, n)))
        total += len(counts)
        if total > MOST_COUNTS:
            raise ValueError(
                f"noise={noise} with S={n_values} takes more than {n} occurrences of a word to "
                "learn, too many to sum over; use less noise or fewer values"
            )
        excess.append(_predicted_entropy(counts, noise) - entropy(offsets))
    return np.maximum(excess, 0.0)


def _predicted_entropy(counts: np.ndarray, noise: float) -> float:
    """E[entropy of the prediction] over the partitions [k, S] of the values seen."""
    n, n_values = int(counts[0].sum()), counts.shape[1]
    hit, miss = 1 - noise, noise / (n_values - 1)
    # Of the counts, given each of the S values of h(word), which are equally likely a priori.
    log_likelihood = counts * math.log(hit) + (n - counts) * math.log(miss)
    top = log_likelihood.max(1, keepdims=True)
    likelihood = np.exp(log_likelihood - top)
    evidence = likelihood.sum(1, keepdims=True)
    log_orders = np.array([_log_orders(row) for row in counts.tolist()])
    probability = np.exp(log_orders + top[:, 0]) * evidence[:, 0] / n_values
    prediction = miss + (hit - miss) * likelihood / evidence
    return float(-(probability @ (prediction * np.log(prediction)).sum(1)))


def _log_orders(counts: list[int]) -> float:
    """Log of the number of value sequences whose counts, sorted, are these."""
    factorials = sum(math.lgamma(count + 1) for count in counts)
    same = sum(math.lgamma(times + 1) for times in Counter(counts).values())
    return math.lgamma(sum(counts) + 1) + math.lgamma(len(counts) + 1) - factorials - same


def _partitions(n: int, parts: int, largest: int) -> Iterator[tuple[int, ...]]:
    """The ways to write n as `parts` falling numbers of at most `largest`, zeros included."""
    if parts == 0:
        yield ()
        return
    for first in range(min(n, largest), -(-n // parts) - 1, -1):
        for others in _partitions(n - first, parts - 1, first):
            yield (first, *others)
