"""The ladder of `make ladder`: iso-FLOP trials, then a larger one predicted before it starts.

    isoflop sweep --config=configs/quickstart.py --workdir=runs/quickstart

2 CPU cores, 14 min (2026-11): predicted 1.320 nats [1.291, 1.349], outcome 1.339 (+1.4 %), all
three minima bracketed, N* ∝ C^0.66 [0.59, 0.78].

Decoders in LLaMA's style learn the bytes of this Python's standard library with Muon: three compute
budgets a factor 3 apart, each spent on five sizes around its optimum, and a held-out run at 3 times
the largest budget. Depth grows with width. A budget is 6 N D, where N counts all parameters.
The text is large enough that no trial sees it twice. `:gpt` has blocks in GPT-2's style instead;
docs/study.md compares the two.
"""

from ml_collections import ConfigDict

from configs import base
from configs.space import chain

# Budget in FLOPs: the (layers, width) that share it; 20k to 468k parameters.
LADDER = {
    3e11: ((2, 24), (2, 32), (2, 40), (3, 48), (3, 64)),
    9e11: ((2, 32), (2, 40), (3, 48), (3, 64), (3, 80)),
    2.7e12: ((2, 40), (3, 48), (3, 64), (3, 80), (4, 96)),
}
HELD_OUT = {8.1e12: ((3, 80),)}

# The best rate at every width, measured by lr_grid.py.
LEARNING_RATES = {"llama": 0.02, "gpt": 0.04}
STYLES = {
    "llama": dict(
        norm="rmsnorm",
        positions="rotary",
        activation="silu",
        gated=True,
        attention_bias=False,
        mlp_bias=False,
        init="fan_in",
    ),
    "gpt": dict(norm="layernorm", positions="learned", activation="gelu_tanh", init="gpt2"),
}


def get_config(arg: str = "llama") -> ConfigDict:
    """What all trials share; `arg` is a style of block."""
    if arg not in STYLES:
        raise ValueError(f"configs/quickstart.py:{arg} is unknown; use :{' or :'.join(STYLES)}")
    config = base.get_config()
    config.model.update(STYLES[arg], context_length=128, n_heads=4)
    config.train.batch_size = 8
    config.optimizer.update(name="muon", learning_rate=LEARNING_RATES[arg])
    config.schedule.update(name="cosine", warmup="0.5 %", final=0.1)
    config.eval.update(every="25 %", sequences=512, batch_size=64)
    config.checkpoint.update(every="50 %", keep_last=1, keep_best=0)
    return config


def get_sweep(config: ConfigDict) -> list[dict]:
    """The trials to fit, and the one to predict."""
    return chain(
        *(trials(budget, shapes, False) for budget, shapes in LADDER.items()),
        *(trials(budget, shapes, True) for budget, shapes in HELD_OUT.items()),
    )


def trials(flops: float, shapes: tuple[tuple[int, int], ...], holdout: bool) -> list[dict]:
    """One budget spent on several sizes."""
    return [
        {
            "name": f"{flops:.1e}-d{width}".replace("+", ""),
            "holdout": holdout,
            "train.duration": f"{flops:g} flops",
            "model.n_layers": layers,
            "model.d_model": width,
        }
        for layers, width in shapes
    ]
