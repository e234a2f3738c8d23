"""Turns a size into a config: the shape, batch and learning rate of a family near an N.

The rules, each with its source, are in RULES; `config_near` returns them with the config, so that a
reader of a plan knows where every number comes from.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from configs.families import FAMILIES
from configs.pretrain import get_config
from model import families
from model.transformer import count
from model.transformer.config import ModelConfig
from scaling.table import counted_params
from scaling.validate import Unsupported

FAMILY_NAMES = tuple(dict.fromkeys(name.split("-")[0] for name in FAMILIES))
DEEPSEEK = "Bi et al. 2024, arXiv:2401.02954, eq. 1"
FEWEST_STEPS = 1000
SMALLEST_HEAD = 16
MANY_HEADS = 16
MOST_LAYERS = 200
# Ten percent of the aspect ratio weigh as much as one of N, halving the heads' width as three.
ASPECT_WEIGHT, HALVING_WEIGHT = 0.1, 0.03
OFF_SIZE = 0.1  # largest relative distance from N, and beyond the smallest and largest published N
RULES = {
    "aspect ratio": "d_model/n_layers: the family's, interpolated in log N; constant beyond the "
    "published sizes",
    "heads": "head width, d_model/n_heads, query heads per key/value head and d_ff/d_model of the "
    "nearest published size; below the smallest size heads are narrower; 16 or more heads are a "
    "multiple of four, so that they divide over devices",
    "batch": f"the family's, interpolated in log N; beyond the published sizes or if unpublished, "
    f"0.2920 C^0.3271 tokens ({DEEPSEEK}); the nearest power of two sequences that leaves "
    f"at least {FEWEST_STEPS} steps",
    "learning rate": f"the family's, interpolated in log N; beyond the published sizes or if "
    f"unpublished, 0.3118 C^-0.1250 ({DEEPSEEK})",
    "warmup": "1 % of the run, as LLaMA's 0.8 %",
}


@dataclass(frozen=True)
class Member:
    """One published size of a family. `batch` is in tokens. `batch` and `learning_rate` are None if
    they were not published."""

    name: str
    params: float
    model: ModelConfig
    batch: float | None
    learning_rate: float | None

    @property
    def aspect(self) -> float:
        return self.model.d_model / self.model.n_layers


def param_count(model: ModelConfig, convention: str) -> int:
    """N as the law counts it. "with_head" includes the head even if it is tied."""
    return counted_params(count.parameters(model), convention)


def members(family: str, convention: str, **changes: int) -> list[Member]:
    """The family's published sizes by rising N; `changes` replace keys of each model."""
    if family not in FAMILY_NAMES:
        raise ValueError(f"family={family} is unknown; use one of {', '.join(FAMILY_NAMES)}")
    published = []
    for name, sections in FAMILIES.items():
        if name.split("-")[0] != family:
            continue
        config = get_config(name)
        sequences = sections.get("train", {}).get("batch_size")
        batch = sequences and sequences * config.model.context_length
        config.model.update(changes)
        model = families.derive(config.model)[1]
        rate = sections.get("optimizer", {}).get("learning_rate")
        published.append(Member(name, param_count(model, convention), model, batch, rate))
    return sorted(published, key=lambda member: member.params)


def interpolate(sizes: Sequence[float], values: Sequence[float], params: float) -> float:
    """Interpolates the published values linearly in log-log; constant beyond both ends."""
    if params <= sizes[0] or len(sizes) == 1:
        return values[0]
    for low in range(len(sizes) - 1):
        if params <= sizes[low + 1]:
            share = math.log(params / sizes[low]) / math.log(sizes[low + 1] / sizes[low])
            return values[low] ** (1 - share) * values[low + 1] ** share
    return values[-1]


def config_near(
    family: str,
    params: float,
    tokens: float,
    convention: str = "total",
    vocab_size: int | None = None,
    context_length: int | None = None,
) -> dict[str, Any]:
    """The config of a family's model near N = params, for a run of `tokens`.

    Returns `config` (a spec for `isoflop train`), `overrides`, what it counts, and the rules.
    Raises Unsupported if the family has no model near that N.
    """
    given = {"vocab_size": vocab_size, "context_length": context_length}
    changes = {key: value for key, value in given.items() if value}
    published = members(family, convention, **changes)
    nearest = min(published, key=lambda member: abs(math.log(member.params / params)))
    sizes = [member.params for member in published]
    aspect = interpolate(sizes, [member.aspect for member in published], params)
    narrow = params < published[0].params
    shape, model = best_shape(nearest, params, aspect, convention, narrow)
    n = param_count(model, convention)
    if abs(math.log(n / params)) > OFF_SIZE:
        raise Unsupported(
            f"family={family} has no model near N = {params:.3g}: the nearest has {n:.3g} with a "
            f"vocabulary of {model.vocab_size}; set --vocab_size, or --family to one of "
            f"{', '.join(FAMILY_NAMES)}"
        )
    run = run_overrides(published, n, tokens, model.context_length)
    keys = changes | shape | width_overrides(nearest.model, shape)
    overrides = {f"model.{key}": value for key, value in keys.items()} | run
    return {
        "family": family,
        "config": f"configs/pretrain.py:{nearest.name}",
        "source": FAMILIES[nearest.name]["source"],
        "overrides": overrides,
        "params": n,
        "params_by_component": count.parameters(model),
        "aspect_ratio": model.d_model / model.n_layers,
        "batch_tokens": run["train.batch_size"] * model.context_length,
        "steps": round(tokens / (run["train.batch_size"] * model.context_length)),
        "flops": {name: tokens * count.flops_per_token(model, name) for name in count.FLOPS},
        "published": f"{sizes[0]:.3g} to {sizes[-1]:.3g} parameters",
        "rules": RULES,
    }


def best_shape(
    nearest: Member, params: float, aspect: float, convention: str, narrow: bool
) -> tuple[dict[str, int], ModelConfig]:
    """Layers, width and heads closest to N and to the aspect ratio: the keys and the model.

    `narrow` allows heads of half the published width, of a quarter, and so on.
    """
    lowest, best = math.inf, ({}, nearest.model)
    widths = [nearest.model.head_dim]
    while narrow and widths[-1] // 2 >= SMALLEST_HEAD:
        widths.append(widths[-1] // 2)
    for layers in range(1, MOST_LAYERS + 1):
        for halvings, head_dim in enumerate(widths):
            for keys in head_choices(nearest, layers, head_dim, params, convention):
                model = resize(nearest.model, keys)
                score = abs(math.log(param_count(model, convention) / params))
                score += ASPECT_WEIGHT * abs(math.log(keys["d_model"] / layers / aspect))
                score += HALVING_WEIGHT * halvings
                if score < lowest:
                    lowest, best = score, (keys, model)
    return best


def head_choices(
    nearest: Member, layers: int, head_dim: int, params: float, convention: str
) -> list[dict[str, int]]:
    """The shape with the most heads that stays below N, and the shape with the next more heads."""
    model = nearest.model
    one = model.n_kv_heads == 1  # then it stays one, whatever the number of query heads
    group = 1 if one else model.n_heads // model.n_kv_heads
    # All heads together are as wide as the model, except in families that publish another width.
    whole = model.d_model % model.n_heads == 0
    per_head = model.d_model // model.n_heads * head_dim // model.head_dim if whole else head_dim
    ratio = model.d_ff / model.d_model * per_head / head_dim

    def keys(groups: int) -> dict[str, int]:
        heads = groups * group
        # Ratios such as LLaMA's 2.69 make whole multiples of a head's width.
        ff = head_dim * max(1, round(ratio * heads))
        width = {"d_model": heads * per_head, "n_heads": heads, "head_dim": head_dim, "d_ff": ff}
        return {"n_layers": layers, "n_kv_heads": 1 if one else groups} | width

    low, high = 0, 1
    while param_count(resize(nearest.model, keys(high)), convention) < params:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        below = param_count(resize(nearest.model, keys(middle)), convention) < params
        low, high = (middle, high) if below else (low, middle)
    if low * group >= MANY_HEADS:
        step = 4 // math.gcd(4, group)
        low, high = low // step * step, low // step * step + step
    return [keys(groups) for groups in (low, high) if groups]


def resize(model: ModelConfig, keys: dict[str, int]) -> ModelConfig:
    """The model with `keys` replaced."""
    return ModelConfig(**(vars(model) | keys))


def width_overrides(model: ModelConfig, keys: dict[str, int]) -> dict[str, float]:
    """The keys that the family defines as functions of the width, for the width in `keys`."""
    if model.logit_scale == model.d_model**-0.5:  # PaLM
        return {"logit_scale": keys["d_model"] ** -0.5}
    return {}


def run_overrides(
    published: Sequence[Member], params: float, tokens: float, context: int
) -> dict[str, Any]:
    """Duration, batch, learning rate and warmup as overrides."""
    flops = 6 * params * tokens
    sizes = [member.params for member in published]
    inside = sizes[0] / (1 + OFF_SIZE) <= params <= sizes[-1] * (1 + OFF_SIZE)
    batch, rate = 0.2920 * flops**0.3271, 0.3118 * flops**-0.1250
    batches = [member.batch for member in published]
    if inside and None not in batches:
        batch = interpolate(sizes, batches, params)
    rates = [member.learning_rate for member in published]
    if inside and None not in rates:
        rate = interpolate(sizes, rates, params)
    nearest = round(math.log2(max(1, batch / context)))
    most = math.floor(math.log2(max(1, tokens / FEWEST_STEPS / context)))
    return {
        "train.batch_size": 2 ** min(nearest, most),
        "train.duration": f"{tokens:.4g} tokens",
        "optimizer.learning_rate": float(f"{rate:.2g}"),
        "schedule.warmup": "1 %",
    }
