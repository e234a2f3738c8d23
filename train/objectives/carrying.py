"""Lets an objective train a model that carries its state from batch to batch."""

from collections.abc import Mapping
from typing import Any

import jax


class Carrying:
    """A family that begins each row of a batch from `carry`, and then holds the state after it.

    It stands for the family in one call of an objective, which must compute the hidden states of
    one batch once. Gradients end at the beginning of the batch (truncated backpropagation through
    time, Williams & Peng 1990).
    """

    def __init__(self, family: Any, carry: Any):
        self._family, self.carry, self._used = family, carry, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._family, name)

    def hidden(
        self, cfg: Any, params: dict, batch: Mapping[str, Any], key: jax.Array | None = None
    ) -> jax.Array:
        """The family's hidden states, from the carry. Raises ValueError the second time."""
        if self._used:
            raise ValueError(
                "model.carry_state=True needs an objective that reads each batch once; use "
                "objective.name=next_token, or model.carry_state=False"
            )
        x_BTD, self.carry = self._family.hidden_from(cfg, params, batch, self.carry, key)
        self._used = True
        return x_BTD
