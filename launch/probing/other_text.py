"""The loss of a model on other text, beside that of the run before: what unlearning costs there."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from data.sources import corpus
from launch.evaluation.scored_model import ScoredModel
from scaling.estimators.resampling import bootstrap, mean_of_differences


def documents(spec: str, most: int) -> list[str]:
    """The first documents of a corpus. ValueError, in one line, for one that cannot be read."""
    try:
        return list(itertools.islice(corpus.documents(spec), most))
    except (FileNotFoundError, ValueError) as error:
        raise ValueError(str(error).replace("data.corpora=", "text=")) from None


def nats(model: ScoredModel, texts: Sequence[str]) -> np.ndarray:
    """(nats, tokens, unknown tokens) of each document [N, 3]."""
    ids = [model.tokenizer.encode(text) for text in texts]
    encoded = [np.array([*model.start, *one], np.int64) for one in ids]
    context = model.cfg.context_length
    found = model.each_token(encoded, context, context)
    unknown = [np.count_nonzero(one == model.tokenizer.unknown) for one in ids]
    return np.array([
        (of_text.sum(), len(of_text), count) for of_text, count in zip(found, unknown, strict=True)
    ])  # fmt: skip


def measured(
    spec: str, now: np.ndarray, before: np.ndarray | None, draws: int, seed: int
) -> dict[str, Any]:
    """The part `text` of what --json writes: nats per token and, beside another run, the change,
    with intervals over documents. Documents without a token are left out; ValueError if none has
    one."""
    used = now[:, 1] > 0
    if not used.any():
        raise ValueError(f"text={spec} holds no token of this model's; name another text")
    now, before = now[used], None if before is None else before[used]
    each = np.arange(len(now))
    per_token = lambda found: bootstrap(  # noqa: E731
        lambda rows: {"nats": float(found[rows, 0].sum() / found[rows, 1].sum())}, each, draws, seed
    )["nats"]
    about = {"corpus": spec, "documents": len(now), "tokens": int(now[:, 1].sum())}
    about["unknown"] = int(now[:, 2].sum())
    about["nats"] = per_token(now)
    if before is not None:
        about["before"] = per_token(before)
        apart = np.stack([now[:, 0] - before[:, 0], now[:, 1]], axis=1)
        about["change"] = per_token(apart)
        by_document = apart[:, 0] / apart[:, 1]
        about["change"]["p"] = mean_of_differences(by_document, each, draws, seed)["p"]
    return about
