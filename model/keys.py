"""Config keys of models: dataclass fields with a default, choices, bounds and dependencies.

    @dataclass(frozen=True)
    class Config:
        norm: str = key("layernorm", choices=("layernorm", "rmsnorm"))
        norm_eps: float = key(1e-5, above=0)
        norm_offset: bool = key(False, needs={"norm": ("rmsnorm",)})

        def __post_init__(self):
            check(self)

Rules between several keys are code in the family's config.
"""

import dataclasses
import functools
import operator
from collections.abc import Mapping, Sequence
from typing import Any

# bound: (the comparison of value and bound that must hold, its wording in messages)
BOUNDS = {
    "least": (operator.ge, "at least"),
    "above": (operator.gt, "above"),
    "most": (operator.le, "at most"),
    "below": (operator.lt, "below"),
}


class Unfit(ValueError):
    """Raised when a counted model cannot be fitted: too little text for its keys, or a missing
    package."""


def key(
    default: Any,
    *,
    choices: Sequence[str] = (),
    letters: str = "",
    needs: Mapping[str, Sequence] | None = None,
    **bounds: float,
) -> Any:
    """A dataclass field with the rules that `check` enforces.

    choices  the allowed values; empty: any
    letters  the allowed letters of a non-empty string
    needs    {another key: its values}: the key may differ from its default only if the other key
             has one of these values
    bounds   keys of BOUNDS. A default outside them marks a key that must be given or derived
    """
    if unknown := bounds.keys() - BOUNDS:
        raise TypeError(f"bounds {unknown} are unknown; use {', '.join(BOUNDS)}")
    metadata = dict(choices=tuple(choices), letters=letters, needs=dict(needs or {}), bounds=bounds)
    return dataclasses.field(default=default, metadata=metadata)


def rules(config: Any, name: str) -> dict[str, Any]:
    """{key: its rule `name`} for the keys of a config or its class that have such a rule."""
    fields = dataclasses.fields(config)
    return {field.name: field.metadata[name] for field in fields if field.metadata[name]}


def defaults(config: Any) -> dict[str, Any]:
    """{key: default} of a config or its class."""
    return {field.name: field.default for field in dataclasses.fields(config)}


def check(config: Any) -> None:
    """Raises ValueError for the first key that breaks its rules, with the valid values."""
    ruled, dependent = _fields(type(config))
    for field in ruled:
        check_value(config, field.name, getattr(config, field.name))
    for field in dependent:
        value = getattr(config, field.name)
        if value == field.default:
            continue
        for needed, allowed in field.metadata["needs"].items():
            if getattr(config, needed) not in allowed:
                raise ValueError(
                    f"model.{field.name}={value!r} has no effect with model.{needed}="
                    f"{getattr(config, needed)!r}; it needs {' or '.join(map(str, allowed))}"
                )


@functools.cache
def _fields(of: type) -> tuple[list[dataclasses.Field], list[dataclasses.Field]]:
    """The fields whose values have rules, and those that depend on other keys."""
    fields = dataclasses.fields(of)
    rules = ("choices", "letters", "bounds")
    ruled = [field for field in fields if any(field.metadata[name] for name in rules)]
    return ruled, [field for field in fields if field.metadata["needs"]]


def divisors(n: int, most: int = 64) -> str:
    """The divisors of n up to `most`, for messages."""
    return ", ".join(str(k) for k in range(1, min(n, most) + 1) if n % k == 0)


def check_value(config: Any, name: str, value: Any) -> None:
    """Raises ValueError if the value breaks the choices, letters or bounds of a key."""
    metadata = config.__dataclass_fields__[name].metadata
    choices, letters, bounds = metadata["choices"], metadata["letters"], metadata["bounds"]
    if choices and value not in choices:
        raise ValueError(f"model.{name}={value!r} is unknown; use one of {', '.join(choices)}")
    if letters and (not value or set(value) - set(letters)):
        raise ValueError(f"model.{name}={value!r} must be made of the letters {', '.join(letters)}")
    for bound, limit in bounds.items():
        if not BOUNDS[bound][0](value, limit):
            wanted = " and ".join(f"{BOUNDS[b][1]} {limit}" for b, limit in bounds.items())
            raise ValueError(f"model.{name}={value} must be {wanted}")
