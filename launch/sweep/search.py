"""Searches: methods that choose the trials of a sweep, before it starts or while it runs.

A config file's `get_search` describes one (`configs.space.search`); docs/search.md tells how.
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from types import ModuleType
from typing import Any, Protocol

from ml_collections import ConfigDict

from configs import space
from configs.distributions import Choice
from configs.space import Overrides, Search
from launch.config import config_file
from launch.search import budget, grid, latin_hypercube, random, sobol, tpe
from launch.search.asked import Asked
from launch.sweep.expand import plain


class Method(Protocol):
    """What a search provides; a module with these is one."""

    SEQUENTIAL: bool  # whether what it asks for depends on results
    ENDS: bool  # whether it ends without a number of trials or a budget

    def ask(self, search: Search, asked: Sequence[Asked]) -> list[Overrides]:
        """The next trials, [] if there are no more, given all that were asked for, in order, with
        what came of them. A function of these alone, so that a search can go on in a new process.
        Sequential methods give one trial, for one worker that is free; others all that are left.
        """


SEARCHES: dict[str, Method] = {
    "grid": grid,
    "random": random,
    "sobol": sobol,
    "latin_hypercube": latin_hypercube,
    "tpe": tpe,
}

FLAGS = {"method": "search", "trials": "trials", "budget": "budget"}
"""The keys of a search that the command line may set, with its flag for each."""

FIXED = ("method", "seed", "axes")
"""What a search keeps when it is resumed; its numbers of trials and its budget may be raised."""


def read(
    module: ModuleType, base: ConfigDict, spec: str, given: Mapping[str, Any]
) -> Search | None:
    """The search that a config file's `get_search` describes, with the `given` keys in place of its
    own; None without one. NumPy values become Python's. ValueError names a key that is not valid.
    """
    if not hasattr(module, "get_search"):
        for key, value in given.items():
            raise ValueError(
                f"--{FLAGS[key]}={value}: config={spec} has no get_search(config), which names "
                "the axes; see configs/study/rate_search.py"
            )
        return None
    with config_file.executing(spec):
        found = module.get_search(base)
    known = [field.name for field in fields(Search)]
    if not isinstance(found, Search | Mapping):
        raise ValueError(
            f"config={spec}: get_search returns a {type(found).__name__}; return "
            "space.search(METHOD, AXES)"
        )
    keys = dict(found) if isinstance(found, Mapping) else vars(found)
    for key in keys:
        if key not in known:
            raise ValueError(f"config={spec}: search.{key} is unknown; {_nearest(key, known)}")
    search = space.search(**({"method": "random", "axes": {}} | keys | dict(given)))
    axes = {str(key): _plain(axis) for key, axis in search.axes.items()}
    return _checked(
        Search(search.method, axes, plain(search.trials), plain(search.seed), search.budget), spec
    )


def _checked(search: Search, spec: str) -> Search:
    """The search; ValueError where one of its keys is not valid."""
    if search.method not in SEARCHES:
        raise ValueError(f"search={search.method} is unknown; {_nearest(search.method, SEARCHES)}")
    if not search.axes:
        raise ValueError(
            f"config={spec}: search.axes names no key; write "
            '{"optimizer.learning_rate": log_uniform(1e-4, 1e-1)}'
        )
    for key in ("trials", "seed"):
        if type(getattr(search, key)) is not int or getattr(search, key) < 0:
            raise ValueError(
                f"config={spec}: search.{key}={getattr(search, key)!r} must be a whole number of "
                "at least 0"
            )
    budget.parse(search.budget)
    if not (search.trials or search.budget or SEARCHES[search.method].ENDS):
        raise ValueError(
            f"search.trials is not given, and {search.method} does not end by itself; add "
            '--trials=40 or --budget="1e15 flops"'
        )
    return search


def described(search: Search) -> dict[str, Any]:
    """The search as sweep.json has it."""
    axes = {key: _axis(axis) for key, axis in search.axes.items()}
    return vars(search) | {"axes": axes}


def _axis(axis: Any) -> Any:
    return {"distribution": type(axis).__name__} | asdict(axis) if is_dataclass(axis) else axis


def _plain(axis: Any) -> Any:
    """An axis without NumPy types."""
    return Choice(tuple(map(plain, axis.values))) if isinstance(axis, Choice) else plain(axis)


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return (f"did you mean {near[0]}? " if near else "") + f"Use one of {', '.join(known)}"
