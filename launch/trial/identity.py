"""The identity of a trial: which keys can change its numbers, and the id that they make.

Rule 2, in force: the hash of every such key that is not at its default, so that a new key with a
neutral default changes no id. Rule 1 hashed a fixed list of keys whatever their values; the ids
that it made are recognised, so that older sweeps resume.
"""

import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from configs import base
from data.kinds import KINDS
from model import families
from train import objectives
from train.flatten import flatten

RULE = 2
# Keys that change a trial's numbers by rounding at most: whole sections or single keys. The text
# counts through data.hash, and weights to start from through their hashes. `code` is the
# fingerprint that config.json carries.
NOT_IN_ID = (
    *("name", "holdout", "imports", "checkpoint", "log", "mesh", "eval.batch_size", "code"),
    *("data.corpora", "data.weights", "data.text_key", "data.tokenizer", "data.vocab_size"),
    "data.tokenizer_sample",
    *("data.validation", "data.cache", "data.max_bytes", "data.held_out", "data.label_key"),
    "data.template",
    *("model.attention", "model.scan_layers", "model.remat"),
    "model.masked",  # of data.masked
    *("train.chunk", "train.flops_convention", "train.batch_per_device", "train.loss_chunk"),
    *("train.init_from", "objective.stored", "objective.buckets", "optimizer.offload"),
)
# Sections that a counted model does not read.
NOT_COUNTED = ("seed", "train", "optimizer", "schedule", "eval.every")
# Hashes and sizes that are derived, each with the keys that they are derived from.
SOURCES = {
    "data.hash": (
        *("data.corpora", "data.weights", "data.text_key", "data.tokenizer", "data.vocab_size"),
        *("data.validation", "data.max_bytes", "data.held_out", "data.label_key"),
        *("data.template", "data.wrong_share", "data.tokenizer_sample"),
    ),
    "train.init_hash": ("train.init_from",),
    "train.batch_size": ("train.batch_per_device",),
}
# What rule 1 hashed.
RULE_1 = (
    *("data.hash", "eval.every", "eval.sequences", "seed"),
    *(f"model.{key}" for key in ("activation", "attention_bias", "context_length", "d_ff")),
    *(f"model.{key}" for key in ("d_model", "dropout", "dtype", "gated", "head_dim", "init")),
    *(f"model.{key}" for key in ("init_std", "mlp_bias", "n_heads", "n_kv_heads", "n_layers")),
    *(f"model.{key}" for key in ("norm", "norm_bias", "norm_eps", "positions", "rope_theta")),
    *("model.tie_embeddings", "model.vocab_size", "optimizer.b1", "optimizer.b2"),
    *("optimizer.clip_norm", "optimizer.eps", "optimizer.learning_rate", "optimizer.name"),
    *("optimizer.weight_decay", "schedule.decay", "schedule.final", "schedule.name"),
    *("schedule.warmup", "train.accumulation", "train.batch_size", "train.duration"),
    *("train.label_smoothing", "train.max_loss_ratio", "train.z_loss"),
)
# What rule 1 hashed where it was not at its default.
RULE_1_SWITCHES = (
    *(f"model.{key}" for key in ("attention_softcap", "base_depth", "base_head_dim")),
    *(f"model.{key}" for key in ("base_width", "embedding_scale", "embedding_std")),
    *(f"model.{key}" for key in ("logit_scale", "logit_softcap", "norm_offset", "norm_position")),
    *(f"model.{key}" for key in ("out_bias", "parametrization", "qk_norm", "query_scale")),
    *(f"model.{key}" for key in ("rope_factor", "rope_fraction", "rope_high_frequency")),
    *(f"model.{key}" for key in ("rope_layout", "rope_long_factors", "rope_low_frequency")),
    *(f"model.{key}" for key in ("rope_original_context", "rope_scaling", "rope_short_factors")),
    *(f"model.{key}" for key in ("rope_theta_local", "window", "window_pattern")),
    "optimizer.moments",
)


def identity(resolved: Any) -> dict[str, Any]:
    """The dotted keys that make the id of a resolved config, with their values as JSON has them."""
    usual = defaults(resolved)
    return {k: v for k, v in relevant(resolved).items() if k not in usual or usual[k] != v}


def trial_difference(
    there: Any,
    here: Any,
    config: Any = None,
    given: Collection[str] = (),
    leave_out: Collection[str] = (),
) -> str:
    """The key that makes two resolved configs different trials, with both values, in words; "" if
    they are the same trial.

    Of several keys it names the one that the user set. `config` is `here` before it was resolved,
    and `given` the keys of the command line; a key at a percentage or at 0 was derived from others.
    Keys in `leave_out` may differ.
    """
    flat, raw = (flatten(there), flatten(here)), flatten(here if config is None else config)
    ids = identity(there), identity(here)
    keys = [key for key in ids[1] | ids[0] if ids[0].get(key) != ids[1].get(key)]
    if not (keys := [key for key in keys if key not in leave_out]):
        return ""

    def derived(key: str) -> tuple[int, bool]:
        value = raw.get(key)
        if value == flat[1].get(key):
            return 0, key not in given
        return (2 if not value or str(value).endswith("%") else 1), key not in given

    key = min(keys, key=derived)
    usual = defaults(there)
    values = flat[0].get(key, usual.get(key)), flat[1].get(key, usual.get(key))
    for source in SOURCES.get(key, ()):
        if raw.get(source) and raw[source] != flat[0].get(source, usual.get(source)):
            key, values = source, (flat[0].get(source, usual.get(source)), raw[source])
            break
    return f"config.{key} is {values[0]!r} there and {values[1]!r} here"


def trial_id(resolved: Any) -> str:
    """The config's name and 8 hex digits of the hash of its identity."""
    return _named(resolved, {"rule": RULE} | identity(resolved))


def former_ids(resolved: Any) -> list[str]:
    """The ids that older rules gave to the same trial."""
    found, usual = flatten(resolved), defaults(resolved)
    new = [key for key in identity(resolved) if key not in RULE_1 + RULE_1_SWITCHES]
    if new or any(key not in found for key in RULE_1):
        return []
    hashed = {key: found[key] for key in RULE_1}
    hashed |= {k: found[k] for k in RULE_1_SWITCHES if k in found and found[k] != usual[k]}
    return [_named(resolved, hashed)]


def own_id(resolved: Any, folder: Path) -> str:
    """The id of the trial in `folder`, which may be one that an older rule made."""
    return folder.name if folder.name in former_ids(resolved) else trial_id(resolved)


def weights_named(objective: str) -> dict[str, str]:
    """The dotted keys that may name weights to start from or, under an objective, to read; each
    with the key that holds their hash: for a key X of FROZEN or BESIDE that is X_hash,
    default ""."""
    known = objectives.OBJECTIVES.get(objective)
    read = getattr(known, "FROZEN", {}) | getattr(known, "BESIDE", {})
    named = {"train.init_from": "train.init_hash"}
    return named | {key: f"{key}_hash" for key in read.values()}


def relevant(resolved: Any) -> dict[str, Any]:
    """All dotted keys that can change the numbers."""
    found = flatten(resolved)
    family = families.FAMILIES.get(found.get("model.family", "decoder"))
    left_out = (*NOT_IN_ID, *weights_named(found.get("objective.name", "next_token")))
    if found.get("model.carry_state"):  # its rows are as many texts that are read on
        left_out = tuple(key for key in left_out if key != "eval.batch_size")
    if family is not None and families.is_counted(family):
        left_out += NOT_COUNTED
    prefixes = tuple(f"{key}." for key in left_out)
    return {key: value for key, value in found.items() if not f"{key}.".startswith(prefixes)}


def defaults(resolved: Any) -> dict[str, Any]:
    """The default of every dotted key that a config with these sections can have."""
    found, usual = flatten(resolved), base.all_defaults()
    # A family, objective or kind of data other than the first of its table is always in the id.
    chosen = (
        ("model", "family", base.MODELS, families.FAMILIES),
        ("objective", "name", base.OBJECTIVES, objectives.OBJECTIVES),
        ("data", "kind", base.DATA, KINDS),
    )
    for section, key, listed, known in chosen:
        first = usual[section].pop(key)
        choice = found.get(f"{section}.{key}", first)
        if choice != first:
            has_keys = hasattr(known.get(choice), "Config")
            unlisted = families.keys(known[choice]) if has_keys else {}
            usual[section] = base.defaults(listed[choice]()) if choice in listed else unlisted
        usual[section][key] = first
    return flatten(usual)


def _named(resolved: Any, hashed: Mapping[str, Any]) -> str:
    text = json.dumps(hashed, sort_keys=True)
    return f"{resolved['name']}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
