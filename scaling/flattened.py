"""Nested settings as one dict with dotted keys."""

from collections.abc import Mapping
from typing import Any


def flatten(tree: Mapping[str, Any]) -> dict[str, Any]:
    """{"model.d_model": 64} of nested dicts."""
    found: dict[str, Any] = {}

    def visit(prefix: str, branch: Mapping[str, Any]) -> None:
        for key, value in branch.items():
            if isinstance(value, Mapping):
                visit(f"{prefix}{key}.", value)
            else:
                found[prefix + key] = value

    visit("", tree)
    return found
