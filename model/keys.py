"""Keys of a model's config: each dataclass field states its default, choices, bounds and needs.

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
import operator
from collections.abc import Mapping, Sequence
from typing import Any

# A value must compare so with its bound, in these words.
BOUNDS = {
    "least": (operator.ge, "at least"),
    "above": (operator.gt, "above"),
    "most": (operator.le, "at most"),
    "below": (operator.lt, "below"),
}


def key(
    default: Any,
    *,
    choices: Sequence[str] = (),
    letters: str = "",
    needs: Mapping[str, Sequence] | None = None,
    **bounds: float,
) -> Any:
    """A dataclass field with the rules that `check` enforces.

    choices  the values allowed; none given: any
    letters  the letters that a text is made of, one or more
    needs    {another key: its values}: the key may differ from its default only with one of these
    bounds   those of BOUNDS. A default outside them marks a key that must be given or derived
    """
    if unknown := bounds.keys() - BOUNDS:
        raise TypeError(f"bounds {unknown} are unknown; use {', '.join(BOUNDS)}")
    stated = dict(choices=tuple(choices), letters=letters, needs=dict(needs or {}), bounds=bounds)
    return dataclasses.field(default=default, metadata=stated)


def rules(config: Any, name: str) -> dict[str, Any]:
    """{a key of a config or its class: what it states about `name`}, of those that state any."""
    fields = dataclasses.fields(config)
    return {field.name: field.metadata[name] for field in fields if field.metadata[name]}


def defaults(config: Any) -> dict[str, Any]:
    """{key: default} of a config or its class."""
    return {field.name: field.default for field in dataclasses.fields(config)}


def check(config: Any) -> None:
    """ValueError names the first key that breaks its rules, its value and what would be valid."""
    fields = dataclasses.fields(config)
    for field in fields:
        check_value(config, field.name, getattr(config, field.name))
    for field in fields:
        value = getattr(config, field.name)
        for needed, allowed in field.metadata["needs"].items():
            if value != field.default and getattr(config, needed) not in allowed:
                raise ValueError(
                    f"model.{field.name}={value!r} means nothing with model.{needed}="
                    f"{getattr(config, needed)!r}; it needs {' or '.join(map(str, allowed))}"
                )


def check_value(config: Any, name: str, value: Any) -> None:
    """ValueError if a key of a config or its class may not have this value, whatever the others."""
    stated = config.__dataclass_fields__[name].metadata
    choices, letters, bounds = stated["choices"], stated["letters"], stated["bounds"]
    if choices and value not in choices:
        raise ValueError(f"model.{name}={value!r} is unknown; use one of {', '.join(choices)}")
    if letters and (not value or set(value) - set(letters)):
        raise ValueError(f"model.{name}={value!r} must be made of the letters {', '.join(letters)}")
    if not all(BOUNDS[bound][0](value, limit) for bound, limit in bounds.items()):
        wanted = " and ".join(f"{BOUNDS[bound][1]} {limit}" for bound, limit in bounds.items())
        raise ValueError(f"model.{name}={value} must be {wanted}")
