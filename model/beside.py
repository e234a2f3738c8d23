"""A family whose parameters have subtrees of other models that are trained beside it.

A `Beside` family stands for the family that it wraps, such as that of a policy with a value model
of its own. The parameters of each other model are a subtree of its name, which follows the rules of
its own family; `apart` takes them out again for the functions of the families.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import jax

from model import families

Models = tuple[tuple[str, str, Any], ...]
"""(name, family, Config) of each model."""

UNSCALED = ((r"", (1, 1, 1)),)  # for a family without `update_scales`


@dataclass(frozen=True)
class Beside:
    """A family and the models beside it. Members that are not here are those of the family."""

    family: Any
    models: Models

    def __getattr__(self, name: str) -> Any:
        return getattr(self.family, name)

    def _members(self, name: str, *default: Any) -> list[tuple[str, Any, Any]]:
        """(name, this member of the family, Config) of each model beside."""
        known = families.FAMILIES
        return [(own, getattr(known[of], name, *default), cfg) for own, of, cfg in self.models]

    @property
    def PARAMETER_AXES(self) -> tuple:
        """The rules of each family for its own parameters."""
        found = (below(own, rules) for own, rules, _ in self._members("PARAMETER_AXES"))
        return (*sum(found, ()), *self.family.PARAMETER_AXES)

    @property
    def MATRICES(self) -> tuple:
        """The rules of each family; an AttributeError if one has none."""
        found = (below(own, rules) for own, rules, _ in self._members("MATRICES"))
        return (*sum(found, ()), *self.family.MATRICES)

    def update_scales(self, cfg: Any, optimizer: str) -> tuple:
        """The rules of each family by its own Config."""
        plain = lambda cfg, optimizer: UNSCALED  # noqa: E731
        found = (
            below(own, scales(of, optimizer))
            for own, scales, of in self._members("update_scales", plain)
        )
        own = getattr(self.family, "update_scales", plain)
        return (*sum(found, ()), *own(cfg, optimizer))

    def init(self, cfg: Any, key: jax.Array) -> dict:
        """Fresh float32 parameters of all models."""
        params = self.family.init(cfg, key)
        for number, (own, init, of) in enumerate(self._members("init"), start=1):
            params[own] = init(of, jax.random.fold_in(key, number))
        return params

    def parameters(self, cfg: Any) -> dict[str, int]:
        """The family's parameters by component, and those of each other model under its name."""
        counts = {own: sum(count(of).values()) for own, count, of in self._members("parameters")}
        return self.family.parameters(cfg) | counts

    def flops(self, cfg: Any) -> dict[str, float]:
        """FLOPs per token by convention, of all models."""
        others = [count(of) for _, count, of in self._members("flops")]
        own = self.family.flops(cfg)
        return {name: n + sum(other[name] for other in others) for name, n in own.items()}

    def matmul_flops(self, cfg: Any) -> float:
        """FLOPs of the matrix products per trained token, of all models."""
        others = sum(count(of) for _, count, of in self._members("matmul_flops"))
        return self.family.matmul_flops(cfg) + others

    def check_mesh(self, cfg: Any, sizes: dict[str, int]) -> None:
        """ValueError if a model cannot run on a mesh."""
        fine = lambda cfg, sizes: None  # noqa: E731
        getattr(self.family, "check_mesh", fine)(cfg, sizes)
        for _, check, of in self._members("check_mesh", fine):
            check(of, sizes)


def below(name: str, rules: Iterable[tuple[str, Any]]) -> tuple[tuple[str, Any], ...]:
    """Rules of a tree of parameters, for one that has it as the subtree `name`."""
    return tuple(
        (f"^{name}/{'' if pattern[:1] == '^' else '.*'}(?:{pattern.removeprefix('^')})", value)
        for pattern, value in rules
    )


def apart(models: Models, params: dict) -> tuple[dict, dict]:
    """(the parameters of the family, those of the models beside it by name)."""
    names = [name for name, _, _ in models]
    own = {name: tree for name, tree in params.items() if name not in names}
    return own, {name: params[name] for name in names}
