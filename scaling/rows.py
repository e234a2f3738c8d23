"""Converts rows of text or numbers, from runs or a CSV file, to validated points."""

from collections import Counter
from typing import Any

import numpy as np

from scaling.laws.law import CLASSICAL
from scaling.table import COMPONENTS, FLOP_CONVENTIONS, Baseline, Points
from scaling.validate import (
    duplicates,
    finite,
    listed,
    not_negative,
    one_measure,
    positive,
    wrong_units,
)

# What a run records besides its counts. Each may also be a column of a CSV file.
FACTS = {
    "family": str,
    "objective": str,
    "predicts": str,
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
    "evaluated": str,
    "held_out": str,
    "seconds": float,
    "tokens_per_second": float,
    "mfu": float,
    "device": str,
}
REPLICATES = ("seed", "replicate")  # columns that distinguish runs with the same name
TRUTHS = {"": False, "0": False, "false": False, "no": False, "1": True, "true": True, "yes": True}
STANDARD = ("params", "tokens", "flops", "loss", "loss_se", "unique_tokens")
COMPONENT = "params_"  # prefix of the columns of components that a decoder does not have
WHOLE = 0.01  # relative difference allowed between params and the sum of the components

Rows = list[dict[str, Any]]


def from_rows(
    rows: Rows,
    source: str,
    where: list[str],
    needed: tuple[str, ...] = CLASSICAL,
    signed: str = "",
) -> Points:
    """Validated points from rows. `where` names each row in messages. The columns `needed` must
    exist and be positive in every row; the column `signed` may be negative. Raises ValueError that
    names the rows at fault.
    """
    one_measure(rows, source)
    counted = truths(rows, "counted", where, source)
    baselines = tuple(
        baseline(row, at, source)
        for row, at, is_baseline in zip(rows, where, counted, strict=True) if is_baseline
    )  # fmt: skip
    rows, where = (
        [value for value, is_baseline in zip(values, counted, strict=True) if not is_baseline]
        for values in (rows, where)
    )
    if not rows:
        raise ValueError(f"{source} has only baselines; a fit needs trained runs")
    present = set().union(*(row.keys() for row in rows))
    standard = [name for name in ("params", "tokens", "flops", "loss", "loss_se")
                if name in present]  # fmt: skip
    other = [name for name in needed if name not in STANDARD]
    errors = [f"{name}_se" for name in other if f"{name}_se" in present]
    read = {
        name: numbers(rows, name, where, source)
        for name in (*standard, *other, *errors, *(set(COMPONENTS) & present))
    }
    for name in dict.fromkeys((*needed, *(name for name in standard if name != "loss_se"))):
        derivable = name == "flops" and {"params", "tokens"} <= set(needed)
        gaps = name not in needed and not derivable
        check = finite if name == signed else positive
        check(read.get(name, np.zeros(0)), name, where, source, gaps)
    for name in ("loss_se", *errors, *COMPONENTS):
        not_negative(read.get(name, np.zeros(0)), name, where, source, name not in COMPONENTS)
    blank = np.full(len(rows), np.nan)
    n, d, loss = (read.get(name, blank) for name in ("params", "tokens", "loss"))
    flops = read.get("flops", 6 * n * d)
    wrong_units(n, d, flops, loss, source)
    named = "run" in present
    keys = [read["tokens"]] if named and "tokens" in read else [read[name] for name in needed]
    tags = [replicate(row) for row in rows]
    if named:
        run = np.array(distinct_names([str(row["run"]) for row in rows], tags, keys))
        duplicates(run, keys, where, source)
    else:
        run = np.array([at.replace(" ", "-") for at in where])
        duplicates(None, [*keys, tags], where, source)
    return Points(
        run=run,
        params=n,
        tokens=d,
        flops=flops,
        loss=loss,
        loss_se=read.get("loss_se", blank),
        holdout=truths(rows, "holdout", where, source),
        components=components(rows, n, {k: read[k] for k in COMPONENTS if k in read}),
        flops_by=flops_by_convention(rows, present, where, source),
        other={name: read[name] for name in (*other, *errors)},
        facts=tuple(facts_of(row, at, source) for row, at in zip(rows, where, strict=True)),
        baselines=baselines,
        source=source,
    )


def replicate(row: dict[str, Any]) -> str:
    """'-seed-2' from the columns REPLICATES; '' if they are empty."""
    known = [(name, row[name]) for name in REPLICATES if row.get(name) not in (None, "")]
    return "".join(f"-{name}-{str(value).strip()}" for name, value in known)


def distinct_names(names: list[str], tags: list[str], keys: list[np.ndarray]) -> list[str]:
    """The names of runs. Runs with the same name and the same `keys` get their tag appended."""
    rows = list(zip(names, *keys, strict=True))
    repeated = {row[0] for row, times in Counter(rows).items() if times > 1}
    return [name + tag * (name in repeated) for name, tag in zip(names, tags, strict=True)]


def components(
    rows: Rows, params: np.ndarray, known: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Parameters by component: those of a decoder, and the columns params_NAME if all components
    add up to params. If they do not, the columns params_NAME mean something else and are ignored.
    """
    names = dict.fromkeys(key for row in rows for key in row if key.startswith(COMPONENT))
    try:
        named = {
            name.removeprefix(COMPONENT): np.array([float(row.get(name) or 0) for row in rows])
            for name in names
        }
    except (TypeError, ValueError):
        return known
    if not named or known.keys() & named.keys():
        return known
    every = known | named
    whole = np.abs(sum(every.values()) - params) <= WHOLE * params
    return every if whole.all() and all((v >= 0).all() for v in every.values()) else known


def flops_by_convention(
    rows: Rows, present: set[str], where: list[str], source: str
) -> dict[str, np.ndarray]:
    """The columns flops_CONVENTION. A convention that is missing from any run is dropped."""
    counts = {}
    for name in FLOP_CONVENTIONS:
        if f"flops_{name}" in present:
            values = numbers(rows, f"flops_{name}", where, source)
            positive(values, f"flops_{name}", where, source, gaps=True)
            if np.isfinite(values).all():
                counts[name] = values
    return counts


def baseline(row: dict[str, Any], at: str, source: str) -> Baseline:
    """A baseline model from one row. Raises ValueError if it has no loss."""
    names = ("params", "tokens", "flops", "loss", "loss_se")
    values = {name: float(numbers([row], name, [at], source)[0]) for name in names}
    positive(np.array([values["loss"]]), "loss", [at], source)
    return Baseline(id=str(row.get("run") or at), family=str(row.get("family") or ""), **values)


def numbers(rows: Rows, name: str, where: list[str], source: str) -> np.ndarray:
    """One column as floats; empty cells are nan. Raises ValueError for other text."""
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
            f"(found {rows[wrong[0]][name]!r:.80}); write plain numbers such as 1.5e9"
        )
    return values


def facts_of(row: dict[str, Any], at: str, source: str) -> dict[str, Any]:
    """The facts of one row, converted to the types in FACTS."""
    facts = {}
    for name, kind in FACTS.items():
        value = row.get(name)
        if value is None or value == "":
            continue
        try:
            facts[name] = kind(value)
        except (TypeError, ValueError):
            raise ValueError(
                f"{source}: {name}={value!r:.80} in {at} is not a number; leave it empty"
            ) from None
    return facts


def truths(rows: Rows, name: str, where: list[str], source: str) -> np.ndarray:
    """A boolean column; empty or missing cells are false."""
    words = [str(row.get(name) or "").strip().lower() for row in rows]
    wrong = [i for i, word in enumerate(words) if word not in TRUTHS]
    if wrong:
        raise ValueError(
            f"{source}: {name}={words[wrong[0]]!r:.80} in {listed(where, wrong)}; use true or false"
        )
    return np.array([TRUTHS[word] for word in words], bool)
