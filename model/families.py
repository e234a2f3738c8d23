"""The model families: their interface, and the table FAMILIES.

A family is a module with the functions of `Trained` or of `Counted`. Training, sweeps, counts of
parameters and FLOPs, sharding and reports use a model only through this interface.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from model.captioner import family as captioner
from model.conventions import CONVENTIONS as CONVENTIONS
from model.counted import ngram
from model.embeddings import glove, lsa, word2vec
from model.encoder import family as encoder
from model.encoder_decoder import family as encoder_decoder
from model.generation import by_steps
from model.recurrent import encoder_decoder as recurrent_encoder_decoder
from model.recurrent import language_model as recurrent
from model.transformer import family as decoder


class Family(Protocol):
    """The interface that trained and counted families share. `cfg` is an instance of `Config`.
    Optional: `vectors(cfg, fitted)`, the vector of each token [V, D], dense or sparse, from the
    parameters or the fitted model."""

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
                                   list ends after one of the tokens `stop`
    READER                         how the family reads prompts and draws tokens, a `Reader` of
                                   model/generation/sample.py, if not by `start` and `step`
    start(cfg, params, batch, length)
                                   the cache of a batch of rows before their first token; an
                                   encoder–decoder reads the sources of the batch. `length`: the
                                   most tokens that will be given to `step`
    step(cfg, params, cache, tokens)
                                   (logits [B, V] after one more token [B] of each row, cache). The
                                   first axis of each array in a cache is the row
    masked_logits(cfg, params, x)  logits [B, K, V], float32, of masked tokens from their hidden
                                   states [B, K, D]. An encoder has it in place of `head` and
                                   `logits`, because it gives no distribution of the next token
    pooled(cfg, params, batch, key)
                                   the state [B, D] of each row that a classification head reads:
                                   model/classes.py says what else a classifier has
    HEADS                          path regexes of parameters that a model may lack, or have anew,
                                   when it starts from other weights
    LINEARS                        a path regex: the kernels [L, in, out] of its Linears in blocks,
                                   which adapters may change and a frozen base may quantise
    weight_flops(cfg)              with LINEARS: FLOPs per token of one of the three passes through
                                   the weights, for each of CONVENTIONS and for matmul_flops
                                   ("matmul"); a frozen weight has no gradient and saves it
    initial_carry(cfg, rows)       the state of rows before their first token, arrays [rows, ...];
                                   what a config with `carry_state` takes from step to step
    hidden_from(cfg, params, batch, carry, key)
                                   (what `hidden` returns, the state after), from a state
    layers(cfg, params, batch)     states [N, B, T, D] layer by layer, which `logits` can read;
                                   the last is what `hidden` returns
    activations(cfg, params, batch), edited(cfg, params, batch, edits)
                                   (what `hidden` returns, its activations by name), and `hidden`
                                   with activations changed: model/transformer/hooks.py
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
    """A family that is fitted by counting in one pass, without gradients, with numpy only. An
    optional member is what sampling needs:

    distribution(model, context)   p of each token [V], float64, after a list of tokens [N]
    """

    def fit(self, cfg: Any, texts: list[np.ndarray]) -> Any:
        """Fits a model to token sequences; raises model.keys.Unfit if they do not allow it."""

    def count(self, model: Any) -> dict[str, int]:
        """Parameters of a fitted model by component."""

    def nats(self, model: Any, tokens: np.ndarray) -> np.ndarray:
        """-log p of each token [N] of a text given those before it."""

    def save(self, model: Any, file: Any) -> None:
        """Writes a fitted model to a binary file object, without pickle."""

    def load(self, file: Any) -> Any:
        """Reads a model that `save` wrote."""

    # Optional, instead of `nats`, for models without the probability of a token:
    # OBJECTIVE                      the name of the objective that measures the model
    # rows(model, texts)             the sums over each text that its METRICS use


FAMILIES: dict[str, Family] = {
    "decoder": decoder,
    "ngram": ngram,
    "recurrent": recurrent,
    "encoder_decoder": encoder_decoder,
    "encoder": encoder,
    "word2vec": word2vec,
    "glove": glove,
    "lsa": lsa,
    "recurrent_encoder_decoder": recurrent_encoder_decoder,
    "captioner": captioner,
}


def find(name: str) -> Family:
    """The family of this name. Raises ValueError, with the known names, for any other."""
    if name not in FAMILIES:
        raise ValueError(f"model.family={name!r} is unknown; use one of {', '.join(FAMILIES)}")
    return FAMILIES[name]


def name_of(family: Family) -> str:
    """The name of a family in FAMILIES."""
    return next(name for name, known in FAMILIES.items() if known is family)


def is_counted(family: Family) -> bool:
    """Whether the family is counted rather than trained."""
    return hasattr(family, "fit")


def reader(family: Family) -> Any:
    """How a trained family reads tokens: a `Reader` of model/generation/sample.py."""
    return getattr(family, "READER", None) or by_steps.reader(family)


def carries(cfg: Any) -> bool:
    """Whether a model takes its state from one step to the next."""
    return getattr(cfg, "carry_state", False)


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
