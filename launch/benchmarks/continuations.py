"""The log-probability of a continuation after a context, and whether greedy decoding gives it."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from launch.evaluation.scored_model import ScoredModel
from launch.evaluation.windows import BATCH, batches

Tokens = Sequence[int]


class Scored(NamedTuple):
    """A continuation of n tokens."""

    logprobs: np.ndarray  # of each token, nats [n]
    greedy: bool  # whether each token is the likeliest one, given those before it

    @property
    def logprob(self) -> float:
        """The log-probability of the whole, as `isoflop score` gives it."""
        return float(self.logprobs.sum())


def score(
    model: ScoredModel,
    pairs: Sequence[tuple[Tokens, Tokens]],
    advance: Callable[[float], None] = lambda share: None,
) -> list[Scored]:
    """Scores (context, continuation) pairs of tokens. Each text begins after `model.start`; of one
    that is longer than the model's context, the last tokens count. `advance` gets the share done.

    ValueError for a continuation that is empty, or longer than the context.
    """
    context = model.cfg.context_length
    texts, counts = [], []
    for number, (before, after) in enumerate(pairs, start=1):
        if not len(after) or (len(after) > context and not model.counted):
            raise ValueError(
                f"continuation {number} has {len(after)} tokens; a model with "
                f"model.context_length={context} scores 1 to {context}"
            )
        text = np.array([*model.start, *before, *after], np.int64)
        texts.append(text if model.counted else text[-(context + 1) :])
        counts.append(len(after))
    found: list[Scored | None] = [None] * len(texts)
    done = 0
    for number, nats, greedy in (
        _counted(model, texts, counts) if model.counted else _trained(model, texts)
    ):
        last = slice(len(nats) - counts[number], None)
        found[number] = Scored(-nats[last], bool(greedy[last].all()))
        done += 1
        advance(done / len(texts))
    return found


def _trained(model: ScoredModel, texts: Sequence[np.ndarray]):
    """(number, nats, whether each token is the likeliest) of each text, in any order."""
    context = model.cfg.context_length
    at_once = min(BATCH, sum(map(len, texts)))
    for windows, *rows in batches(enumerate(texts), 1, context, context, at_once):
        nats_BT, likeliest_BT = model.scores(*rows)
        for window, nats, likeliest in zip(windows, nats_BT, likeliest_BT, strict=False):
            length = len(window.targets)
            yield window.number, nats[:length], likeliest[:length]


def _counted(model: ScoredModel, texts: Sequence[np.ndarray], counts: Sequence[int]):
    """The same of a counted model, which sees the whole text before each token."""
    for number, text in enumerate(texts):
        nats = model.family.nats(model.fitted, text)[1:]
        likeliest = np.zeros(len(nats), bool)
        for place in range(len(text) - counts[number], len(text)):
            p_V = model.family.distribution(model.fitted, text[:place])
            likeliest[place - 1] = p_V.argmax() == text[place]
        yield number, nats, likeliest
