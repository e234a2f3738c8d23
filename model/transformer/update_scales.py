"""How the optimiser's rate, decay and epsilon follow the width and depth of a Transformer.

One table of (path regex → exponents) for each parametrisation. m and l are how many times wider
and deeper the model is than the base shape; `parametrization.py` has what they do to the initial
values and the forward pass. The reasons:

A kernel [in, out] of a block sums over m times as many inputs. The entries of an Adam update have
size 1 and agree with the input in sign, so the sum grows as m and the learning rate falls as 1/m.
Tables and vectors sum over nothing that grows. (The forward pass divides the head's sum by m.)
Decay is multiplied by the learning rate, so it rises as m to pull at the same pace. Every gradient
falls as 1/m, because the logits are divided by m, and within blocks as 1/l where branches are
divided by l; Adam's epsilon follows its gradient (Everett et al. 2024).
"""

from dataclasses import dataclass

from model.transformer.config import ModelConfig
from model.transformer.parametrization import depth_ratio, width_ratio

Powers = tuple[float, float]
"""Exponents of m and of l."""


@dataclass(frozen=True)
class Exponents:
    """By which a parameter's learning rate, weight decay and epsilon differ from the config's."""

    rate: Powers = (0, 0)
    decay: Powers = (0, 0)
    eps: Powers = (0, 0)


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
# Optimisers whose updates have entries of one size, whatever the gradient's: the tables assume it.
OPTIMIZERS = ("adamw", "lion")


def update_scales(
    cfg: ModelConfig, optimizer: str
) -> tuple[tuple[str, tuple[float, float, float]], ...]:
    """(path regex, factors of learning rate, weight decay and epsilon) for `cfg.parametrization`;
    ValueError if no table says how `optimizer` scales under it."""
    if cfg.parametrization != "standard" and optimizer not in OPTIMIZERS:
        raise ValueError(
            f"optimizer.name={optimizer!r} has no rules under "
            f"model.parametrization={cfg.parametrization!r}; use {' or '.join(OPTIMIZERS)}, "
            "or model.parametrization=standard"
        )
    m, l = width_ratio(cfg), depth_ratio(cfg)  # noqa: E741
    evaluate = lambda powers: m ** powers[0] * l ** powers[1]  # noqa: E731
    return tuple(
        (pattern, (evaluate(e.rate), evaluate(e.decay), evaluate(e.eps)))
        for pattern, e in RULES[cfg.parametrization]
    )
