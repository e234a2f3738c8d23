"""Recurrent language models as a family: Elman, Jordan, GRU and LSTM networks, stacked.

model/families.py states the interface. Time is the first axis inside: embeddings, gates and states
of a layer are [T, B, ...].
"""

import dataclasses
import math
import sys
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp

from model.generation import by_steps
from model.generation.sample import sample
from model.generation.samplers import Sampler
from model.partitioning import constrain, platform, require_whole_rows
from model.recurrent.cells import CELLS, State, norm
from model.recurrent.config import Config as Config
from model.recurrent.config import derive as derive
from model.recurrent.count import flops as flops
from model.recurrent.count import matmul_flops as matmul_flops
from model.recurrent.count import parameters as parameters
from model.recurrent.layers import FLOAT, dropout_keys, dropped, inside, kernel_of
from model.recurrent.layers import head as head
from model.recurrent.layers import logits as logits
from model.recurrent.recurrence import recurrence
from model.transformer.layers import product, rows

INPUTS = ("tokens",)  # segments are used too if a batch has them
# The state of a row is whole on its device, so `tensor` splits the vocabulary only.
PARAMETER_AXES = (
    (r"^embed/embedding$", ("vocab", "embed")),
    (r"^layer_\d+/(input|recurrent|candidate|output)/kernel$", ("embed", "vector")),
    (r"^layer_\d+/.*(scale|bias)$", ("vector",)),
    (r"^head/kernel$", ("embed", "vocab")),
)
MATRICES = (
    (r"^layer_\d+/.*kernel$", (0, 1)),
    (r"^head/kernel$", None),
    (r"(embedding|scale|bias)$", None),
)
EMBEDDING_STD = 1.0

Carry = dict[str, State]
"""The state of each layer, arrays [B, H]."""


def init(cfg: Config, key: jax.Array) -> dict:
    """Fresh parameters, float32, by `cfg.init`."""
    of_embed, of_head, *of_layers = jax.random.split(key, 2 + cfg.n_layers)
    table_VD = EMBEDDING_STD * jax.random.normal(of_embed, (cfg.vocab_size, cfg.d_model))
    params = {"embed": {"embedding": table_VD}}
    for number, key in enumerate(of_layers):
        params[f"layer_{number}"] = _layer(cfg, cfg.d_hidden if number else cfg.d_model, key)
    if not cfg.tie_embeddings:
        params["head"] = {"kernel": _dense(cfg, of_head, (cfg.d_hidden, cfg.vocab_size))}
    return params


def _uniform(cfg: Config, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """U(-1, 1) / sqrt(H), PyTorch's initial values of every parameter of a cell."""
    width = 1 / math.sqrt(cfg.d_hidden)
    return jax.random.uniform(key, shape, minval=-width, maxval=width)


def _dense(cfg: Config, key: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """A kernel outside the recurrence."""
    if cfg.init == "uniform":
        return _uniform(cfg, key, shape)
    return jax.nn.initializers.lecun_normal()(key, shape)


def _layer(cfg: Config, inputs: int, key: jax.Array) -> dict:
    """The parameters of one layer."""
    cell, H, square = CELLS[cfg.cell], cfg.d_hidden, jax.nn.initializers.orthogonal()
    keys, X = iter(jax.random.split(key, 16)), cell.gates * H

    def recurrent(outputs: int) -> jax.Array:
        if cfg.init == "uniform":
            return _uniform(cfg, next(keys), (H, outputs * H))
        return jnp.concatenate([square(next(keys), (H, H)) for _ in range(outputs)], axis=1)

    def bias(size: int) -> jax.Array:
        if cfg.init == "uniform":
            return _uniform(cfg, next(keys), (size,))
        return jnp.zeros(size)

    layer = {"input": {"kernel": _dense(cfg, next(keys), (inputs, X)), "bias": bias(X)}}
    if cfg.cell == "lstm" and cfg.init == "orthogonal":
        layer["input"]["bias"] = jnp.repeat(jnp.array([0.0, 1.0, 0.0, 0.0]), H)
    for name, outputs in cell.kernels.items():
        layer[name] = {"kernel": recurrent(outputs)}
        if name != "recurrent":
            layer[name]["bias"] = bias(outputs * H)
    if cfg.layer_norm:
        sizes = {"input": X} | {name: outputs * H for name, outputs in cell.kernels.items()}
        layer["norm"] = {name: {"scale": jnp.ones(size)} for name, size in sizes.items()}
        if cfg.cell == "lstm":
            layer["norm"]["cell"] = {"scale": jnp.ones(H), "bias": jnp.zeros(H)}
    return layer


def initial_carry(cfg: Config, rows: int) -> Carry:
    """The state of each row before its first token: zeros."""
    states = CELLS[cfg.cell].states
    zeros = lambda: tuple(jnp.zeros((rows, cfg.d_hidden)) for _ in range(states))  # noqa: E731
    return {f"layer_{number}": zeros() for number in range(cfg.n_layers)}


def hidden(
    cfg: Config, params: dict, batch: Mapping[str, jax.Array], key: jax.Array | None = None
) -> jax.Array:
    """The outputs of the last layer [B, T, H]; with a `key`, dropout is on."""
    return hidden_from(cfg, params, batch, initial_carry(cfg, len(batch["tokens"])), key)[0]


def layers(cfg: Config, params: dict, batch: Mapping[str, jax.Array]) -> jax.Array:
    """The outputs of each layer [L, B, T, H]: what `hidden` returns if the model ends there."""
    found = []
    for number in range(1, cfg.n_layers + 1):
        above = {f"layer_{n}" for n in range(number, cfg.n_layers)}
        below = {name: part for name, part in params.items() if name not in above}
        found.append(hidden(dataclasses.replace(cfg, n_layers=number), below, batch))
    return jnp.stack(found)


def hidden_from(
    cfg: Config,
    params: dict,
    batch: Mapping[str, jax.Array],
    carry: Carry,
    key: jax.Array | None = None,
) -> tuple[jax.Array, Carry]:
    """(the outputs of the last layer [B, T, H], the state after the last token), from a state.

    A token whose segment is not that of the token before it begins with a zero state. Dropout is on
    what enters the first layer, passes between layers and leaves the last: Zaremba et al. 2014.
    """
    keep_TB, after = None, {}
    if "segments" in batch:
        same_BT = batch["segments"][:, 1:] == batch["segments"][:, :-1]
        keep_TB = jnp.pad(same_BT, ((0, 0), (1, 0)), constant_values=True).T
    keys = dropout_keys(cfg, key)
    x_TBX = _embedded(cfg, params, batch["tokens"].T, keys[0])
    for number in range(cfg.n_layers):
        name, above = f"layer_{number}", f"layer_{number + 1}"
        y_TBH, after[name] = _through(cfg, params[name], x_TBX, keep_TB, carry[name])
        y_TBH = dropped(cfg, y_TBH, keys[number + 1])
        if above in params:
            x_TBX = _projected(cfg, params[above], y_TBH)
    return constrain(y_TBH.swapaxes(0, 1), "batch", "seq", None), after


def _embedded(cfg: Config, params: dict, tokens_TB: jax.Array, key) -> jax.Array:
    """The input product [T, B, X] of the first layer.

    Where the vocabulary is smaller than the batch, each of its tokens is multiplied once, and the
    products are looked up: on a CPU a seventh less time for a step of two layers on bytes. Not
    measured elsewhere.
    """
    table_VD, layer = params["embed"]["embedding"], params["layer_0"]
    if key is None and cfg.vocab_size < tokens_TB.size and platform() == "cpu":
        return rows(_projected(cfg, layer, table_VD), tokens_TB)
    return _projected(cfg, layer, dropped(cfg, rows(table_VD, tokens_TB), key))


def _projected(cfg: Config, layer: dict, x: jax.Array) -> jax.Array:
    """W x + b [..., X], float32: all time steps in one product."""
    x_MI = x.astype(cfg.dtype).reshape(-1, x.shape[-1])
    x_MX = product(x_MI, kernel_of(cfg, layer["input"]), FLOAT)
    if cfg.layer_norm:
        x_MX = norm(x_MX, layer["norm"]["input"])
    return (x_MX + layer["input"]["bias"]).reshape(*x.shape[:-1], -1)


def _through(cfg, layer: dict, x_TBX, keep_TB, state: State) -> tuple[jax.Array, State]:
    """The recurrence of one layer: its outputs [T, B, H] and its last state."""
    x_TBX = constrain(x_TBX, None, "batch", None)
    kernels, added = inside(cfg, layer, x_TBX.shape[:2])
    norms = {name: of for name, of in layer.get("norm", {}).items() if name != "input"}
    how = CELLS[cfg.cell], cfg.unroll, kernels, norms
    y_TBH, state = recurrence(*how, x_TBX, added, keep_TB, state)
    return y_TBH.astype(cfg.dtype), state


def start(cfg: Config, params: dict, batch: Mapping[str, jax.Array], length: int) -> Carry:
    """The cache of a batch of rows before their first token, for any number of tokens."""
    return initial_carry(cfg, len(batch["tokens"]))


def step(cfg: Config, params: dict, cache: Carry, tokens_B: jax.Array) -> tuple[jax.Array, Carry]:
    """(logits [B, V] after one more token of each row, the cache with it in)."""
    x_B1H, cache = hidden_from(cfg, params, {"tokens": tokens_B[:, None]}, cache)
    return logits(cfg, head(cfg, params), x_B1H)[:, 0], cache


def generate(
    cfg: Config,
    params: dict,
    prompts: Sequence[Sequence[int]],
    n_tokens: int,
    seed: int,
    vocab_size: int,
    stop: tuple[int, ...],
) -> list[list[int]]:
    """Up to `n_tokens` tokens after each prompt, drawn from the model's own distribution, up to one
    of `stop`."""
    sampler, family = Sampler(vocab_size=vocab_size, stop=stop), sys.modules[__name__]
    drawn = sample(
        params, cfg, prompts, n_tokens, sampler, seed=seed, reader=by_steps.reader(family)
    )
    rows = zip(drawn.tokens_BN, drawn.lengths_B, strict=True)
    return [tokens[:count].tolist() for tokens, count in rows]


def check_mesh(cfg: Config, sizes: Mapping[str, int]) -> None:
    """Raises ValueError if the mesh splits time: a state needs the one before it."""
    require_whole_rows("recurrent", sizes)
