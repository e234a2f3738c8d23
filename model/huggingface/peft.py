"""Reads and writes adapters in the format of PEFT: adapter_config.json, adapter_model.safetensors.

A module of theirs can hold several kernels of ours, such as GPT-2's `c_attn`. Their adapter of it
has one A. If ours differ, they are written as one A of the sum of their ranks, and a B of blocks.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from model import parameters
from model.adapters import lora
from model.adapters.adapted import KERNEL, Adapter
from model.huggingface import config_json, safetensors, weights

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
NAMES = {
    lora.A: "lora_A.weight",
    lora.B: "lora_B.weight",
    lora.MAGNITUDE: "lora_magnitude_vector",
}
INITS = (True, False, "gaussian", "orthogonal", "eva")
"""Values of init_lora_weights that leave the base as it is; others, such as pissa, change it."""
HASH = "isoflop_base_hash"  # of the base, in the header of the tensors
# Keys that change what an adapter computes, or what else it trains; all must be false or empty.
REFUSED = (
    *("modules_to_save", "lora_bias", "layer_replication", "trainable_token_indices"),
    *("target_parameters", "alora_invocation_tokens", "use_qalora", "use_bdlora"),
    *("arrow_config", "velora_config", "kasa_config", "monteclora_config"),
)
Modules = dict[str, list[tuple[str, weights.Source]]]
"""{template of a module's name: the kernels of ours that it holds, in order}."""


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter in PEFT's format."""
    return (folder / CONFIG).is_file()


def base_of(folder: Path, path_of: Callable[[str], Path] = Path) -> Path:
    """The folder of the weights that an adapter changes; `path_of` gives the path of its name.
    ValueError if there is no such folder: nothing is downloaded from elsewhere."""
    name = read_config(folder).get("base_model_name_or_path")
    for path in (folder / str(name), path_of(str(name))):
        if name and path.is_dir():
            return path
    raise ValueError(
        f"{folder / CONFIG} names the base {name!r}, which is no folder; put its path "
        "there as base_model_name_or_path"
    )


def read_config(folder: Path) -> dict[str, Any]:
    """The content of adapter_config.json. ValueError for an adapter that is not supported."""
    try:
        config = json.loads((folder / CONFIG).read_bytes())
        kind, rank = config.get("peft_type"), config.get("r")
        for key in config.get("alpha_pattern") or {}:
            re.compile(key)
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError, re.error) as error:
        raise ValueError(f"{folder / CONFIG} is damaged ({error}); fetch it again") from None
    if kind != "LORA" or not isinstance(rank, int):
        raise ValueError(f"{folder / CONFIG} holds peft_type={kind!r} with r={rank!r}; use LORA")
    if config.get("bias", "none") != "none":
        raise ValueError(f"{folder / CONFIG}: bias={config['bias']!r} is not supported; use 'none'")
    if (init := config.get("init_lora_weights", True)) not in INITS:
        raise ValueError(
            f"{folder / CONFIG}: init_lora_weights={init!r} changes the base, which is not "
            "supported; convert the adapter to plain LoRA with PEFT"
        )
    alpha = config.get("lora_alpha")
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not alpha > 0:
        raise ValueError(f"{folder / CONFIG}: lora_alpha={alpha!r} is no number above 0")
    for key in REFUSED:
        if config.get(key):
            raise ValueError(f"{folder / CONFIG}: {key}={config[key]!r} is not supported")
    return config


def modules_of(cfg: Any, model_type: str) -> Modules:
    """The modules of a model that an adapter may change."""
    family = config_json.family(config_json.write(cfg, model_type))
    found: Modules = {}
    for path, source in weights.tensor_sources(cfg, family).items():
        if weights.stacked(path) and path.endswith(KERNEL):
            found.setdefault(source.template.removesuffix(".weight"), []).append((path, source))
    return found


def load(folder: Path, cfg: Any, model_type: str, base_hash: str) -> tuple[Adapter, dict]:
    """(adapter, its trained parameters) for the model of `cfg`, whose modules are named as in
    `model_type`. ValueError for what is not supported, damaged, or of a base with another hash."""
    config, file = read_config(folder), folder / TENSORS
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing; fetch the adapter again")
    tensors, modules = safetensors.read_header(file), modules_of(cfg, model_type)
    stated = safetensors.metadata(file).get(HASH, base_hash)
    if stated != base_hash:
        raise ValueError(
            f"{folder} holds an adapter of weights with the hash {stated!r}, but its base has the "
            f"hash {base_hash!r}; name the right folder in base_model_name_or_path of {CONFIG}"
        )
    read = {template: _read(template, modules[template], config, tensors) for template in modules}
    read = {template: layers for template, layers in read.items() if layers}
    if tensors or not read:
        raise ValueError(
            f"{file}: {min(tensors, default='nothing')} belongs to no kernel in the blocks of a "
            f"{model_type}, and others cannot have an adapter"
        )
    rank = max(layer["rank"] for layers in read.values() for layer in layers.values())
    paths = [path for template in read for path, _ in modules[template]]
    adapter = Adapter(
        name="lora",
        rank=rank,
        alpha=float(config["lora_alpha"]),
        dropout=float(config.get("lora_dropout") or 0),
        targets=f"^({'|'.join(sorted(paths))})$",
        rslora=bool(config.get("use_rslora")),
        dora=bool(config.get("use_dora")),
    )
    trained = {}
    for template, layers in read.items():
        for path, source in modules[template]:
            trained |= _stacked(path, source, layers, adapter, folder)
    return adapter, parameters.nested(trained)


def _read(template: str, kernels: list, config: dict, tensors: dict) -> dict[int, dict]:
    """{layer: rank, scale and arrays of its module's adapter}. Removes them from `tensors`."""
    found = {}
    for number in range(kernels[0][1].layers):
        module = template.format(number)
        arrays = {}
        for ours, theirs in NAMES.items():
            name = f"{PREFIX}{module}.{theirs}"
            if tensor := tensors.pop(name, None) or tensors.pop(f"{name}.weight", None):
                arrays[ours] = _array(tensor)
        if not arrays:
            continue
        if lora.A not in arrays or lora.B not in arrays:
            raise ValueError(f"the adapter of {module} lacks {', '.join({*NAMES} - {*arrays})}")
        rank = len(arrays[lora.A])
        alpha = _of_pattern(config.get("alpha_pattern"), module, config["lora_alpha"])
        scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
        found[number] = {"rank": rank, "scale": scale, "module": module} | arrays
    return found


def _array(tensor: safetensors.Tensor) -> np.ndarray:
    """A whole tensor, float32."""
    if tensor.dtype not in safetensors.DTYPES:
        raise ValueError(f"{tensor.file}: {tensor.name} is {tensor.dtype}; store it as F32")
    out = np.empty(tensor.shape, safetensors.DTYPES[tensor.dtype])
    tensor.read(slice(None), slice(None), out)
    return out.astype(np.float32)


def _of_pattern(pattern: Mapping | None, module: str, default: float) -> float:
    """The value of the first key that ends the module's name, as PEFT reads its patterns."""
    matches = (
        value for key, value in (pattern or {}).items() if re.match(rf"(.*\.)?({key})$", module)
    )
    return next(matches, default)


def _stacked(
    path: str, source: weights.Source, layers: dict, adapter: Adapter, folder: Path
) -> dict[str, np.ndarray]:
    """The parameters of all layers of one kernel. A smaller rank is filled with zeros."""
    sides = source.shape[::-1] if source.transposed else source.shape
    lacking, arrays = [n for n in range(source.layers) if n not in layers], {}
    if lacking and adapter.dora:
        raise ValueError(f"{folder}: DoRA of some layers of {path} alone is not supported")
    for number, layer in layers.items():
        a_IR, b_RO = layer[lora.A].T, layer[lora.B].T
        if (len(a_IR), b_RO.shape[-1]) != sides:
            raise ValueError(
                f"{folder}: the adapter of {layer['module']} is for a matrix {len(a_IR)} × "
                f"{b_RO.shape[-1]}, and the base has {sides[0]} × {sides[1]}; it is of another base"
            )
        add = [(0, adapter.rank - layer["rank"])]
        factor = np.float32(layer["scale"] / adapter.scale)
        whole = {
            lora.A: np.pad(a_IR, [(0, 0), *add]),
            lora.B: np.pad(b_RO * factor, [*add, (0, 0)]),
        }
        if adapter.dora:
            whole[lora.MAGNITUDE] = layer[lora.MAGNITUDE].reshape(-1)
        for name, array in whole.items():
            arrays.setdefault(name, {})[number] = array
    stem, until = path.removesuffix(KERNEL), source.offset + source.width
    found = {}
    for name, by_layer in arrays.items():
        like = next(iter(by_layer.values()))
        stack = np.stack([by_layer.get(n, np.zeros_like(like)) for n in range(source.layers)])
        found[stem + name] = stack if name == lora.A else stack[..., source.offset : until]
    return found


def save(
    folder: Path,
    adapter: Adapter,
    cfg: Any,
    trained: dict,
    base: str,
    base_hash: str,
    model_type: str = "",
) -> None:
    """Writes a folder that PEFT loads on top of `base`, atomically. ValueError for trained heads,
    which the format cannot hold with a stacked layout."""
    leaves, modules = parameters.flat(trained), modules_of(cfg, model_type)
    if heads := [path for path in leaves if path.rpartition("/")[2] not in NAMES]:
        raise ValueError(
            f"the run trains {heads[0]} in full beside its adapters, which PEFT's format does not "
            "hold; use --merged"
        )
    arrays, ranks, alphas = {}, {}, {}
    for template, kernels in modules.items():
        chosen = [(p, s) for p, s in kernels if p.removesuffix(KERNEL) + lora.A in leaves]
        if not chosen:
            continue
        shared = _shares_a(chosen, leaves)
        times = 1 if shared else len(chosen)
        if adapter.dora and len(chosen) < len(kernels):
            raise ValueError(
                f"DoRA of {chosen[0][0]} alone cannot be written, because {template} holds "
                f"{len(kernels)} kernels; use --merged"
            )
        if times > 1:
            suffix = _suffix(template)
            ranks[suffix] = times * adapter.rank
            alphas[suffix] = adapter.alpha * (math.sqrt(times) if adapter.rslora else times)
        for number in range(chosen[0][1].layers):
            for name, array in _module(chosen, leaves, number, shared).items():
                arrays[f"{PREFIX}{template.format(number)}.{NAMES[name]}"] = array
    hf = config_json.family(config_json.write(cfg, model_type))
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM" if hf.ours == "decoder" else "SEQ_2_SEQ_LM",
        "base_model_name_or_path": base,
        "r": adapter.rank,
        "lora_alpha": adapter.alpha,
        "lora_dropout": adapter.dropout,
        "use_rslora": adapter.rslora,
        "use_dora": adapter.dora,
        "target_modules": _target_modules(modules, arrays),
        "rank_pattern": ranks,
        "alpha_pattern": alphas,
        "fan_in_fan_out": hf.conv1d,
        "bias": "none",
        "modules_to_save": None,
        "init_lora_weights": True,
        "inference_mode": True,
    }
    weights.refuse_full(folder)
    with weights.whole_folder(folder) as target:
        (target / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
        layout = {name: (array.dtype, array.shape) for name, array in sorted(arrays.items())}
        metadata = {HASH: base_hash}
        safetensors.write(target / TENSORS, layout, lambda name: [arrays[name]], metadata)


def _shares_a(chosen: list, leaves: Mapping[str, np.ndarray]) -> bool:
    """Whether the kernels of a module have the same A."""
    first, *others = (leaves[path.removesuffix(KERNEL) + lora.A] for path, _ in chosen)
    return all(np.array_equal(first, other) for other in others)


def _module(chosen: list, leaves: Mapping, number: int, shared: bool) -> dict[str, np.ndarray]:
    """The arrays of one layer of a module, from the kernels of it that have adapters."""
    parts = [
        (
            {n: np.asarray(leaves[s + n][number], np.float32) for n in NAMES if s + n in leaves},
            source,
        )
        for s, source in ((path.removesuffix(KERNEL), source) for path, source in chosen)
    ]
    first, source = parts[0]
    width = source.shape[0] if source.transposed else source.shape[1]
    rank, times = first[lora.A].shape[1], 1 if shared else len(parts)
    b_OR = np.zeros((width, times * rank), np.float32)
    for place, (part, source) in enumerate(parts):
        rows = slice(source.offset, source.offset + source.width)
        columns = slice(0, rank) if shared else slice(place * rank, (place + 1) * rank)
        b_OR[rows, columns] = part[lora.B].T
    pieces = [part[lora.A].T for part, _ in parts[:times]]
    found = {lora.A: np.ascontiguousarray(np.concatenate(pieces)), lora.B: b_OR}
    if lora.MAGNITUDE in first:
        found[lora.MAGNITUDE] = np.concatenate([part[lora.MAGNITUDE] for part, _ in parts])
    return found


def _suffix(template: str) -> str:
    """The part of a module's name after the number of its layer."""
    return template.partition("{}.")[2]


def _target_modules(modules: Modules, arrays: Mapping) -> list[str] | str:
    """The modules with adapters: ends of names or, if other modules end so too, a regex."""
    has = lambda template: any(name.startswith(f"{PREFIX}{template.format(0)}.") for name in arrays)  # noqa: E731
    chosen = {template for template in modules if has(template)}
    ends = sorted({_suffix(template) for template in chosen})
    if {t for t in modules if any(t.endswith(f".{end}") for end in ends)} == chosen:
        return ends
    return "|".join(re.escape(template).replace(r"\{\}", r"\d+") for template in sorted(chosen))
