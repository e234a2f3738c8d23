"""Iso-FLOP grid.  isoflop sweep --config=configs/isoflop.py:1e16 --workdir=runs/isoflop
One GPU or TPU at :1e16 (0.12 EFLOP in all); about an hour of 2 CPU cores at :3e13. Unmeasured.

The argument is the largest fitted budget in FLOPs. Three smaller budgets follow, each about 3 times
smaller than the one before, and a run at three times the largest is held out. The sizes of a budget
C are between a quarter of N = sqrt(C / 120), which is 20 tokens per parameter, and four times that.
On a GPU or TPU use a larger batch: --config.train.batch_size=64 --config.model.context_length=512
"""

import math

from ml_collections import ConfigDict

from configs.study import ladder

# (layers, width); depth and width grow together, about 1.6 times the parameters at each step.
SHAPES = (
    *((2, 32), (2, 48), (3, 48), (3, 64), (4, 64), (4, 80), (4, 96), (5, 112), (6, 128), (6, 160)),
    *((8, 192), (8, 256), (9, 320), (10, 384), (12, 448), (12, 576), (14, 640), (16, 768)),
    *((18, 896), (20, 1024), (22, 1216), (24, 1408)),
)
BUDGETS = (1, 0.3, 0.1, 0.03)
HELD_OUT = 3


def get_config(arg: str = "3e13") -> ConfigDict:
    """The study's recipe; `arg` is the budget of the largest fitted runs."""
    try:
        positive = float(arg) > 0 and math.isfinite(float(arg))
    except ValueError:
        positive = False
    if not positive:
        raise ValueError(f"configs/isoflop.py:{arg} is not a budget in FLOPs; use :3e13, say")
    config = ladder.get_config()
    config.name = "isoflop"
    config.train.duration = f"{arg} flops"
    return config


def get_sweep(config: ConfigDict) -> list[dict]:
    """Five or more sizes at each budget, and the held-out run at the expected optimum."""
    largest = float(config.train.duration.removesuffix(" flops"))
    trials = [
        trial(shape, share * largest)
        for share in BUDGETS
        for shape in SHAPES
        if 1 / 4 <= parameters(shape) / optimum(share * largest) <= 4
    ]
    budget = HELD_OUT * largest
    best = min(SHAPES, key=lambda shape: abs(math.log(parameters(shape) / optimum(budget))))
    return [*trials, trial(best, budget) | {"holdout": True}]


def trial(shape: tuple[int, int], budget: float) -> dict:
    n_layers, d_model = shape
    return {
        "model.n_layers": n_layers,
        "model.d_model": d_model,
        "model.n_heads": max(4, d_model // 64),
        "train.duration": f"{budget:.4g} flops",
    }


def parameters(shape: tuple[int, int]) -> int:
    """Of the blocks, about: 12 L d^2."""
    n_layers, d_model = shape
    return 12 * n_layers * d_model**2


def optimum(budget: float) -> float:
    """Parameters that use up the budget at 20 tokens each: C = 6 N · 20 N, Hoffmann et al. 2022."""
    return math.sqrt(budget / 120)
