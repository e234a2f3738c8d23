"""This file tells a token's place: rotary, sinusoidal, ALiBi (learned positions: see Embed)."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from model.transformer.config import ModelConfig


def rotary(x_BTHC: jax.Array, angle_BTR: jax.Array, factor: float, layout: str) -> jax.Array:
    """Rotates pairs of each head's first 2R dimensions by their angles, in float32.

    Su et al. 2021, section 3.2.2. A pair is (i, i + R) in the `half` layout of most published
    weights, (2i, 2i + 1) in the `interleaved` one of the paper. Dimensions from 2R on stay; what
    is rotated is multiplied by `factor`.
    """
    R = angle_BTR.shape[-1]
    cos, sin = factor * jnp.cos(angle_BTR)[:, :, None], factor * jnp.sin(angle_BTR)[:, :, None]
    half = layout == "half"
    first, second = (
        (slice(R), slice(R, 2 * R)) if half else (slice(0, 2 * R, 2), slice(1, 2 * R, 2))
    )
    # Cut before it is widened: TPUs' compiler would else write all of x once more, in float32.
    x1, x2 = (x_BTHC[..., part].astype(jnp.float32) for part in (first, second))
    turned = [x1 * cos - x2 * sin, x2 * cos + x1 * sin]
    if half:
        rotated = jnp.concatenate(turned, axis=-1)
    else:
        rotated = jnp.stack(turned, axis=-1).reshape(*x_BTHC.shape[:-1], 2 * R)
    return jnp.concatenate([rotated.astype(x_BTHC.dtype), x_BTHC[..., 2 * R :]], axis=-1)


def angles(
    cfg: ModelConfig, positions_BT: jax.Array, local: bool, length: int
) -> tuple[jax.Array, float]:
    """Angles [B, T, R] of R = rotary_dim / 2 pairs, and the factor on what they rotate.

    `length` is how many tokens the context at hand may hold, which longrope chooses by.
    """
    if local and cfg.rope_theta_local:
        frequency_R, factor = base_frequencies(cfg, cfg.rope_theta_local), 1.0
    else:
        frequency_R, factor = SCALINGS[cfg.rope_scaling](cfg, length)
    return positions_BT[..., None].astype(jnp.float32) * frequency_R.astype(np.float32), factor


def base_frequencies(cfg: ModelConfig, theta: float) -> np.ndarray:
    """theta^(-2i/rotary_dim) for pair i, radians a token [R]."""
    return theta ** (-np.arange(0, cfg.rotary_dim, 2) / cfg.rotary_dim)


def unscaled(cfg: ModelConfig, length: int) -> tuple[np.ndarray, float]:
    return base_frequencies(cfg, cfg.rope_theta), 1.0


def linear(cfg: ModelConfig, length: int) -> tuple[np.ndarray, float]:
    """Positions divided by `rope_factor`. Chen et al. 2023 (arXiv:2306.15595)."""
    return base_frequencies(cfg, cfg.rope_theta) / cfg.rope_factor, 1.0


def llama3(cfg: ModelConfig, length: int) -> tuple[np.ndarray, float]:
    """Slow pairs divided by `rope_factor`, fast ones kept, a ramp between.

    A pair is fast that turns more than `rope_high_frequency` times in the original context, slow
    below `rope_low_frequency`. Llama 3.1, github.com/meta-llama/llama-models.
    """
    frequency_R = base_frequencies(cfg, cfg.rope_theta)
    turns_R = cfg.rope_original_context * frequency_R / (2 * math.pi)
    low, high = cfg.rope_low_frequency, cfg.rope_high_frequency
    kept_R = np.clip((turns_R - low) / (high - low), 0, 1)
    return frequency_R * (kept_R + (1 - kept_R) / cfg.rope_factor), 1.0


def longrope(cfg: ModelConfig, length: int) -> tuple[np.ndarray, float]:
    """A divisor for each pair, from one list or another as the context is beyond the original.

    Ding et al. 2024 (arXiv:2402.13753); the factor sqrt(1 + ln(max/original) / ln(original)) makes
    up for the entropy that a longer context adds.

    `length` is fixed for a whole call: prompt and sample together, the longest of a batch. Keys in
    a cache so never change. transformers goes by the tokens so far: where a text outgrows the
    original context it computes all keys again, with the long list, and goes on with those.
    """
    original = cfg.rope_original_context
    long = length > original
    divisor_R = np.asarray(cfg.rope_long_factors if long else cfg.rope_short_factors)
    stretch = max(1.0, cfg.context_length / original)
    factor = math.sqrt(1 + math.log(stretch) / math.log(original))
    return base_frequencies(cfg, cfg.rope_theta) / divisor_R, factor


SCALINGS = {"none": unscaled, "linear": linear, "llama3": llama3, "longrope": longrope}


def sinusoidal(positions_BT: jax.Array, width: int) -> jax.Array:
    """Sines and cosines in turn, of wavelengths 2π to 20,000π [B, T, width]. Vaswani et al. 2017,
    section 3.5."""
    frequency = 10_000.0 ** (-np.arange(0, width, 2) / width)
    angle = positions_BT[..., None].astype(jnp.float32) * frequency.astype(np.float32)
    return jnp.stack([jnp.sin(angle), jnp.cos(angle)], axis=-1).reshape(*angle.shape[:-1], width)


def alibi_slopes(n_heads: int) -> np.ndarray:
    """What a head's score loses for each token of distance [H]. Press et al. 2022, section 3.

    2^(-8/n), 2^(-16/n), … for n heads where n is a power of 2; otherwise those of the power below,
    then every second one of the power above, as in the paper's code.
    """
    below = 2 ** math.floor(math.log2(n_heads))
    slopes = [2 ** (-8 * (i + 1) / below) for i in range(below)]
    slopes += [2 ** (-8 * (i + 1) / (2 * below)) for i in range(0, 2 * below, 2)]
    return np.asarray(slopes[:n_heads], np.float32)


def alibi(query_BT: jax.Array, key_BS: jax.Array, n_heads: int) -> jax.Array:
    """What is added to the scores [B, H, T, S]: minus slope times distance."""
    distance_BTS = (query_BT[:, :, None] - key_BS[:, None, :]).astype(jnp.float32)
    return -alibi_slopes(n_heads)[:, None, None] * distance_BTS[:, None]
