"""Translates Hugging Face's config.json to a ModelConfig and back.

`read` rejects keys that `model/huggingface/name_tables.py` does not list, because they might change
what the model computes. `write` reads its output back to verify that it describes the same model.
"""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

from model.huggingface.inert_keys import INERT, SWITCHED_OFF
from model.huggingface.name_tables import FAMILIES, Family
from model.transformer import parametrization
from model.transformer.config import CHOICES, DEFAULTS, ModelConfig

KINDS = {field.name: field.type for field in dataclasses.fields(ModelConfig)}
# Our keys that do not change the logits of a trained model in float32.
NO_EFFECT = (
    *("init", "init_std", "embedding_std", "dropout", "dtype"),
    *("scan_layers", "remat", "attention"),
)


def read_json(directory: Path) -> dict[str, Any]:
    """Reads config.json of a directory. Raises FileNotFoundError or ValueError if it is missing or
    damaged.
    """
    path = Path(directory) / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{directory} has no config.json; give the folder of a model")
    try:
        config = json.loads(path.read_bytes())
        config.keys()
    except (ValueError, AttributeError, RecursionError) as error:
        fault = "nested too deeply" if isinstance(error, RecursionError) else error
        raise ValueError(f"{path} is not a JSON object ({fault}); fetch it again") from None
    return config


def family(config: dict[str, Any]) -> Family:
    """The tables of the config's model_type. Raises ValueError if it is not supported."""
    model_type = config.get("model_type")
    if "text_config" in config:
        raise ValueError(
            f"model_type={model_type!r} is a model of images and text; give its text model only, "
            "saved by transformers from its language_model"
        )
    if model_type not in list(FAMILIES):  # a list, because JSON values need not be hashable
        raise ValueError(
            f"model_type={model_type!r} is not supported; supported are {', '.join(FAMILIES)}"
        )
    return FAMILIES[model_type]


def read(config: dict[str, Any]) -> ModelConfig:
    """The ModelConfig of a config.json. Raises ValueError that lists all unsupported keys."""
    table = family(config)
    keys = {key: value for key, value in config.items() if key not in INERT}
    dtype = keys.pop("dtype", None) or keys.pop("torch_dtype", None)
    keys.pop("torch_dtype", None)
    ours = {"dtype": "bfloat16" if dtype == "bfloat16" else "float32"} | table.block
    faults = []
    for theirs, key in table.keys.items():
        value = keys.pop(theirs, None)
        value = table.defaults.get(theirs) if value is None else value
        fault = _fault(theirs, value, key, table)
        faults += [fault] if fault else []
        ours[key] = (DEFAULTS[key] or 1) if fault else value  # a default, to find further faults
    if ours.get("n_kv_heads") is None:
        ours["n_kv_heads"] = ours["n_heads"]
    if ours["d_ff"] is None:
        ours["d_ff"] = 4 * ours["d_model"]
    for key in ("attention_softcap", "logit_softcap"):
        ours[key] = ours.get(key) or 0.0
    of_parts = []
    for part in table.parts:
        try:
            ours |= part.read(keys, ours)
        except ValueError as error:
            of_parts.append(str(error))
        except (TypeError, AttributeError) as error:  # for example, a list in place of a number
            of_parts.append(f"a value has the wrong type ({error}); fetch it again")
    faults = faults or of_parts  # parts depend on sizes, which are valid only without faults
    faults += _unknown(keys, table, config["model_type"])
    if faults:
        raise ValueError("; ".join(faults))
    try:
        return ModelConfig(**ours)
    except (TypeError, AttributeError) as error:
        raise ValueError(f"a value has the wrong type ({error}); fetch it again") from error


def _fault(theirs: str, value: Any, ours: str, table: Family) -> str:
    """The error in the value of a key that maps to one of ours; "" if it is valid."""
    if value is None:
        return "" if theirs in table.defaults else f"config.json lacks {theirs}; add it"
    kind = KINDS[ours]
    numbers = (int, float) if kind is float else kind
    if not isinstance(value, numbers) or isinstance(value, bool) != (kind is bool):
        return f"{theirs}={value!r} has the wrong type; it must be {kind.__name__}"
    return ""


def _unknown(keys: dict[str, Any], table: Family, model_type: str) -> list[str]:
    """Errors for the remaining keys, which may change what the model computes."""
    harmless = SWITCHED_OFF | table.fixed
    wrong = {
        key: value
        for key, value in keys.items()
        if value is not None and not (key in harmless and value == harmless[key])
    }
    faults = []
    if fixed := [key for key in wrong if key in table.fixed]:
        named = ", ".join(f"{key}={wrong[key]!r} (only {table.fixed[key]!r})" for key in fixed)
        faults.append(f"{named} not supported for model_type={model_type!r}")
    if unknown := [key for key in wrong if key not in table.fixed]:
        named = ", ".join(f"{key}={wrong[key]!r}" for key in unknown)
        faults.append(
            f"{named} unknown for model_type={model_type!r}; remove keys from config.json that do "
            "not change what the model computes"
        )
    return faults


def write(cfg: ModelConfig, model_type: str = "") -> dict[str, Any]:
    """config.json for the first family that computes the same function as `cfg`, or for
    `model_type`.

    Raises ValueError that names the keys which the nearest family cannot express.
    """
    if model_type and model_type not in FAMILIES:
        raise ValueError(
            f"model_type={model_type!r} is not supported; supported are {', '.join(FAMILIES)}"
        )
    missed = {name: misfit(cfg, name) for name in ([model_type] if model_type else FAMILIES)}
    nearest = min(missed, key=lambda name: len(missed[name]))
    if missed[nearest]:
        text = ", ".join(f"model.{key}={getattr(cfg, key)!r}" for key in missed[nearest])
        raise ValueError(
            f"{text}: no family of transformers computes this; the nearest, {nearest}, has "
            f"{'another value' if len(missed[nearest]) == 1 else 'other values'} there"
            if not model_type
            else f"{text}: {model_type} computes something else there; use another model_type"
        )
    return _keys(cfg, nearest)


def misfit(cfg: ModelConfig, model_type: str) -> list[str]:
    """Keys of `cfg` that change what it computes but that `model_type` cannot express."""
    try:
        back = read(_keys(cfg, model_type))
    except ValueError:
        return [key for key in CHOICES if _another_would_do(cfg, key, model_type)] or [*vars(cfg)]
    theirs, ours = meaning(back), meaning(cfg)
    return [key for key in ours if ours[key] != theirs[key]]


def _another_would_do(cfg: ModelConfig, key: str, model_type: str) -> bool:
    """Whether the family can write `cfg` with another choice of `key`."""
    for choice in CHOICES[key]:
        try:
            read(_keys(dataclasses.replace(cfg, **{key: choice}), model_type))
        except (ValueError, TypeError):
            continue
        return True
    return False


def _keys(cfg: ModelConfig, model_type: str) -> dict[str, Any]:
    table = FAMILIES[model_type]
    keys: dict[str, Any] = {"model_type": model_type}
    for theirs, ours in table.keys.items():
        value = getattr(cfg, ours)
        keys[theirs] = (value or None) if ours.endswith("softcap") else value
    for part in table.parts:
        keys |= part.write(cfg)
    return keys


def meaning(cfg: ModelConfig) -> dict[str, Any]:
    """The keys that change logits. Models for which they are equal compute the same function."""
    keys = {key: value for key, value in vars(cfg).items() if key not in NO_EFFECT}
    local = tuple(cfg.is_local(layer) for layer in range(cfg.n_layers))
    keys["window"], keys["window_pattern"] = cfg.window * any(local), local
    keys["query_scale"] = parametrization.scores(cfg) * math.sqrt(cfg.head_dim)
    keys["out_bias"] = cfg.attention_bias and cfg.out_bias
    keys["norm_bias"] = cfg.norm == "layernorm" and cfg.norm_bias
    if cfg.positions == "rotary":
        keys["rope_fraction"] = cfg.rotary_dim
        if not any(local):
            keys["rope_theta_local"] = 0.0
        elif cfg.rope_scaling == "none" and not cfg.rope_theta_local:
            keys["rope_theta_local"] = cfg.rope_theta
    return keys
