"""Sums of nats by text and by position, and what follows from them, with standard errors."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from train.objectives import next_token
from train.objectives.metrics import Metric, measure

BINS = 24  # of positions, up to 16 million
PER_TOKEN = Metric("nats/token", of="nats", per="weights")


@dataclass
class Tally:
    """What was scored. Texts are numbered from 0; a text is a document or, on the validation set of
    a run, one of its sequences. Standard errors take texts as the independent units, so they are
    clustered by text."""

    names: list[str] = field(default_factory=list)
    bytes: list[int] = field(default_factory=list)
    sums: list[np.ndarray] = field(default_factory=list)  # nats and tokens by bin [2, BINS]
    longest: int = 0  # tokens of the longest window
    unknown: int = 0  # tokens that stand for what the vocabulary lacks

    def text(self, name: str, n_bytes: float) -> int:
        """Adds a text; returns its number."""
        self.names.append(name)
        self.bytes.append(int(n_bytes))
        self.sums.append(np.zeros((2, BINS)))
        return len(self.names) - 1

    def add(self, number: int, position: int, nats: np.ndarray) -> None:
        """Adds consecutive tokens of a text, the first at `position` of its window."""
        bins = bin_of(position + np.arange(len(nats)))
        self.longest = max(self.longest, position + len(nats))
        self.sums[number] += np.bincount(bins, nats, BINS), np.bincount(bins, minlength=BINS)

    def by_bin(self) -> tuple[np.ndarray, np.ndarray]:
        """Nats and tokens of each text in each bin of positions [texts, BINS]."""
        nats, tokens = np.array(self.sums).reshape(-1, 2, BINS).transpose(1, 0, 2)
        return nats, tokens

    def rows(self) -> dict[str, np.ndarray]:
        """Sums by text, as the objective's metrics read them."""
        nats, tokens = self.by_bin()
        return {"nats": nats.sum(1), "weights": tokens.sum(1), "bytes": np.array(self.bytes, float)}


def bin_of(position: np.ndarray) -> np.ndarray:
    """The bin of positions from 0: 0 | 1-2 | 3-6 | 7-14 …, each twice as long as the one before."""
    return np.frexp(position + 1.0)[1] - 1


def overall(tally: Tally) -> dict[str, Any]:
    """Loss and bits per byte with their standard errors; None for what cannot be known."""
    rows = {name: sums for name, sums in tally.rows().items() if name != "bytes" or sums.any()}
    found = measure(next_token.METRICS, rows)
    loss, loss_se = found["loss"]
    bits, bits_se = found.get("bits_per_byte", (None, None))
    return {
        **{"eval_loss": loss, "eval_loss_se": loss_se},
        **{"bits_per_byte": bits, "bits_per_byte_se": bits_se},
    }


def by_position(tally: Tally) -> list[dict[str, Any]]:
    """The loss in each bin of positions: `first` and `last` position, counted from 1."""
    nats, tokens = tally.by_bin()
    found = []
    for number in range(nats.shape[1]):
        if count := tokens[:, number].sum():
            loss, error = PER_TOKEN({"nats": nats[:, number], "weights": tokens[:, number]})
            last = min(2 ** (number + 1) - 1, tally.longest)
            about = {"first": 2**number, "last": last, "tokens": int(count)}
            found.append(about | {"loss": loss, "se": error})
    return found


def by_text(tally: Tally) -> list[dict[str, Any]]:
    """The loss of each text, in order."""
    rows = tally.rows()
    found = []
    for number, name in enumerate(tally.names):
        nats, tokens, size = (float(rows[of][number]) for of in ("nats", "weights", "bytes"))
        about = {"number": number, "text": name, "tokens": int(tokens), "bytes": int(size)}
        bits = nats / np.log(2) / size if size else None
        found.append(about | {"loss": nats / tokens, "bits_per_byte": bits})
    return found


def difference(one: Tally, other: Tally) -> tuple[float, float | None]:
    """(loss of `one` - loss of `other`, standard error) on the same texts, paired by text."""
    a, b = one.rows(), other.rows()
    return PER_TOKEN({"nats": a["nats"] - b["nats"], "weights": a["weights"]})
