"""Loads and saves checkpoints in Hugging Face's format, without torch.

`load` reads tensor by tensor, directly into the arrays, or slices of arrays, that devices hold.
`save` writes a folder that transformers loads. Dtypes are kept: a round trip changes no bit.
"""

import concurrent.futures
import contextlib
import functools
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from model import parameters
from model.huggingface import config_json, derived, safetensors
from model.huggingface.name_tables import Family

ALIGNMENT = 64  # bytes; on CPU JAX uses an array that starts at a multiple without copying it
THREADS = 4  # readers of a parameter's layers
SHARD = 5_000_000_000  # bytes of one file
HEAD = "lm_head.weight"
LEAVES = {"kernel": "weight", "embedding": "weight", "scale": "weight", "bias": "bias"}
"""{our name of a leaf: theirs}."""


@dataclass(frozen=True)
class Source:
    """The source of one of our parameters: one tensor per layer, or one tensor in total.

    The parameter is the tensor's outputs from `offset` on.
    """

    template: str  # the tensor's name; {} stands for the layer
    offset: int
    transposed: bool  # the tensor is [out, in]
    shape: tuple[int, ...]  # of the whole tensor
    layers: int = 0  # of the parameter; 0: it has one tensor
    width: int = 0  # outputs of the parameter


def load(directory: str | Path, shardings: Callable[[Any], Any] | None = None) -> tuple[Any, dict]:
    """Loads a model from a folder with config.json and safetensors, as transformers writes it.

    `shardings` maps a tree of shapes to a tree of shardings; then only the slices of this process's
    devices are read. Without it all parameters go to the default device. Parameters keep their
    dtypes on disk; `cfg.dtype`, of the computation, is bfloat16 if config.json says so. Raises
    ValueError or FileNotFoundError that names what is missing, damaged or not supported.
    """
    directory = Path(directory)
    config = config_json.read_json(directory)
    try:
        cfg = config_json.read(config)
    except ValueError as error:
        raise ValueError(f"{directory / 'config.json'}: {error}") from None
    family = config_json.family(config)
    shapes = family.model.shapes(cfg)
    tensors = _renamed(safetensors.tensors(directory))
    for name in family.unused:
        tensors.pop(name, None)
    for name in derived.names(tensors):
        derived.check(tensors.pop(name), cfg)
    sources = tensor_sources(cfg, family)
    _check(directory, sources, tensors, cfg, family)
    where = parameters.flat(shardings(shapes)) if shardings else {}
    params = {}
    for path, leaf in parameters.flat(shapes).items():
        read = functools.partial(_read, sources[path], tensors, leaf.shape, path)
        if path in where:
            params[path] = jax.make_array_from_callback(leaf.shape, where[path], read)
        else:
            params[path] = jax.device_put(read((slice(None),) * leaf.ndim), may_alias=True)
        params[path].block_until_ready()  # otherwise the next one is read during this copy
    return cfg, parameters.nested(params)


def _renamed(tensors: dict[str, safetensors.Tensor]) -> dict[str, safetensors.Tensor]:
    """Adds the prefix `transformer.`, which the first GPT-2 files lack, to all names except the
    head's.
    """
    if "wte.weight" not in tensors:
        return tensors
    return {n if n == HEAD else f"transformer.{n}": tensor for n, tensor in tensors.items()}


def tensor_sources(cfg: Any, family: Family) -> dict[str, Source]:
    """{path of one of our parameters: its source}."""
    leaves = parameters.flat(family.model.shapes(cfg))
    layers = {path: leaf.shape[0] if stacked(path) else 0 for path, leaf in leaves.items()}
    shapes = {path: leaf.shape[stacked(path) :] for path, leaf in leaves.items()}
    sources = {}
    modules = family.modules(cfg) if callable(family.modules) else family.modules
    for theirs, ours in modules.items():
        for leaf, name in LEAVES.items():
            parts = (ours,) if isinstance(ours, str) else ours
            paths = [f"{part}/{leaf}" for part in parts if f"{part}/{leaf}" in shapes]
            transposed = leaf == "kernel" and not (family.conv1d and ours != "head")
            total, offset = sum(shapes[path][-1] for path in paths), 0
            for path in paths:
                shape = (*shapes[path][:-1], total)
                shape = shape[::-1] if transposed else shape
                template = f"{theirs}.{name}"
                width = shapes[path][-1]
                sources[path] = Source(template, offset, transposed, shape, layers[path], width)
                offset += shapes[path][-1]
    return sources


def stacked(path: str) -> bool:
    """Whether the first axis of a parameter is the layer axis."""
    return "blocks/" in path


def _names(source: Source) -> list[str]:
    return [source.template.format(layer) for layer in range(source.layers or 1)]


def _expected(sources: Mapping[str, Source]) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor that the checkpoint must have."""
    return {name: source.shape for source in sources.values() for name in _names(source)}


def file_name(number: int, count: int) -> str:
    """The name of file `number`, from 1 on, of `count` files."""
    if count == 1:
        return safetensors.SINGLE
    return f"model-{number:05d}-of-{count:05d}.safetensors"


def _shards(layout: Mapping[str, tuple], limit: int) -> list[list[str]]:
    """Tensor names per file. A file has at most `limit` bytes, or a single larger tensor."""
    files: list[list[str]] = [[]]
    size = 0
    for name, (dtype, shape) in layout.items():
        count = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        if files[-1] and size + count > limit:
            files.append([])
            size = 0
        files[-1].append(name)
        size += count
    return files


def _check(
    directory: Path,
    sources: Mapping[str, Source],
    tensors: dict[str, safetensors.Tensor],
    cfg: Any,
    family: Family,
) -> None:
    """Raises ValueError if a tensor is missing, unknown, or has the wrong shape or dtype."""
    expected = _expected(sources)
    for name, shape in expected.items():
        if name not in tensors:
            raise ValueError(f"{directory} lacks tensor {name} {list(shape)}; fetch it again")
        tensor = tensors[name]
        if tensor.shape != shape:
            raise ValueError(
                f"{tensor.file}: {name} has shape {list(tensor.shape)}; config.json needs "
                f"{list(shape)}"
            )
        if tensor.dtype not in safetensors.DTYPES:
            raise ValueError(
                f"{tensor.file}: {name} is {tensor.dtype}; only {', '.join(safetensors.DTYPES)} "
                "are read, so fetch a checkpoint that is not quantised"
            )
    # Some files repeat the embedding, as the tied head for example.
    for name in (*family.copies, *([HEAD] if cfg.tie_embeddings else [])):
        embedding = tensors[sources["embed/embedding"].template]
        if (copy := tensors.pop(name, None)) and not copy.equals(embedding):
            keep = "set tie_word_embeddings to false there to keep the head, or " * (name == HEAD)
            raise ValueError(
                f"{copy.file}: {copy.name} differs from {embedding.name}, but config.json ties "
                f"them; {keep}remove the tensor"
            )
    for source in sources.values():
        types = {name: tensors[name].dtype for name in _names(source)}
        for name, dtype in types.items():
            if dtype != types[source.template.format(0)]:
                raise ValueError(
                    f"{tensors[name].file}: {name} is {dtype}, unlike the same tensor of layer 0; "
                    "store all layers in the same dtype"
                )
    for name in sorted(tensors):
        if name not in expected:
            raise ValueError(
                f"{tensors[name].file}: tensor {name} does not belong to the model of config.json"
            )


def _read(
    source: Source,
    tensors: Mapping[str, safetensors.Tensor],
    shape: tuple[int, ...],
    path: str,
    index: tuple[slice, ...],
) -> np.ndarray:
    """Reads a slice of one parameter, and only the rows of its tensors that contain it."""
    layered = stacked(path)
    ranges = [range(n)[one] for n, one in zip(shape, index, strict=True)]
    first = tensors[source.template.format(0)]
    out = _aligned(tuple(map(len, ranges)), safetensors.DTYPES[first.dtype])
    slices = [slice(r.start, r.stop) for r in ranges[layered:]]
    slices[-1] = slice(slices[-1].start + source.offset, slices[-1].stop + source.offset)

    def read(number: int, layer: int) -> None:
        target = out[number] if layered else out
        tensor = tensors[source.template.format(layer)]
        if source.transposed:
            tensor.read(slices[1], slices[0], target.T)
        else:
            tensor.read(slices[0], slices[-1], target)

    layers = ranges[0] if layered else [0]
    with concurrent.futures.ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(read, range(len(layers)), layers))
    return out


def _aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An empty array whose address is a multiple of ALIGNMENT."""
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    raw = np.empty(size + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + size].view(dtype).reshape(shape)


def save(
    directory: str | Path,
    cfg: Any,
    params: Any,
    model_type: str = "",
    extra: Mapping[str, Any] | None = None,
    files: Mapping[str, bytes] | None = None,
    shard: int = SHARD,
) -> None:
    """Writes a folder that transformers loads, by AutoModelForCausalLM for example, atomically.

    `model_type` selects one of the families that fit. `extra` has further keys of config.json, such
    as eos_token_id. `files` {name: content}, such as a tokenizer's, are written to the folder too.
    `shard` is the size limit of a file in bytes. Raises ValueError if no family can express `cfg`
    or if a parameter does not fit `cfg`, and FileExistsError if the folder is not empty.
    """
    directory = Path(directory)
    config = config_json.write(cfg, model_type)
    family = config_json.family(config)
    parameters.check(family.model.shapes(cfg), params)
    leaves, sources = parameters.flat(params), tensor_sources(cfg, family)
    refuse_full(directory)
    config |= {
        "architectures": [family.architecture],
        # The class's default ids belong to another vocabulary.
        **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id")),
        "dtype": str(np.dtype(leaves["embed/embedding"].dtype)),
    } | dict(extra or {})
    with whole_folder(directory) as folder:
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        for name, content in (files or {}).items():
            (folder / name).write_bytes(content)
        _write_tensors(folder, sources, leaves, shard)


def refuse_full(folder: Path) -> None:
    """Raises FileExistsError for a file or a folder that is not empty."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} exists already and is not empty; name a new folder")


@contextlib.contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder to fill. It is renamed to `folder` at the end, or deleted on error."""
    temporary = folder.with_name(f"{folder.name}.{os.getpid()}.tmp")
    temporary.mkdir(parents=True)
    try:
        yield temporary
        if folder.exists():
            folder.rmdir()
        os.replace(temporary, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _write_tensors(
    directory: Path, sources: Mapping[str, Source], leaves: dict, shard: int
) -> None:
    parts: dict[str, list[tuple[str, int]]] = {}  # {their name: our paths and layers, in order}
    for path, source in sources.items():
        for layer, name in enumerate(_names(source)):
            parts.setdefault(name, []).append((path, layer))
    layout = {
        name: (np.dtype(leaves[parts[name][0][0]].dtype), shape)
        for name, shape in _expected(sources).items()
    }
    for name, (dtype, _) in layout.items():
        types = {np.dtype(leaves[path].dtype) for path, _ in parts[name]}
        if types - {dtype} or dtype not in safetensors.NAMES:
            raise ValueError(f"{name} would have dtypes {types}; make all float32 or bfloat16")

    def array(name: str) -> Iterator[np.ndarray]:
        """The parts of a tensor: each of our parameters if they are blocks of its rows, otherwise
        their concatenation.
        """
        transposed = sources[parts[name][0][0]].transposed
        pieces = (
            leaves[path][layer] if stacked(path) else leaves[path] for path, layer in parts[name]
        )
        if transposed or len(layout[name][1]) == 1:
            yield from (np.asarray(piece).T for piece in pieces)
        else:
            yield np.concatenate([np.asarray(piece) for piece in pieces], axis=-1)

    files = _shards(layout, shard)
    for number, group in enumerate(files, 1):
        path = directory / file_name(number, len(files))
        safetensors.write(path, {one: layout[one] for one in group}, array)
    if len(files) > 1:
        weight_map = {
            one: file_name(n, len(files)) for n, group in enumerate(files, 1) for one in group
        }
        sizes = (int(np.prod(shape)) * dtype.itemsize for dtype, shape in layout.values())
        index = {"metadata": {"total_size": sum(sizes)}, "weight_map": weight_map}
        (directory / safetensors.INDEX).write_text(json.dumps(index, indent=2) + "\n")
