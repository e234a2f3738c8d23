"""The model families: what every kind of language model provides, and the table of them.

A family is a module with the functions of `Trained` or of `Counted`. Training, sweeps, counts of
parameters and FLOPs, sharding and reports know a model through these alone.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from model.conventions import CONVENTIONS as CONVENTIONS
from model.counted import ngram
from model.transformer import family as decoder


class Family(Protocol):
    """What trained and counted families share. `cfg` is an instance of `Config`."""

    Config: type  # frozen dataclass with every key of the family; raises ValueError for bad values
    INPUTS: tuple[str, ...]  # the fields of a batch that the model needs

    def derive(self, keys: Mapping[str, Any]) -> Any:
        """The Config of a `model` section, its zeros replaced by what they mean."""

    def flops(self, cfg: Any) -> dict[str, float]:
        """Training FLOPs per token by each of CONVENTIONS."""


class Trained(Family, Protocol):
    """A family whose parameters descend a gradient. Optional: `MATRICES`, rules (path regex →
    (input dimension, output dimension) or None) for optimisers of matrices; `update_scales(cfg,
    optimizer)`, rules (path regex → factors of rate, decay and epsilon); `check_mesh(cfg, sizes)`,
    which raises ValueError for a mesh that cannot hold the model; `matmul_flops(cfg)`, those of the
    matrix products of one trained token."""

    PARAMETER_AXES: tuple[tuple[str, tuple[str, ...]], ...]  # path regex → logical axes

    def parameters(self, cfg: Any) -> dict[str, int]:
        """Parameters by component; they sum to all there are."""

    def init(self, cfg: Any, key: Any) -> dict:
        """Fresh float32 parameters."""

    def hidden(self, cfg: Any, params: dict, batch: Mapping[str, Any], key: Any = None) -> Any:
        """The last hidden states [B, T, D] of a batch. With a `key`, dropout is on."""

    def head(self, cfg: Any, params: dict) -> dict:
        """The parameters that `logits` reads."""

    def logits(self, cfg: Any, head: dict, x: Any) -> Any:
        """Scores of the vocabulary [B, T, V], float32, from hidden states."""


class Counted(Family, Protocol):
    """A family that is counted in one pass, without gradients; numpy alone."""

    def fit(self, cfg: Any, texts: list[np.ndarray]) -> Any:
        """The model of these token sequences."""

    def count(self, model: Any) -> dict[str, int]:
        """Parameters of a fitted model by component."""

    def nats(self, model: Any, tokens: np.ndarray) -> np.ndarray:
        """-log p of each token [N] of a text given those before it."""

    def save(self, model: Any, file: Any) -> None:
        """Writes a fitted model to a binary file object; no pickle."""

    def load(self, file: Any) -> Any:
        """The model that `save` wrote."""


FAMILIES: dict[str, Family] = {"decoder": decoder, "ngram": ngram}


def find(name: str) -> Family:
    """The family of this name; ValueError lists the known ones."""
    if name not in FAMILIES:
        raise ValueError(f"model.family={name!r} is unknown; use one of {', '.join(FAMILIES)}")
    return FAMILIES[name]


def is_counted(family: Family) -> bool:
    """Whether the family is counted rather than trained."""
    return hasattr(family, "fit")


def keys(family: Family) -> dict[str, Any]:
    """The keys of the family's `model` section with their defaults."""
    missing = dataclasses.MISSING
    fields = dataclasses.fields(family.Config)
    return {field.name: 0 if field.default is missing else field.default for field in fields}


def derive(section: Mapping[str, Any]) -> tuple[Family, Any]:
    """(family, Config) of a `model` section in which 0 may still mean "derive it"."""
    section = dict(section)
    family = find(section.pop("family", "decoder"))
    return family, family.derive(section)


def read(section: Mapping[str, Any]) -> tuple[Family, Any]:
    """(family, Config) of a resolved `model` section. A section without a family, as in older
    runs, is a decoder."""
    section = dict(section)
    family = find(section.pop("family", "decoder"))
    return family, family.Config(**{key: _hashable(value) for key, value in section.items()})


def _hashable(value: Any) -> Any:
    """Lists, as JSON has them, as tuples."""
    return tuple(_hashable(item) for item in value) if isinstance(value, list) else value
