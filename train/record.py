"""This file keeps the record of one trial as it trains: its progress, rows, checkpoints, evidence.

Its trainer, `train/loop.py` for one trial or `train/stacked/population.py` for many, reports each
chunk here; what is due at that step is written here, so the files are the same.
"""

import json
import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from model.transformer.count import flops_per_token
from train import duration
from train.checkpoint import Checkpoints, restore_until
from train.chips import peak_flops
from train.evaluate import Evaluation
from train.metrics import MetricsLog, copy
from train.parallel import processes
from train.step import StepConfig, TrainState
from train.watch import MEDIAN_OF, divergence


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


class Record:
    """One trial in its folder: where it is, and what it has written down. Of several processes that
    train it, the first writes, and all keep the checkpoints together."""

    def __init__(
        self,
        config: Any,
        cfg: StepConfig,
        workdir: Path,
        devices: Sequence[jax.Device],
        say: Callable[[str], None] = print,
    ):
        """`config` is resolved, `cfg` its static part; `devices` are those that train the trial."""
        self.config, self.cfg, self.workdir = config, cfg, Path(workdir)
        self.say = say = say if processes.is_first() else lambda line: None
        self.plan, keep = plan(config), config.checkpoint
        self.checkpoints = Checkpoints(
            self.workdir / "checkpoints", keep.keep_last, keep.keep_best, say, self.plan.keep_at
        )
        self.tokens_per_step = config.train.batch_size * cfg.model.context_length
        peak = config.log.peak_flops or peak_flops(devices[0].device_kind)
        self.peak = peak * len(devices) if peak else None  # FLOP/s of all devices
        self.row, self.evaluated, self.compile_seconds = {}, {}, 0.0
        self._begin({})

    def restore(
        self, like: TrainState, hyper: dict[str, float], branch_until: int = 0
    ) -> TrainState | None:
        """The state that the trial goes on from, on the shardings of `like`; None: from step 0.

        A trial without a checkpoint starts from the newest one of at most `branch_until` steps in
        the folder `checkpoint.trunk`, with `hyper` of its own. Damaged if there is no good one.
        """
        restored = self.checkpoints.restore(like)
        if not restored and branch_until:
            restored = self._branch(like, hyper, branch_until)
        if not restored:
            return None
        state, meta = restored
        self._begin(meta)
        return state

    def _begin(self, meta: dict) -> None:
        self.origin = meta.get("origin", {"branched_from": None, "branched_at": 0})
        self.step, self.seconds = meta.get("step", 0), meta.get("seconds", 0.0)
        self.unlogged = meta.get("unlogged", 0)  # steps since the last row
        self.recent = deque(meta.get("recent", ()), maxlen=max(MEDIAN_OF, self.plan.log_every))

    def _branch(
        self, like: TrainState, hyper: dict[str, float], until: int
    ) -> tuple[TrainState, dict]:
        """The trunk's state with this run's own schedule; its rows begin this run's metrics."""
        trunk = Path(self.config.checkpoint.trunk)
        state, meta = restore_until(trunk / "checkpoints", like, until, self.say)
        own = {k: jax.device_put(jnp.float32(v), like.hyper[k].sharding) for k, v in hyper.items()}
        step, recent = meta["step"], meta["recent"]
        if processes.is_first():
            self.workdir.mkdir(parents=True, exist_ok=True)
            copy(trunk / "metrics.jsonl", self.workdir / "metrics.jsonl", step)
        # So that the next row covers the steps that it covers in a run of its own.
        unlogged = min(step % self.plan.log_every if self.plan.log_every else step, len(recent))
        origin = {"branched_from": trunk.name, "branched_at": step}
        self.say(f"{self.config.name}: branching from {trunk} at step {step}")
        return state.replace(hyper=own), meta | {"unlogged": unlogged, "origin": origin}

    def open(self) -> MetricsLog:
        """Begins to write rows, after the step that the trial goes on from; close what it returns
        at the end."""
        if self.step:
            self.say(f"{self.config.name}: resuming at step {self.step} of {self.plan.total}")
        silent = not processes.is_first()
        self.log = MetricsLog(self.workdir, self.config.log.tensorboard, silent)
        self.log.rewind(self.step)
        self.timed, self.timed_from = 0, self.seconds
        return self.log

    def took(self, metrics: dict[str, list[float]], seconds: float) -> None:
        """Steps were made, with these metrics of each, in so many seconds."""
        count = len(metrics["loss"])
        self.metrics = metrics
        self.seconds += seconds
        self.step += count
        self.unlogged += count
        self.timed += count

    def after_chunk(
        self, state: Callable[[], TrainState], evaluate: Callable[[], Evaluation]
    ) -> str:
        """Whatever is due at this step, of the trial's state and validation loss: 'done' so far,
        or 'diverged', with the evidence kept."""
        fault = divergence(self.metrics, self.recent, self.config.train.max_loss_ratio)
        self.recent.extend(self.metrics["loss"])
        if not fault and self.plan.due(self.step, self.plan.log_every):
            self.log.write(self._training_row())
        if not fault and self.plan.due(self.step, self.plan.eval_every):
            row = self._evaluation_row(evaluate())
            fault = None if math.isfinite(row["eval_loss"]) else "eval_loss is not finite"
            if not fault:
                self.log.write(row)
        if fault:
            self._keep_evidence(fault, state())
            self.log.write({"step": self.step, "diverged": fault})
            return "diverged"
        if self.plan.due(self.step, self.plan.checkpoint_every) or self.step in self.plan.keep_at:
            self.save(state())
        return "done"

    def save(self, state: TrainState) -> None:
        meta = {"seconds": self.seconds, "recent": list(self.recent), "unlogged": self.unlogged}
        meta |= {"eval_loss": self.evaluated.get(self.step), "origin": self.origin}
        self.checkpoints.save(self.step, state, meta)

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

    def _evaluation_row(self, result: Evaluation) -> dict:
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

    def _keep_evidence(self, fault: str, state: TrainState) -> None:
        """Keeps the state after the bad chunk and its numbers; seed and step give its data."""
        folder = self.workdir / "diverged"
        keeper = Checkpoints(folder, 1, 0, self.say)
        keeper.save(self.step, state, {"fault": fault})
        keeper.close()
        if not processes.is_first():
            return
        first = self.step - len(self.metrics["loss"])
        about = {"fault": fault, "first_step": first, "seed": self.config.seed, **self.metrics}
        (folder / "diverged.json").write_text(json.dumps(about, indent=1) + "\n")
        self.say(f"diverged by step {self.step}: {fault}; state and numbers are in {folder}")
