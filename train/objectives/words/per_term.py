"""A loss that is a sum of terms over their number, as functions of an objective."""

from collections.abc import Callable
from typing import Any

import jax

Terms = Callable[[Any, dict, Any, dict, jax.Array | None], tuple[jax.Array, jax.Array]]
"""(model, params, cfg, batch, key) → (sums of terms [B, T], numbers of terms [B, T])."""


def loss_of(terms: Terms) -> Callable:
    """The `loss` of an objective: the terms of a batch, summed."""

    def loss(
        model: Any, params: dict, frozen: dict, cfg: Any, batch: dict, key: jax.Array
    ) -> tuple[jax.Array, dict]:
        sum_BT, number_BT = terms(model, params, cfg, batch, key)
        total = sum_BT.sum()
        return total, {"loss": (total, number_BT.sum())}

    return loss


def rows_of(terms: Terms, name: str) -> Callable:
    """The `evaluate` of an objective: the sum `name` and the weights of each row [B]."""

    def evaluate(
        model: Any, params: dict, frozen: dict, cfg: Any, batch: dict
    ) -> dict[str, jax.Array]:
        sum_BT, number_BT = terms(model, params, cfg, batch, None)
        return {name: sum_BT.sum(-1), "weights": number_BT.sum(-1)}

    return evaluate
