"""Translates Hugging Face's config.json to the Config of one of our families and back.

`read` rejects keys that `model/huggingface/name_tables.py` does not list, because they might change
what the model computes. `write` reads its output back to verify that it describes the same model.
"""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

from model.encoder_decoder.config import Config
from model.huggingface.inert_keys import INERT, SWITCHED_OFF
from model.huggingface.name_tables import FAMILIES, Family
from model.keys import defaults, rules
from model.transformer import parametrization
from model.transformer.config import ModelConfig

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


def read(config: dict[str, Any]) -> Any:
    """The Config of a config.json. Raises ValueError that lists all unsupported keys."""
    table = family(config)
    usual = defaults(table.model.Config)
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
        ours[key] = (usual[key] or 1) if fault else value  # a default, to find further faults
    if ours["d_ff"] is None:
        ours["d_ff"] = 4 * ours["d_model"]
    if "n_kv_heads" in usual and ours.get("n_kv_heads") is None:
        ours["n_kv_heads"] = ours["n_heads"]
    for key in ("attention_softcap", "logit_softcap"):
        if key in usual:
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
        return table.model.Config(**ours)
    except (TypeError, AttributeError) as error:
        raise ValueError(f"a value has the wrong type ({error}); fetch it again") from error


def _fault(theirs: str, value: Any, ours: str, table: Family) -> str:
    """The error in the value of a key that maps to one of ours; "" if it is valid."""
    if value is None:
        return "" if theirs in table.defaults else f"config.json lacks {theirs}; add it"
    kind = table.model.Config.__dataclass_fields__[ours].type
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


def write(cfg: Any, model_type: str = "") -> dict[str, Any]:
    """config.json for the first family that computes the same function as `cfg`, or for
    `model_type`.

    Raises ValueError that names the keys which the nearest family cannot express.
    """
    if model_type and model_type not in FAMILIES:
        raise ValueError(
            f"model_type={model_type!r} is not supported; supported are {', '.join(FAMILIES)}"
        )
    same = [name for name, table in FAMILIES.items() if isinstance(cfg, table.model.Config)]
    if not same or (model_type and model_type not in same):
        raise ValueError(
            f"model_type={model_type!r} is another kind of model; use {' or '.join(same)}"
            if same
            else "no family of transformers that isoflop writes has such a model"
        )
    missed = {name: misfit(cfg, name) for name in ([model_type] if model_type else same)}
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


def misfit(cfg: Any, model_type: str) -> list[str]:
    """Keys of `cfg` that change what it computes but that `model_type` cannot express."""
    try:
        back = read(_keys(cfg, model_type))
    except ValueError:
        keys = rules(cfg, "choices")
        return [key for key in keys if _another_would_do(cfg, key, model_type)] or [*vars(cfg)]
    theirs, ours = meaning(back), meaning(cfg)
    return [key for key in ours if ours[key] != theirs[key]]


def _another_would_do(cfg: Any, key: str, model_type: str) -> bool:
    """Whether the family can write `cfg` with another choice of `key`."""
    for choice in rules(cfg, "choices")[key]:
        try:
            read(_keys(dataclasses.replace(cfg, **{key: choice}), model_type))
        except (ValueError, TypeError):
            continue
        return True
    return False


def _keys(cfg: Any, model_type: str) -> dict[str, Any]:
    table = FAMILIES[model_type]
    keys: dict[str, Any] = {"model_type": model_type}
    for theirs, ours in table.keys.items():
        value = getattr(cfg, ours)
        keys[theirs] = (value or None) if ours.endswith("softcap") else value
    for part in table.parts:
        keys |= part.write(cfg)
    return keys


def meaning(cfg: Any) -> dict[str, Any]:
    """The keys that change logits. Models for which they are equal compute the same function."""
    keys = {key: value for key, value in vars(cfg).items() if key not in NO_EFFECT}
    return MEANINGS[type(cfg)](keys, cfg)


def _encoder_decoder_meaning(keys: dict[str, Any], cfg: Config) -> dict[str, Any]:
    keys["query_scale"] = cfg.query_scale or cfg.head_dim**-0.5
    for key in ("source_length", "context_length"):
        del keys[key]  # neither kind of positions has a table of them
    return keys


def _decoder_meaning(keys: dict[str, Any], cfg: ModelConfig) -> dict[str, Any]:
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


MEANINGS = {ModelConfig: _decoder_meaning, Config: _encoder_decoder_meaning}
