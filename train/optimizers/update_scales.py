"""This file scales what the optimiser does to each parameter with the model's width and depth.

Ordered tables of (path regex → exponents), a table for each parametrisation. m and l are how many
times wider and deeper the model is than the base shape; `model/transformer/parametrization.py` has
what they do to initial values and to the forward pass. The reasons:

A kernel [in, out] of a block sums over m times as many inputs. An update of Adam's has entries of
size 1 that agree with the input in sign, so the sum grows as m and the learning rate falls as 1/m.
Tables and vectors sum over nothing that grows. (The head's sum is divided by m in the forward
pass.) Decay is multiplied by the learning rate, so it rises as m to pull at the same pace. Every
gradient falls as 1/m, for the logits are divided by m, and within blocks as 1/l where branches are;
Adam's epsilon follows its gradient (Everett et al. 2024).
"""

from dataclasses import dataclass

from model.transformer.config import ModelConfig
from model.transformer.parametrization import depth_ratio, width_ratio
from train.rules import Rules

Powers = tuple[float, float]
"""Exponents of m and of l."""


@dataclass(frozen=True)
class Exponents:
    """By which a parameter's learning rate, weight decay and epsilon differ from the config's."""

    rate: Powers = (0, 0)
    decay: Powers = (0, 0)
    eps: Powers = (0, 0)


@dataclass(frozen=True)
class Factors:
    """Exponents, evaluated for one model."""

    rate: float
    decay: float
    eps: float


# mup: Yang et al. 2022, table 8, Adam. completep: Dey et al. 2025, table 1 with α = 1.
RULES = {
    "standard": ((r"", Exponents()),),
    "mup": (
        (r"^blocks/.*kernel$", Exponents(rate=(-1, 0), decay=(1, 0), eps=(-1, 0))),
        (r"(embedding|scale|bias)$", Exponents(eps=(-1, 0))),
        (r"^head/kernel$", Exponents(eps=(-1, 0))),
    ),
    "completep": (
        (r"^blocks/.*kernel$", Exponents(rate=(-1, 0), decay=(1, 0), eps=(-1, -1))),
        (r"^blocks/.*(scale|bias)$", Exponents(eps=(-1, -1))),
        (r"(embedding|scale|bias)$", Exponents(eps=(-1, 0))),
        (r"^head/kernel$", Exponents(eps=(-1, 0))),
    ),
}
# Whose updates have entries of one size, whatever the gradient's: what the tables assume.
OPTIMIZERS = ("adamw", "lion")


def require(parametrization: str, optimizer: str) -> None:
    """ValueError if no table says how `optimizer` scales under `parametrization`."""
    if parametrization != "standard" and optimizer not in OPTIMIZERS:
        raise ValueError(
            f"optimizer.name={optimizer!r} has no rules under "
            f"model.parametrization={parametrization!r}; use {' or '.join(OPTIMIZERS)}, "
            "or model.parametrization=standard"
        )


def factors(cfg: ModelConfig, optimizer: str) -> Rules:
    """The table of `cfg.parametrization` with Factors for its Exponents."""
    require(cfg.parametrization, optimizer)
    m, l = width_ratio(cfg), depth_ratio(cfg)  # noqa: E741
    evaluate = lambda powers: m ** powers[0] * l ** powers[1]  # noqa: E731
    return tuple(
        (pattern, Factors(evaluate(e.rate), evaluate(e.decay), evaluate(e.eps)))
        for pattern, e in RULES[cfg.parametrization]
    )
