"""The ladders of docs/study.md: two styles of block, three budgets a factor 3 apart.

    isoflop sweep --config=configs/study/ladder.py --workdir=runs/llama
    isoflop sweep --config=configs/study/ladder.py:gpt --workdir=runs/gpt

2 CPU cores, 14 min (2026-11): predicted 1.320 nats [1.291, 1.349], outcome 1.339 (+1.4 %), all
three minima bracketed, N* ∝ C^0.66 [0.59, 0.78].

Decoders learn the bytes of this Python's standard library with Muon. At each budget five sizes
around the optimum are trained, each with the full budget; one held-out run has 3 times the largest
budget. Depth grows with width. A budget is 6 N D, where N counts all parameters. The text is large
enough that no trial sees it twice. configs/quickstart.py is a smaller ladder of this kind.
"""

from ml_collections import ConfigDict

from configs import base
from configs.space import chain

# Budget in FLOPs: the (layers, width), each trained with the full budget; 20k to 468k parameters.
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
        raise ValueError(f"configs/study/ladder.py:{arg} is unknown; use :{' or :'.join(STYLES)}")
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
    return all_trials(LADDER, HELD_OUT)


def all_trials(fitted: dict, held_out: dict) -> list[dict]:
    """The trials to fit and those held out: {budget in FLOPs: ((layers, width), ...)}."""
    return chain(
        *(trials(budget, shapes, holdout=False) for budget, shapes in fitted.items()),
        *(trials(budget, shapes, holdout=True) for budget, shapes in held_out.items()),
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
