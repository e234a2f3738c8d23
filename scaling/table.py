"""This file reads points (parameters, tokens, FLOPs, loss) from finished runs or anyone's CSV."""

import csv
import hashlib
import io
import json
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from scaling.validate import (
    duplicates,
    listed,
    loss_in_bits,
    misshapen,
    not_negative,
    positive,
    same_as_bits,
    wrong_units,
)

COMPONENTS = ("embedding", "position", "attention", "mlp", "norm", "head")
FLOP_CONVENTIONS = ("6nd", "kaplan", "chinchilla", "palm")
# Which components count as N. "with_head" prices the head even where it is tied to the embedding.
PARAM_CONVENTIONS = {
    "total": COMPONENTS,
    "non_embedding": ("attention", "mlp", "norm"),
    "with_head": ("attention", "mlp", "norm", "head"),
}
LOSS_UNITS = {"auto": 1.0, "nats": 1.0, "bits": float(np.log(2))}  # nats each
REQUIRED = ("params", "tokens", "loss")
# What a run tells beside its counts; each may be a column of a CSV too.
FACTS = {
    "bits_per_byte": float,
    "steps": float,
    "batch": float,
    "context_length": float,
    "epochs_of_data": float,
    "unique_tokens": float,
    "vocab_size": float,
    "learning_rate": float,
    "warmup_steps": float,
    "total_steps": float,
    "schedule": str,
    "optimizer": str,
    "seed": float,
    "dataset": str,
    "seconds": float,
    "tokens_per_second": float,
    "mfu": float,
    "device": str,
}
TRUTHS = {"": False, "0": False, "false": False, "no": False, "1": True, "true": True, "yes": True}


@dataclass(frozen=True)
class Points:
    """One row a run (or an evaluation of one): arrays of length n, losses in nats per token."""

    run: np.ndarray
    params: np.ndarray
    tokens: np.ndarray
    flops: np.ndarray
    loss: np.ndarray
    loss_se: np.ndarray  # nan where unknown
    holdout: np.ndarray  # True: predicted, never fitted
    components: dict[str, np.ndarray] = field(default_factory=dict)
    counted: dict[str, np.ndarray] = field(default_factory=dict)  # FLOPs by convention
    facts: tuple[dict[str, Any], ...] = ()  # by row: keys of FACTS
    curves: tuple[np.ndarray, ...] = ()  # by row: [k, 3] of step, tokens, eval loss
    left_out: dict[str, int] = field(default_factory=dict)  # status -> runs that are no points
    source: str = ""

    def __len__(self) -> int:
        return len(self.loss)

    def select(self, mask: np.ndarray) -> "Points":
        """The rows where the mask is true."""
        index = np.flatnonzero(mask)
        arrays = {name: getattr(self, name)[index] for name in ARRAYS}
        return replace(
            self,
            **arrays,
            components={name: values[index] for name, values in self.components.items()},
            counted={name: values[index] for name, values in self.counted.items()},
            facts=tuple(self.facts[i] for i in index) if self.facts else (),
            curves=tuple(self.curves[i] for i in index) if self.curves else (),
        )

    def columns(self) -> dict[str, np.ndarray]:
        """The inputs of the laws."""
        named = {"params": self.params, "tokens": self.tokens, "flops": self.flops}
        unique = self.fact("unique_tokens")
        epochs = self.fact("epochs_of_data")
        from_epochs = np.where(epochs > 1, self.tokens / np.maximum(epochs, 1), self.tokens)
        named["unique_tokens"] = np.where(np.isfinite(unique), unique, from_epochs)
        return named

    def fact(self, name: str) -> np.ndarray:
        """A numeric fact of every row; nan where it is not known."""
        if not self.facts:
            return np.full(len(self), np.nan)
        return np.array([float(row.get(name, np.nan)) for row in self.facts])


ARRAYS = ("run", "params", "tokens", "flops", "loss", "loss_se", "holdout")


def read_runs(folder: str | Path) -> Points:
    """The finished runs of a sweep (or of a folder of sweeps); others are counted in `left_out`.

    FileNotFoundError where there is no result.json, ValueError where none is done or one is broken.
    """
    root = Path(folder)
    trials = [p for p in (root, *sorted(root.glob("*")), *sorted(root.glob("*/*"))) if p.is_dir()]
    paths = [p / "result.json" for p in trials if (p / "result.json").is_file()]
    if not paths:
        raise FileNotFoundError(
            f"runs={root} holds no */result.json; name the folder of a sweep: runs/quickstart"
        )
    results, status = [], Counter()
    for path in paths:
        result = read_result(path)
        if result.get("status") == "done":
            results.append((path, result))
        else:
            status[str(result.get("status", "without status"))] += 1
    unfinished = sum(
        (p / "config.json").is_file() and not (p / "result.json").is_file() for p in trials
    )
    status.update({"unfinished": unfinished} if unfinished else {})
    if not results:
        counts = ", ".join(f"{n} {name}" for name, n in status.items())
        raise ValueError(f"runs={root} has no finished run ({counts}); run the same sweep again")
    rows = [from_result(path, result) for path, result in results]
    points = from_rows(rows, str(root), where=[str(path) for path, _ in results])
    curves = tuple(np.array(r.get("curve") or np.empty((0, 3)), float) for _, r in results)
    return replace(points, curves=curves, left_out=dict(status))


def read_result(path: Path) -> dict[str, Any]:
    """One result.json."""
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(
            f"{path} is not valid JSON ({error}); delete it and run the trial again"
        ) from None


def from_result(path: Path, result: dict[str, Any]) -> dict[str, Any]:
    """A result.json as one row of a points table."""
    missing = [key for key in ("id", "params", "tokens", "flops", "eval_loss") if key not in result]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}; it was written by another program")
    params = result["params"]
    hyper = result.get("hyperparameters", {})
    told = {name: result.get(name, hyper.get(name)) for name in FACTS}
    if told["unique_tokens"] is None and told["epochs_of_data"]:
        told["unique_tokens"] = result["tokens"] / max(float(told["epochs_of_data"]), 1.0)
    return {
        "run": result["id"],
        "params": sum(params.values()),
        "tokens": result["tokens"],
        "flops": result["flops"].get("6nd"),
        "loss": result["eval_loss"],
        "loss_se": result.get("eval_loss_se"),
        "holdout": str(bool(result.get("holdout", False))),
        **{name: params.get(name, 0) for name in COMPONENTS},
        **{f"flops_{name}": result["flops"].get(name) for name in FLOP_CONVENTIONS},
        **{name: value for name, value in told.items() if value is not None},
    }


def read_csv(path: str | Path, loss_unit: str = "auto") -> Points:
    """The points of a CSV: columns params, tokens, loss; optional flops, loss_se, run, holdout,
    components, facts. `loss_unit` is a key of LOSS_UNITS.
    """
    path = Path(path)
    if not path.is_file():
        wrong = "is a folder" if path.is_dir() else "does not exist"
        raise FileNotFoundError(
            f"table={path} {wrong}; name a CSV with columns {', '.join(REQUIRED)}"
        )
    try:
        reader = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig")))
        rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(
            f"table={path} is not a text CSV ({error}); export it as UTF-8 CSV"
        ) from None
    found = [name.strip() for name in reader.fieldnames or ()]
    missing = [name for name in REQUIRED if name not in found]
    if missing:
        raise ValueError(
            f"table={path} lacks the columns {', '.join(missing)}: found "
            f"{', '.join(found) or 'none'}; needed {', '.join(REQUIRED)} (loss in nats per token)"
        )
    if not rows:
        raise ValueError(f"table={path} has a header and no rows; add one row a run")
    misshapen(found, rows, f"table={path}")
    clean = [{(k or "").strip(): v for k, v in row.items()} for row in rows]
    # The header is line 1 of the file, so that row numbers are what an editor shows.
    points = from_rows(clean, str(path), where=[f"row {i}" for i in range(2, len(clean) + 2)])
    return in_nats(points, loss_unit)


def in_nats(points: Points, loss_unit: str) -> Points:
    """The points with losses in nats. ValueError where 'auto' finds that they look like bits."""
    if loss_unit not in LOSS_UNITS:
        raise ValueError(f"loss_unit={loss_unit!r} is unknown; use one of {', '.join(LOSS_UNITS)}")
    if loss_unit == "auto":
        loss_in_bits(points.params, points.tokens, points.loss, points.source)
        same_as_bits(points.loss, points.fact("bits_per_byte"), points.source)
    scale = LOSS_UNITS[loss_unit]
    return replace(points, loss=points.loss * scale, loss_se=points.loss_se * scale)


def numbers(rows: list[dict[str, Any]], name: str, where: list[str], source: str) -> np.ndarray:
    """One column as floats: nan where empty. ValueError names the rows that hold something else."""
    values = np.full(len(rows), np.nan)
    wrong = []
    for i, row in enumerate(rows):
        text = row.get(name)
        try:
            values[i] = np.nan if text is None or text == "" else float(text)
        except (TypeError, ValueError):
            wrong.append(i)
    if wrong:
        raise ValueError(
            f"{source}: column {name} is not a number in {listed(where, wrong)} "
            f"(found {rows[wrong[0]][name]!r}); write plain numbers such as 1.5e9"
        )
    return values


def from_rows(rows: list[dict[str, Any]], source: str, where: list[str]) -> Points:
    """Checked points from rows of text or numbers."""
    present = set().union(*(row.keys() for row in rows))
    read = {
        name: numbers(rows, name, where, source)
        for name in (*REQUIRED, "flops", "loss_se", *COMPONENTS)
        if name in present
    }
    for name in (*REQUIRED, *({"flops"} & present)):
        positive(read[name], name, where, source)
    for name in ("loss_se", *COMPONENTS):
        gaps = name == "loss_se"
        not_negative(read.get(name, np.zeros(0)), name, where, source, gaps)
    flops = read.get("flops", 6 * read["params"] * read["tokens"])
    wrong_units(read["params"], read["tokens"], flops, read["loss"], source)
    named = "run" in present
    run = np.array(
        [str(row["run"]) if named else f"row-{i}" for i, row in enumerate(rows, start=2)]
    )
    keys = [read["tokens"]] if named else [read[name] for name in REQUIRED]
    duplicates(run if named else None, keys, where, source)
    counted = {
        name: numbers(rows, f"flops_{name}", where, source)
        for name in FLOP_CONVENTIONS
        if f"flops_{name}" in present
    }
    for name, values in counted.items():
        positive(np.where(np.isnan(values), 1, values), f"flops_{name}", where, source)
    return Points(
        run=run,
        params=read["params"],
        tokens=read["tokens"],
        flops=flops,
        loss=read["loss"],
        loss_se=read.get("loss_se", np.full(len(rows), np.nan)),
        holdout=truths(rows, where, source),
        components={name: read[name] for name in COMPONENTS if name in read},
        # A count that some runs lack is none.
        counted={name: v for name, v in counted.items() if np.isfinite(v).all()},
        facts=tuple(facts_of(row, at, source) for row, at in zip(rows, where, strict=True)),
        source=source,
    )


def facts_of(row: dict[str, Any], at: str, source: str) -> dict[str, Any]:
    """The facts that one row tells, each of its type."""
    told = {}
    for name, kind in FACTS.items():
        value = row.get(name)
        if value is None or value == "":
            continue
        try:
            told[name] = kind(value)
        except (TypeError, ValueError):
            raise ValueError(
                f"{source}: {name}={value!r} in {at} is not a number; leave it empty"
            ) from None
    return told


def truths(rows: list[dict[str, Any]], where: list[str], source: str) -> np.ndarray:
    """The column holdout: which points are predicted and never fitted."""
    words = [str(row.get("holdout") or "").strip().lower() for row in rows]
    wrong = [i for i, word in enumerate(words) if word not in TRUTHS]
    if wrong:
        raise ValueError(
            f"{source}: holdout={words[wrong[0]]!r} in {listed(where, wrong)}; use true or false"
        )
    return np.array([TRUTHS[word] for word in words])


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
                f"{points.source}: counting N as {params} takes the columns {', '.join(COMPONENTS)}"
            )
        zeros = np.zeros(len(points))
        n = sum(points.components.get(name, zeros) for name in PARAM_CONVENTIONS[params])
        if params == "with_head":
            head = points.components.get("head", zeros)
            n = n + np.where(head == 0, points.components.get("embedding", zeros), 0)
    if flops != "6nd" and flops not in points.counted:
        raise ValueError(f"{points.source}: counting C by {flops} takes the column flops_{flops}")
    c = 6 * n * points.tokens if flops == "6nd" else points.counted[flops]
    return replace(points, params=n, flops=c)


def tuned(points: Points) -> Points:
    """Of runs of one size and length that differ in their learning rate, the best alone.

    A law is of what a model can reach. Runs that differ in their seed alone all stay.
    """
    rates = points.fact("learning_rate")
    cells: dict[tuple[float, float], list[int]] = {}
    for row in range(len(points)):
        cells.setdefault((points.params[row], points.tokens[row]), []).append(row)
    kept = np.ones(len(points), bool)
    for rows in cells.values():
        if np.isfinite(rates[rows]).all() and np.ptp(rates[rows]) > 0:
            best = rates[rows[int(np.argmin(points.loss[rows]))]]
            kept[rows] = rates[rows] == best
    return points if kept.all() else points.select(kept)


def to_csv(points: Points) -> str:
    """The points as CSV; `read_csv` reads them back to the last digit."""
    names = [name for name in FACTS if any(name in row for row in points.facts)]
    header = [*ARRAYS, *points.components, *(f"flops_{name}" for name in points.counted), *names]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    for i in range(len(points)):
        numbers_ = [points.params, points.tokens, points.flops, points.loss, points.loss_se]
        counts = [*points.components.values(), *points.counted.values()]
        facts = points.facts[i] if points.facts else {}
        writer.writerow(
            [
                points.run[i],
                *(exact(values[i]) for values in numbers_),
                str(bool(points.holdout[i])).lower(),
                *(exact(values[i]) for values in counts),
                *(exact(facts[name]) if name in facts else "" for name in names),
            ]
        )
    return out.getvalue()


def exact(value: Any) -> str:
    """The shortest text that reads back as the same number; nothing for nan."""
    if isinstance(value, str):
        return value
    number = float(value)
    if np.isnan(number):
        return ""
    return str(int(number)) if number.is_integer() and abs(number) < 1e16 else repr(number)


def sha256(points: Points) -> str:
    """A hash of what a fit reads — run, N, D, C, loss and its error — whatever the order of the
    rows.
    """
    arrays = (points.params, points.tokens, points.flops, points.loss, points.loss_se)
    lines = sorted(
        ",".join([str(points.run[i]), *(exact(values[i]) for values in arrays)])
        for i in range(len(points))
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
