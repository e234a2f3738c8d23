"""How many times larger a model would have to be to save what an index saves, by a fitted law."""

from typing import Any

import numpy as np

from scaling.design.planning import PlanningLaw
from scaling.settings import LEVEL


def size_factor(
    law: PlanningLaw, params: float, saved: float, saved_se: float | None, seed: int = 0
) -> dict[str, Any]:
    """x such that a model of x N parameters, trained on the same tokens, has a loss lower by
    `saved` nats than one of N = `params`: from L(N, D) = E + A N^-α + B D^-β,

        A (x N)^-α = A N^-α - saved,  x = (1 - saved / (A N^-α))^(-1/α).

    The interval holds the law's bootstrap draws, each with a draw of `saved` from its standard
    error. Where the saving exceeds A N^-α, no size is enough: x is infinite, and None here. `never`
    is the share of draws for which it is. Without draws there is no interval.
    """
    constants = law.constants
    reducible = constants["A"] * params ** -constants["alpha"]
    noise = np.random.default_rng(seed).standard_normal(len(reducible) - 1) * (saved_se or 0.0)
    drawn = saved + np.concatenate([[0.0], noise])
    left = 1 - drawn / reducible
    with np.errstate(divide="ignore", over="ignore"):
        factor = np.where(left > 0, np.maximum(left, 1e-300) ** (-1 / constants["alpha"]), np.inf)
    tails = [0.5 - LEVEL / 2, 0.5 + LEVEL / 2]
    # Without interpolation, which no infinite draw allows.
    bounds = np.quantile(factor[1:], tails, method="nearest") if len(factor) > 1 else (np.nan,) * 2
    value, low, high = (float(x) if np.isfinite(x) else None for x in (factor[0], *bounds))
    never = float(np.isinf(factor[1:] if len(factor) > 1 else factor).mean())
    return {"value": value, "lo": low, "hi": high, "never": never, "draws": len(factor) - 1}
