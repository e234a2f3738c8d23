"""Measures a checkpoint: how long training pauses, and the time until the checkpoint and the hashes
of its files are on disk and the previous one is removed.

    JAX_PLATFORMS=cpu taskset -c 0 python -m tests.bench.checkpoint S4

Nothing trains while it is written, so a run that has one core loses the second figure at most.
Verification reads files that the operating system still has in memory.
"""

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp

from tests.bench import ours
from tests.bench.shapes import SHAPES, Shape
from train.checkpoint import Checkpoints, damage
from train.step import init_state

ROUNDS = 5


def measure(shape: Shape) -> dict:
    """Medians over rounds without the first, which makes threads and folders."""
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
