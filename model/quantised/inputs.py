"""What every Linear of a model reads on calibration text: sums of x x^T, the Hessians of GPTQ."""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from model import families


@functools.partial(jax.jit, static_argnums=(0, 1))
def products(family: Any, cfg: Any, params: dict, batch: dict) -> dict[str, list]:
    """{path of a Linear in a block, such as attention/query: a sum of x x^T float32 [I, I] for each
    layer}. `batch`: tokens [B, T] and, of packed rows, their segments and positions; places of
    segment 0 are padding, and are left out."""
    cfg = dataclasses.replace(cfg, remat="none", scan_layers=False)
    found: dict[str, list[jax.Array]] = {}

    def keep(call: Any, args: tuple, kwargs: dict, context: Any) -> Any:
        module = context.module
        if type(module).__name__ == "Linear" and module.path and context.method_name == "__call__":
            x_MI = args[0].reshape(-1, args[0].shape[-1]).astype(jnp.float32)
            if "segments" in batch:
                x_MI *= batch["segments"].reshape(-1, 1) > 0
            found.setdefault("/".join(module.path), []).append(x_MI.T @ x_MI)
        return call(*args, **kwargs)

    with nn.intercept_methods(keep):
        family.hidden(cfg, params, batch)
    return found


def hessians(
    family: families.Trained, cfg: Any, params: dict, batches: list[dict]
) -> dict[str, list]:
    """`products` summed over batches."""
    total = None
    for batch in batches:
        found = products(family, cfg, params, batch)
        total = found if total is None else jax.tree.map(jnp.add, total, found)
    return total
