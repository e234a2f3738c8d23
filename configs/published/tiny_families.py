"""Every family in miniature.

    isoflop sweep --config=configs/published/tiny_families.py --workdir=runs/tiny

Unmeasured on the standard library. On three files of English text (docs/families.md; 2 busy CPU
cores, 75 min, 2026-11) all beat the 5-gram's 1.382 nats/token, from GPT-2's 1.362 to Gemma 3's
1.319.

One trial per family, on the same text, at the same depth, width, number of steps and learning rate.
Only the block differs, and two families take twice the sequences per step. Each trial keeps the
switches of its published model. Sizes are smaller, and so are windows and original contexts.
GPT-3 has GPT-2's block, and LLaMA 2 has LLaMA's except for its epsilon, so one trial stands for
both. `isoflop ngram --config=configs/published/tiny_families.py` scores a 5-gram to compare them
with, and `isoflop train --config=configs/published/tiny_families.py:gemma2` trains one of them.
"""

import difflib

from ml_collections import ConfigDict

from configs import base
from configs.families import FAMILIES

# The published model whose switches a family's trial keeps, and what shrinks beside the sizes.
TINY = {
    "gpt2": ("gpt2", {}),
    "palm": ("palm-8b", dict(n_kv_heads=1)),
    "llama": ("llama-7b", {}),
    "llama3": ("llama3.2-1b", dict(n_kv_heads=2, rope_original_context=32, rope_factor=4.0)),
    "mistral": ("mistral-7b", dict(n_kv_heads=2, window=32)),
    "gemma": ("gemma-2b", dict(n_kv_heads=1)),
    "gemma2": ("gemma2-2b", dict(n_kv_heads=2, window=32)),
    "gemma3": ("gemma3-4b", dict(n_kv_heads=2, window=32, window_pattern="LLLG")),
    "phi3": ("phi3-mini-128k", dict(rope_original_context=32)),
    "qwen2.5": ("qwen2.5-0.5b", dict(n_kv_heads=2)),
    "qwen3": ("qwen3-0.6b", dict(n_kv_heads=2)),
}
SIZES = dict(vocab_size=0, context_length=128, n_layers=4, d_model=128, n_heads=4, d_ff=0)
# Slower to learn in steps: with the others' sequences they end at 1.413 and 1.385 nats/token.
TWICE = ("gpt2", "palm")
# Derived from the sizes where they stay at the defaults of base.py.
DERIVED = ("n_kv_heads", "head_dim", "query_scale")


def get_config(arg: str = "") -> ConfigDict:
    """What all trials share, or the trial of the family `arg`."""
    config = base.get_config()
    config.model.update(SIZES)
    if arg and arg not in TINY:
        near = difflib.get_close_matches(arg, TINY, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ValueError(
            f"configs/published/tiny_families.py:{arg} is unknown; {hint}known: {', '.join(TINY)}"
        )
    # Micro-batches of 8 sequences, whose activations stay in a core's cache: 1.5 times as fast.
    config.train.update(batch_size=128, accumulation=16, duration="300 steps")
    config.optimizer.update(name="muon", learning_rate=0.02)
    config.schedule.update(name="linear", warmup="10 steps", final=0.0)
    config.eval.update(every="50 %", sequences=512, batch_size=64)
    config.checkpoint.update(every="50 %", keep_last=1, keep_best=0)
    if arg:
        config.update_from_flattened_dict(trial(arg, config))
    return config


def get_sweep(config: ConfigDict) -> list[dict]:
    """A trial a family; one alone of a config that is one family's, which has its sequences."""
    if config.name in TINY:
        return [switches(config.name, config)]
    return [trial(name, config) for name in TINY]


def trial(name: str, config: ConfigDict) -> dict:
    """What a family's trial changes in the config that all share."""
    sizes = config.train
    twice = {
        "train.batch_size": 2 * sizes.batch_size,
        "train.accumulation": 2 * sizes.accumulation,
    }
    return switches(name, config) | (twice if name in TWICE else {})


def switches(name: str, config: ConfigDict) -> dict:
    """A family's name and model keys, as a sweep writes them."""
    return {"name": name} | {f"model.{key}": v for key, v in tiny(name, config).items()}


def tiny(name: str, config: ConfigDict) -> dict:
    """The model keys of a family's trial, beside those of SIZES."""
    published, changes = TINY[name]
    keys = dict(FAMILIES[published]["model"])
    model = {k: v for k, v in keys.items() if k not in SIZES and k not in DERIVED} | changes
    width, head_dim = config.model.d_model, config.model.d_model // config.model.n_heads
    if "logit_scale" in model:
        model["logit_scale"] = width**-0.5
    for key in ("rope_short_factors", "rope_long_factors"):
        if key in model:  # a divisor for each pair: as many as there are, evenly taken
            pairs = head_dim // 2
            model[key] = tuple(model[key][i * len(model[key]) // pairs] for i in range(pairs))
    return model
