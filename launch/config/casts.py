"""Gives a value from the command line or from a sweep the type of its config key."""

import ast
from typing import Any

from ml_collections import ConfigDict

_TRUTH = {"true": True, "false": False, "1": True, "0": False}


def cast(key: str, value: Any, current: Any) -> Any:
    """`value` as the type of the key's `current` value; ValueError says what would be valid."""
    if isinstance(current, ConfigDict):
        raise ValueError(f"config.{key} is a section; set one of its keys: {', '.join(current)}")
    try:
        return _CASTS.get(type(current), _literal)(value, current)
    except (ValueError, SyntaxError, TypeError):
        kind = _KINDS.get(type(current), "a Python literal")
        raise ValueError(f"config.{key}={value} is not {kind}, such as {current!r}") from None


def _bool(value: Any, current: bool) -> bool:
    if isinstance(value, str) and value.lower() in _TRUTH:
        return _TRUTH[value.lower()]
    if not isinstance(value, bool):
        raise ValueError
    return value


def _int(value: Any, current: int) -> int:
    number = _literal(value, current)
    if isinstance(number, bool) or not isinstance(number, int):
        raise ValueError
    return number


def _float(value: Any, current: float) -> float:
    if isinstance(value, bool):
        raise ValueError
    return float(value)


def _str(value: Any, current: str) -> str:
    if not isinstance(value, str):
        raise ValueError
    return value


def _tuple(value: Any, current: tuple) -> tuple:
    """'(1, 2)', 'a,b' or a sequence; its elements take the type of the current first one."""
    if isinstance(value, str):
        parts = value.split(",") if value else []
        value = ast.literal_eval(value) if value[:1] in ("(", "[") else [p.strip() for p in parts]
    if not isinstance(value, tuple | list):
        raise ValueError
    like = current[0] if current else None
    return tuple(_CASTS.get(type(like), _literal)(item, like) for item in value)


def _literal(value: Any, current: Any) -> Any:
    """Text as a Python literal; other text is returned as it is where the key takes any type."""
    if not isinstance(value, str):
        return value
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError):
        if current is None:
            return value
        raise


_KINDS = {
    bool: "a bool",
    int: "an int",
    float: "a float",
    str: "a str",
    tuple: "a tuple",
    list: "a list",
}
_CASTS = {bool: _bool, int: _int, float: _float, str: _str, tuple: _tuple, list: _tuple}
