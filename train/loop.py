"""This file trains one model: chunks of steps, evaluations, checkpoints, and a clean end."""

import contextlib
import json
import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from data.loader import prefetch
from data.loader import train_chunk as read_chunk
from data.store import Dataset
from model.config import ModelConfig
from model.count import flops_per_token
from train import duration, sharding
from train.checkpoint import Checkpoints, restore_until
from train.evaluate import Evaluator
from train.metrics import MetricsLog, copy, peak_flops
from train.progress import Progress
from train.step import StepConfig, TrainState, init_state, train_chunk
from train.watch import MEDIAN_OF, Stop, divergence


@dataclass(frozen=True)
class Plan:
    """When things happen, in steps."""

    total: int
    log_every: int
    eval_every: int
    checkpoint_every: int
    chunk: int
    keep_at: tuple[int, ...] = ()  # steps whose checkpoints are kept

    def next_event(self, step: int) -> int:
        """The first step after `step` at which something other than training happens."""
        every = (self.log_every, self.eval_every, self.checkpoint_every)
        kept = [s for s in self.keep_at if s > step]
        return min(self.total, *[(step // e + 1) * e for e in every if e], *kept, self.total)

    def due(self, step: int, every: int) -> bool:
        return step == self.total or (every > 0 and step % every == 0)


def step_config(config: Any) -> StepConfig:
    """The static part of a resolved config."""
    return StepConfig(
        model=ModelConfig(**config.model),
        optimizer=config.optimizer.name,
        schedule=config.schedule.name,
        accumulation=config.train.accumulation,
        z_loss=config.train.z_loss,
        label_smoothing=config.train.label_smoothing,
    )


def hyperparameters(config: Any) -> dict[str, float]:
    """The traced part of a resolved config; TrainState documents it."""
    optimizer = {k: v for k, v in config.optimizer.items() if k != "name"}
    optimizer["clip_norm"] = optimizer["clip_norm"] or math.inf
    return optimizer | dict(
        warmup=duration.steps(config.schedule.warmup),
        decay=duration.steps(config.schedule.decay),
        total=duration.steps(config.train.duration),
        final=config.schedule.final,
    )


def plan(config: Any) -> Plan:
    """The plan of a resolved config."""
    return Plan(
        total=duration.steps(config.train.duration),
        log_every=duration.steps(config.log.every),
        eval_every=duration.steps(config.eval.every),
        checkpoint_every=duration.steps(config.checkpoint.every),
        chunk=config.train.chunk,
        keep_at=tuple(duration.steps(text) for text in config.checkpoint.keep_at),
    )


def initial_state(
    cfg: StepConfig, hyper: dict[str, float], seed: int, mesh: jax.sharding.Mesh
) -> tuple[Any, Callable[[], TrainState]]:
    """(shapes and shardings of the state, a function that makes it sharded from the start)."""
    arguments = {k: jnp.float32(v) for k, v in hyper.items()}, jnp.uint32(seed)
    shapes = jax.eval_shape(lambda *a: init_state(cfg, *a), *arguments)
    shardings = sharding.state_shardings(shapes, mesh)
    like = jax.tree.map(
        lambda leaf, s: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=s), shapes, shardings
    )
    make = jax.jit(init_state, static_argnums=0, out_shardings=shardings)
    return like, lambda: make(cfg, *arguments)


class Run:
    """One run in a folder: made fresh or restored, then trained. Its numbers are in metrics.jsonl.

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
        self.config, self.dataset, self.workdir, self.say = config, dataset, Path(workdir), say
        self.cfg, self.plan = step_config(config), plan(config)
        self.mesh = sharding.make_mesh(dict(config.mesh))
        keep = config.checkpoint
        folder = self.workdir / "checkpoints"
        self.checkpoints = Checkpoints(
            folder, keep.keep_last, keep.keep_best, say, self.plan.keep_at
        )
        self.evaluate = Evaluator(
            self.cfg, dataset, config.eval.sequences, config.eval.batch_size, self.mesh
        )
        like, make = initial_state(self.cfg, hyperparameters(config), config.seed, self.mesh)
        restored = self.checkpoints.restore(like)
        if not restored and branch_until:
            restored = self._branch(like, branch_until)
        self.state, meta = restored or (make(), {})
        self.origin = meta.get("origin", {"branched_from": None, "branched_at": 0})
        self.step, self.seconds = meta.get("step", 0), meta.get("seconds", 0.0)
        self.unlogged = meta.get("unlogged", 0)  # steps since the last row
        self.recent = deque(meta.get("recent", ()), maxlen=max(MEDIAN_OF, self.plan.log_every))
        self.tokens_per_step = config.train.batch_size * self.cfg.model.context_length
        devices = self.mesh.devices.ravel()
        peak = config.log.peak_flops or peak_flops(devices[0].device_kind)
        self.peak = peak * len(devices) if peak else None  # FLOP/s of all devices
        self.row, self.evaluated, self.compile_seconds = {}, {}, 0.0

    def _branch(self, like: TrainState, until: int) -> tuple[TrainState, dict]:
        """The trunk's state with this run's own schedule; its rows begin this run's metrics."""
        trunk = Path(self.config.checkpoint.trunk)
        state, meta = restore_until(trunk / "checkpoints", like, until, self.say)
        own = {k: jnp.float32(v) for k, v in hyperparameters(self.config).items()}
        hyper = {k: jax.device_put(v, like.hyper[k].sharding) for k, v in own.items()}
        step, recent = meta["step"], meta["recent"]
        self.workdir.mkdir(parents=True, exist_ok=True)
        copy(trunk / "metrics.jsonl", self.workdir / "metrics.jsonl", step)
        # So that the next row covers the steps that it covers in a run of its own.
        unlogged = min(step % self.plan.log_every if self.plan.log_every else step, len(recent))
        origin = {"branched_from": trunk.name, "branched_at": step}
        self.say(f"{self.config.name}: branching from {trunk} at step {step}")
        return state.replace(hyper=hyper), meta | {"unlogged": unlogged, "origin": origin}

    def train(self, stop: Stop) -> str:
        """Trains to the end: 'done'; or 'preempted', saved when asked to stop; or 'diverged'."""
        if self.step:
            self.say(f"{self.config.name}: resuming at step {self.step} of {self.plan.total}")
        if stop.requested:
            return "preempted"  # before the first step: there is nothing new to save
        log = MetricsLog(self.workdir, self.config.log.tensorboard)
        with contextlib.closing(log), sharding.activation_rules(self.mesh):
            log.rewind(self.step)
            bar = Progress(self.config.name, self.plan.total)
            with prefetch(self._chunks()) as ready, bar as progress:
                compiled, status = None, "done"
                for count, batches in ready:
                    compiled = compiled or self._compile(batches)
                    self._advance(compiled, batches, count)
                    status = self._after_chunk(log, count)
                    progress.update(self.step, self.row)
                    if status == "done" and stop.requested and self.step < self.plan.total:
                        self._save()
                        status = "preempted"
                    if status != "done":
                        break
            self.checkpoints.close()
        return status

    def _chunks(self) -> Iterator[tuple[int, dict[str, jax.Array]]]:
        """(how many steps, batches [K, B, T] on the devices) up to the last step.

        K is always `chunk`, so that one program serves all; a chunk ends early at an event.
        """
        where = sharding.batch_sharding(self.mesh, leading=1)
        size, step = self.plan.chunk, self.step
        shape = self.config.train.batch_size, self.cfg.model.context_length
        while step < self.plan.total:
            count = min(size, self.plan.next_event(step) - step)
            batches = read_chunk(self.dataset, self.config.seed, step, count, *shape)
            if count < size:
                filling = ((0, size - count), (0, 0), (0, 0))
                batches = {name: np.pad(array, filling) for name, array in batches.items()}
            yield count, jax.device_put(batches, where)
            step += count

    def _compile(self, batches: dict[str, jax.Array]) -> Callable:
        begun = time.perf_counter()
        lowered = train_chunk.lower(self.cfg, self.state, batches, jnp.int32(0))
        compiled = lowered.compile()
        self.compile_seconds = time.perf_counter() - begun
        self.timed, self.timed_from = 0, self.seconds
        self.clock = time.perf_counter()
        return compiled

    def _advance(self, compiled: Callable, batches: dict, count: int) -> None:
        self.state, metrics = compiled(self.state, batches, jnp.int32(count))
        self.metrics = {k: v[:count].tolist() for k, v in jax.device_get(metrics).items()}
        now = time.perf_counter()
        self.seconds, self.clock = self.seconds + now - self.clock, now
        self.step += count
        self.unlogged += count
        self.timed += count

    def _after_chunk(self, log: MetricsLog, count: int) -> str:
        """Whatever is due at this step; the status so far."""
        fault = divergence(self.metrics, self.recent, self.config.train.max_loss_ratio)
        self.recent.extend(self.metrics["loss"])
        if not fault and self.plan.due(self.step, self.plan.log_every):
            log.write(self._training_row())
        if not fault and self.plan.due(self.step, self.plan.eval_every):
            row = self._evaluation_row()
            fault = None if math.isfinite(row["eval_loss"]) else "eval_loss is not finite"
            if not fault:
                log.write(row)
        if fault:
            self._keep_evidence(fault)
            log.write({"step": self.step, "diverged": fault})
            return "diverged"
        if self.plan.due(self.step, self.plan.checkpoint_every) or self.step in self.plan.keep_at:
            self._save()
        self.clock = time.perf_counter()  # what happens between chunks is not training time
        return "done"

    def _save(self) -> None:
        meta = {"seconds": self.seconds, "recent": list(self.recent), "unlogged": self.unlogged}
        meta |= {"eval_loss": self.evaluated.get(self.step), "origin": self.origin}
        self.checkpoints.save(self.step, self.state, meta)

    def _training_row(self) -> dict:
        losses = list(self.recent)[-self.unlogged :]
        rate = self.timed * self.tokens_per_step / max(self.seconds - self.timed_from, 1e-9)
        flops = rate * flops_per_token(self.cfg.model, "palm")
        self.unlogged, self.timed, self.timed_from = 0, 0, self.seconds
        row = {
            "step": self.step,
            "tokens": self.step * self.tokens_per_step,
            "loss": sum(losses) / len(losses),
            "grad_norm": self.metrics["grad_norm"][-1],
            "learning_rate": self.metrics["learning_rate"][-1],
            "seconds": round(self.seconds, 3),
            "tokens_per_second": round(rate, 1),
            "model_flops_per_second": flops,
            "mfu": flops / self.peak if self.peak else None,
        }
        self.row |= row
        return row

    def _evaluation_row(self) -> dict:
        result = self.evaluate(self.state.params)
        self.evaluated = {self.step: result.loss}
        row = {
            "step": self.step,
            "tokens": self.step * self.tokens_per_step,
            "eval_loss": result.loss,
            "eval_loss_se": result.se,
            "bits_per_byte": result.bits_per_byte,
        }
        self.row |= row
        return row

    def _keep_evidence(self, fault: str) -> None:
        """Keeps the state after the bad chunk and its numbers; seed and step give its data."""
        folder = self.workdir / "diverged"
        keeper = Checkpoints(folder, 1, 0, self.say)
        keeper.save(self.step, self.state, {"fault": fault})
        keeper.close()
        first = self.step - len(self.metrics["loss"])
        about = {"fault": fault, "first_step": first, "seed": self.config.seed, **self.metrics}
        (folder / "diverged.json").write_text(json.dumps(about, indent=1) + "\n")
        self.say(f"diverged by step {self.step}: {fault}; state and numbers are in {folder}")
