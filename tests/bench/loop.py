"""Measures the overhead of the training loop over the bare jitted chunk that it calls.

The loop reads batches, logs, checks for divergence and shows progress. Evaluations and checkpoints
are not included.

    JAX_PLATFORMS=cpu taskset -c 0 python -m tests.bench.loop S2
"""

import dataclasses
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax

from configs import base
from data.kinds import text
from launch.trial.chunk import chunk_steps
from launch.trial.resolve import resolve
from tests.bench import loader
from tests.bench.race import ours
from tests.bench.race.shapes import SHAPES, Shape
from train.loop import Run
from train.watch import Stop

CHUNKS, ROUNDS = 24, 5
TARGET = 0.03  # overhead relative to the bare chunk


class Timed(Run):
    """A run that records when each chunk ended and how many steps it had."""

    def __init__(self, *arguments: Any):
        super().__init__(*arguments, say=lambda text: None)
        self.ends, self.counts = [], []

    def _advance(self, compiled: Any, batches: dict, count: int) -> None:
        super()._advance(compiled, batches, count)
        self.ends.append(time.perf_counter())
        self.counts.append(count)

    def seconds_per_step(self) -> float:
        """The median over chunks, from the end of one to the end of the next."""
        pairs = zip(self.ends, self.ends[1:], self.counts[1:], strict=False)
        return statistics.median((end - begin) / count for begin, end, count in pairs)


def resolved(shape: Shape, data: text.Dataset) -> Any:
    """The resolved config of a run of CHUNKS chunks that logs after every fourth."""
    config = base.get_config()
    config.model.n_layers, config.model.d_model = shape.n_layers, shape.d_model
    config.model.context_length, config.model.n_heads = shape.context, shape.n_heads
    config.train.batch_size, config.train.duration = shape.batch, "1000 steps"
    config.train.chunk = chunk_steps(resolve(config, data))
    config.train.duration = f"{CHUNKS * config.train.chunk} steps"
    config.log.every = f"{4 * config.train.chunk} steps"
    config.eval.every = config.checkpoint.every = "100 %"
    return resolve(config, data)


def bare_seconds_per_step(advance: ours.contestant.Advance, steps: int) -> float:
    def once() -> float:
        begun = time.perf_counter()
        advance()
        return (time.perf_counter() - begun) / steps

    return statistics.median(once() for _ in range(CHUNKS))


def measure(shape: Shape) -> dict:
    """The overhead of the loop: the median over rounds that measure both loop and bare chunk."""
    with tempfile.TemporaryDirectory() as folder:
        jax.config.update("jax_compilation_cache_dir", str(Path(folder) / "compiled"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        data = text.Dataset(loader.dataset(Path(folder), size=1 << 14))
        config = resolved(shape, data)
        data = data.for_run(config)
        steps = config.train.chunk
        same = dataclasses.replace(shape, steps=steps, vocab=config.model.vocab_size)
        advance, _ = ours.prepare(same)
        advance()
        bare, loop = [], []
        for number in range(ROUNDS):
            bare.append(bare_seconds_per_step(advance, steps))
            workdir = Path(folder) / f"run{number}"
            workdir.mkdir()
            run = Timed(config, data, workdir)
            run.train(Stop())
            loop.append(run.seconds_per_step())
    return {
        "shape": shape.name,
        "chunk": steps,
        "bare_ms": 1e3 * min(bare),
        "loop_ms": 1e3 * min(loop),
        "cost": statistics.median(b / a for a, b in zip(bare, loop, strict=True)) - 1,
        "cost_of_minima": min(loop) / min(bare) - 1,
        "rounds": {"bare": bare, "loop": loop},
        "target": TARGET,
    }


if __name__ == "__main__":
    print(json.dumps(measure(SHAPES[sys.argv[1]])))
