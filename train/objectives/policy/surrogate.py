"""The clipped losses of each token, and the ways of averaging them.

B responses, N tokens of a response
"""

import jax
import jax.numpy as jnp


def clipped_policy(
    logp_BN: jax.Array, old_BN: jax.Array, advantages_BN: jax.Array, low: float, high: float
) -> tuple[jax.Array, jax.Array]:
    """(−min(r A, clip(r, 1 − low, 1 + high) A), whether the clipped term decides) of each token,
    with r = p / p_old: Schulman et al. 2017, eq. 7; high > low: Yu et al. 2025, DAPO, eq. 10."""
    ratio_BN = jnp.exp(logp_BN - old_BN)
    free_BN = -advantages_BN * ratio_BN
    clipped_BN = -advantages_BN * jnp.clip(ratio_BN, 1 - low, 1 + high)
    return jnp.maximum(free_BN, clipped_BN), (clipped_BN > free_BN).astype(jnp.float32)


def clipped_value(
    values_BN: jax.Array, old_BN: jax.Array, returns_BN: jax.Array, clip: float
) -> jax.Array:
    """max((V − R)², (clip(V, V_old ± clip) − R)²) / 2 of each token; clip = 0: without clipping."""
    loss_BN = jnp.square(values_BN - returns_BN)
    if clip:
        near_BN = jnp.clip(values_BN, old_BN - clip, old_BN + clip)
        loss_BN = jnp.maximum(loss_BN, jnp.square(near_BN - returns_BN))
    return loss_BN / 2


def _token(mask_BN: jax.Array) -> tuple[jax.Array, jax.Array]:
    return mask_BN, mask_BN.sum()


def _sequence(mask_BN: jax.Array) -> tuple[jax.Array, jax.Array]:
    length_B1 = mask_BN.sum(1, keepdims=True)
    return mask_BN / jnp.maximum(length_B1, 1), (length_B1 > 0).astype(jnp.float32).sum()


def _constant(mask_BN: jax.Array) -> tuple[jax.Array, jax.Array]:
    return mask_BN, jnp.float32(mask_BN.size)


def _sum(mask_BN: jax.Array) -> tuple[jax.Array, jax.Array]:
    return mask_BN, jnp.float32(len(mask_BN))


NORMALISE = {
    "token": _token,  # the mean over all tokens of the batch: DAPO
    "sequence": _sequence,  # the mean over the tokens of each response, then over responses: GRPO
    "constant": _constant,  # the sum over tokens / (responses × max_tokens): Dr. GRPO
    "sum": _sum,  # the sum over the tokens of a response, the mean over responses: REINFORCE
}
"""mask [B, N] → (weight of each token, what their sum is divided by over the whole batch)."""
