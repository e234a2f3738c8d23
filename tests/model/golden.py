"""Reads the golden files of tests/golden and computes how far isoflop's logits are from them."""

import dataclasses
import functools
import json
import shutil
from pathlib import Path

import jax
import numpy as np

from model import parameters
from model.huggingface import safetensors, weights
from model.transformer.config import ModelConfig
from model.transformer.decoder import Decoder, shapes

FOLDER = Path(__file__).parent.parent / "golden"
TOLERANCE = 5e-5  # logits are about 4; rounding in float32 gives 7e-6
HF = sorted(path.name for path in (FOLDER / "hf").iterdir())

# These tests spend most of their time on compilation.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@functools.cache
def checkpoint(case: str) -> tuple[ModelConfig, dict]:
    """(config, parameters) of a case of hf/; computes in float32 whatever the stored dtype."""
    cfg, params = weights.load(FOLDER / "hf" / case)
    return dataclasses.replace(cfg, dtype="float32"), params


@functools.cache
def expected(case: str) -> dict[str, np.ndarray]:
    """The arrays of expected.npz of a case of hf/, or of an npz of switches/."""
    path = FOLDER / "hf" / case / "expected.npz"
    path = path if path.exists() else FOLDER / "switches" / f"{case}.npz"
    with np.load(path) as file:
        return dict(file)


def logits(cfg: ModelConfig, params: dict, tokens_BT: np.ndarray) -> np.ndarray:
    """Logits [B, T, V]. Parameters that `cfg` does not use are ignored."""
    found = parameters.flat(params)
    used = {path: found[path] for path in parameters.flat(shapes(cfg))}
    with jax.default_matmul_precision("highest"):
        return np.asarray(_logits(parameters.nested(used), cfg, tokens_BT))


@functools.partial(jit, static_argnames="cfg")
def _logits(params: dict, cfg: ModelConfig, tokens_BT: np.ndarray) -> jax.Array:
    return Decoder(cfg).apply({"params": params}, tokens_BT)


def distance(case: str, cfg: ModelConfig, params: dict) -> float:
    """max |Δ logits| between isoflop and the golden file."""
    arrays = expected(case)
    return float(np.abs(logits(cfg, params, arrays["tokens"]) - arrays["logits"]).max())


# Parameter names of the model types of switches/ and ours. A tuple is a fused projection, as in
# name_tables.py.
QKV = ("attention/query", "attention/key", "attention/value")
SWITCHES = {
    "alibi_mpt": {
        "transformer.wte": "embed", "transformer.blocks.0.norm_1": "attention_norm",
        "transformer.blocks.0.attn.Wqkv": QKV,
        "transformer.blocks.0.attn.out_proj": "attention/out",
        "transformer.blocks.0.norm_2": "mlp_norm", "transformer.blocks.0.ffn.up_proj": "mlp/up",
        "transformer.blocks.0.ffn.down_proj": "mlp/down", "transformer.norm_f": "final_norm",
    },
    "parallel_interleaved_gptj": {
        "transformer.wte": "embed", "transformer.h.0.ln_1": "attention_norm",
        "transformer.h.0.attn.q_proj": QKV[0], "transformer.h.0.attn.k_proj": QKV[1],
        "transformer.h.0.attn.v_proj": QKV[2], "transformer.h.0.attn.out_proj": "attention/out",
        "transformer.h.0.mlp.fc_in": "mlp/up", "transformer.h.0.mlp.fc_out": "mlp/down",
        "transformer.ln_f": "final_norm", "lm_head": "head",
    },
    "parallel_partial_phi": {
        "model.embed_tokens": "embed", "model.layers.0.input_layernorm": "attention_norm",
        "model.layers.0.self_attn.q_proj": QKV[0], "model.layers.0.self_attn.k_proj": QKV[1],
        "model.layers.0.self_attn.v_proj": QKV[2],
        "model.layers.0.self_attn.dense": "attention/out",
        "model.layers.0.mlp.fc1": "mlp/up", "model.layers.0.mlp.fc2": "mlp/down",
        "model.final_layernorm": "final_norm", "lm_head": "head",
    },
    "relu_opt": {
        "model.decoder.embed_tokens": "embed", "model.decoder.embed_positions": "position",
        "model.decoder.layers.0.self_attn_layer_norm": "attention_norm",
        "model.decoder.layers.0.self_attn.q_proj": QKV[0],
        "model.decoder.layers.0.self_attn.k_proj": QKV[1],
        "model.decoder.layers.0.self_attn.v_proj": QKV[2],
        "model.decoder.layers.0.self_attn.out_proj": "attention/out",
        "model.decoder.layers.0.final_layer_norm": "mlp_norm",
        "model.decoder.layers.0.fc1": "mlp/up", "model.decoder.layers.0.fc2": "mlp/down",
        "model.decoder.final_layer_norm": "final_norm",
    },
    "relu2_nemotron": {
        "model.embed_tokens": "embed", "model.layers.0.input_layernorm": "attention_norm",
        "model.layers.0.self_attn.q_proj": QKV[0], "model.layers.0.self_attn.k_proj": QKV[1],
        "model.layers.0.self_attn.v_proj": QKV[2],
        "model.layers.0.self_attn.o_proj": "attention/out",
        "model.layers.0.post_attention_layernorm": "mlp_norm",
        "model.layers.0.mlp.up_proj": "mlp/up",
        "model.layers.0.mlp.down_proj": "mlp/down", "model.norm": "final_norm", "lm_head": "head",
    },
    "sinusoidal_ctrl": {
        "transformer.w": "embed", "transformer.h.0.layernorm1": "attention_norm",
        "transformer.h.0.multi_head_attention.Wq": QKV[0],
        "transformer.h.0.multi_head_attention.Wk": QKV[1],
        "transformer.h.0.multi_head_attention.Wv": QKV[2],
        "transformer.h.0.multi_head_attention.dense": "attention/out",
        "transformer.h.0.layernorm2": "mlp_norm", "transformer.h.0.ffn.0": "mlp/up",
        "transformer.h.0.ffn.2": "mlp/down", "transformer.layernorm": "final_norm",
    },
}  # fmt: skip
SWITCHES["post_opt"] = {
    theirs: {"attention_norm": "attention_post_norm", "mlp_norm": "mlp_post_norm"}.get(ours, ours)
    for theirs, ours in SWITCHES["relu_opt"].items()
    if ours != "final_norm"
}

_BASE = ModelConfig(
    vocab_size=97, context_length=48, n_layers=1, d_model=40, n_heads=4, n_kv_heads=4, head_dim=10,
    d_ff=56,
)  # fmt: skip
_PHI = dict(positions="rotary", rope_theta=500.0, rope_fraction=0.6, n_kv_heads=2)
CONFIGS = {
    "alibi_mpt": dict(
        d_model=36, n_heads=6, n_kv_heads=6, head_dim=6, d_ff=144, positions="alibi",
        norm_bias=False, activation="gelu", attention_bias=False, mlp_bias=False,
    ),
    "parallel_interleaved_gptj": dict(
        norm_position="parallel", positions="rotary", rope_layout="interleaved", rope_fraction=0.4,
        attention_bias=False, tie_embeddings=False,
    ),
    "parallel_partial_phi": dict(norm_position="parallel", tie_embeddings=False, **_PHI),
    "relu_opt": dict(activation="relu"),
    "post_opt": dict(activation="relu", norm_position="post"),
    "relu2_nemotron": dict(
        d_ff=52, activation="relu2", attention_bias=False, mlp_bias=False, tie_embeddings=False,
        **_PHI,
    ),
    "sinusoidal_ctrl": dict(
        activation="relu", positions="sinusoidal", embedding_scale=True, norm_eps=1e-6
    ),
}  # fmt: skip


def _outputs(path: str, cfg: ModelConfig) -> int:
    """Number of outputs of a query, key or value projection."""
    return (cfg.n_heads if path == QKV[0] else cfg.n_kv_heads) * cfg.head_dim


@functools.cache
def switch(case: str) -> tuple[ModelConfig, dict]:
    """A case of switches/ as isoflop's config and parameters."""
    cfg = dataclasses.replace(_BASE, **CONFIGS[case])
    arrays, leaves = expected(case), {}
    for theirs, ours in SWITCHES[case].items():
        paths = (ours,) if isinstance(ours, str) else ours
        for name in ("weight", "bias"):
            array = arrays.get(f"weight/{theirs}.{name}")
            if array is None or (ours, name) == ("head", "bias"):  # the head's bias is zero
                continue
            kind = "bias" if name == "bias" else _kind(paths[0])
            ends = np.cumsum([_outputs(path, cfg) for path in paths])[:-1]
            parts = np.split(array, ends) if len(paths) > 1 else [array]
            for path, part in zip(paths, parts, strict=True):
                part = part.T if kind == "kernel" else part
                outside = path in ("embed", "position", "head", "final_norm")
                leaves[path if outside else f"blocks/{path}", kind] = (
                    part if outside else part[None]
                )
    leaves = {f"{path}/{kind}": array for (path, kind), array in leaves.items()}
    return cfg, parameters.nested(ADJUSTMENTS.get(case, lambda leaves: leaves)(leaves))


def _kind(path: str) -> str:
    """The name of isoflop's leaf for a `weight` of transformers."""
    if path in ("embed", "position"):
        return "embedding"
    return "scale" if path.endswith("norm") else "kernel"


def _offset_norms(leaves: dict) -> dict:
    """Nemotron's LayerNorm multiplies by 1 + weight."""
    return {p: 1 + leaf if p.endswith("scale") else leaf for p, leaf in leaves.items()}


def _used_rows(leaves: dict) -> dict:
    """OPT does not use the first two rows of its position table."""
    return leaves | {"position/embedding": leaves["position/embedding"][2:]}


def _alternating(leaves: dict) -> dict:
    """CTRL puts all sines before all cosines; isoflop alternates them.

    So d_model is reordered, on the axis of each array that reads or writes the residual stream.
    """
    width = leaves["embed/embedding"].shape[1]
    order = np.arange(width).reshape(2, -1).T.reshape(-1)
    inner = ("out/kernel", "down/kernel")
    reordered = {}
    for path, leaf in leaves.items():
        if path.endswith(inner) or path.startswith(("embed", "final_norm")) or "_norm/" in path:
            reordered[path] = leaf[..., order]
        elif path.endswith("kernel"):
            reordered[path] = leaf[:, order]
        else:
            outer = path.endswith(("out/bias", "down/bias"))
            reordered[path] = leaf[..., order] if outer else leaf
    return reordered


ADJUSTMENTS = {
    "relu2_nemotron": _offset_norms,
    "relu_opt": _used_rows,
    "post_opt": _used_rows,
    "sinusoidal_ctrl": _alternating,
}


def config_json(case: str, older: bool = False) -> dict:
    """config.json of a case of hf/, or older_config.json."""
    name = "older_config.json" if older else "config.json"
    return json.loads((FOLDER / "hf" / case / name).read_text())


def read_all(directory: Path) -> dict[str, np.ndarray]:
    """Every tensor of a checkpoint by name, except the causal masks of the first GPT-2."""
    arrays = {}
    for name, tensor in safetensors.tensors(directory).items():
        if name.endswith(".attn.bias"):
            continue
        arrays[name] = np.empty(tensor.shape, safetensors.DTYPES[tensor.dtype])
        tensor.read(slice(None), slice(None), arrays[name])
    return arrays


def copy(case: str, folder: Path, **changes) -> Path:
    """Copies a case and changes keys of config.json; None removes a key."""
    shutil.copytree(FOLDER / "hf" / case, folder / "model")
    keys = config_json(case) | changes
    keys = {key: value for key, value in keys.items() if value is not None}
    (folder / "model" / "config.json").write_text(json.dumps(keys))
    return folder / "model"
