"""Measures the training of recurrent networks against PyTorch.

    python -m tests.bench.recurrent [--torch_python=PATH] [--rounds=N] [--unroll=K]

Two layers of width 256, 32 rows of 128 bytes, AdamW with clipping. Two single-threaded processes of
each contestant train in turn on two cores. Prints tokens/s and their ratio, round by round.

    JAX_PLATFORMS=cpu python -m tests.bench.recurrent lstm 5

is one process of ours alone, for 5 seconds.
"""

import os
import statistics
import sys

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from model.recurrent import language_model as recurrent
from tests.bench import contestant, referee
from tests.bench.networks import NETWORKS, Network
from tests.bench.ours import HYPER
from train.objectives import next_token
from train.step import StepConfig, init_state, train_chunk

UNROLL = "ISOFLOP_BENCH_UNROLL"  # tells our processes the flag --unroll


def prepare(network: Network) -> contestant.Advance:
    """Our training step: K steps in one jitted call."""
    keys = dict(vocab_size=network.vocab, context_length=network.context, cell=network.name)
    keys |= dict(n_layers=network.n_layers, d_model=network.width, d_hidden=network.width)
    if UNROLL in os.environ:
        keys["unroll"] = int(os.environ[UNROLL])
    cfg = StepConfig(recurrent.Config(**keys), next_token.Config(), "recurrent", "next_token")
    hyper = {name: jnp.float32(value) for name, value in HYPER.items()}
    state = jax.jit(init_state, static_argnums=0)(cfg, hyper, jnp.uint32(0))
    size = (2, network.steps, network.batch, network.context)
    tokens, targets = np.random.default_rng(0).integers(0, network.vocab, size, np.int32)
    weights = np.ones(tokens.shape, np.float32)

    def advance() -> None:
        nonlocal state
        batches = jax.device_put({"tokens": tokens, "targets": targets, "weights": weights})
        state, metrics = train_chunk(cfg, state, batches, jnp.int32(network.steps))
        metrics["loss"].block_until_ready()

    return advance


def main(_: list[str]) -> None:
    torch_python = flags.FLAGS.torch_python
    if flags.FLAGS.unroll:
        os.environ[UNROLL] = str(flags.FLAGS.unroll)
    teams = [
        referee.Contestant("ours", "tests.bench.recurrent", referee.CORES),
        referee.Contestant("torch", "tests.bench.recurrent_torch", referee.CORES, torch_python),
    ]
    for network in NETWORKS.values():
        how = flags.FLAGS.rounds, flags.FLAGS.seconds, lambda text: print(text, file=sys.stderr)
        found = referee.compete(network, teams, *how)
        tokens = network.batch * network.context / network.flops * 1e9  # per GFLOP
        for name, gflops in found["gflops"].items():
            rates = ", ".join(f"{rate * tokens:,.0f}" for rate in gflops["rounds"])
            print(f"{network.name:6} {name:6} {gflops['median'] * tokens:9,.0f} tokens/s ({rates})")
        ratios = found["ratios"]["torch"]["rounds"]
        target = found["ratios"]["torch"]["target"]
        print(
            f"{network.name:6} ours / torch {statistics.median(ratios):.2f} "
            f"({min(ratios):.2f}–{max(ratios):.2f}){f', target {target}' if target else ''}"
        )


if __name__ == "__main__":
    if sys.argv[1:] and sys.argv[1] in NETWORKS:
        contestant.serve(NETWORKS[sys.argv[1]], prepare(NETWORKS[sys.argv[1]]))
    else:
        flags.DEFINE_string("torch_python", sys.executable, "A Python that has PyTorch.")
        flags.DEFINE_integer("rounds", 5, "Rounds of each contestant.")
        flags.DEFINE_float("seconds", 3.0, "Seconds of a round.")
        flags.DEFINE_integer("unroll", 0, "model.unroll of ours; 0: its default.")
        app.run(main)
