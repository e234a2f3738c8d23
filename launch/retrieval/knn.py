"""kNN language models (Khandelwal et al. 2020): a model mixed with the tokens that followed similar
states in a datastore, with its two constants tuned on one half of the text and measured on the
other."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from data.retrieval import folder
from data.retrieval.folder import Index
from data.retrieval.nearest import Neighbours
from launch.evaluation.scored_model import ScoredModel
from launch.evaluation.tally import PER_TOKEN
from train.evaluate import states

Batch = tuple[np.ndarray, np.ndarray, list[tuple[int, int, int, int]]]
"""(tokens [B, T], targets [B, T], spans: the number of a text, its row, first target and end)."""

WEIGHTS = np.arange(0, 1, 0.02)  # λ, the weight of the datastore
TEMPERATURES = 2.0 ** np.arange(-5, 6)  # as multiples of the mean spread of the distances


@dataclass(frozen=True)
class Queries:
    """The tokens that are scored: the state before each [Q, D], the token [Q], its nats under the
    model alone [Q], and the number of its text [Q]."""

    states: np.ndarray
    targets: np.ndarray
    nats: np.ndarray
    texts: np.ndarray


@dataclass(frozen=True)
class Neighbourhood:
    """The nearest keys of each query: minus the squared distances [Q, k], best first, and whether
    the token that followed is the target [Q, k]."""

    scores: np.ndarray
    right: np.ndarray

    def probability(self, temperature: float) -> np.ndarray:
        """p of each target under the datastore [Q]: eq. 2, softmax of -distance / temperature."""
        weights = np.exp((self.scores - self.scores[:, :1]) / temperature)
        return (weights * self.right).sum(1) / weights.sum(1)

    def part(self, rows: np.ndarray) -> "Neighbourhood":
        """The same of some queries."""
        return Neighbourhood(self.scores[rows], self.right[rows])


def queries(model: ScoredModel, batches: Iterator[Batch]) -> Queries:
    """What is asked of a datastore for the text of batches."""
    found: list[tuple[np.ndarray, ...]] = []
    for tokens_BT, targets_BT, spans in batches:
        batch = {"tokens": tokens_BT, "segments": np.ones_like(tokens_BT)}
        x_BTD = np.asarray(states(model.name, model.cfg, model.fitted, batch), np.float32)
        nats_BT = model.nats(tokens_BT, targets_BT)
        for number, row, first, end in spans:
            part = row, slice(first, end)
            texts = np.full(end - first, number)
            found.append((x_BTD[part], targets_BT[part], nats_BT[part], texts))
    if not found:
        raise ValueError("the text to score holds no token")
    return Queries(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


def neighbourhoods(
    index: Index,
    asked: Queries,
    k: int,
    sizes: Sequence[int],
    backend: str,
    advance: Callable[[float], None],
) -> Iterator[tuple[int, Neighbourhood]]:
    """(M, the nearest of the first M keys) for each size M, in ascending order: one pass over the
    datastore."""
    nearest = Neighbours(asked.states, k, distances=True, backend=backend)
    total, values = index.about["tokens"], np.zeros(0, np.int64)
    wanted = sorted(set(sizes))
    for keys, tokens in folder.shards(index, ["keys", "values"]):
        values, begin = np.concatenate([values, tokens]), 0
        while begin < len(keys) and wanted:
            end = min(len(keys), begin + wanted[0] - nearest.seen)
            nearest.add(np.asarray(keys[begin:end]))
            begin = end
            advance(nearest.seen / min(total, max(sizes)))
            if nearest.seen == wanted[0]:
                right = values[nearest.ids] == asked.targets[:, None]
                yield (
                    wanted.pop(0),
                    Neighbourhood(nearest.scores.copy(), right & (nearest.ids >= 0)),
                )


def mixed(nats: np.ndarray, p_knn: np.ndarray, weight: float) -> np.ndarray:
    """-log of eq. 3, λ p_kNN + (1 - λ) p_LM, for each token."""
    return -np.log(weight * p_knn + (1 - weight) * np.exp(-nats))


def tuned(nats: np.ndarray, near: Neighbourhood) -> tuple[float, float]:
    """(temperature, λ) of the lowest mean loss, among TEMPERATURES and WEIGHTS."""
    spread = float(
        np.mean(near.scores[:, 0] - np.where(np.isfinite(near.scores), near.scores, 0).min(1))
    )
    best = (np.inf, 1.0, 0.0)
    for temperature in TEMPERATURES * max(spread, 1e-6):
        p_knn = near.probability(temperature)
        for weight in WEIGHTS:
            loss = float(mixed(nats, p_knn, weight).mean())
            best = min(best, (loss, float(temperature), float(weight)))
    return best[1], best[2]


def measured(asked: Queries, near: Neighbourhood) -> dict[str, Any]:
    """What a datastore saves: tuned on the first half of the texts, measured on the second.

    `base` and `loss` are nats per token of the model alone and with the datastore, `saved` their
    difference with its standard error, paired by text."""
    middle = np.median(np.unique(asked.texts))
    tune, measure = asked.texts <= middle, asked.texts > middle
    if not measure.any():
        raise ValueError(
            "the text to score is one sequence or document; its constants need one, its score "
            "another; give --data with at least two documents, or more --score_tokens"
        )
    temperature, weight = tuned(asked.nats[tune], near.part(tune))
    base = asked.nats[measure]
    with_index = mixed(base, near.part(measure).probability(temperature), weight)
    loss, _ = by_text(with_index, asked.texts[measure])
    saved, error = by_text(base - with_index, asked.texts[measure])
    return {
        **{"weight": weight, "temperature": temperature, "neighbours": near.scores.shape[1]},
        **{"base": float(base.mean()), "loss": loss, "saved": saved, "saved_se": error},
        **{"tuned_on": int(tune.sum()), "scored": int(measure.sum())},
    }


def by_text(nats: np.ndarray, texts: np.ndarray) -> tuple[float, float | None]:
    """(mean over tokens, its standard error with texts as the independent units)."""
    _, number = np.unique(texts, return_inverse=True)
    return PER_TOKEN(
        {"nats": np.bincount(number, nats), "weights": np.bincount(number).astype(float)}
    )
