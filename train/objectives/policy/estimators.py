"""Advantages and their parts: estimators of the KL divergence, whitening, GAE and baselines of a
group. Pure functions of arrays.

    R responses, of n = R / P to each of P prompts; N tokens of a response

`mask` [R, N] is 1 for the tokens of a response, which begin at the first place, and 0 after them.
"""

import jax
import jax.numpy as jnp


def k1(logp: jax.Array, reference: jax.Array) -> jax.Array:
    """log p/q of a token from p: unbiased, of either sign. Schulman 2020, Approximating KL."""
    return logp - reference


def k2(logp: jax.Array, reference: jax.Array) -> jax.Array:
    """(log p/q)² / 2: biased and never negative; its gradient is that of the KL."""
    return jnp.square(logp - reference) / 2


def k3(logp: jax.Array, reference: jax.Array) -> jax.Array:
    """q/p − 1 − log q/p: unbiased and never negative."""
    log_ratio = reference - logp
    return jnp.exp(log_ratio) - 1 - log_ratio


KL = {"k1": k1, "k2": k2, "k3": k3}
"""Estimators of KL(p || q), nats of each token drawn from p, given log p and log q."""


def masked_mean(x_RN: jax.Array, mask_RN: jax.Array) -> jax.Array:
    """The mean over the tokens that the mask keeps; 0 without any."""
    return (x_RN * mask_RN).sum() / jnp.maximum(mask_RN.sum(), 1)


def masked_variance(x_RN: jax.Array, mask_RN: jax.Array) -> jax.Array:
    """The unbiased variance over those tokens; 0 for fewer than two."""
    centred_RN = (x_RN - masked_mean(x_RN, mask_RN)) * mask_RN
    return jnp.square(centred_RN).sum() / jnp.maximum(mask_RN.sum() - 1, 1)


def whiten(x_RN: jax.Array, mask_RN: jax.Array, shift_mean: bool = True) -> jax.Array:
    """x with variance 1 over the tokens of the mask and, with `shift_mean`, mean 0; 0 elsewhere."""
    mean = masked_mean(x_RN, mask_RN)
    whitened_RN = (x_RN - mean) * jax.lax.rsqrt(masked_variance(x_RN, mask_RN) + 1e-8)
    return (whitened_RN if shift_mean else whitened_RN + mean) * mask_RN


def token_rewards(
    reward_R: jax.Array, kl_RN: jax.Array, mask_RN: jax.Array, weight: float
) -> jax.Array:
    """The reward of each token: −weight × its KL, and the response's reward at its last token.
    Ziegler et al. 2019, eq. 2."""
    last_R = mask_RN.sum(1).astype(jnp.int32) - 1
    at_last_RN = jnp.arange(mask_RN.shape[1]) == last_R[:, None]
    return (reward_R[:, None] * at_last_RN - weight * kl_RN) * mask_RN


def gae(
    rewards_RN: jax.Array, values_RN: jax.Array, gamma: float, lam: float
) -> tuple[jax.Array, jax.Array]:
    """(advantages, returns) [R, N] by generalised advantage estimation: A_t = δ_t + γλ A_{t+1} with
    δ_t = r_t + γ V_{t+1} − V_t; returns are A + V. Schulman et al. 2016, eq. 16.

    `values` is of the state before each token. Rewards and values must be 0 after a response."""
    next_RN = jnp.pad(values_RN[:, 1:], ((0, 0), (0, 1)))
    delta_NR = (rewards_RN + gamma * next_RN - values_RN).T

    def back(after_R, delta_R):
        advantage_R = delta_R + gamma * lam * after_R
        return advantage_R, advantage_R

    _, advantages_NR = jax.lax.scan(back, jnp.zeros_like(delta_NR[0]), delta_NR, reverse=True)
    return advantages_NR.T, advantages_NR.T + values_RN


def explained_variance(
    values_RN: jax.Array, returns_RN: jax.Array, mask_RN: jax.Array
) -> jax.Array:
    """1 − Var(returns − values) / Var(returns); 0 if the returns do not vary."""
    total, left = (masked_variance(x, mask_RN) for x in (returns_RN, returns_RN - values_RN))
    return jnp.where(total > 0, 1 - left / jnp.where(total > 0, total, 1), 0)


def flat_groups(reward_R: jax.Array, n: int) -> jax.Array:
    """1 for each response of a group whose rewards are all equal [R], which teaches nothing."""
    reward_Pn = reward_R.reshape(-1, n)
    flat_P = reward_Pn.max(1) == reward_Pn.min(1)
    return jnp.repeat(flat_P.astype(jnp.float32), n)


def group_advantages(reward_R: jax.Array, n: int, scale: str) -> jax.Array:
    """The reward minus the mean of its group [R], divided by a standard deviation: that of the
    `group` (Shao et al. 2024, GRPO, section 4.1.2), of the whole `batch`, or `none` (Liu et al.
    2025, Dr. GRPO). Exactly 0 in a group whose rewards are all equal."""
    reward_Pn = reward_R.reshape(-1, n)
    centred_Pn = reward_Pn - reward_Pn.mean(1, keepdims=True)
    deviation = {
        "group": lambda: jnp.std(reward_Pn, axis=1, keepdims=True, ddof=1),
        "batch": lambda: jnp.std(reward_R, ddof=1),
        "none": lambda: None,
    }[scale]()
    if deviation is not None:
        centred_Pn = centred_Pn / (deviation + 1e-4)
    return centred_Pn.reshape(-1) * (1 - flat_groups(reward_R, n))


def leave_one_out(reward_R: jax.Array, n: int) -> jax.Array:
    """The reward minus the mean of the others of its group [R]: Kool et al. 2019; Ahmadian et al.
    2024, eq. 6."""
    reward_Pn = reward_R.reshape(-1, n)
    others_Pn = (reward_Pn.sum(1, keepdims=True) - reward_Pn) / (n - 1)
    return (reward_Pn - others_Pn).reshape(-1) * (1 - flat_groups(reward_R, n))
