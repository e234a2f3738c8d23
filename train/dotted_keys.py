"""Nested sections of a config as one flat dict with dotted keys."""

from collections.abc import Mapping
from typing import Any


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{'model.d_model': 64, …} from a ConfigDict, or from nested dicts, of any depth. The order is
    that of the config."""
    flat = {}
    for name, value in config.items():
        if hasattr(value, "items"):  # a ConfigDict is no Mapping
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
