"""Writes what a trial records during training: metrics, checkpoints and evidence of divergence.

The trainer, `train/loop.py` for one trial or `train/stacked/population.py` for many, reports each
chunk to a `Record`, which writes what is due at that step. So both trainers write the same files.
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

from data.buckets.lease import Lease, Unlocked
from data.files import to_path
from data.kinds import KINDS
from model.beside import apart
from train import duration, objectives
from train.checkpoint import Checkpoints, restore_until
from train.evaluate import Evaluation
from train.metrics import MetricsLog, column, copy
from train.parallel import processes
from train.parallel.chips import peak_flops
from train.policy.throughput import Throughput
from train.recovery.ledger import Ledger
from train.recovery.spikes import Spikes, max_loss_ratio
from train.step import BASE, StepConfig, TrainState
from train.viewers import samples
from train.viewers.tensorboard import hyperparameters
from train.watch import MEDIAN_OF, divergence, first_fault

EXTRA = "extra"
"""The key of a row of metrics.jsonl whose evaluation `eval.every` does not ask for."""

SAVED = ("step", "params", "opt_state", "seed")
"""The fields of a TrainState in a checkpoint. `hyper` comes from the config, so that keys with a
neutral default can be added. Frozen parameters are read from their source."""


@dataclass(frozen=True)
class Events:
    """The steps at which something other than training happens."""

    total: int
    log_every: int
    eval_every: int
    checkpoint_every: int
    chunk: int
    keep_at: tuple[int, ...] = ()  # steps whose checkpoints are kept
    samples_every: int = 0
    stop_at: int | None = None  # the step at which the run stops before its end

    @property
    def last(self) -> int:
        """The step that training goes to: the end of the run or where it stops before."""
        return self.total if self.stop_at is None else self.stop_at

    def after(self, step: int) -> int:
        """The first step after `step` with an event."""
        every = (self.log_every, self.eval_every, self.checkpoint_every, self.samples_every)
        kept = [s for s in self.keep_at if s > step]
        return min(self.last, *[(step // e + 1) * e for e in every if e], *kept, self.last)

    def due(self, step: int, every: int) -> bool:
        return step == self.total or (every > 0 and step % every == 0)


def events(config: Any) -> Events:
    """The events of a resolved config."""
    return Events(
        total=duration.steps(config.train.duration),
        log_every=duration.steps(config.log.every),
        eval_every=duration.steps(config.eval.every),
        checkpoint_every=duration.steps(config.checkpoint.every),
        chunk=config.train.chunk,
        keep_at=tuple(duration.steps(text) for text in config.checkpoint.keep_at),
        stop_at=duration.steps(config.checkpoint.stop_at) if config.checkpoint.stop_at else None,
        samples_every=duration.steps(config.log.samples) if config.log.samples else 0,
    )


class Record:
    """One trial in its folder: its current step and what it has written. A context manager, inside
    which rows can be written. If several processes train the trial, process 0 writes the files,
    except for checkpoints, which all processes write together."""

    def __init__(
        self,
        config: Any,
        cfg: StepConfig,
        workdir: Path,
        devices: Sequence[jax.Device],
        say: Callable[[str], None] = print,
        tokenizer: samples.Spelling | None = None,
        lease: Lease | None = None,
        begun: float | None = None,
    ):
        """`config` is resolved and `cfg` is its static part; `devices` train the trial. The
        `tokenizer` spells samples of text. `lease` is the lock of the folder, and `begun` the Unix
        time of the process's start."""
        self.config, self.cfg, self.workdir = config, cfg, workdir
        self.lease = lease or Unlocked()
        self.say = say = say if processes.is_first() else lambda line: None
        self.events, keep = events(config), config.checkpoint
        self.log = MetricsLog(workdir, config.log.tensorboard, not processes.is_first(), self.lease)
        self.checkpoints = Checkpoints(
            *(workdir / "checkpoints", keep.keep_last, keep.keep_best, say, self.events.keep_at),
            lease=self.lease,
            before=self.log.copy,
        )
        self.tokenizer, self.local = tokenizer, _of_this_process(devices)
        self.tokens_per_step = config.train.batch_size * KINDS[config.data.kind].tokens(config)
        self.flops_per_token = cfg.trained.flops(cfg.model)["palm"]
        self.objective = objectives.OBJECTIVES[cfg.objective]
        peak = config.log.peak_flops or peak_flops(devices[0].device_kind)
        self.peak = peak * len(devices) if peak else None  # FLOP/s of all devices
        self.status: str | None = None  # None: training or done; "diverged", "preempted", …
        self.row: dict[str, Any] = {}  # the newest values of every column
        self.chunk: dict[str, list[float]] = {"loss": []}  # metrics of the newest steps
        self.compile_seconds = 0.0
        self.ledger = Ledger(begun)
        self.timed, self.timed_from = 0, 0.0
        self.chunk_steps = 0  # of the newest chunk
        self._begin({})

    def __enter__(self) -> "Record":
        if self.step:
            self.say(f"{self.config.name}: resuming at step {self.step} of {self.events.total}")
        if processes.is_first():
            self.ledger.resume(self.workdir, self.step, self.saved_ledger)
            self.lease.confirm()
            self.ledger.write(self.workdir, self.step, "start_up")
        self.log.rewind(self.step, hyperparameters(self.config))
        self.timed, self.timed_from = 0, self.seconds
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            if processes.is_first() and exception[0] is None:
                self.lease.confirm()
                self.ledger.write(self.workdir, self.step)
        finally:
            self.log.close(done=self.status is None and self.step == self.events.total)

    def restore(
        self, like: TrainState, hyper: dict[str, float], frozen: dict, branch_until: int = 0
    ) -> TrainState | None:
        """The state to resume from, on the shardings of `like`, with `hyper` and `frozen` in it;
        None if the trial starts at step 0.

        A trial without checkpoints starts from the newest one of at most `branch_until` steps in
        the folder `checkpoint.trunk`. Raises Damaged if all these checkpoints are damaged.
        """
        restored = self.checkpoints.restore(saved(like))
        if not restored and branch_until:
            restored = self._branch(like, branch_until)
        if not restored:
            return None
        tree, meta = restored
        self._begin(meta)
        return _whole(tree, like, hyper, frozen)

    def rewind(
        self, like: TrainState, hyper: dict[str, float], frozen: dict, branch_until: int = 0
    ) -> TrainState | None:
        """Like `restore`, but goes back to before the spike that set `status` to "rewind", whose
        data are left out from now on. Sets `status` to "diverged" if the only checkpoint is at the
        step whose evaluation showed the spike: the run would repeat itself."""
        found = self.checkpoints.restore_before(saved(like), self.spikes.pending["step"])
        if not found and branch_until:
            found = self._branch(like, branch_until)
        tree, meta = found or (None, {})
        kept = self.spikes
        self._begin(meta)
        state = _whole(tree, like, hyper, frozen) if tree else None
        self.ledger.rewind(self.saved_ledger)
        self.spikes, self.status = kept, None
        self.log.close()
        self.log.rewind(self.step, hyperparameters(self.config))
        self.timed, self.timed_from = 0, self.seconds
        if kept.unavoidable(self.step):
            self._diverge(f"{kept.pending['fault']}, and no earlier checkpoint is left", state)
        else:
            self.say(f"{self.config.name}: {kept.rewound(self.step)} (train.on_spike)")
        return state

    def _begin(self, meta: dict) -> None:
        self.origin = meta.get("origin", {"branched_from": None, "branched_at": 0})
        self.step, self.seconds = meta.get("step", 0), meta.get("seconds", 0.0)
        self.unlogged = meta.get("unlogged", 0)  # steps since the last row
        self.throughput = Throughput(meta.get("throughput"))  # empty without rollouts
        self.saved_ledger = meta.get("ledger", {})
        self.spikes = Spikes(self.config, meta.get("spikes", {}))
        known = meta.get("eval_loss")
        # step → evaluation loss, only the newest
        self.evaluated: dict[int, float] = {} if known is None else {self.step: known}
        size = max(MEDIAN_OF, self.events.log_every)
        recent = {"loss": meta.get("recent", ())} | meta.get("recent_metrics", {})
        self.recent = {k: deque(recent.get(k, ()), maxlen=size) for k in self.objective.TRAINED}

    def _branch(self, like: TrainState, until: int) -> tuple[dict, dict]:
        """Loads the trunk's saved fields and copies its rows to this run's metrics."""
        trunk = to_path(self.config.checkpoint.trunk)
        tree, meta = restore_until(trunk / "checkpoints", saved(like), until, self.say)
        step, recent = meta["step"], meta["recent"]
        if processes.is_first():
            self.workdir.mkdir(parents=True, exist_ok=True)
            copy(trunk / "metrics.jsonl", self.workdir / "metrics.jsonl", step)
            if self.events.samples_every and (trunk / "samples.jsonl").exists():
                copy(trunk / "samples.jsonl", self.workdir / "samples.jsonl", step)
        # The next row covers the same steps as in a run that does not branch.
        every = self.events.log_every
        unlogged = min(step % every if every else step, len(recent))
        origin = {"branched_from": trunk.name, "branched_at": step}
        self.say(f"{self.config.name}: branching from {trunk} at step {step}")
        return tree, meta | {"unlogged": unlogged, "origin": origin}

    def add_chunk(self, metrics: dict[str, list[float]], seconds: float) -> None:
        """Adds the metrics of the steps of a chunk, which took `seconds`."""
        count = len(metrics["loss"])
        skipped = metrics.pop("skipped", ())
        if any(skipped):
            metrics, lines = self.spikes.skipped(metrics, skipped, self.step)
            self.say("\n".join(f"{self.config.name}: {line}" for line in lines))
        self.chunk = metrics
        self.seconds += seconds
        self.step += count
        self.chunk_steps = count
        self.unlogged += len(metrics["loss"])
        self.timed += count

    def after_chunk(
        self, state: Callable[[], TrainState], evaluate: Callable[[], Evaluation]
    ) -> None:
        """Writes what is due at this step. If the metrics show divergence, sets `status` to
        "diverged" and saves the evidence."""
        self.lease.check()
        ratio = None if self.cfg.skips else max_loss_ratio(self.config)  # skipped by the step
        earlier = list(self.recent["loss"])
        fault = divergence(self.chunk, earlier, ratio) or self.spikes.too_many_skipped()
        where = first_fault(self.chunk, earlier, ratio) if fault else 0
        for name, values in self.recent.items():
            values.extend(self.chunk[name])
        if not fault and self.events.due(self.step, self.events.log_every):
            self.log.write(self._training_row())
        if not fault and self.events.due(self.step, self.events.eval_every):
            row = self._evaluation_row(self._evaluate(evaluate))
            fault = None if math.isfinite(row["eval_loss"]) else "eval_loss is not finite"
            where = self.chunk_steps
            if not fault:
                self.log.write(row)
        every = self.events.samples_every
        if not fault and every and self.events.due(self.step, every):
            self._sample(state())
        if fault and self.spikes.goes_back:
            self.spikes.found(fault, self.step - self.chunk_steps + where, self.step)
            self.status = "rewind"
        elif fault:
            self._diverge(fault, state())
        elif (
            self.events.due(self.step, self.events.checkpoint_every)
            or self.step in self.events.keep_at
        ):
            self.save(state())

    def stop_early(
        self, state: Callable[[], TrainState], evaluate: Callable[[], Evaluation]
    ) -> None:
        """Evaluates and saves at the step `events.stop_at`, and sets `status` to "stopped", or to
        "diverged" if the loss is not finite.

        The row says that this evaluation is extra, so that a run which goes on later has the same
        curve in its result.json as one that never stopped.
        """
        if self.step not in self.evaluated:
            row = self._evaluation_row(self._evaluate(evaluate))
            if not math.isfinite(row["eval_loss"]):
                self._diverge("eval_loss is not finite", state())
                return
            self.log.write(row | {EXTRA: True})
        self.status = "stopped"
        self.save(state())

    def _evaluate(self, evaluate: Callable[[], Evaluation]) -> Evaluation:
        self.ledger.spent("other")
        found = evaluate()
        self.ledger.spent("evaluate")
        return found

    def save(self, state: TrainState) -> None:
        recent = {name: list(values) for name, values in self.recent.items()}
        meta = {"seconds": self.seconds, "recent": recent.pop("loss"), "unlogged": self.unlogged}
        meta |= {"recent_metrics": recent} if recent else {}
        meta |= {"eval_loss": self.evaluated.get(self.step), "origin": self.origin}
        meta |= {"throughput": self.throughput.whole} if self.throughput.columns() else {}
        meta |= {
            "config": json.loads(self.config.to_json())
        }  # the trial that these parameters belong to
        meta |= {"spikes": self.spikes.meta()} if self.spikes.noted else {}
        meta |= {"ledger": self.ledger.meta()}
        self.checkpoints.save(self.step, saved(state), meta)
        self.ledger.spent("save")

    def _sample(self, state: TrainState) -> None:
        """Draws samples of text in process 0, on one device."""
        params, base = processes.to_host((state.params, state.frozen.get(BASE, {})))
        params, _ = apart(self.cfg.beside, params)
        if not processes.is_first():
            return
        if self.cfg.adapter:
            params = self.cfg.trained.whole(base, self.cfg.trained.scaled(params))
        about = {"step": self.step, "tokens": self.step * self.tokens_per_step}
        drawn = samples.draw(self.config, self.cfg.model, params, self.tokenizer, self.local)
        for one in drawn:
            self.log.write_sample(about | one)

    def _training_row(self) -> dict:
        """Means since the last row for the objective's metrics, one step's values for others."""
        newest = {name: list(values)[-self.unlogged :] for name, values in self.recent.items()}
        since = newest if self.unlogged else {}  # all of them can be skipped
        means = {name: sum(values) / len(values) for name, values in since.items()}
        rate = self.timed * self.tokens_per_step / max(self.seconds - self.timed_from, 1e-9)
        flops = rate * self.flops_per_token
        self.unlogged, self.timed, self.timed_from = 0, 0, self.seconds
        row = {
            "step": self.step,
            "tokens": self.step * self.tokens_per_step,
            **({name: values[-1] for name, values in self.chunk.items() if values} | means),
            "seconds": round(self.seconds, 3),
            "tokens_per_second": round(rate, 1),
            "model_flops_per_second": flops,
            "mfu": flops / self.peak if self.peak else None,
            **self.throughput.new_columns(),
        }
        self.row |= row
        return row

    def _evaluation_row(self, evaluation: Evaluation) -> dict:
        self.evaluated = {self.step: evaluation["loss"][0]}
        row = {"step": self.step, "tokens": self.step * self.tokens_per_step}
        self.row |= (row := row | evaluation_columns(evaluation))
        return row

    def _diverge(self, fault: str, state: TrainState) -> None:
        self.status = "diverged"
        self._save_evidence(fault, state)
        self.log.write({"step": self.step, "diverged": fault})

    def _save_evidence(self, fault: str, state: TrainState) -> None:
        """Saves the state after the diverged chunk and the chunk's metrics. The seed and the step
        identify the chunk's data."""
        folder = self.workdir / "diverged"
        checkpoints = Checkpoints(folder, 1, 0, self.say, lease=self.lease)
        checkpoints.save(self.step, saved(state), {"fault": fault})
        checkpoints.close()
        if not processes.is_first():
            return
        first = self.step - self.chunk_steps
        about = {"fault": fault, "first_step": first, "seed": self.config.seed, **self.chunk}
        self.lease.confirm()
        (folder / "diverged.json").write_text(json.dumps(about, indent=1) + "\n")
        self.say(f"diverged by step {self.step}: {fault}; state and metrics are in {folder}")


def _of_this_process(devices: Sequence[jax.Device]) -> jax.Device:
    here = [device for device in devices if device.process_index == jax.process_index()]
    return (here or jax.local_devices())[0]


def saved(state: TrainState) -> dict[str, Any]:
    """The part of a state that a checkpoint holds."""
    names = (*SAVED, *(name for name in ("carry", "ahead", "spikes") if getattr(state, name)))
    return {name: getattr(state, name) for name in names}


def _whole(tree: dict, like: TrainState, hyper: dict[str, float], frozen: dict) -> TrainState:
    """The state of a checkpoint's `tree`, with `hyper` on the shardings of `like`."""
    arrays = {k: jax.device_put(jnp.float32(v), like.hyper[k].sharding) for k, v in hyper.items()}
    return TrainState(**tree, hyper=arrays, frozen=frozen)


def evaluation_columns(evaluation: Evaluation) -> dict[str, float | None]:
    """The columns of an evaluation in metrics.jsonl: eval_loss, eval_loss_se, …"""
    columns = {}
    for name, (value, error) in evaluation.items():
        columns |= {column(name): value, f"{column(name)}_se": error}
    return columns
