"""Position encodings: rotary, sinusoidal and ALiBi. Learned positions are an `Embed`."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from model.transformer.config import ModelConfig


def rotary(x_BTHC: jax.Array, angle_BTR: jax.Array, factor: float, layout: str) -> jax.Array:
    """Rotates pairs of each head's first 2R dimensions by their angles, in float32.

    Su et al. 2021, section 3.2.2. A pair is (i, i + R) in the `half` layout of most published
    weights, (2i, 2i + 1) in the `interleaved` layout of the paper. Rotated dimensions are
    multiplied by `factor`; dimensions from 2R on are unchanged.
    """
    R = angle_BTR.shape[-1]
    cos, sin = factor * jnp.cos(angle_BTR)[:, :, None], factor * jnp.sin(angle_BTR)[:, :, None]
    half = layout == "half"
    first, second = (
        (slice(R), slice(R, 2 * R)) if half else (slice(0, 2 * R, 2), slice(1, 2 * R, 2))
    )
    # Slice before the cast; otherwise the TPU compiler writes a float32 copy of all of x.
    x1, x2 = (x_BTHC[..., part].astype(jnp.float32) for part in (first, second))
    rotated_pairs = [x1 * cos - x2 * sin, x2 * cos + x1 * sin]
    if half:
        rotated = jnp.concatenate(rotated_pairs, axis=-1)
    else:
        rotated = jnp.stack(rotated_pairs, axis=-1).reshape(*x_BTHC.shape[:-1], 2 * R)
    return jnp.concatenate([rotated.astype(x_BTHC.dtype), x_BTHC[..., 2 * R :]], axis=-1)


def angles(
    cfg: ModelConfig, positions_BT: jax.Array, local: bool, length: int
) -> tuple[jax.Array, float]:
    """Angles [B, T, R] of R = rotary_dim / 2 pairs, and the factor on the rotated dimensions.

    `length` is the number of tokens that the context may hold; longrope depends on it.
    """
    if local and cfg.rope_theta_local:
        frequency_R, factor = base_frequencies(cfg, cfg.rope_theta_local), 1.0
    else:
        frequency_R, factor = SCALINGS[cfg.rope_scaling](cfg, length)
    return positions_BT[..., None].astype(jnp.float32) * frequency_R.astype(np.float32), factor


def base_frequencies(cfg: ModelConfig, theta: float) -> np.ndarray:
    """theta^(-2i/rotary_dim) for pair i, in radians per token [R]."""
    return theta ** (-np.arange(0, cfg.rotary_dim, 2) / cfg.rotary_dim)


def unscaled(cfg: ModelConfig, length: int) -> tuple[np.ndarray, float]:
    return base_frequencies(cfg, cfg.rope_theta), 1.0


def linear(cfg: ModelConfig, length: int) -> tuple[np.ndarray, float]:
    """Positions divided by `rope_factor`. Chen et al. 2023 (arXiv:2306.15595)."""
    return base_frequencies(cfg, cfg.rope_theta) / cfg.rope_factor, 1.0


def llama3(cfg: ModelConfig, length: int) -> tuple[np.ndarray, float]:
    """Frequencies of slow pairs divided by `rope_factor`, those of fast pairs kept, a ramp between.

    Fast pairs turn more than `rope_high_frequency` times in the original context, slow pairs less
    than `rope_low_frequency` times. Llama 3.1, github.com/meta-llama/llama-models.
    """
    frequency_R = base_frequencies(cfg, cfg.rope_theta)
    turns_R = cfg.rope_original_context * frequency_R / (2 * math.pi)
    low, high = cfg.rope_low_frequency, cfg.rope_high_frequency
    kept_R = np.clip((turns_R - low) / (high - low), 0, 1)
    return frequency_R * (kept_R + (1 - kept_R) / cfg.rope_factor), 1.0


def longrope(cfg: ModelConfig, length: int) -> tuple[np.ndarray, float]:
    """A divisor for each pair: the short list within the original context, the long one beyond it.

    Ding et al. 2024 (arXiv:2402.13753). The factor sqrt(1 + ln(max/original) / ln(original))
    compensates for the entropy that a longer context adds.

    `length` is fixed for a whole call: prompt plus sample, the longest of a batch. So cached keys
    never change. transformers uses the number of tokens so far: when a text exceeds the original
    context, it recomputes all keys with the long list.
    """
    original = cfg.rope_original_context
    long = length > original
    divisor_R = np.asarray(cfg.rope_long_factors if long else cfg.rope_short_factors)
    stretch = max(1.0, cfg.context_length / original)
    factor = math.sqrt(1 + math.log(stretch) / math.log(original))
    return base_frequencies(cfg, cfg.rope_theta) / divisor_R, factor


SCALINGS = {"none": unscaled, "linear": linear, "llama3": llama3, "longrope": longrope}


def sinusoidal(positions_BT: jax.Array, width: int) -> jax.Array:
    """Alternating sines and cosines of wavelengths 2π to 20,000π [B, T, width]. Vaswani et al.
    2017, section 3.5."""
    frequency = 10_000.0 ** (-np.arange(0, width, 2) / width)
    angle = positions_BT[..., None].astype(jnp.float32) * frequency.astype(np.float32)
    return jnp.stack([jnp.sin(angle), jnp.cos(angle)], axis=-1).reshape(*angle.shape[:-1], width)


def alibi_slopes(n_heads: int) -> np.ndarray:
    """The penalty on each head's scores per token of distance [H]. Press et al. 2022, section 3.

    2^(-8/n), 2^(-16/n), … for n heads if n is a power of 2; otherwise the slopes of the next lower
    power, then every second slope of the next higher power, as in the paper's code.
    """
    below = 2 ** math.floor(math.log2(n_heads))
    slopes = [2 ** (-8 * (i + 1) / below) for i in range(below)]
    slopes += [2 ** (-8 * (i + 1) / (2 * below)) for i in range(0, 2 * below, 2)]
    return np.asarray(slopes[:n_heads], np.float32)


def alibi(query_BT: jax.Array, key_BS: jax.Array, n_heads: int) -> jax.Array:
    """The bias on the scores [B, H, T, S]: minus slope times distance."""
    distance_BTS = (query_BT[:, :, None] - key_BS[:, None, :]).astype(jnp.float32)
    return -alibi_slopes(n_heads)[:, None, None] * distance_BTS[:, None]
