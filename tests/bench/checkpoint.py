"""Measures how long a checkpoint pauses training, and how long it takes to write and verify.

Writing ends when the checkpoint and the hashes of its files are on disk and the previous checkpoint
is removed.

    JAX_PLATFORMS=cpu taskset -c 0 python -m tests.bench.checkpoint S4

Nothing trains during the write, so the write time is the most that a run on one core can lose.
Verification reads files that are still in the operating system's page cache.
"""

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp

from tests.bench.race import ours
from tests.bench.race.shapes import SHAPES, Shape
from train.checkpoint import Checkpoints, damage
from train.step import init_state

ROUNDS = 5


def measure(shape: Shape) -> dict:
    """Medians over all rounds except the first, which creates threads and folders."""
    hyper = {name: jnp.float32(value) for name, value in ours.HYPER.items()}
    make = jax.jit(init_state, static_argnums=0)
    state = jax.block_until_ready(make(ours.step_config(shape), hyper, jnp.uint32(0)))
    stalls, writes, reads = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(Path(folder), keep_last=1, keep_best=0)
        for step in range(ROUNDS + 1):
            begun = time.perf_counter()
            checkpoints.save(step, state, {})
            stalls.append(time.perf_counter() - begun)
            checkpoints.wait()
            writes.append(time.perf_counter() - begun)
            begun = time.perf_counter()
            fault = damage(checkpoints.finished()[0])
            reads.append(time.perf_counter() - begun)
            if fault:
                raise RuntimeError(f"checkpoint {step} is damaged: {fault}")
        checkpoints.close()
    stall, write, verify = (statistics.median(times[1:]) for times in (stalls, writes, reads))
    return {
        "shape": shape.name,
        "bytes": sum(leaf.nbytes for leaf in jax.tree.leaves(state)),
        "stall_seconds": stall,
        "write_seconds": write,
        "verify_seconds": verify,
    }


if __name__ == "__main__":
    print(json.dumps(measure(SHAPES[sys.argv[1]])))
