"""The model families: their interface, and the table FAMILIES.

A family is a module with the functions of `Trained` or of `Counted`. Training, sweeps, counts of
parameters and FLOPs, sharding and reports use a model only through this interface.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from model.conventions import CONVENTIONS as CONVENTIONS
from model.counted import ngram
from model.recurrent import encoder_decoder as recurrent_encoder_decoder
from model.transformer import family as decoder


class Family(Protocol):
    """The interface that trained and counted families share. `cfg` is an instance of `Config`."""

    Config: type  # frozen dataclass with every key of the family; raises ValueError for bad values
    INPUTS: tuple[str, ...]  # the fields of a batch that the model needs

    def derive(self, keys: Mapping[str, Any]) -> Any:
        """The Config of a `model` section, with zeros replaced by derived values."""

    def flops(self, cfg: Any) -> dict[str, float]:
        """Training FLOPs per token for each of CONVENTIONS."""


class Trained(Family, Protocol):
    """A family that is trained by gradient descent. Optional members:

    MATRICES                       rules for optimisers of matrices: path regex → (input dimension,
                                   output dimension), or None
    update_scales(cfg, optimizer)  rules: path regex → factors of learning rate, decay and epsilon
    check_mesh(cfg, sizes)         raises ValueError if the model cannot run on a mesh
    matmul_flops(cfg)              FLOPs of the matrix products per trained token
    generate(cfg, params, prompts, n_tokens, seed, vocab_size, stop)
                                   up to `n_tokens` tokens drawn after each list of tokens; each
                                   list ends after the token `stop`
    start(cfg, params, batch, length)
                                   the cache of a batch of rows before their first token; an
                                   encoder–decoder reads the sources of the batch. `length`: the
                                   most tokens that will be given to `step`
    step(cfg, params, cache, tokens)
                                   (logits [B, V] after one more token [B] of each row, cache). The
                                   first axis of each array in a cache is the row
    """

    PARAMETER_AXES: tuple[tuple[str, tuple[str, ...]], ...]  # path regex → logical axes

    def parameters(self, cfg: Any) -> dict[str, int]:
        """Parameters by component; they sum to the total."""

    def init(self, cfg: Any, key: Any) -> dict:
        """Fresh float32 parameters."""

    def hidden(self, cfg: Any, params: dict, batch: Mapping[str, Any], key: Any = None) -> Any:
        """The last hidden states [B, T, D] of a batch. With a `key`, dropout is on."""

    def head(self, cfg: Any, params: dict) -> dict:
        """The parameters that `logits` needs."""

    def logits(self, cfg: Any, head: dict, x: Any) -> Any:
        """Logits [B, T, V], float32, from hidden states."""


class Counted(Family, Protocol):
    """A family that is fitted by counting in one pass, without gradients, with numpy only."""

    def fit(self, cfg: Any, texts: list[np.ndarray]) -> Any:
        """Fits a model to token sequences."""

    def count(self, model: Any) -> dict[str, int]:
        """Parameters of a fitted model by component."""

    def nats(self, model: Any, tokens: np.ndarray) -> np.ndarray:
        """-log p of each token [N] of a text given those before it."""

    def save(self, model: Any, file: Any) -> None:
        """Writes a fitted model to a binary file object, without pickle."""

    def load(self, file: Any) -> Any:
        """Reads a model that `save` wrote."""


FAMILIES: dict[str, Family] = {
    "decoder": decoder,
    "ngram": ngram,
    "recurrent_encoder_decoder": recurrent_encoder_decoder,
}


def find(name: str) -> Family:
    """The family of this name. Raises ValueError, with the known names, for any other."""
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
    """(family, Config) of a `model` section in which 0 may mean "derive this value"."""
    section = dict(section)
    family = find(section.pop("family", "decoder"))
    return family, family.derive(section)


def read(section: Mapping[str, Any]) -> tuple[Family, Any]:
    """(family, Config) of a resolved `model` section. A section without a family, as in older
    runs, is a decoder.
    """
    section = dict(section)
    family = find(section.pop("family", "decoder"))
    return family, family.Config(**{key: _hashable(value) for key, value in section.items()})


def _hashable(value: Any) -> Any:
    """Converts lists from JSON to tuples."""
    return tuple(_hashable(item) for item in value) if isinstance(value, list) else value
