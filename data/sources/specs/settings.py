"""Reads the KEY=VALUE settings of a corpus spec."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

Keys = Mapping[str, tuple[Callable[[str], Any], str]]
"""Key → (its parser, its meaning)."""


def settings(spec: str, parts: Iterable[str], keys: Keys) -> Iterator[tuple[str, Any]]:
    """(key, value) of each of the `parts` of `spec`; ValueError for an unknown key or a bad
    value."""
    for part in parts:
        key, equals, text = part.partition("=")
        if key not in keys or not equals:
            known = ", ".join(f"{name} ({meaning})" for name, (_, meaning) in keys.items())
            raise ValueError(f"data.corpora={spec!r}: {part!r} is not KEY=VALUE; the keys: {known}")
        read, meaning = keys[key]
        try:
            yield key, read(text)
        except (ValueError, ZeroDivisionError, OverflowError):
            raise ValueError(
                f"data.corpora={spec!r}: {key}={text!r} is not valid ({meaning}); give a number"
            ) from None
