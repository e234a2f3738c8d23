"""The map of a model's token embedding, and the nearest tokens of those of a text."""

from typing import Any

import numpy as np

from launch.evaluation.scored_model import ScoredModel
from launch.inspection.text import name, printable_tokens
from launch.vectors.projection import pca
from launch.vectors.word_vectors import scaled

ON_MAP, LISTED, NEAREST = 120, 60, 5  # tokens


def embedding(model: ScoredModel, tokens: np.ndarray) -> dict[str, Any] | None:
    """{"map", "neighbours"}: the tokens of the text, the most frequent first, then those of the
    vocabulary, by their vectors scaled to length 1; the map in two principal components, the
    neighbours by cosine. None for a family without vectors, or with fewer than three tokens that
    spell printable text."""
    known = printable_tokens(model.tokenizer)
    if not hasattr(model.family, "vectors") or len(known) < 3:
        return None
    unit_ND = scaled(model.family.vectors(model.cfg, model.fitted), known)
    place = {int(token): n for n, token in enumerate(known)}
    ids, counts = np.unique(tokens, return_counts=True)
    frequent = [int(ids[i]) for i in np.argsort(-counts, kind="stable") if int(ids[i]) in place]
    chosen = list(dict.fromkeys([*frequent, *map(int, known)]))[:ON_MAP]
    found, how, axes = pca(unit_ND[[place[token] for token in chosen]])
    words = [
        {"word": name(model.tokenizer, token), "x": round(float(x), 5), "y": round(float(y), 5)}
        for token, (x, y) in zip(chosen, found, strict=True)
    ]
    drawn = {"run": model.run.name, "projection": how, "axes": axes, "words": words}
    return {"map": drawn, "neighbours": _neighbours(model, known, unit_ND, frequent[:LISTED])}


def _neighbours(model, known, unit_ND, asked: list[int]) -> list[dict[str, Any]]:
    """The nearest tokens of each token of `asked`, and their cosines, best first."""
    own = np.searchsorted(known, asked)
    cosine = unit_ND[own] @ unit_ND.T
    cosine[np.arange(len(asked)), own] = -np.inf
    best = np.argsort(-cosine, axis=1, kind="stable")[:, : min(NEAREST, len(known) - 1)]
    return [
        {
            "token": name(model.tokenizer, token),
            "nearest": [name(model.tokenizer, known[i]) for i in row],
            "cosine": [round(float(value[i]), 4) for i in row],
        }
        for token, row, value in zip(asked, best, cosine, strict=True)
    ]
