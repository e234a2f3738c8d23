"""Filters and sorts trials by what a user writes: `model.d_model == 64 and loss < 2.5`.

The language is a subset of Python's expressions: ==, !=, <, <=, >, >=, `in`, `not in`, and, or,
not, brackets, numbers, text in quotes, True, False and None. A name is a config key, its last part
where that is clear, or one of FACTS. Nothing is executed: `ast` parses the text, and a node that
GRAMMAR does not list is refused.
"""

import ast
import difflib
import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from scaling.printable import printable
from scaling.ranking.trials import Sweep, Trial, short_names, spelled

Row = Mapping[str, Any]
"""What is known of one trial, by full name: its settings and its FACTS."""

LONGEST = 1000  # characters of an expression


def loss(trial: Trial) -> tuple[float, float]:
    """The final loss and its standard error; nan unless the trial is done or was stopped early. The
    last loss of a diverged trial is not a result."""
    ended = trial.status in ("done", "stopped")
    return trial.metric() if ended else (math.nan, math.nan)


FACTS: dict[str, Callable[[Trial], Any]] = {
    "id": lambda trial: trial.id,
    "status": lambda trial: trial.status,
    "loss": lambda trial: loss(trial)[0],
    "loss_se": lambda trial: loss(trial)[1],
    "bits_per_byte": lambda trial: trial.result.get("bits_per_byte"),
    "params": lambda trial: trial.params or None,
    "tokens": lambda trial: trial.result.get("tokens"),
    "steps": lambda trial: trial.result.get("steps"),
    "flops": lambda trial: (trial.result.get("flops") or {}).get("6nd"),
    "seconds": lambda trial: trial.result.get("seconds"),
    "seed": lambda trial: trial.seed,
    "holdout": lambda trial: trial.holdout,
}
"""What a trial's folder says besides its settings. None or nan: not known (yet)."""


def row(trial: Trial, sweep: str) -> dict[str, Any]:
    """The Row of a trial of the sweep with this name."""
    facts = {name: read(trial) for name, read in FACTS.items()}
    return dict(trial.settings) | facts | {"sweep": sweep}


def names(sweeps: Iterable[Sweep]) -> dict[str, str]:
    """The full name that each name stands for. Besides full names these are the short names of
    varied keys, and the last part of any key that no other key ends with."""
    sweeps = list(sweeps)
    keys = dict.fromkeys(key for s in sweeps for t in s.trials for key in t.settings)
    varied = dict.fromkeys(key for sweep in sweeps for key in sweep.varied)
    known: dict[str, str] = {}
    for group in (keys, varied):
        known |= {short: key for key, short in short_names(list(group)).items()}
    return known | {name: name for name in (*keys, *FACTS, "sweep")}


def keep(sweeps: Sequence[Sweep], texts: Sequence[str]) -> list[Sweep]:
    """The sweeps with those of their trials that every expression of `texts` holds for; a sweep
    without such a trial is left out. ValueError if an expression is wrong or nothing is left."""
    known = names(sweeps)
    conditions = [parse(text, known) for text in texts]
    kept = []
    for sweep in sweeps:
        rows = ((trial, row(trial, sweep.name)) for trial in sweep.trials)
        left = tuple(trial for trial, one in rows if all(holds(one) for holds in conditions))
        if left:
            kept.append(replace(sweep, trials=left))
    if sweeps and not kept:
        total = sum(len(sweep.trials) for sweep in sweeps)
        raise ValueError(f"where={' and '.join(texts)} holds for none of {total} trials; relax it")
    return kept


def parse(text: str, known: Mapping[str, str]) -> Callable[[Row], bool]:
    """The expression as a function of a Row. `known` maps each valid name to the name in the Row.

    A comparison with a value that is not known is false, except `KEY == None`. ValueError, in one
    line, for text outside the language and for an unknown name, with the nearest known one; the
    function raises it for values that have no order, such as a number and text.
    """
    try:
        if len(text) > LONGEST:
            raise ValueError(f"it is longer than {LONGEST} characters")
        value = _read(ast.parse(text.strip(), mode="eval").body, known)
    except (SyntaxError, RecursionError, MemoryError) as error:
        reason = getattr(error, "msg", None) or "it is nested too deeply"
        raise ValueError(
            f"where={printable(text)} is not an expression ({reason}); write it as "
            "'model.d_model == 64 and loss < 2.5'"
        ) from None
    except ValueError as error:
        raise ValueError(f"where={printable(text)}: {error}") from None

    def holds(row: Row) -> bool:
        try:
            return _true(value(row), printable(text.strip()))
        except ValueError as error:
            raise ValueError(f"where={printable(text)}: {error}") from None

    return holds


def ordered(rows: Iterable[Row], text: str, known: Mapping[str, str]) -> list[Row]:
    """The rows sorted by the name in `text`, descending after a '-'. Numbers come before text, and
    unknown values last. ValueError, with the nearest name, for an unknown one."""
    try:
        name = full_name(text.removeprefix("-"), known)
    except ValueError as error:
        raise ValueError(f"sort={printable(text)}: {error}") from None
    rows = list(rows)
    there = [one for one in rows if not missing(one.get(name))]
    there.sort(key=lambda one: _rank(one[name]), reverse=text.startswith("-"))
    there.sort(key=lambda one: not isinstance(one[name], int | float))  # stable
    return there + [one for one in rows if missing(one.get(name))]


def full_name(name: str, known: Mapping[str, str]) -> str:
    """The name in a Row; ValueError, with the nearest known name, for an unknown one."""
    if name in known:
        return known[name]
    ends = [key for key in known if key.endswith(f".{name}")]
    inside = [key for key in known if name in key and "." not in key]
    near = ends or inside[:3] or difflib.get_close_matches(name, known, n=1)
    plain = [key for key in known if "." not in key and known[key] == key]
    hint = f"did you mean {' or '.join(near)}?" if near else f"use a key or {', '.join(plain)}"
    raise ValueError(f"unknown name {printable(name)}; {hint}")


def missing(value: Any) -> bool:
    """Whether a value is not known: None or nan."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def _rank(value: Any) -> tuple[bool, Any]:
    number = isinstance(value, int | float)
    return (not number, value if number else value if isinstance(value, str) else spelled(value))


Value = Callable[[Row], Any]


def _read(node: ast.AST, known: Mapping[str, str]) -> Value:
    read = GRAMMAR.get(type(node))
    if read is None:
        part = printable(ast.unparse(node))
        raise ValueError(f"{part} is not part of the language; compare keys with values")
    return read(node, known)


def _name(node: ast.Name | ast.Attribute, known: Mapping[str, str]) -> Value:
    try:
        name = full_name(ast.unparse(node), known)
    except ValueError as error:
        raise ValueError(f"{error} (text needs quotes: status == 'done')") from None
    return lambda row: row.get(name)


def _constant(node: ast.Constant, known: Mapping[str, str]) -> Value:
    if not isinstance(node.value, int | float | str | None):
        raise ValueError(f"{printable(ast.unparse(node))} is no number, text, True, False or None")
    return lambda row: node.value


def _sequence(node: ast.Tuple | ast.List, known: Mapping[str, str]) -> Value:
    items = [_read(item, known) for item in node.elts]
    return lambda row: [item(row) for item in items]


def _unary(node: ast.UnaryOp, known: Mapping[str, str]) -> Value:
    value, part = _read(node.operand, known), printable(ast.unparse(node.operand))
    if isinstance(node.op, ast.Not):
        return lambda row: not _true(value(row), part)
    number = getattr(node.operand, "value", None)
    if isinstance(node.op, ast.USub) and isinstance(number, int | float):
        return lambda row: -number
    raise ValueError(f"{printable(ast.unparse(node))} is not part of the language")


def _junction(node: ast.BoolOp, known: Mapping[str, str]) -> Value:
    parts = [(_read(value, known), printable(ast.unparse(value))) for value in node.values]
    combine = all if isinstance(node.op, ast.And) else any
    return lambda row: combine(_true(value(row), text) for value, text in parts)


def _comparison(node: ast.Compare, known: Mapping[str, str]) -> Value:
    """One or more comparisons: 32 <= d_model < 128."""
    values = [_read(part, known) for part in (node.left, *node.comparators)]
    compare = [COMPARISONS[type(op)] for op in node.ops]
    is_none = [isinstance(p, ast.Constant) and p.value is None for p in node.comparators]

    def holds(row: Row) -> bool:
        found = [value(row) for value in values]
        return all(map(_compared, compare, found, found[1:], is_none))

    return holds


def _compared(compare: Callable[[Any, Any], bool], a: Any, b: Any, is_none: bool) -> bool:
    if is_none and compare in (operator.eq, operator.ne):
        return missing(a) == (compare is operator.eq)
    if missing(a) or missing(b):
        return False
    try:
        return compare(a, b)
    except TypeError:
        raise ValueError(
            f"{printable(spelled(a))} and {printable(spelled(b))} cannot be compared so; use == "
            "or !="
        ) from None


def _true(value: Any, part: str) -> bool:
    if missing(value):
        return False
    if not isinstance(value, bool):
        raise ValueError(f"{part} is {printable(spelled(value))}, not true or false; compare it")
    return value


COMPARISONS: dict[type, Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
    ast.Is: operator.eq,
    ast.IsNot: operator.ne,
}

GRAMMAR: dict[type, Callable[[Any, Mapping[str, str]], Value]] = {
    ast.BoolOp: _junction,
    ast.UnaryOp: _unary,
    ast.Compare: _comparison,
    ast.Name: _name,
    ast.Attribute: _name,
    ast.Constant: _constant,
    ast.Tuple: _sequence,
    ast.List: _sequence,
}
"""What reads each kind of node; every other kind is refused."""
