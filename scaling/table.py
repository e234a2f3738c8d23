"""The points that laws are fitted to: rows of runs, any named columns; how N and C are counted.

`scaling.runs` reads them from folders of runs and `scaling.csv_file` from anyone's CSV.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
    """A model that is counted, not trained: no law is fitted to it, but it has its place in every
    plot. Loss in nats per token; params, tokens and flops may be 0 or nan where unknown.
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
    """One row for each run (or evaluation of one): arrays of length n, losses in nats per token.

    Where a table lacks one of the columns params, tokens, flops or loss, the array is nan.
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
    other: dict[str, np.ndarray] = field(default_factory=dict)  # further columns that a law names
    facts: tuple[dict[str, Any], ...] = ()  # by row: keys of scaling.rows.FACTS
    curves: tuple[np.ndarray, ...] = ()  # by row: [k, 3] of step, tokens, eval loss
    left_out: dict[str, int] = field(default_factory=dict)  # status -> runs that are no points
    baselines: tuple[Baseline, ...] = ()
    source: str = ""

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
        """What the law describes, one value a row. ValueError where these points lack it."""
        if law.response == "loss":
            return self.loss
        if law.response not in self.other:
            raise ValueError(
                f"law={law.name} describes {law.response}, and {self.source} has no such column"
            )
        return self.other[law.response]

    def response_se(self, law: Law) -> np.ndarray:
        """The standard error of the response; nan where unknown."""
        if law.response == "loss":
            return self.loss_se
        return self.other.get(f"{law.response}_se", np.full(len(self), np.nan))

    def fact(self, name: str) -> np.ndarray:
        """A numeric fact of every row; nan where it is not known."""
        if not self.facts:
            return np.full(len(self), np.nan)
        return np.array([float(row.get(name, np.nan)) for row in self.facts])

    def require(self, names: Sequence[str], what: str) -> None:
        """Unsupported where one of the standard columns is not known in every row."""
        lacking = [name for name in names if not np.isfinite(getattr(self, name)).all()]
        if lacking:
            raise Unsupported(
                f"{what} take the columns {', '.join(names)}; "
                f"{self.source} lacks {', '.join(lacking)}"
            )


ARRAYS = ("run", "params", "tokens", "flops", "loss", "loss_se", "holdout")


def counted_params(parts: Mapping[str, Count], convention: str) -> Count:
    """N from parameters by component, numbers or arrays, under a key of PARAM_CONVENTIONS.

    total counts all; non_embedding leaves out embedding, position and head; with_head counts the
    head too, or the embedding in its place where there is no head because the two are tied.
    """
    if convention == "total":
        return sum(parts.values())
    body = sum(values for name, values in parts.items() if name not in NOT_BODY)
    return body + head_params(parts) if convention == "with_head" else body


def head_params(parts: Mapping[str, Count]) -> Count:
    """The parameters that make the logits: the head's, or the embedding's where it is tied."""
    head = parts.get("head", 0)
    return head + parts.get("embedding", 0) * (head == 0)


def count(points: Points, params: str = "total", flops: str = "6nd") -> Points:
    """The same runs with N and C counted by other conventions; '6nd' is 6 N D with that very N.
    ValueError where the table does not hold the counts that this takes.
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
                f"{points.source}: counting N as {params} takes the columns "
                f"{', '.join(COMPONENTS)}, or columns params_NAME that add up to params"
            )
        n = np.zeros(len(points)) + counted_params(points.components, params)
    if flops != "6nd" and flops not in points.flops_by:
        raise ValueError(f"{points.source}: counting C by {flops} takes the column flops_{flops}")
    c = 6 * n * points.tokens if flops == "6nd" else points.flops_by[flops]
    return replace(points, params=n, flops=c)


def fitted_rows(points: Points, law: Law) -> Points:
    """The rows that a law is fitted to: those that are not held out and, of runs that differ in
    their learning rate alone, the best.

    A law is of what a model can reach. Runs that differ in their seed alone all stay.
    """
    points = points.select(~points.holdout)
    rates, values = points.fact("learning_rate"), points.response(law)
    kept = np.ones(len(points), bool)
    for rows in same_inputs(points, law):
        if np.isfinite(rates[rows]).all() and np.ptp(rates[rows]) > 0:
            kept[rows] = rates[rows] == rates[rows[law.best(values[rows])]]
    return points.select(kept)


def same_inputs(points: Points, law: Law) -> Iterable[list[int]]:
    """Rows that agree in params, tokens and all further inputs of the law, group by group."""
    columns = points.columns()
    further = [columns[name] for name in law.inputs if name in points.other]
    keys = [v for v in (points.params, points.tokens) if np.isfinite(v).all()] + further
    groups: dict[tuple[float, ...], list[int]] = {}
    for row in range(len(points)):
        groups.setdefault(tuple(values[row] for values in keys), []).append(row)
    return groups.values()


def exact(value: Any) -> str:
    """The shortest text that reads back as the same number; nothing for nan."""
    if isinstance(value, str):
        return value
    number = float(value)
    if np.isnan(number):
        return ""
    return str(int(number)) if number.is_integer() and abs(number) < 1e16 else repr(number)


def sha256(points: Points) -> str:
    """A hash of what a fit reads, whatever the order of the rows: run, N, D, C, loss and its error,
    and the further columns that a law names.
    """
    arrays = [points.params, points.tokens, points.flops, points.loss, points.loss_se]
    arrays += [points.other[name] for name in sorted(points.other)]
    lines = sorted(
        ",".join([str(points.run[i]), *(exact(values[i]) for values in arrays)])
        for i in range(len(points))
    )
    # Half a surrogate pair in a name, which JSON can hold, has no UTF-8.
    return hashlib.sha256("\n".join(lines).encode(errors="backslashreplace")).hexdigest()
