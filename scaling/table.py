"""The points that laws are fitted to: one row per run, with named columns and counts of N and C.

`scaling.runs` reads points from folders of runs, `scaling.csv_file` from CSV files.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from scaling.laws.law import Law
from scaling.validate import Unsupported

COMPONENTS = ("embedding", "position", "attention", "mlp", "norm", "head")  # of a decoder
NOT_BODY = ("embedding", "position", "head")
FLOP_CONVENTIONS = ("6nd", "kaplan", "chinchilla", "palm")
PARAM_CONVENTIONS = ("total", "non_embedding", "with_head")
Count = TypeVar("Count", int, float, np.ndarray)


@dataclass(frozen=True)
class Baseline:
    """A counted model, such as an n-gram model. It is plotted but not fitted. Loss is in nats per
    token; params, tokens and flops may be 0, or nan if unknown.
    """

    id: str
    family: str
    params: float
    tokens: float
    flops: float
    loss: float
    loss_se: float


@dataclass(frozen=True)
class Points:
    """One row per run (or per evaluation of a run): arrays of length n, losses in nats per token.

    If a table lacks the column params, tokens, flops or loss, that array is nan.
    """

    run: np.ndarray
    params: np.ndarray
    tokens: np.ndarray
    flops: np.ndarray
    loss: np.ndarray
    loss_se: np.ndarray  # nan where unknown
    holdout: np.ndarray  # True: predicted, never fitted
    components: dict[str, np.ndarray] = field(default_factory=dict)  # parameters by component
    flops_by: dict[str, np.ndarray] = field(default_factory=dict)  # FLOPs by convention
    other: dict[str, np.ndarray] = field(default_factory=dict)  # further columns that a law needs
    facts: tuple[dict[str, Any], ...] = ()  # per row: keys of scaling.rows.FACTS
    curves: tuple[np.ndarray, ...] = ()  # per row: [k, 3] of step, tokens, eval loss
    left_out: dict[str, int] = field(default_factory=dict)  # status -> number of runs left out
    baselines: tuple[Baseline, ...] = ()
    source: str = ""
    folder: Path | None = None  # of the runs; None for a table

    def __len__(self) -> int:
        return len(self.run)

    def select(self, mask: np.ndarray) -> "Points":
        """The rows where the mask is true."""
        index = np.flatnonzero(mask)
        arrays = {name: getattr(self, name)[index] for name in ARRAYS}
        tables = {
            table: {name: values[index] for name, values in getattr(self, table).items()}
            for table in ("components", "flops_by", "other")
        }
        return replace(
            self,
            **arrays,
            **tables,
            facts=tuple(self.facts[i] for i in index) if self.facts else (),
            curves=tuple(self.curves[i] for i in index) if self.curves else (),
        )

    def columns(self) -> dict[str, np.ndarray]:
        """The inputs of the laws: params, tokens, flops, unique_tokens and `other`."""
        named = {"params": self.params, "tokens": self.tokens, "flops": self.flops}
        unique = self.fact("unique_tokens")
        epochs = self.fact("epochs_of_data")
        from_epochs = np.where(epochs > 1, self.tokens / np.maximum(epochs, 1), self.tokens)
        named["unique_tokens"] = np.where(np.isfinite(unique), unique, from_epochs)
        return named | self.other

    def response(self, law: Law) -> np.ndarray:
        """The law's response, one value per row. Raises ValueError if these points lack it."""
        if law.response == "loss":
            return self.loss
        if law.response not in self.other:
            raise ValueError(
                f"law={law.name} describes {law.response}, but {self.source} has no such column"
            )
        return self.other[law.response]

    def response_se(self, law: Law) -> np.ndarray:
        """The standard error of the response; nan if unknown."""
        if law.response == "loss":
            return self.loss_se
        return self.other.get(f"{law.response}_se", np.full(len(self), np.nan))

    def fact(self, name: str) -> np.ndarray:
        """A numeric fact of every row; nan if unknown."""
        if not self.facts:
            return np.full(len(self), np.nan)
        return np.array([float(row.get(name, np.nan)) for row in self.facts])

    def require(self, names: Sequence[str], what: str) -> None:
        """Raises Unsupported if one of the standard columns is unknown in some row."""
        lacking = [name for name in names if not np.isfinite(getattr(self, name)).all()]
        if lacking:
            raise Unsupported(
                f"{what} need the columns {', '.join(names)}; "
                f"{self.source} lacks {', '.join(lacking)}"
            )


ARRAYS = ("run", "params", "tokens", "flops", "loss", "loss_se", "holdout")


def counted_params(parts: Mapping[str, Count], convention: str) -> Count:
    """N from parameters by component (numbers or arrays), by a key of PARAM_CONVENTIONS.

    `total` counts all. `non_embedding` leaves out embedding, position and head. `with_head` is
    `non_embedding` plus the head, or plus the embedding if the two are tied.
    """
    if convention == "total":
        return sum(parts.values())
    body = sum(values for name, values in parts.items() if name not in NOT_BODY)
    return body + head_params(parts) if convention == "with_head" else body


def head_params(parts: Mapping[str, Count]) -> Count:
    """The parameters of the output projection: the head, or the embedding if they are tied."""
    head = parts.get("head", 0)
    return head + parts.get("embedding", 0) * (head == 0)


def count(points: Points, params: str = "total", flops: str = "6nd") -> Points:
    """The same runs with N and C counted by other conventions; '6nd' is 6 N D with the new N.
    Raises ValueError if the table lacks the counts.
    """
    for name, value, known in (
        ("params", params, PARAM_CONVENTIONS),
        ("flops", flops, FLOP_CONVENTIONS),
    ):
        if value not in known:
            raise ValueError(
                f"{name} convention {value!r} is unknown; use one of {', '.join(known)}"
            )
    n = points.params
    if params != "total" or points.components:
        if not points.components:
            raise ValueError(
                f"{points.source}: counting N as {params} needs the columns "
                f"{', '.join(COMPONENTS)}, or columns params_NAME that add up to params"
            )
        n = np.zeros(len(points)) + counted_params(points.components, params)
    if flops != "6nd" and flops not in points.flops_by:
        raise ValueError(f"{points.source}: counting C by {flops} needs the column flops_{flops}")
    c = 6 * n * points.tokens if flops == "6nd" else points.flops_by[flops]
    return replace(points, params=n, flops=c)


def fitted_rows(points: Points, law: Law) -> Points:
    """The rows that a law is fitted to: those that are not held out and, among runs that differ
    only in learning rate, those with the best rate.

    A law describes tuned models. Runs that differ only in seed are all kept.
    """
    points = points.select(~points.holdout)
    rates, values = points.fact("learning_rate"), points.response(law)
    kept = np.ones(len(points), bool)
    for rows in same_inputs(points, law):
        if np.isfinite(rates[rows]).all() and np.ptp(rates[rows]) > 0:
            kept[rows] = rates[rows] == rates[rows[law.best(values[rows])]]
    return points.select(kept)


def same_inputs(points: Points, law: Law) -> Iterable[list[int]]:
    """Groups of rows with equal params, tokens and further inputs of the law."""
    columns = points.columns()
    further = [columns[name] for name in law.inputs if name in points.other]
    keys = [v for v in (points.params, points.tokens) if np.isfinite(v).all()] + further
    groups: dict[tuple[float, ...], list[int]] = {}
    for row in range(len(points)):
        groups.setdefault(tuple(values[row] for values in keys), []).append(row)
    return groups.values()


def exact(value: Any) -> str:
    """The shortest text that reads back as the same number; '' for nan."""
    if isinstance(value, str):
        return value
    number = float(value)
    if np.isnan(number):
        return ""
    return str(int(number)) if number.is_integer() and abs(number) < 1e16 else repr(number)


def sha256(points: Points) -> str:
    """A hash, independent of row order, of what a fit reads: run, N, D, C, loss, its standard
    error, and the further columns that a law needs.
    """
    arrays = [points.params, points.tokens, points.flops, points.loss, points.loss_se]
    arrays += [points.other[name] for name in sorted(points.other)]
    lines = sorted(
        ",".join([str(points.run[i]), *(exact(values[i]) for values in arrays)])
        for i in range(len(points))
    )
    # JSON can contain a lone surrogate in a name, which UTF-8 cannot encode.
    return hashlib.sha256("\n".join(lines).encode(errors="backslashreplace")).hexdigest()
