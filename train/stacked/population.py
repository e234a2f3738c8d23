"""Trains many trials at once, if they differ only in numbers of the training state.

Their states are stacked, and one vmapped program advances all lanes, each with its own batches. On
several devices, the lanes are sharded along the mesh axis `trial`, and the devices do not
communicate. One small model cannot keep an accelerator busy, but many can. One model is enough for
a CPU core, so there each trial runs in a separate process. Each trial has its own `Record` and
writes the same files as if it trained alone.
"""

import contextlib
import functools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from data.buckets.lease import Lease, LostLock
from data.kinds import Batch, Dataset
from data.prefetch import prefetch
from train.evaluate import Evaluation, Evaluator
from train.loop import hyperparameters, initial_state, read_steps, step_config
from train.objectives.metrics import measure
from train.parallel import sharding
from train.progress import Progress
from train.record import Record
from train.stacked import stackable
from train.step import StepConfig, TrainState, eval_sums, train_chunk
from train.watch import Stop, Watchdog

AXIS = "trial"
LOST = "lost"  # the status of a trial whose folder another process has taken
MEMORY_SHARE = 0.9  # of a device's memory for a program; prefetched batches need the rest


@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=2)
def stacked_chunk(
    cfg: StepConfig, mesh: Mesh, states: TrainState, batches: Batch, steps: jax.Array
) -> tuple[TrainState, dict[str, jax.Array]]:
    """`train_chunk` of each lane: states and batches [M, K, B, T] have a leading axis of lanes."""
    each = jax.vmap(functools.partial(train_chunk, cfg), in_axes=(0, 0, None))
    return _over_lanes(each, mesh, (PartitionSpec(AXIS), PartitionSpec(AXIS), PartitionSpec()))(
        states, batches, steps
    )


@functools.partial(jax.jit, static_argnums=(0, 1))
def stacked_eval(
    cfg: StepConfig, mesh: Mesh, params: dict, frozen: dict, batches: Batch
) -> dict[str, jax.Array]:
    """`eval_sums` of each lane, all on the same batches: sums [M, E, B]."""
    each = jax.vmap(functools.partial(eval_sums, cfg), in_axes=(0, 0, None))
    lanes, shared = PartitionSpec(AXIS), PartitionSpec()
    return _over_lanes(each, mesh, (lanes, lanes, shared))(params, frozen, batches)


def _over_lanes(each: Callable, mesh: Mesh, specs: tuple) -> Callable:
    """Runs `each` on every device, for the lanes of that device."""
    return jax.shard_map(
        each, mesh=mesh, in_specs=specs, out_specs=PartitionSpec(AXIS), check_vma=False
    )


@dataclass(frozen=True)
class Member:
    """One trial of a population, with arguments as of `train.loop.Run`; `config` is resolved."""

    config: Any
    workdir: Path
    say: Callable[[str], None] = print
    branch_until: int = 0
    lease: Lease | None = None
    begun: float | None = None


class Population:
    """Trials that train together. Each starts anew or from its own checkpoint, at any step.

    The constructor raises ValueError for trials that cannot be stacked, and the errors of `Run`.
    """

    def __init__(
        self,
        members: Sequence[Member],
        dataset: Dataset,
        devices: Sequence[jax.Device] | None = None,
        memory: int | None = None,
    ):
        """`memory` is the number of bytes of one device that a program may need. None means
        `memory_of` the device."""
        config, self.dataset = members[0].config, dataset
        devices = list(devices or jax.local_devices())[: len(members)]
        self.cfg, self.mesh = step_config(config), Mesh(np.array(devices), (AXIS,))
        for member in members:
            stackable.require(config, member.config)
        self.configs = [member.config for member in members]
        self.memory = memory_of(devices[0]) if memory is None else memory
        self.evaluator = Evaluator(self.cfg, dataset, self.mesh)
        single = sharding.make_mesh(dict(config.mesh), devices[:1])
        self.records, self.states = [], []
        for member in members:
            record = Record(
                *(member.config, self.cfg, member.workdir, devices[:1], member.say),
                tokenizer=getattr(dataset, "tokenizer", None),
                lease=member.lease,
                begun=member.begun,
            )
            hyper = hyperparameters(member.config)
            like, make = initial_state(self.cfg, hyper, member.config.seed, single)
            state = record.restore(like, hyper, {}, member.branch_until) or make()
            self.records.append(record)
            self.states.append(jax.device_get(state))  # on the host until it has a lane
        self.total = self.records[0].events.total
        self.status = ["training" if r.step < self.total else "done" for r in self.records]

    def train(self, stop: Stop) -> list[str]:
        """Trains all trials to their ends. Returns the status of each: as `Run.train` does, or LOST
        if another process has taken its folder meanwhile, which ends no other trial."""
        timeout, first = self.configs[0].log.stall_timeout, self.records[0].step
        self.watchdog = Watchdog(timeout, f"{len(self.records)} trials", first)
        with contextlib.ExitStack() as files, self.watchdog:
            if not stop.requested:
                for i, record in enumerate(self.records):
                    files.enter_context(self._alone(i))  # closing it too
                    files.enter_context(record)
            stopped = stop.requested
            self._spent("start_up", range(len(self.records)))
            while not stopped and (left := self._unfinished(range(len(self.records)))):
                lanes, *programs = self._compile(len(left))
                stopped = self._train_lanes(left[:lanes], lanes, programs, stop)
        for i, record in enumerate(self.records):
            with self._alone(i):
                record.checkpoints.close()
        return ["preempted" if status == "training" else status for status in self.status]

    @contextlib.contextmanager
    def _alone(self, trial: int) -> Iterator[None]:
        """Ends this trial, and no other, if another process has taken its folder."""
        try:
            yield
        except LostLock as error:
            if self.status[trial] != LOST:
                self.records[trial].say(f"{error}; this process writes nothing more there")
            self.status[trial] = LOST

    def _unfinished(self, trials: Iterable[int]) -> list[int]:
        return [i for i in trials if self.status[i] == "training"]

    def _compile(self, trials: int) -> tuple[int, Callable, Callable]:
        """(number of lanes, training program, evaluation program) for this many trials. Uses fewer
        lanes if they do not fit into memory, and the same number on each device."""
        ways, begun = self.mesh.size, time.perf_counter()
        lanes = self._lanes_for(trials)
        while True:
            states, batches = self._shapes(lanes)
            steps = jax.ShapeDtypeStruct((), jnp.int32)
            train = stacked_chunk.lower(self.cfg, self.mesh, states, batches, steps).compile()
            scored = self.cfg, self.mesh, states.params, states.frozen, self.evaluator.batches
            score = stacked_eval.lower(*scored).compile()
            held = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(states)) / ways
            needed = max(bytes_needed(train), bytes_needed(score) + held)
            if self.memory is None or needed <= self.memory or lanes == ways:
                break
            lanes = max(ways, int(lanes * self.memory / needed) // ways * ways)
        for record in self.records:
            record.compile_seconds += (time.perf_counter() - begun) / len(self.records)
        self._spent("compile", self._unfinished(range(len(self.records))))
        return lanes, train, score

    def _shapes(self, lanes: int) -> tuple[TrainState, Batch]:
        """Shapes and shardings of the stacked states and batches."""
        where = NamedSharding(self.mesh, PartitionSpec(AXIS))
        state = self.states[0]
        chunk = read_steps(self.configs[0], self.dataset, 0, 1)
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((lanes, *x.shape), x.dtype, sharding=where),
            (state, chunk),
        )

    def _train_lanes(
        self, trials: list[int], lanes: int, programs: Sequence[Callable], stop: Stop
    ) -> bool:
        """Trains these trials until all have ended, or until half of the lanes suffice for the
        rest. Returns whether a stop was requested; all trials are then saved.

        The lane of an ended trial continues to compute, and its results are not used.
        """
        train, score = programs
        filled = trials + [trials[-1]] * (lanes - len(trials))
        states = self._on_devices([self.states[i] for i in filled])
        bar, clock = Progress(f"{len(trials)} trials", self.total), time.perf_counter()
        with prefetch(self._chunks(filled)) as ready, bar as progress:
            self.watchdog.waits(for_data=True)
            for count, batches in ready:
                self.watchdog.waits(for_data=False)
                self._spent("data", self._unfinished(trials))
                states, metrics = train(states, batches, jnp.int32(count))
                metrics = {k: v[:, :count].tolist() for k, v in jax.device_get(metrics).items()}
                self._spent("train", self._unfinished(trials))
                left, current = self._unfinished(trials), LaneState(states, score, self.evaluator)
                stopping = stop.requested  # read once, so that all trials agree
                # Each trial's share of the device time; the shares add up to the total.
                seconds = (time.perf_counter() - clock) * self.mesh.size / len(left)
                for lane, i in enumerate(trials):
                    if i in left:
                        self.records[i].add_chunk({k: v[lane] for k, v in metrics.items()}, seconds)
                        with self._alone(i):
                            self._events(i, lane, current, stopping)
                progress.update(self.records[left[0]].step, self.records[left[0]].row)
                self.watchdog.progress(self.records[left[0]].step)
                left = self._unfinished(trials)
                if stopping:
                    break
                if 2 * self._lanes_for(len(left)) <= lanes:
                    for i in left:
                        self.states[i] = jax.device_get(current.state(trials.index(i)))
                    break
                self.watchdog.waits(for_data=True)
                clock = time.perf_counter()  # events are not training time
        return stopping

    def _spent(self, part: str, trials: Iterable[int]) -> None:
        """Counts the time in the ledgers of these trials, each of which has all of it."""
        for i in trials:
            self.records[i].ledger.spent(part)

    def _lanes_for(self, trials: int) -> int:
        """The fewest lanes for this many trials, with the same number on each device."""
        return -(-trials // self.mesh.size) * self.mesh.size

    def _events(self, trial: int, lane: int, current: "LaneState", stopping: bool) -> None:
        """Does what is due for one trial after a chunk; also saves it if a stop was requested."""
        record, state = self.records[trial], functools.partial(current.state, lane)
        record.after_chunk(state, functools.partial(current.evaluation, lane))
        if record.status or record.step == self.total:
            self.status[trial] = record.status or "done"
        elif stopping:
            record.save(state())

    def _on_devices(self, states: Sequence[TrainState]) -> TrainState:
        where = NamedSharding(self.mesh, PartitionSpec(AXIS))
        return jax.device_put(jax.tree.map(lambda *xs: np.stack(xs), *states), where)

    def _chunks(self, trials: Sequence[int]) -> Iterator[tuple[int, Batch]]:
        """(number of steps, batches [M, K, B, T] on the devices) until every trial is at its end.

        A chunk ends early at the first event of any trial. Trials may be at different steps.
        """
        where = NamedSharding(self.mesh, PartitionSpec(AXIS))
        steps = {i: self.records[i].step for i in trials}
        events = self.records[trials[0]].events
        while unfinished := [step for step in steps.values() if step < self.total]:
            count = min(events.chunk, *(events.after(step) - step for step in unfinished))
            read = {
                i: read_steps(self.configs[i], self.dataset, s, count) for i, s in steps.items()
            }
            lanes = jax.tree.map(lambda *xs: np.stack(xs), *[read[i] for i in trials])
            yield count, jax.device_put(lanes, where)
            steps = {i: step + count for i, step in steps.items()}


class LaneState:
    """All lanes after a chunk. Copies them to the host and evaluates them on first use only."""

    def __init__(self, states: TrainState, score: Callable, evaluator: Evaluator):
        self.states, self.score, self.evaluator = states, score, evaluator
        self.device = evaluator.device()

    @functools.cached_property
    def _on_host(self) -> TrainState:
        return jax.device_get(self.states)

    @functools.cached_property
    def _scores(self) -> dict[str, np.ndarray]:
        states = self.states
        return jax.device_get(self.score(states.params, states.frozen, self.evaluator.batches))

    def state(self, lane: int) -> TrainState:
        """The state of one trial on one device, as if it trained alone."""
        state = jax.tree.map(lambda x: np.asarray(x[lane]), self._on_host)
        return jax.device_put(state, self.device)

    def evaluation(self, lane: int) -> Evaluation:
        rows = {name: sums[lane] for name, sums in self._scores.items()}
        return measure(self.evaluator.metrics, rows)


def memory_of(device: jax.Device) -> int | None:
    """Bytes of a device that a program may need; None if the device reports no limit (CPUs)."""
    limit = (device.memory_stats() or {}).get("bytes_limit")
    return int(MEMORY_SHARE * limit) if limit else None


def bytes_needed(program: Any) -> int:
    """Bytes of one device that a compiled program needs while it runs."""
    memory = program.memory_analysis()
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    return held + memory.temp_size_in_bytes
