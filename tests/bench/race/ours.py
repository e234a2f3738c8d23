"""Trains with the project's training step: K steps in one jitted call.

JAX_PLATFORMS=cpu python -m tests.bench.race.ours S1 5
"""

import jax
import jax.numpy as jnp
import numpy as np

from model.transformer.config import ModelConfig
from tests.bench.race import contestant
from tests.bench.race.shapes import Shape
from tests.train.steps import decoder_step
from train.step import StepConfig, init_state, train_chunk

HYPER = dict(
    learning_rate=1e-3,
    b1=0.9,
    b2=0.95,
    eps=1e-8,
    weight_decay=0.1,
    clip_norm=1.0,
    warmup=10,
    decay=0,
    total=1_000_000,
    final=0.1,
)


def step_config(shape: Shape) -> StepConfig:
    d, heads = shape.d_model, shape.n_heads
    return decoder_step(
        ModelConfig(
            vocab_size=shape.vocab,
            context_length=shape.context,
            n_layers=shape.n_layers,
            d_model=d,
            n_heads=heads,
            n_kv_heads=heads,
            head_dim=d // heads,
            d_ff=4 * d,
        )
    )


def prepare(shape: Shape) -> tuple[contestant.Advance, int]:
    cfg = step_config(shape)
    hyper = {name: jnp.float32(value) for name, value in HYPER.items()}
    state = jax.jit(init_state, static_argnums=0)(cfg, hyper, jnp.uint32(0))
    size = (2, shape.steps, shape.batch, shape.context)
    tokens, targets = np.random.default_rng(0).integers(0, shape.vocab, size, np.int32)
    weights = np.ones(tokens.shape, np.float32)

    def advance() -> None:
        nonlocal state
        batches = jax.device_put({"tokens": tokens, "targets": targets, "weights": weights})
        state, metrics = train_chunk(cfg, state, batches, jnp.int32(shape.steps))
        metrics["loss"].block_until_ready()

    return advance, sum(leaf.size for leaf in jax.tree.leaves(state.params))


if __name__ == "__main__":
    contestant.main(prepare)
