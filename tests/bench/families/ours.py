"""One process that trains a network of networks.py here, for tests/bench/families/__main__.py.

JAX_PLATFORMS=cpu python -m tests.bench.families.ours lstm 5
"""

import os
import sys

import jax
import jax.numpy as jnp
import numpy as np

from model.encoder_decoder import family as encoder_decoder
from model.recurrent import language_model as recurrent
from tests.bench.families.networks import NETWORKS, EncoderDecoder, Network, Recurrent
from tests.bench.race import contestant
from tests.bench.race.ours import HYPER
from train.objectives import next_token
from train.step import StepConfig, init_state, train_chunk

UNROLL = "ISOFLOP_BENCH_UNROLL"  # model.unroll of recurrent networks, in place of its default


def of_recurrent(network: Recurrent) -> tuple[str, recurrent.Config]:
    keys = dict(vocab_size=network.vocab, context_length=network.context, cell=network.name)
    keys |= dict(n_layers=network.n_layers, d_model=network.width, d_hidden=network.width)
    if UNROLL in os.environ:
        keys["unroll"] = int(os.environ[UNROLL])
    return "recurrent", recurrent.Config(**keys)


def of_pairs(network: EncoderDecoder) -> tuple[str, encoder_decoder.Config]:
    keys = dict(vocab_size=network.vocab, n_layers=network.n_layers, d_model=network.width)
    keys |= dict(source_length=network.context, context_length=network.context)
    keys |= dict(decoder_layers=network.n_layers, head_dim=network.width // network.n_heads)
    keys |= dict(n_heads=network.n_heads, d_ff=network.d_ff, attention_bias=True)
    return "encoder_decoder", encoder_decoder.Config(**keys)


CONFIGS = {Recurrent: of_recurrent, EncoderDecoder: of_pairs}


def prepare(network: Network) -> contestant.Advance:
    """Our training step: K steps in one jitted call."""
    family, model = CONFIGS[type(network)](network)
    cfg = StepConfig(model, next_token.Config(), family, "next_token")
    hyper = {name: jnp.float32(value) for name, value in HYPER.items()}
    state = jax.jit(init_state, static_argnums=0)(cfg, hyper, jnp.uint32(0))
    size = (3, network.steps, network.batch, network.context)
    source, tokens, targets = np.random.default_rng(0).integers(0, network.vocab, size, np.int32)
    batch = {"tokens": tokens, "targets": targets, "weights": np.ones(tokens.shape, np.float32)}
    if family == "encoder_decoder":
        whole = np.ones(tokens.shape, np.int32)
        batch |= {"source": source, "source_segments": whole, "segments": whole}

    def advance() -> None:
        nonlocal state
        state, metrics = train_chunk(cfg, state, jax.device_put(batch), jnp.int32(network.steps))
        metrics["loss"].block_until_ready()

    return advance


if __name__ == "__main__":
    contestant.serve(NETWORKS[sys.argv[1]], prepare(NETWORKS[sys.argv[1]]))
