"""Compares stacked trials on CPU cores with the same trials in one process per core.

    python -m tests.bench.stacked [--shape=S1] [--rounds=5] [--seconds=4]

Runs trials of S1 to S3 on two cores, alternating between three layouts: eight stacked trials in one
process of two threads, four in each of two processes, and one in each of two processes. The result
is the reason why sweeps do not stack trials on CPUs.
"""

import argparse
import dataclasses
import json
import os
import statistics
import sys
from contextlib import ExitStack

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from tests.bench.race import contestant, ours, referee
from tests.bench.race.shapes import SHAPES, Shape
from train.stacked.population import AXIS, stacked_chunk
from train.step import StepConfig, init_state

LANES = 8  # over all processes
ENTRIES = (("separate", "ours", 2), ("stacked", "stacked", 1), ("stacked in two", "stacked", 2))


def prepare(cfg: StepConfig, lanes: int, steps: int, batch: int) -> contestant.Advance:
    """A call that takes `steps` steps of `lanes` stacked trials.

    The trials differ in seed and learning rate.
    """
    mesh = Mesh(np.array(jax.devices()[:1]), (AXIS,))
    hyper = {k: jnp.full(lanes, v, jnp.float32) for k, v in ours.HYPER.items()}
    hyper["learning_rate"] *= jnp.linspace(0.5, 2, lanes)
    make = jax.jit(jax.vmap(init_state, in_axes=(None, 0, 0)), static_argnums=0)
    state = make(cfg, hyper, jnp.arange(lanes, dtype=jnp.uint32))
    size = (2, lanes, steps, batch, cfg.model.context_length)
    tokens, targets = np.random.default_rng(0).integers(0, cfg.model.vocab_size, size, np.int32)
    rows = {"tokens": tokens, "targets": targets, "weights": np.ones(tokens.shape, np.float32)}

    def advance() -> None:
        nonlocal state
        batches = jax.device_put(rows)
        state, metrics = stacked_chunk(cfg, mesh, state, batches, jnp.int32(steps))
        metrics["loss"].block_until_ready()

    return advance


def train(shape: Shape, lanes: int) -> None:
    """The main loop of a contestant, as in `tests.bench.race.contestant`."""
    advance = prepare(ours.step_config(shape), lanes, shape.steps, shape.batch)
    advance()
    print(json.dumps({"compile_seconds": 0.0}), flush=True)
    together = dataclasses.replace(shape, batch=lanes * shape.batch)
    for line in sys.stdin:
        rate = contestant.measure(together, advance, float(line))
        print(json.dumps({"gflops": rate}), flush=True)


def compare(shape: Shape, rounds: int, seconds: float) -> dict:
    """Model GFLOP/s of each layout, and its median ratio to separate processes."""
    gflops = {name: [] for name, _, _ in ENTRIES}
    with ExitStack() as stack:
        teams = {}
        for name, module, processes in ENTRIES:
            os.environ["STACKED_LANES"] = str(LANES // processes)
            entry = referee.Contestant(name, f"tests.bench.{module}", processes)
            teams[name] = stack.enter_context(referee.team(entry, shape))
        for team in teams.values():
            referee.ask(team, "compile_seconds")
        for _ in range(rounds):
            for name, team in teams.items():
                gflops[name].append(sum(referee.ask(team, "gflops", seconds)))
    separate = gflops["separate"]
    ratios = {
        name: statistics.median(a / b for a, b in zip(rates, separate, strict=True))
        for name, rates in gflops.items()
    }
    return {"shape": shape.name, "gflops": gflops, "ratio to separate": ratios}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("shape", nargs="?", choices=list(SHAPES))
    parser.add_argument("--shape", dest="compared", default="S1", choices=list(SHAPES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    given = parser.parse_args()
    if given.shape:  # started by `compare`
        train(SHAPES[given.shape], int(os.environ["STACKED_LANES"]))
    else:
        print(json.dumps(compare(SHAPES[given.compared], given.rounds, given.seconds), indent=1))


if __name__ == "__main__":
    main()
