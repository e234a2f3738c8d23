"""The models of the tests: golden Hugging Face models, as far as GGUF can hold them."""

import dataclasses
import functools
from pathlib import Path

import numpy as np

from model import parameters
from model.gguf import file
from model.huggingface import config_json
from model.transformer.config import ModelConfig
from tests.model import golden

FOLDER = golden.FOLDER / "hf"
NO_WINDOW = dict(window=0, window_pattern="L", dtype="float32")
# Golden models with a feature that llama.cpp computes otherwise are changed there.
CHANGES = {
    "gpt2": {},
    "llama": {},
    "llama_bias": {},
    "llama_gqa": {},
    "llama_linear": {},
    "mistral": NO_WINDOW,
    "qwen2": {},
    "qwen3": {},
    "phi3": NO_WINDOW,
    "phi3_longrope": {},
    "gemma": {},
    "gemma2": dict(query_scale=0.0),
    "gemma3": dict(query_scale=0.0),
}
# A llama.cpp built as usual rounds their GELU to half precision.
GELU = ("gpt2", "gemma", "gemma2", "gemma3")
TOKENS_T = np.random.default_rng(0).integers(0, 97, 24)
LOGITS = Path(__file__).parents[2] / "golden" / "gguf.npz"


@functools.cache
def case(name: str) -> tuple[ModelConfig, dict, str]:
    """(Config, parameters, model_type) of a case."""
    cfg, params = golden.checkpoint(name)
    cfg = dataclasses.replace(cfg, **CHANGES[name])
    return cfg, params, config_json.read_json(FOLDER / name)["model_type"]


def write(name: str, folder: Path, kind: str = "f32") -> Path:
    """The GGUF file of a case, without a vocabulary."""
    path = folder / f"{name}-{kind}.gguf"
    cfg, params, model_type = case(name)
    file.write(path, cfg, params, model_type, {"model": "none"}, kind)
    return path


def decoded(params: dict, kind: str) -> dict:
    """The parameters that a reader of a file of this type computes with."""
    import gguf

    def read(rows: np.ndarray) -> np.ndarray:  # [outputs, inputs]
        found = file.type_of("blk", rows.shape, kind)
        stored = file.encoded(np.ascontiguousarray(rows), found)
        if found in ("f32", "f16"):
            return stored.astype(np.float32)
        return gguf.quants.dequantize(stored, gguf.GGMLQuantizationType[found.upper()])

    leaves = dict(parameters.flat(params))
    for path, leaf in leaves.items():
        array = np.asarray(leaf)
        if path.endswith("kernel"):  # [layers, inputs, outputs]
            leaves[path] = np.stack([read(kernel.T).T for kernel in array])
        if path.endswith("embedding"):
            leaves[path] = read(array)
    return parameters.nested(leaves)
