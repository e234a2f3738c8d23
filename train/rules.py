"""Looks up values in rule tables: ordered (path regex, value) pairs. The first match wins.

A parameter's path is its keys joined by "/", such as "blocks/attention/query/kernel".
"""

import re
from collections.abc import Callable
from typing import Any

import jax

Rules = tuple[tuple[str, Any], ...]


def path_name(path: tuple) -> str:
    """The "/"-joined path of a leaf, as `jax.tree_util.tree_map_with_path` gives it."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def lookup(rules: Rules, name: str, table: str) -> Any:
    """The value of the first rule whose regex occurs in `name`; ValueError if no rule matches."""
    for pattern, value in rules:
        if re.search(pattern, name):
            return value
    raise ValueError(f"parameter {name!r} matches no rule of {table}; add a rule for it")


def map_with_rules(f: Callable, rules: Rules, tree: Any, table: str) -> Any:
    """Maps f(name, leaf, value of the first matching rule) over a tree."""

    def apply(path, leaf):
        name = path_name(path)
        return f(name, leaf, lookup(rules, name, table))

    return jax.tree_util.tree_map_with_path(apply, tree)
