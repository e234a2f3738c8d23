"""Recurrent encoder–decoders as a family (model/families.py states the interface).

    context="initial"    the encoder's last state is the decoder's first: Sutskever et al. 2014
    context="every"      c = tanh(V h), an input of every step and of the readout: Cho et al. 2014
    context="attention"  additive attention to the encoder's outputs: Bahdanau et al. 2015

Time is the first axis inside, as in `language_model.py`. Letters beside those of `attentive.py`:

    W directions, N 1 or, if rows are packed, T: the pairs of a row, one for each target token
"""

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from model.partitioning import constrain, require_whole_rows
from model.recurrent.attentive import attentive, started, whole
from model.recurrent.cells import CELLS
from model.recurrent.layers import FLOAT, dropout_keys, dropped, inside, kernel_of
from model.recurrent.layers import head as head
from model.recurrent.layers import logits as logits
from model.recurrent.recurrence import recurrence
from model.recurrent.sizes import DIRECTIONS, context_width, readout_width
from model.recurrent.sizes import Config as Config
from model.recurrent.sizes import derive as derive
from model.recurrent.sizes import flops as flops
from model.recurrent.sizes import matmul_flops as matmul_flops
from model.recurrent.sizes import parameters as parameters
from model.transformer.layers import product, rows

INPUTS = ("source", "source_segments", "tokens", "segments")  # positions say that rows are packed
# The state of a row is whole on its device, so `tensor` splits the vocabulary only.
PARAMETER_AXES = (
    (r"^embed/embedding$", ("vocab", "embed")),
    (r"^attention/score/kernel$", ("vector",)),
    (r"^head/kernel$", ("embed", "vocab")),
    (r"kernel$", ("embed", "vector")),
    (r"bias$", ("vector",)),
)
MATRICES = (
    (r"^(head|attention/score)/kernel$", None),
    (r"kernel$", (0, 1)),
    (r"(embedding|bias)$", None),
)
EMBEDDING_STD = 0.1


def init(cfg: Config, key: jax.Array) -> dict:
    """Fresh parameters, float32: recurrent kernels orthogonal, the others N(0, 1 / fan_in), biases
    0 but for an LSTM's forget gates, which are open (1)."""
    keys = iter(jax.random.split(key, 64 + 8 * cfg.n_layers))
    normal = jax.nn.initializers.lecun_normal()
    H, D, C = cfg.d_hidden, cfg.d_model, context_width(cfg)
    X, directions = CELLS[cfg.cell].gates * H, DIRECTIONS[cfg.directions]

    def kernel(inputs: int, outputs: int) -> dict:
        return {"kernel": normal(next(keys), (inputs, outputs))}

    def linear(inputs: int, outputs: int) -> dict:
        return kernel(inputs, outputs) | {"bias": jnp.zeros(outputs)}

    table_VD = EMBEDDING_STD * jax.random.normal(next(keys), (cfg.vocab_size, D))
    params = {"embed": {"embedding": table_VD}, "encoder": {}, "decoder": {}}
    for number in range(cfg.n_layers):
        inputs = len(directions) * H if number else D
        for direction in directions:
            params["encoder"][f"{direction}_{number}"] = _layer(cfg, inputs, next(keys))
        params["decoder"][f"layer_{number}"] = _layer(cfg, H if number else D, next(keys))
    if cfg.context != "initial":
        params["bridge"] = {f"layer_{number}": linear(H, H) for number in range(cfg.n_layers)}
        params["attention"] = {"context": kernel(C, X)}
        readout = linear(H, 2 * D)
        params["readout"] = {
            "state": readout,
            "embed": kernel(D, 2 * D),
            "context": kernel(C, 2 * D),
        }
    if cfg.context == "every":
        params["bridge"]["context"] = linear(H, H)
    if cfg.context == "attention":
        A = cfg.d_attention
        params["attention"] |= {"query": kernel(H, A), "key": kernel(C, A)}
        params["attention"]["score"] = {"kernel": jax.random.normal(next(keys), (A,)) / A**0.5}
    if not cfg.tie_embeddings:
        params["head"] = kernel(readout_width(cfg), cfg.vocab_size)
    return params


def _layer(cfg: Config, inputs: int, key: jax.Array) -> dict:
    """The parameters of one layer of cells."""
    cell, H = CELLS[cfg.cell], cfg.d_hidden
    first, *others = jax.random.split(key, 1 + cell.gates)
    orthogonal, others = jax.nn.initializers.orthogonal(), iter(others)
    bias_X = jnp.zeros(cell.gates * H)
    if cfg.cell == "lstm":
        bias_X = jnp.repeat(jnp.array([0.0, 1.0, 0.0, 0.0]), H)
    kernel = jax.nn.initializers.lecun_normal()(first, (inputs, cell.gates * H))
    layer = {"input": {"kernel": kernel, "bias": bias_X}}
    for name, outputs in cell.kernels.items():
        squares = [orthogonal(next(others), (H, H)) for _ in range(outputs)]
        layer[name] = {"kernel": jnp.concatenate(squares, axis=1)}
        if name != "recurrent":  # the bias of "recurrent" is that of the input
            layer[name]["bias"] = jnp.zeros(outputs * H)
    return layer


def hidden(
    cfg: Config, params: dict, batch: Mapping[str, jax.Array], key: jax.Array | None = None
) -> jax.Array:
    """What the head reads [B, T, R] after each token of the target; with a `key`, dropout is on."""
    of_encoder, of_decoder = (None, None) if key is None else jax.random.split(key)
    segments_BT, packed = batch["segments"], "positions" in batch
    places_BN = segments_BT if packed else jnp.ones_like(segments_BT[:, :1])
    source, first = encode(cfg, params, batch, places_BN, of_encoder)
    decode_from = functools.partial(_decode, cfg, params, batch["tokens"], segments_BT, source)
    if not packed:
        return decode_from({name: x_BNZ[:, 0] for name, x_BNZ in first.items()}, key=of_decoder)[0]
    new_BT = jnp.pad(
        segments_BT[:, 1:] != segments_BT[:, :-1], ((0, 0), (1, 0)), constant_values=True
    )
    first = {name: jnp.where(new_BT[..., None], x_BNZ, 0) for name, x_BNZ in first.items()}
    zeros = {name: jnp.zeros_like(x_BNZ[:, 0]) for name, x_BNZ in first.items()}
    return decode_from(zeros, first, ~new_BT.T, key=of_decoder)[0]


def encode(
    cfg: Config,
    params: dict,
    batch: Mapping[str, jax.Array],
    places_BN: jax.Array,
    key: jax.Array | None = None,
) -> tuple[dict, dict[str, jax.Array]]:
    """(what the decoder reads of the source, the first state of each of its layers [B, N, Z]) for
    the pairs of the segments `places`.

    It reads the `memory` of attention, or a `context` [B, N, C], or nothing.
    """
    source_BS, segments_BS = batch["source"], batch["source_segments"]
    same_BS = segments_BS[:, 1:] == segments_BS[:, :-1]
    keep = {
        "forward": jnp.pad(same_BS, ((0, 0), (1, 0))).T,
        "backward": jnp.pad(same_BS, ((0, 0), (0, 1))).T,
    }
    keys = dropout_keys(cfg, key)
    x_SBI = rows(params["embed"]["embedding"], source_BS.T).astype(cfg.dtype)
    H, ends = cfg.d_hidden, {}
    at_BN1 = _ends(cfg, segments_BS, places_BN)[..., None]
    for number in range(cfg.n_layers):
        x_SBI, outputs = dropped(cfg, x_SBI, keys[number]), []
        for direction in DIRECTIONS[cfg.directions]:
            layer = params["encoder"][f"{direction}_{number}"]
            backward = direction == "backward"
            states_SBZ = _read(cfg, layer, x_SBI, keep[direction], backward)
            outputs.append(states_SBZ[..., :H])
        ends[f"layer_{number}"] = jnp.take_along_axis(states_SBZ.swapaxes(0, 1), at_BN1, axis=1)
        x_SBI = jnp.concatenate(outputs, axis=-1).astype(cfg.dtype)
    if cfg.context == "initial":
        return {}, ends
    ends = {name: x_BNZ[..., :H] for name, x_BNZ in ends.items()}
    if cfg.context == "every":
        context_BNC = _bridged(params, "context", ends[f"layer_{cfg.n_layers - 1}"])
        return {"context": context_BNC}, _first(cfg, params, dict.fromkeys(ends, context_BNC))
    values_BSC = dropped(cfg, x_SBI, keys[-1]).swapaxes(0, 1)
    keys_BSA = _product(cfg, values_BSC, params["attention"]["key"])
    memory = {"values": values_BSC.astype(FLOAT), "keys": keys_BSA}
    memory["segments"] = segments_BS.astype(FLOAT)
    return {"memory": memory}, _first(cfg, params, ends)


def _ends(cfg: Config, segments_BS: jax.Array, places_BN: jax.Array) -> jax.Array:
    """Where the last direction has read all of the source of each segment [B, N]: at its last token
    or, from behind, at its first. Segments 1, 2, … follow one another from the first token on."""
    real_BS, k_BN1 = segments_BS[:, None] > 0, places_BN[..., None]
    if DIRECTIONS[cfg.directions][-1] == "backward":
        return (real_BS & (segments_BS[:, None] < k_BN1)).sum(-1)
    return jnp.maximum((real_BS & (segments_BS[:, None] <= k_BN1)).sum(-1) - 1, 0)


def _read(cfg: Config, layer: dict, x_SBI: jax.Array, keep_SB: jax.Array, backward: bool):
    """All states [S, B, Z] of a layer of the encoder."""
    x_SBX = _gates(cfg, layer, x_SBI)
    if backward:
        x_SBX, keep_SB = x_SBX[::-1], keep_SB[::-1]
    kernels, added = inside(cfg, layer, x_SBI.shape[:2])
    state = (jnp.zeros((x_SBI.shape[1], CELLS[cfg.cell].states * cfg.d_hidden)),)
    states_SBZ, _ = recurrence(
        whole(cfg.cell), cfg.unroll, kernels, {}, x_SBX, added, keep_SB, state
    )
    return states_SBZ[::-1] if backward else states_SBZ


def _first(cfg: Config, params: dict, ends: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """The first states of the decoder's layers, tanh(W h) [B, N, Z]; an LSTM's cells are 0. The
    state of an attentive layer has a place for the context."""
    first = {}
    for name, end_BNH in ends.items():
        h_BNH = _bridged(params, name, end_BNH)
        size = (CELLS[cfg.cell].states - 1) * cfg.d_hidden
        if cfg.context == "attention" and name == "layer_0":
            size += context_width(cfg)
        first[name] = jnp.pad(h_BNH, ((0, 0), (0, 0), (0, size)))
    return first


def _bridged(params: dict, name: str, x_BNH: jax.Array) -> jax.Array:
    linear = params["bridge"][name]
    return jnp.tanh(x_BNH @ linear["kernel"].astype(FLOAT) + linear["bias"])


def _decode(
    cfg: Config,
    params: dict,
    tokens_BT: jax.Array,
    segments_BT: jax.Array,
    source: dict,
    states: dict[str, jax.Array],
    first: dict[str, jax.Array] | None = None,
    keep_TB: jax.Array | None = None,
    key: jax.Array | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """(what the head reads [B, T, R], the states after the last token) from the states [B, Z] of
    the layers before the first. In packed rows `first` holds what is added to the state before each
    token [B, T, Z], and `keep` whether the state before it counts."""
    keys, context_TBC = dropout_keys(cfg, key), None
    embedded_TBD = rows(params["embed"]["embedding"], tokens_BT.T).astype(cfg.dtype)
    x_TBI, after, Z = embedded_TBD, {}, CELLS[cfg.cell].states * cfg.d_hidden
    for number in range(cfg.n_layers):
        name = f"layer_{number}"
        layer, cell = params["decoder"][name], whole(cfg.cell)
        x_TBX = _gates(cfg, layer, dropped(cfg, x_TBI, keys[number]))
        kernels, added = inside(cfg, layer, x_TBI.shape[:2])
        arrays = {}
        if number == 0 and "context" in source:
            added_BNX = _product(cfg, source["context"], params["attention"]["context"])
            x_TBX += added_BNX.swapaxes(0, 1)
        if number == 0 and "memory" in source:
            cell, attention = attentive(cfg.cell, cfg.d_hidden), params["attention"]
            x_TBX = jnp.concatenate([x_TBX, segments_BT.T[..., None].astype(FLOAT)], axis=-1)
            kernels |= {n: kernel_of(cfg, attention[n]) for n in ("query", "context")}
            sizes = {n: kernels[n].shape[1] for n in ("query", "context")}
            added |= {n: jnp.zeros((*x_TBI.shape[:2], size)) for n, size in sizes.items()}
            arrays = {"memory": source["memory"], "score": attention["score"]}
        if first is not None:
            size = first[name].shape[-1]
            cell = started(cell, size)
            x_TBX = jnp.concatenate([x_TBX, first[name].swapaxes(0, 1)], axis=-1)
        states_TBZ, (after[name],) = recurrence(
            cell, cfg.unroll, kernels, arrays, x_TBX, added, keep_TB, (states[name],)
        )
        if number == 0 and "memory" in source:
            context_TBC = states_TBZ[..., Z:]
        x_TBI = states_TBZ[..., : cfg.d_hidden].astype(cfg.dtype)
    if "context" in source:
        context_TBC = source["context"].swapaxes(0, 1)
    x_TBR = dropped(cfg, x_TBI, keys[-1])
    if context_TBC is not None:
        x_TBR = _readout(cfg, params["readout"], x_TBR, embedded_TBD, context_TBC)
    return constrain(x_TBR.swapaxes(0, 1), "batch", "seq", None), after


def _readout(
    cfg: Config, readout: dict, x_TBH: jax.Array, embedded_TBD: jax.Array, context_TBC: jax.Array
) -> jax.Array:
    """Maxout over pairs of U s + V E y + C c: Bahdanau et al. 2015, appendix A.2.2, with the state
    s_i of eq. 4 for s_{i-1}."""
    both = _product(cfg, x_TBH, readout["state"]) + readout["state"]["bias"]
    both += _product(cfg, embedded_TBD, readout["embed"])
    both += _product(cfg, context_TBC, readout["context"])
    return both.reshape(*both.shape[:-1], cfg.d_model, 2).max(-1).astype(cfg.dtype)


def _gates(cfg: Config, layer: dict, x_TBI: jax.Array) -> jax.Array:
    """The products of all time steps' inputs with a layer's input kernel, and the bias."""
    x_TBX = _product(cfg, x_TBI, layer["input"]) + layer["input"]["bias"]
    return constrain(x_TBX, None, "batch", None)


def _product(cfg: Config, x: jax.Array, linear: dict) -> jax.Array:
    """x W [..., O] in float32, without the bias."""
    flat_MI = x.reshape(-1, x.shape[-1]).astype(cfg.dtype)
    return product(flat_MI, kernel_of(cfg, linear), FLOAT).reshape(*x.shape[:-1], -1)


def start(cfg: Config, params: dict, batch: Mapping[str, jax.Array], length: int) -> dict:
    """The cache of a batch of sources, one in each row, for any number of tokens."""
    places_B1 = jnp.ones((len(batch["source"]), 1), jnp.int32)
    source, first = encode(cfg, params, batch, places_B1)
    return {"source": source, "states": {name: x_BNZ[:, 0] for name, x_BNZ in first.items()}}


def step(cfg: Config, params: dict, cache: dict, tokens_B: jax.Array) -> tuple[jax.Array, dict]:
    """(logits [B, V] after one more token of each row, the cache with it in)."""
    tokens_B1 = tokens_B[:, None]
    ones_B1 = jnp.ones_like(tokens_B1)
    x_B1R, states = _decode(cfg, params, tokens_B1, ones_B1, cache["source"], cache["states"])
    found_BV = logits(cfg, head(cfg, params), x_B1R)[:, 0]
    return found_BV, {"source": cache["source"], "states": states}


def check_mesh(cfg: Config, sizes: Mapping[str, int]) -> None:
    """Raises ValueError if the mesh splits time: a state needs the one before it."""
    require_whole_rows("recurrent_encoder_decoder", sizes)
