"""Learning-rate schedules: a factor in (0, 1] of the peak, as a function of the step.

Step counts are arrays (`hyper` of the training state), so that one compiled program serves every
duration. Update number s (from 0) uses the factor at s + 1 finished steps. So warmup reaches 1 at
its last step, and the last update of the run uses exactly `final`.
"""

import jax
import jax.numpy as jnp


def _progress(done: jax.Array, start: jax.Array, end: jax.Array) -> jax.Array:
    """0 up to `start`, 1 from `end` on, linear in between."""
    return jnp.clip((done - start) / jnp.maximum(end - start, 1), 0.0, 1.0)


def constant(done: jax.Array, h: dict) -> jax.Array:
    return jnp.ones_like(done)


def linear(done: jax.Array, h: dict) -> jax.Array:
    return 1 - (1 - h["final"]) * _progress(done, h["warmup"], h["total"])


def cosine(done: jax.Array, h: dict) -> jax.Array:
    """Loshchilov & Hutter 2017, eq. 5, one cycle."""
    half = 0.5 * (1 + jnp.cos(jnp.pi * _progress(done, h["warmup"], h["total"])))
    return h["final"] + (1 - h["final"]) * half


def inverse_sqrt(done: jax.Array, h: dict) -> jax.Array:
    """Vaswani et al. 2017, section 5.3, relative to the peak."""
    warmup = jnp.maximum(h["warmup"], 1)
    return jnp.sqrt(warmup / jnp.maximum(done, warmup))


def wsd(done: jax.Array, h: dict) -> jax.Array:
    """Warmup, stable, decay (Hu et al. 2024, section 4): linear decay over the last `decay`."""
    return 1 - (1 - h["final"]) * _progress(done, h["total"] - h["decay"], h["total"])


SCHEDULES = {
    "constant": constant,
    "linear": linear,
    "cosine": cosine,
    "inverse_sqrt": inverse_sqrt,
    "wsd": wsd,
}


def learning_rate(name: str, step: jax.Array, h: dict[str, jax.Array]) -> jax.Array:
    """The learning rate of update number `step`, scalar float32.

    `h` holds the peak `learning_rate`, `warmup`, `decay` and `total` in steps, and `final`.
    """
    done = step.astype(jnp.float32) + 1
    rise = jnp.minimum(done / jnp.maximum(h["warmup"], 1), 1.0)
    return h["learning_rate"] * rise * SCHEDULES[name](done, h)
