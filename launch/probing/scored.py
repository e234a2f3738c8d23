"""Log-probabilities of continuations under a model: what every probe of texts is made from."""

from collections.abc import Callable, Sequence

import numpy as np

from launch.benchmarks import continuations
from launch.evaluation.scored_model import ScoredModel

Text = tuple[str, str]
"""(what comes before, what is scored)."""


def tokens(model: ScoredModel, text: Text) -> tuple[list[int], list[int]]:
    """The tokens of both parts. The whole is encoded at once, since a token may cover parts of
    both: it is scored then. ValueError for a text without a token to score, or too many."""
    before, after = text
    whole = model.tokenizer.encode(before + after).tolist()
    alone = model.tokenizer.encode(before).tolist() if before else []
    shared = next((i for i, (a, b) in enumerate(zip(alone, whole, strict=False)) if a != b), None)
    cut = min(len(alone), len(whole)) if shared is None else shared
    context = model.cfg.context_length
    if not 0 < len(whole) - cut <= context and not (model.counted and len(whole) > cut):
        raise ValueError(
            f"{(before + after)[:60]!r} has {len(whole) - cut} tokens to score; a model with "
            f"model.context_length={context} scores 1 to {context}"
        )
    return whole[:cut], whole[cut:]


def has_unknown(model: ScoredModel, text: Text) -> bool:
    """Whether the vocabulary of a model lacks a part of a text."""
    unknown = model.tokenizer.unknown
    return unknown is not None and unknown in model.tokenizer.encode("".join(text))


def log_probabilities(
    model: ScoredModel, texts: Sequence[Text], advance: Callable[[float], None] = lambda share: None
) -> np.ndarray:
    """log p, in nats, of what is scored of each text given what comes before it [N]. Texts that
    occur several times are scored once."""
    place = {text: n for n, text in enumerate(dict.fromkeys(texts))}
    found = continuations.score(model, [tokens(model, text) for text in place], advance)
    return np.array([found[place[text]].logprob for text in texts])
