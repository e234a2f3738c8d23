"""Retrieval in context (Ram et al. 2023): every few tokens, passages that match the last tokens of
a text are put before it, and the model scores the next ones.

Every `stride` tokens the last `query` tokens, as text, are the query. The passages take the place
of the oldest tokens of the context, so the model reads as many tokens with them as without. Both
losses are of the same tokens. Without passages, each token has at least context - stride tokens
before it, as far as the text goes back.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from launch.evaluation.scored_model import ScoredModel
from launch.evaluation.tally import PER_TOKEN
from launch.retrieval.retriever import BETWEEN, Found, Retriever

ROWS = 32  # rows that are scored at once
QUERIES = 256  # queries of one search


@dataclass(frozen=True)
class How:
    """`stride`: tokens between two searches; `query`: tokens of a query; `passages`: passages put
    before the text; `room`: their tokens, at most."""

    stride: int
    query: int
    passages: int
    room: int

    def check(self, model: ScoredModel) -> None:
        """ValueError for sizes that leave no room in the context, or none for a token of each
        passage."""
        context, between = model.cfg.context_length, len(model.tokenizer.encode(BETWEEN))
        if len(model.start) + self.room + self.stride > context:
            raise ValueError(
                f"every={self.stride} and passage_tokens={self.room} fill the context of {context} "
                "tokens; lower one of them"
            )
        if self.room // self.passages <= between:
            raise ValueError(
                f"passages={self.passages} and passage_tokens={self.room} leave no token to a "
                f"passage, as {between} follow each; lower passages or raise passage_tokens"
            )


@dataclass(frozen=True)
class Part:
    """A stretch of a text to score: all its tokens [n], of which those in [first, end) count."""

    text: int
    tokens: np.ndarray
    first: int
    end: int

    def steps(self, stride: int) -> Iterator[tuple[int, int]]:
        """The (first, end) of the tokens that are scored together."""
        for begin in range(self.first, self.end, stride):
            yield begin, min(begin + stride, self.end)


def parts(texts: Sequence[np.ndarray], start: Sequence[int], most: int) -> list[Part]:
    """A stretch of each text, from a random place on. Its share of the text is the same for all, so
    that they have about `most` tokens together; 0: all. A text begins after the tokens `start`."""
    total, rng = sum(map(len, texts)), np.random.default_rng(0)
    share = min(1.0, most / total) if most else 1.0
    found = []
    for number, text in enumerate(texts):
        if not len(text):
            continue
        count = math.ceil(len(text) * share - 1e-9)
        first = len(start) + int(rng.integers(len(text) - count + 1))
        tokens = np.array([*start, *text], np.int64)
        found.append(Part(number, tokens, first, first + count))
    return found


def score(
    model: ScoredModel,
    retriever: Retriever | None,
    chosen: Sequence[Part],
    how: How,
    allowed: np.ndarray | None,
    advance: Callable[[float], None],
) -> np.ndarray:
    """The nats of each text's stretch [texts]: with passages or, without a retriever, alone."""
    jobs = [(part, *step) for part in chosen for step in part.steps(how.stride)]
    sums = np.zeros(1 + max(part.text for part in chosen))
    waiting: list[tuple[int, np.ndarray, int]] = []
    for first in range(0, len(jobs), QUERIES):
        some = jobs[first : first + QUERIES]
        found: list[list[Found]] = [[] for _ in some]
        if retriever is not None:
            texts = [query_of(model, part, begin, how) for part, begin, _ in some]
            found = retriever.search_all(texts, how.passages, allowed)
        for (part, begin, end), passages in zip(some, found, strict=True):
            row = row_of(model, part, begin, end, passages, how)
            waiting.append((part.text, row, end - begin))
            if len(waiting) == ROWS:
                add(model, waiting, sums)
                waiting = []
        advance(min(1.0, (first + QUERIES) / len(jobs)))
    if waiting:
        add(model, waiting, sums)
    return sums


def query_of(model: ScoredModel, part: Part, begin: int, how: How) -> str:
    """The last `how.query` tokens before a place, as text."""
    start = max(len(model.start), begin - how.query)
    return model.tokenizer.decode(part.tokens[start:begin])


def row_of(
    model: ScoredModel, part: Part, begin: int, end: int, passages: Sequence[Found], how: How
) -> np.ndarray:
    """What the model reads: the passages, the best one last, as many tokens before `begin` as fit,
    and those up to `end`, of which the last is only a target. The tokens that begin a text come
    before the passages, as the end of a document between them would separate them from the text."""
    most = model.cfg.context_length + 1
    if not passages:
        return part.tokens[max(0, end - most) : end]
    before, between = np.array(model.start, np.int64), model.tokenizer.encode(BETWEEN)
    each = how.room // len(passages) - len(between)
    for one in reversed(passages):
        text = model.tokenizer.encode(one.passage.text)[:each]
        before = np.concatenate([before, text, between])
    first = max(len(model.start), end - (most - len(before)))
    return np.concatenate([before, part.tokens[first:end]])


def add(model: ScoredModel, rows: Sequence[tuple[int, np.ndarray, int]], sums: np.ndarray) -> None:
    """Adds to the sum of each text the nats of the last tokens of its rows."""
    tokens_BT, targets_BT = np.zeros((2, ROWS, model.cfg.context_length), np.int32)
    for row, (_, tokens, _) in enumerate(rows):
        tokens_BT[row, : len(tokens) - 1], targets_BT[row, : len(tokens) - 1] = (
            tokens[:-1],
            tokens[1:],
        )
    nats_BT = model.nats(tokens_BT, targets_BT)
    for row, (text, tokens, count) in enumerate(rows):
        sums[text] += nats_BT[row, len(tokens) - 1 - count : len(tokens) - 1].sum()


def measured(chosen: Sequence[Part], alone: np.ndarray, helped: np.ndarray) -> dict[str, Any]:
    """`base` and `loss`, in nats per token without and with passages, and `saved`, their difference
    with its standard error, paired by text."""
    counts = np.bincount([p.text for p in chosen], [p.end - p.first for p in chosen], len(alone))
    value = lambda sums: PER_TOKEN({"nats": sums, "weights": counts})  # noqa: E731
    saved, error = value(alone - helped)
    return {
        **{"base": value(alone)[0], "loss": value(helped)[0], "saved": saved, "saved_se": error},
        "scored": int(counts.sum()),
    }
