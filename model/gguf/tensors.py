"""The tensors of a GGUF file: names, and arrays as llama.cpp's architectures have them.

A matrix is stored as [outputs, inputs], the transpose of ours, layer by layer.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from model import parameters
from model.gguf import layouts
from model.gguf.layouts import Layout
from model.transformer import positions
from model.transformer.config import ModelConfig

# {our module: theirs}; {} stands for the layer. Norms around branches as in Gemma.
NAMES = {
    "embed": "token_embd",
    "position": "position_embd",
    "final_norm": "output_norm",
    "head": "output",
    "blocks/attention_norm": "blk.{}.attn_norm",
    "blocks/attention/query": "blk.{}.attn_q",
    "blocks/attention/key": "blk.{}.attn_k",
    "blocks/attention/value": "blk.{}.attn_v",
    "blocks/attention/out": "blk.{}.attn_output",
    "blocks/attention/query_norm": "blk.{}.attn_q_norm",
    "blocks/attention/key_norm": "blk.{}.attn_k_norm",
    "blocks/attention_post_norm": "blk.{}.post_attention_norm",
    "blocks/mlp_norm": "blk.{}.ffn_norm",
    "blocks/mlp/gate": "blk.{}.ffn_gate",
    "blocks/mlp/up": "blk.{}.ffn_up",
    "blocks/mlp/down": "blk.{}.ffn_down",
    "blocks/mlp_post_norm": "blk.{}.post_ffw_norm",
}
# {theirs: ours, concatenated along the outputs} of layouts with `fused`.
FUSED = {
    "blk.{}.attn_qkv": tuple(f"blocks/attention/{name}" for name in layouts.QKV),
    "blk.{}.ffn_up": ("blocks/mlp/gate", "blocks/mlp/up"),
}
LEAVES = {"kernel": "weight", "embedding": "weight", "scale": "weight", "bias": "bias"}


def arrays(cfg: ModelConfig, params: dict, model_type: str) -> Iterator[tuple[str, np.ndarray]]:
    """(name, float32 array) of each tensor, one at a time. ValueError if the parameters are not
    those of `cfg`."""
    layout, leaves = layouts.find(model_type), parameters.flat(params)
    joined = _joined(layout, leaves)
    for theirs, ours in joined.items():
        for leaf, name in LEAVES.items():
            paths = [f"{module}/{leaf}" for module in ours if f"{module}/{leaf}" in leaves]
            if not paths:
                continue
            for layer in range(cfg.n_layers) if "{}" in theirs else (None,):
                parts = [_array(cfg, layout, path, leaves[path], layer) for path in paths]
                yield f"{theirs.format(layer)}.{name}", np.concatenate(parts)
    yield from rope_factors(cfg)


def _joined(layout: Layout, leaves: dict) -> dict[str, tuple[str, ...]]:
    """{their module: our modules that it consists of}, of a model with these parameters."""
    modules = {path.rpartition("/")[0] for path in leaves}
    found = {theirs: (ours,) for ours, theirs in NAMES.items() if ours in modules}
    for theirs, ours in FUSED.items() if layout.fused else ():
        if set(ours) <= modules:
            for one in ours:
                found.pop(NAMES[one], None)
            found[theirs] = ours
    return found


def _array(cfg: ModelConfig, layout: Layout, path: str, leaf: Any, layer: int | None) -> np.ndarray:
    """One parameter of one layer, float32, as the layout has it."""
    array = np.asarray(leaf if layer is None else leaf[layer]).astype(np.float32)
    module, kind = path.rsplit("/", 1)
    if kind == "kernel":
        array = array.T
    if kind == "scale" and layout.offset:
        array = array + 1
    if layout.interleaved and module.endswith(("attention/query", "attention/key")):
        array = interleaved(array, cfg.head_dim)
    return np.ascontiguousarray(array)


def interleaved(rows: np.ndarray, head_dim: int) -> np.ndarray:
    """The rows [X, …] of query or key, so that the rotary pairs (i, i + R) of a head become
    neighbours, (2i, 2i + 1)."""
    halves = rows.reshape(-1, 2, head_dim // 2, *rows.shape[1:])
    return halves.swapaxes(1, 2).reshape(rows.shape)


def rope_factors(cfg: ModelConfig) -> Iterator[tuple[str, np.ndarray]]:
    """Divisors of rotary frequencies [R], which llama.cpp reads as tensors."""
    if cfg.rope_scaling == "llama3":
        scaled, _ = positions.llama3(cfg, cfg.context_length)
        yield "rope_freqs.weight", _single(positions.base_frequencies(cfg, cfg.rope_theta) / scaled)
    if cfg.rope_scaling == "longrope":
        yield "rope_factors_short.weight", _single(cfg.rope_short_factors)
        yield "rope_factors_long.weight", _single(cfg.rope_long_factors)


def _single(values: Any) -> np.ndarray:
    return np.asarray(values, np.float64).astype(np.float32)
