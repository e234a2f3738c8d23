"""Writes a model as one GGUF file, which llama.cpp and the programs around it read.

Format: github.com/ggml-org/ggml, docs/gguf.md. The package gguf writes the container and quantises.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from model.gguf import layouts, tensors
from model.transformer.config import ModelConfig

# {name: (its file type in GGUF, weights of a block along the inputs)}.
TYPES = {"f32": (0, 1), "f16": (1, 1), "q8_0": (7, 32), "q4_0": (2, 32)}
NOT_WRITTEN = ("q4_k", "q4_k_m", "q4_k_s", "q5_k", "q6_k", "q3_k", "q2_k")
KEPT = ("position_embd.weight", "rope_")  # float32 in every file, as llama.cpp's own converter has


class Written(NamedTuple):
    """What `write` wrote."""

    size: int  # bytes
    left: tuple[str, ...]  # matrices in float16, because no block divides their rows


def check_type(kind: str) -> None:
    """ValueError for a type that cannot be written."""
    if kind in NOT_WRITTEN:
        raise ValueError(
            f"gguf_type={kind!r}: the package gguf reads this type but cannot quantise to it; "
            f"write f16, then llama.cpp's llama-quantize FILE.gguf {kind.upper()}"
        )
    if kind not in TYPES:
        raise ValueError(f"gguf_type={kind!r} is unknown; use one of {', '.join(TYPES)}")


def check(cfg: ModelConfig, model_type: str, vocabulary: Mapping[str, Any], kind: str) -> None:
    """ValueError, in one line, for a model, a type or a vocabulary that `write` refuses."""
    check_type(kind)
    layouts.check(cfg, model_type)
    if len(tokens := vocabulary.get("tokens", ())) not in (0, cfg.vocab_size):
        raise ValueError(
            f"model.vocab_size={cfg.vocab_size} rows of the embedding for {len(tokens)} tokens of "
            "the tokenizer: llama.cpp needs one row for each token; train with model.vocab_size=0"
        )


def write(
    path: Path,
    cfg: ModelConfig,
    params: dict,
    model_type: str,
    vocabulary: Mapping[str, Any],
    kind: str = "f16",
    name: str = "",
) -> Written:
    """Writes `path`. `vocabulary` has the keys of the tokenizer, without their prefix, for example
    from `data/tokenizer_files/gguf.py`. Vectors stay float32, and matrices whose rows are no
    multiple of a block become float16. Raises ValueError for a model, a type or a vocabulary that
    does not fit, ImportError without the package gguf."""
    import gguf

    check(cfg, model_type, vocabulary, kind)
    layout = layouts.find(model_type)
    writer = gguf.GGUFWriter(path, layout.arch)
    writer.add_type("model")
    writer.add_quantization_version(2)
    writer.add_file_type(TYPES[kind][0])
    if name:
        writer.add_name(name)
    for key, value in layouts.keys(cfg, model_type).items():
        _add(writer, f"{layout.arch}.{key}", value)
    for key, value in vocabulary.items():
        _add(writer, key if key.startswith("tokenizer.") else f"tokenizer.ggml.{key}", value)
    left = _describe(writer, tensors.arrays(cfg, params, model_type), kind)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for tensor, array in tensors.arrays(cfg, params, model_type):
            writer.write_tensor_data(encoded(array, type_of(tensor, array.shape, kind)))
    finally:
        writer.close()
    return Written(path.stat().st_size, tuple(left))


def _add(writer: Any, key: str, value: Any) -> None:
    """Adds a key; integers are uint32."""
    import gguf

    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    elif value and type(value[0]) is int:
        kind = gguf.GGUFValueType
        writer.add_key_value(key, value, kind.ARRAY, sub_type=kind.INT32)
    else:
        writer.add_array(key, value)


def _describe(writer: Any, arrays: Any, kind: str) -> list[str]:
    """Adds name, shape and type of each tensor; the matrices that fall back to float16."""
    import gguf

    left = []
    for name, array in arrays:
        found = type_of(name, array.shape, kind)
        if found == "f16" and kind != "f16":
            left.append(name)
        raw = gguf.GGMLQuantizationType[found.upper()]
        shape = array.shape
        if found not in ("f32", "f16"):  # gguf asks for the shape in bytes
            shape = gguf.quant_shape_to_byte_shape(shape, raw)
        size = int(np.prod(shape, dtype=np.int64)) * {"f32": 4, "f16": 2}.get(found, 1)
        dtype = np.dtype({"f32": np.float32, "f16": np.float16}.get(found, np.uint8))
        writer.add_tensor_info(name, shape, dtype, size, raw_dtype=raw)
    return left


def type_of(name: str, shape: tuple[int, ...], kind: str) -> str:
    """The type of one tensor in a file of type `kind`."""
    if len(shape) < 2 or name.startswith(KEPT):
        return "f32"
    return kind if shape[-1] % TYPES[kind][1] == 0 else "f16"


def encoded(array: np.ndarray, kind: str) -> np.ndarray:
    """A float32 array as the bytes of a type."""
    import gguf

    if kind in ("f32", "f16"):
        return array.astype({"f32": np.float32, "f16": np.float16}[kind])
    return gguf.quants.quantize(array, gguf.GGMLQuantizationType[kind.upper()])
