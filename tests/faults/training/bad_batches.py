"""Makes the batches of chosen steps of the data bad: NaN, or with 100 times the loss.

As a program it is `isoflop` with the first argument as JSON {step of the data: fault}:

    python -m tests.faults.training.bad_batches '{"40": "nan"}' train --config=…
"""

import json
import sys
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from train import loop
from train.objectives import next_token

MARKED = {"nan": np.nan, "spike": 2.0}  # the weights of a bad batch; a whole batch has weights 1
READ, LOSS = loop.read_steps, next_token.loss


def loss(family: Any, params: dict, frozen: dict, cfg: Any, batch: dict, key: Any) -> tuple:
    """The objective's loss, times 100 for a batch that is marked as a spike."""
    total, sums = LOSS(family, params, frozen, cfg, batch, key)
    factor = jnp.where(jnp.max(batch["weights"]) == MARKED["spike"], 100.0, 1.0)
    of_loss, weight = sums["loss"]
    return total * factor, sums | {"loss": (of_loss * factor, weight)}


def reading(bad: Mapping[int, str], read: list[int]) -> Any:
    """`read_steps` with these faults; it adds the steps of the data that it reads to `read`."""

    def read_steps(config: Any, dataset: Any, step: int, count: int, rows: Any = None) -> dict:
        batches = dict(READ(config, dataset, step, count, rows))
        batches["weights"] = np.array(batches["weights"], np.float32)
        read.extend(range(step, step + count))
        for number in range(count):
            if step + number in bad:
                batches["weights"][number] = MARKED[bad[step + number]]
        return batches

    return read_steps


def patched(setattr: Any, bad: Mapping[int, str]) -> list[int]:
    """Puts the faults in place with `setattr(object, name, value)`. Returns the list of the steps
    of the data that runs read from now on."""
    read: list[int] = []
    setattr(loop, "read_steps", reading(bad, read))
    setattr(next_token, "loss", loss)
    return read


if __name__ == "__main__":
    from launch.__main__ import entry

    given = json.loads(sys.argv.pop(1))
    patched(setattr, {int(step): fault for step, fault in given.items()})
    entry()
