"""Trains one model: chunks of steps, evaluations, checkpoints, and a clean exit."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from data.buckets.lease import Lease
from data.kinds import Batch, Dataset
from data.prefetch import prefetch
from model import families
from model.adapters.adapted import adapter_of
from train import duration, objectives
from train.evaluate import Evaluation, Evaluator
from train.parallel import memory, processes, sharding
from train.policy.rollouts import Rollouts
from train.progress import Progress
from train.record import Record
from train.recovery import spikes
from train.rules import path_name
from train.step import StepConfig, TrainState, init_state, train_chunk
from train.watch import Stop, Watchdog


@dataclass(frozen=True)
class Start:
    """What a new run begins with: parameters (None: random ones), and frozen parameters by name
    with their families and Configs."""

    params: dict | None = None
    frozen: dict[str, dict] = field(default_factory=dict)
    frozen_models: tuple[tuple[str, str, Any], ...] = ()  # as in StepConfig.frozen
    from_base: tuple[str, ...] = ()  # as in StepConfig.from_base
    beside: tuple[tuple[str, str, Any], ...] = ()  # as in StepConfig.beside


def step_config(config: Any, start: Start = Start(), dataset: Dataset | None = None) -> StepConfig:
    """The static part of a resolved config, and of what the objective reads of its data."""
    _, model = families.read(config.model)
    objective = objectives.find(config.objective.name)
    loss = objective.configure(config)
    if dataset is not None and hasattr(objective, "for_data"):
        loss = objective.for_data(loss, dataset)
    return StepConfig(
        model=model,
        loss=loss,
        family=config.model.family,
        objective=config.objective.name,
        optimizer=config.optimizer.name,
        schedule=config.schedule.name,
        accumulation=config.train.accumulation,
        moments=config.optimizer.moments,
        offload=config.optimizer.get("offload", False),
        carried_rows=config.train.batch_size if families.carries(model) else 0,
        skips=config.train.get("on_spike", "stop") == "skip",
        frozen=start.frozen_models,
        adapter=adapter_of(config),
        from_base=start.from_base,
        beside=start.beside,
    )


# The keys of the section `optimizer` that are fields of StepConfig.
STATIC = ("name", "moments", "offload")


def hyperparameters(config: Any) -> dict[str, float]:
    """The traced part of a resolved config; TrainState documents it."""
    optimizer = {k: v for k, v in config.optimizer.items() if k not in STATIC}
    optimizer["clip_norm"] = optimizer["clip_norm"] or math.inf
    if config.train.get("on_spike", "stop") == "skip":
        optimizer[spikes.RATIO] = spikes.max_loss_ratio(config) or math.inf
    return optimizer | dict(
        warmup=duration.steps(config.schedule.warmup),
        decay=duration.steps(config.schedule.decay),
        total=duration.steps(config.train.duration),
        final=config.schedule.final,
    )


def initial_state(
    cfg: StepConfig,
    hyper: dict[str, float],
    seed: int,
    mesh: jax.sharding.Mesh,
    start: Start = Start(),
) -> tuple[Any, Callable[[], TrainState]]:
    """(shapes and shardings of the state, a function that creates the sharded state without its
    frozen parameters)."""
    sharding.require(cfg.trained, cfg.model, mesh)
    if cfg.offload:
        sharding.require_host_memory(mesh)
    arguments = {k: jnp.float32(v) for k, v in hyper.items()}, jnp.uint32(seed)
    given = start.params, start.frozen
    shapes = jax.jit(init_state, static_argnums=0).eval_shape(cfg, *arguments, *given)
    check_count(cfg.trained, cfg.model, shapes.params)
    shardings = sharding.state_shardings(shapes, cfg.axes, cfg.frozen_axes, mesh, cfg.offload)
    like = jax.tree.map(
        lambda leaf, s: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=s), shapes, shardings
    )
    # Frozen parameters are put on their devices once, by `frozen_state`.
    make = jax.jit(init_state, static_argnums=0, out_shardings=shardings.replace(frozen={}))
    return like, lambda: make(cfg, *arguments, start.params)


def check_count(family: families.Trained, cfg: Any, params: Any) -> None:
    """Raises ValueError if the family's parameter count is wrong, because FLOPs and laws would be
    wrong too. Names the parameter whose size equals the difference, if any."""
    sizes = {path_name(path): leaf.size for path, leaf in jax.tree.leaves_with_path(params)}
    counted, made = sum(family.parameters(cfg).values()), sum(sizes.values())
    if hasattr(family, "trained_parameters"):
        counted = family.trained_parameters(cfg)
    if counted == made:
        return
    likely = [name for name, size in sizes.items() if size == abs(made - counted)]
    raise ValueError(
        f"the model has {made:,} parameters, but its family's parameters() counts {counted:,}; the "
        f"difference is the size of {' or '.join(likely) or 'no single parameter'}: count it"
    )


def frozen_state(like: TrainState, start: Start) -> dict:
    """Puts the frozen parameters on their devices."""
    return jax.tree.map(lambda x, to: jax.device_put(x, to.sharding), start.frozen, like.frozen)


def read_steps(
    config: Any, dataset: Dataset, step: int, count: int, rows: np.ndarray | None = None
) -> Batch:
    """Batches [K, B, ...] of a resolved config: the first `count` are those from `step` on, the
    others are zeros. With `rows`, only those rows of each."""
    batches = dataset.batches("train", config.seed, step, count, rows)
    size = config.train.chunk
    if count == size:
        return batches
    pad = lambda array: np.pad(array, [(0, size - count)] + [(0, 0)] * (array.ndim - 1))  # noqa: E731
    return {name: pad(array) for name, array in batches.items()}


class Run:
    """One run in a folder: created or restored, then trained. Its metrics go to metrics.jsonl. If
    several processes train it, each creates a Run, and the first process writes the files.

    The constructor raises ValueError for what cannot be trained (a mesh that does not fit, too
    little text, every checkpoint damaged). Training raises OSError if files cannot be written.
    """

    def __init__(
        self,
        config: Any,
        dataset: Dataset,
        workdir: Path,
        say: Callable[[str], None] = print,
        branch_until: int = 0,
        start: Start = Start(),
        lease: Lease | None = None,
        begun: float | None = None,
    ):
        """`config` is resolved, and `dataset` sized for it. A new run begins from `start` or, if
        `branch_until` is above 0, from the newest checkpoint of at most `branch_until` steps in the
        folder `checkpoint.trunk`. `lease` is the lock of the folder, and `begun` the Unix time at
        which this process began with it."""
        self.config, self.dataset = config, dataset
        self.cfg = step_config(config, start, dataset)
        self.mesh = sharding.make_mesh(dict(config.mesh), jax.devices())
        tokenizer = getattr(dataset, "tokenizer", None)
        devices = self.mesh.devices.ravel()
        self.record = Record(config, self.cfg, workdir, devices, say, tokenizer, lease, begun)
        hyper = hyperparameters(config)
        like, make = initial_state(self.cfg, hyper, config.seed, self.mesh, start)
        self.memory = memory.by_component(like)
        self.evaluate = Evaluator(self.cfg, dataset, self.mesh)
        frozen = frozen_state(like, start)
        self.rollouts = None
        if hasattr(objectives.OBJECTIVES[self.cfg.objective], "rollout"):
            self.rollouts = Rollouts(config, self.cfg, dataset, self.mesh, self.record.say)
            like = like.replace(ahead=self.rollouts.like(like))
        restored = self.record.restore(like, hyper, frozen, branch_until)
        self.state = restored or make().replace(frozen=frozen)
        self._beginning = None
        if config.train.get("on_spike", "stop") == "rewind":
            self._beginning = make, (like, hyper, frozen, branch_until)
        if self.rollouts:
            self.rollouts.ahead, self.state = self.state.ahead, self.state.replace(ahead={})

    def train(self, stop: Stop) -> str:
        """Trains to the end: 'done', 'diverged', 'preempted' (saved after a stop request), or
        'stopped' (at `checkpoint.stop_at`)."""
        record = self.record
        if stop.requested:
            return "preempted"  # before the first step, so there is nothing to save
        name, self._trained = self.config.name, 0  # chunks
        if processes.count() > 1:
            name += f" (process {processes.index()} of {processes.count()})"
        watchdog = Watchdog(self.config.log.stall_timeout, name, record.step)
        with record, sharding.activation_rules(self.mesh), watchdog:
            bar, self._compiled = contextlib.nullcontext(), None
            if processes.is_first():
                bar = Progress(self.config.name, record.events.total)
            with bar as progress:
                record.ledger.spent("start_up")
                self._train_chunks(stop, watchdog, progress)
                while record.status == "rewind":
                    self._rewind()
                    if record.status is None:
                        self._train_chunks(stop, watchdog, progress)
            if record.status is None and record.step < record.events.total:
                record.stop_early(self._current, self._evaluation)
            record.checkpoints.close()
            record.ledger.spent("save")
        return record.status or "done"

    def _train_chunks(self, stop: Stop, watchdog: Watchdog, progress: Progress | None) -> None:
        """Trains until the record has a status or the last step is done."""
        record, spent = self.record, self.record.ledger.spent
        with prefetch(self._chunks()) as ready:
            self.clock = time.perf_counter()
            watchdog.waits(for_data=True)
            for count, batches in ready:
                watchdog.waits(for_data=False)
                spent("data")
                self._trained += 1
                if self.rollouts:
                    batches = self.rollouts(self.state, batches)
                    spent("train")
                if not self._compiled:
                    self._compiled = self._compile(batches)
                    spent("compile")
                self._advance(self._compiled, batches, count)
                spent("train")
                record.after_chunk(self._current, self._evaluation)
                watchdog.progress(record.step)
                if progress:
                    progress.update(record.step, record.row)
                # Call it in all processes, whatever their status.
                stopping = stop.after(self._trained)
                if record.status is None and stopping and record.step < record.events.last:
                    record.save(self._current())
                    record.status = "preempted"
                if record.status:
                    break
                spent("other")
                watchdog.waits(for_data=True)
                self.clock = time.perf_counter()  # events are not training time

    def _rewind(self) -> None:
        """Goes back to before a spike."""
        make, (like, hyper, frozen, branch_until) = self._beginning
        self.state = None  # frees its memory
        restored = self.record.rewind(like, hyper, frozen, branch_until)
        self.state = restored or make().replace(frozen=frozen)

    def _current(self) -> TrainState:
        """The state with what a checkpoint holds besides."""
        return self.state.replace(ahead=self.rollouts.ahead) if self.rollouts else self.state

    def _evaluation(self) -> Evaluation:
        return self.evaluate(self.state)

    def _chunks(self) -> Iterator[tuple[int, dict[str, jax.Array]]]:
        """(number of steps, batches [K, B, ...] on the devices) up to the last step.

        K is always `chunk`, so that one program serves all chunks. A chunk ends early at an event.
        With rollouts, K is the number of updates on one, and the batches are prompts.
        """
        fields, events, step = self.dataset.spec(), self.record.events, self.record.step
        where = sharding.batch_shardings(self.mesh, fields)
        name, first = next(iter(fields.items()))
        n_rows = self.config.train.batch_size
        rows = processes.local_rows(where[name], (events.chunk, n_rows, *first.shape))
        while self.rollouts and step < events.last:
            yield self.rollouts.updates, self.rollouts.prompts(self.rollouts.read_at(step))
            step += self.rollouts.updates
        left_out = self.record.spikes.left_out
        while step < events.last:
            of_data, without_gap = spikes.data_step(step, left_out)
            count = min(events.chunk, events.after(step) - step, without_gap)
            batches = read_steps(self.config, self.dataset, of_data, count, rows)
            yield count, processes.place(batches, rows, n_rows, where)
            step += count

    def _compile(self, batches: dict[str, jax.Array]) -> Callable:
        begun = time.perf_counter()
        lowered = train_chunk.lower(self.cfg, self.state, batches, jnp.int32(0))
        compiled = lowered.compile()
        took = time.perf_counter() - begun
        self.record.compile_seconds += took
        # The first rollout counts as training; without rollouts nothing precedes the first step.
        self.clock = self.clock + took if self.rollouts else time.perf_counter()
        return compiled

    def _advance(self, compiled: Callable, batches: dict, count: int) -> None:
        if self.rollouts:
            self.rollouts.draw_ahead(self.state)
        self.state, metrics = compiled(self.state, batches, jnp.int32(count))
        if self.rollouts:
            self.rollouts.finish_ahead(self.state)
        metrics = {k: v[:count].tolist() for k, v in jax.device_get(metrics).items()}
        if self.rollouts:
            self._measure(self.rollouts, count)
            self.rollouts.watch(metrics)
        self.record.add_chunk(metrics, time.perf_counter() - self.clock)

    def _measure(self, rollouts: Rollouts, count: int) -> None:
        """Records what a rollout and `count` updates have taken. Compilation is not training."""
        record, updating, taken = self.record, rollouts.update_seconds(), rollouts.take()
        record.throughput.add("rollout", taken.tokens, taken.seconds)
        record.throughput.add("update", count * record.tokens_per_step, updating)
        record.compile_seconds += taken.compiling
        record.ledger.move("train", "compile", taken.compiling)
        self.clock += taken.compiling
