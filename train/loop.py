"""This file trains one model: chunks of steps, evaluations, checkpoints, and a clean end."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from data.kinds.text import Batch, prefetch
from data.kinds.text import train_chunk as read_chunk
from data.store import Dataset
from model.transformer.config import ModelConfig
from train import duration
from train.evaluate import Evaluation, Evaluator
from train.parallel import processes, sharding
from train.progress import Progress
from train.record import Record
from train.step import StepConfig, TrainState, init_state, train_chunk
from train.watch import Stop


def step_config(config: Any) -> StepConfig:
    """The static part of a resolved config."""
    return StepConfig(
        model=ModelConfig(**config.model),
        optimizer=config.optimizer.name,
        schedule=config.schedule.name,
        accumulation=config.train.accumulation,
        z_loss=config.train.z_loss,
        label_smoothing=config.train.label_smoothing,
        loss_chunk=config.train.loss_chunk,
        moments=config.optimizer.moments,
    )


def hyperparameters(config: Any) -> dict[str, float]:
    """The traced part of a resolved config; TrainState documents it."""
    optimizer = {k: v for k, v in config.optimizer.items() if k not in ("name", "moments")}
    optimizer["clip_norm"] = optimizer["clip_norm"] or math.inf
    return optimizer | dict(
        warmup=duration.steps(config.schedule.warmup),
        decay=duration.steps(config.schedule.decay),
        total=duration.steps(config.train.duration),
        final=config.schedule.final,
    )


def initial_state(
    cfg: StepConfig, hyper: dict[str, float], seed: int, mesh: jax.sharding.Mesh
) -> tuple[Any, Callable[[], TrainState]]:
    """(shapes and shardings of the state, a function that makes it sharded from the start)."""
    sharding.require(cfg.model, mesh)
    arguments = {k: jnp.float32(v) for k, v in hyper.items()}, jnp.uint32(seed)
    shapes = jax.eval_shape(lambda *a: init_state(cfg, *a), *arguments)
    shardings = sharding.state_shardings(shapes, mesh)
    like = jax.tree.map(
        lambda leaf, s: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=s), shapes, shardings
    )
    make = jax.jit(init_state, static_argnums=0, out_shardings=shardings)
    return like, lambda: make(cfg, *arguments)


def read_steps(
    config: Any, dataset: Dataset, step: int, count: int, rows: np.ndarray | None = None
) -> Batch:
    """Batches [K, B, T] of a resolved config, of which the first `count` are those from `step` on
    and the others empty; of `rows` alone if they are given."""
    size, shape = config.train.chunk, (config.train.batch_size, config.model.context_length)
    batches = read_chunk(dataset, config.seed, step, count, *shape, rows)
    if count == size:
        return batches
    filling = ((0, size - count), (0, 0), (0, 0))
    return {name: np.pad(array, filling) for name, array in batches.items()}


class Run:
    """One run in a folder: made fresh or restored, then trained. Its numbers are in metrics.jsonl.
    Where several processes train it, each makes one of these; the first writes the files.

    Making it raises ValueError for what cannot be trained (a mesh that does not fit, too little
    text, every checkpoint damaged); training raises OSError when nothing can be written.
    """

    def __init__(
        self,
        config: Any,
        dataset: Dataset,
        workdir: Path,
        say: Callable[[str], None] = print,
        branch_until: int = 0,
    ):
        """`config` is resolved. A fresh run starts from the newest checkpoint of at most
        `branch_until` steps in the folder `checkpoint.trunk`; from step 0 where that is 0."""
        self.config, self.dataset = config, dataset
        self.cfg = step_config(config)
        self.mesh = sharding.make_mesh(dict(config.mesh), jax.devices())
        self.record = Record(config, self.cfg, workdir, self.mesh.devices.ravel(), say)
        hyper = hyperparameters(config)
        like, make = initial_state(self.cfg, hyper, config.seed, self.mesh)
        self.evaluate = Evaluator(
            self.cfg, dataset, config.eval.sequences, config.eval.batch_size, self.mesh
        )
        self.state = self.record.restore(like, hyper, branch_until) or make()

    def train(self, stop: Stop) -> str:
        """Trains to the end: 'done'; or 'preempted', saved when asked to stop; or 'diverged'."""
        record = self.record
        if stop.requested:
            return "preempted"  # before the first step: there is nothing new to save
        with contextlib.closing(record.open()), sharding.activation_rules(self.mesh):
            bar = contextlib.nullcontext()
            if processes.is_first():
                bar = Progress(self.config.name, record.plan.total)
            with prefetch(self._chunks()) as ready, bar as progress:
                compiled, status = None, "done"
                for chunk, (count, batches) in enumerate(ready, start=1):
                    compiled = compiled or self._compile(batches)
                    self._advance(compiled, batches, count)
                    status = record.after_chunk(self._current, self._evaluation)
                    if progress:
                        progress.update(record.step, record.row)
                    asked = stop.after(chunk)  # by all processes, whatever their status
                    if status == "done" and asked and record.step < record.plan.total:
                        record.save(self.state)
                        status = "preempted"
                    if status != "done":
                        break
                    self.clock = time.perf_counter()  # events are not training time
            record.checkpoints.close()
        return status

    def _current(self) -> TrainState:
        return self.state

    def _evaluation(self) -> Evaluation:
        return self.evaluate(self.state.params)

    def _chunks(self) -> Iterator[tuple[int, dict[str, jax.Array]]]:
        """(how many steps, batches [K, B, T] on the devices) up to the last step.

        K is always `chunk`, so that one program serves all; a chunk ends early at an event.
        """
        where = sharding.batch_sharding(self.mesh, leading=1)
        plan, step = self.record.plan, self.record.step
        shape = plan.chunk, self.config.train.batch_size, self.cfg.model.context_length
        rows = processes.own_rows(where, shape)
        while step < plan.total:
            count = min(plan.chunk, plan.next_event(step) - step)
            batches = read_steps(self.config, self.dataset, step, count, rows)
            yield count, processes.placed(batches, rows, shape[1], where)
            step += count

    def _compile(self, batches: dict[str, jax.Array]) -> Callable:
        begun = time.perf_counter()
        lowered = train_chunk.lower(self.cfg, self.state, batches, jnp.int32(0))
        compiled = lowered.compile()
        self.record.compile_seconds = time.perf_counter() - begun
        self.clock = time.perf_counter()
        return compiled

    def _advance(self, compiled: Callable, batches: dict, count: int) -> None:
        self.state, metrics = compiled(self.state, batches, jnp.int32(count))
        metrics = {k: v[:count].tolist() for k, v in jax.device_get(metrics).items()}
        self.record.took(metrics, time.perf_counter() - self.clock)
