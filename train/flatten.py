"""Flattens nested configs to dicts with dotted keys, and compares them."""

import json
from collections.abc import Mapping
from typing import Any


def flatten(config: Any) -> dict[str, Any]:
    """{"model.d_model": 64, …} of nested dicts or a ConfigDict, with JSON values: tuples become
    lists."""
    flat: dict[str, Any] = {}

    def visit(prefix: str, value: Any) -> None:
        if isinstance(value, Mapping) or hasattr(value, "items"):
            for key, inner in value.items():
                visit(f"{prefix}.{key}" if prefix else key, inner)
        else:
            flat[prefix] = value

    visit("", config)
    return json.loads(json.dumps(flat))


def difference(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """The first dotted key in which two flat dicts differ, with both values; '' if none does."""
    for key in [*here, *there]:
        if there.get(key) != here.get(key):
            return f"config.{key} is {there.get(key)!r} there and {here.get(key)!r} here"
    return ""
