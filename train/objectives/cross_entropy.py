"""Cross-entropy, with label smoothing and z-loss."""

import jax
import jax.numpy as jnp


def cross_entropy(logits_BTV: jax.Array, targets_BT: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(-log p(target) in nats [B, T], log Z [B, T]), computed in float32."""
    logits_BTV = logits_BTV.astype(jnp.float32)
    log_z_BT = jax.nn.logsumexp(logits_BTV, axis=-1)
    target_BT = jnp.take_along_axis(logits_BTV, targets_BT[..., None], axis=-1)[..., 0]
    return log_z_BT - target_BT, log_z_BT


def training_loss(
    logits_BTV: jax.Array, targets_BT: jax.Array, z_loss: float, label_smoothing: float
) -> tuple[jax.Array, jax.Array]:
    """(training loss [B, T], plain cross-entropy [B, T]), in nats.

    Label smoothing mixes the target with the uniform distribution (Szegedy et al. 2016, section 7);
    z-loss adds z_loss * log(Z)^2 (Chowdhery et al. 2022, section 5).
    """
    nll_BT, log_z_BT = cross_entropy(logits_BTV, targets_BT)
    loss_BT = nll_BT
    if label_smoothing:
        uniform_BT = log_z_BT - logits_BTV.astype(jnp.float32).mean(-1)
        loss_BT = (1 - label_smoothing) * nll_BT + label_smoothing * uniform_BT
    if z_loss:
        loss_BT += z_loss * jnp.square(log_z_BT)
    return loss_BT, nll_BT
