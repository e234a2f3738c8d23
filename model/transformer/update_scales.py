"""Scaling of the learning rate, weight decay and epsilon with the width and depth of a Transformer.

There is one table of (path regex → exponents) per parametrisation. The model is m times as wide and
l times as deep as the base shape. `parametrization.py` scales the initial values and the forward
pass. The reasons for the exponents:

A kernel [in, out] of a block sums over m times as many inputs. The entries of an Adam update have
size 1 and agree with the input in sign, so the sum is proportional to m, and the learning rate must
be proportional to 1/m. Embedding tables and vectors have no such sum, and the forward pass divides
the head's sum by m. Weight decay is multiplied by the learning rate, so it must be proportional to
m to have the same effect. All gradients are proportional to 1/m, because the logits are divided by
m, and within blocks to 1/l if branches are divided by l. Adam's epsilon is scaled like the gradient
(Everett et al. 2024).
"""

from dataclasses import dataclass

from model.transformer.config import ModelConfig
from model.transformer.parametrization import depth_ratio, width_ratio

Powers = tuple[float, float]
"""Exponents of m and of l."""


@dataclass(frozen=True)
class Exponents:
    """Exponents of the factors on a parameter's learning rate, weight decay and epsilon."""

    rate: Powers = (0, 0)
    decay: Powers = (0, 0)
    eps: Powers = (0, 0)


# mup: Yang et al. 2022, table 8, Adam. completep: Dey et al. 2025, table 1 with α = 1.
RULES = {
    "standard": ((r"", Exponents()),),
    "mup": (
        (r"^blocks/.*kernel$", Exponents(rate=(-1, 0), decay=(1, 0), eps=(-1, 0))),
        (r"(embedding|scale|bias)$", Exponents(eps=(-1, 0))),
        (r"^(head|classes)/kernel$", Exponents(eps=(-1, 0))),
    ),
    "completep": (
        (r"^blocks/.*kernel$", Exponents(rate=(-1, 0), decay=(1, 0), eps=(-1, -1))),
        (r"^blocks/.*(scale|bias)$", Exponents(eps=(-1, -1))),
        (r"(embedding|scale|bias)$", Exponents(eps=(-1, 0))),
        (r"^(head|classes)/kernel$", Exponents(eps=(-1, 0))),
    ),
}
# The tables assume that the size of updates does not depend on the size of gradients.
OPTIMIZERS = ("adamw", "lion")


def update_scales(
    cfg: ModelConfig, optimizer: str
) -> tuple[tuple[str, tuple[float, float, float]], ...]:
    """(path regex, factors of learning rate, weight decay and epsilon) for `cfg.parametrization`.
    Raises ValueError if the tables do not apply to `optimizer`.
    """
    if cfg.parametrization != "standard" and optimizer not in OPTIMIZERS:
        raise ValueError(
            f"optimizer.name={optimizer!r} has no rules for "
            f"model.parametrization={cfg.parametrization!r}; use {' or '.join(OPTIMIZERS)}, "
            "or model.parametrization=standard"
        )
    m, l = width_ratio(cfg), depth_ratio(cfg)  # noqa: E741
    evaluate = lambda powers: m ** powers[0] * l ** powers[1]  # noqa: E731
    return tuple(
        (pattern, (evaluate(e.rate), evaluate(e.decay), evaluate(e.eps)))
        for pattern, e in RULES[cfg.parametrization]
    )
