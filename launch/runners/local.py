"""This file runs trials on this machine: a process for each core, or for each accelerator device.

A slot is a place where one trial runs at a time. Each slot has a worker process of its own, which
lives from trial to trial; when it dies, the slot gets a new one and the trial another attempt.
"""

import collections
import concurrent.futures as futures
import contextlib
import fcntl
import importlib
import importlib.util
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pebble

from launch.errors import BAD_INPUT, BUG, DIVERGED, DONE

ATTEMPTS = 3
FINAL = {DONE, BAD_INPUT, DIVERGED}
"""Exit codes that another attempt would not change."""

_TICK = 0.25  # seconds between looks at the workers, hence also the reaction time to Ctrl-C
_ONE_THREAD = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
_THREAD_COUNTS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

# What makes jax see one device alone, given its number.
_ONE_DEVICE = {
    "gpu": lambda device: {"CUDA_VISIBLE_DEVICES": device},
    "tpu": lambda device: {
        "TPU_VISIBLE_CHIPS": device,
        "TPU_PROCESS_BOUNDS": "1,1,1",
        "TPU_CHIPS_PER_PROCESS_BOUNDS": "1,1,1",
    },
}


@dataclass(frozen=True)
class Slot:
    """Where one trial runs at a time: cores to be pinned to, environment set before jax starts."""

    cores: tuple[int, ...]
    environment: Mapping[str, str]


@dataclass(frozen=True)
class Task:
    """One call `function(*args) -> exit code`; what it prints is appended to the file `log`."""

    key: str
    args: tuple
    log: Path


@dataclass(frozen=True)
class Event:
    """What happened to a task: 'started', 'retried' or 'finished', at which attempt, and why."""

    kind: str
    key: str
    attempt: int
    code: int = DONE
    reason: str = ""


class Interrupt:
    """Counts Ctrl-C and SIGTERM while it is entered, instead of letting them raise."""

    def __init__(self):
        self.count = 0
        self._previous = {}

    def __enter__(self) -> "Interrupt":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self.request)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def request(self, *_) -> None:
        """One more request to stop: the first is obeyed cleanly, the second at once."""
        self.count += 1


def available_cores() -> list[int]:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def accelerators() -> tuple[str, list[str]]:
    """The platform and the numbers of its devices; ('cpu', []) where there is no accelerator.

    Asks a process of its own: a parent that starts jax would hold the devices its workers need.
    """
    plugin = importlib.util.find_spec("libtpu") or importlib.util.find_spec("jax_plugins")
    if os.environ.get("JAX_PLATFORMS") == "cpu" or not plugin:
        return "cpu", []
    probe = "import jax; print('devices', jax.default_backend(), jax.local_device_count())"
    output = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True).stdout
    answer = next((line.split() for line in output.splitlines() if line[:8] == "devices "), None)
    if answer is None or answer[1] not in _ONE_DEVICE:
        return "cpu", []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES" if answer[1] == "gpu" else "TPU_VISIBLE_CHIPS")
    numbers = visible.split(",") if visible else [str(i) for i in range(int(answer[2]))]
    return answer[1], numbers[: int(answer[2])]


def slots(
    trials: int, workers: int = 0, devices: tuple[str, Sequence[str]] = ("cpu", ())
) -> list[Slot]:
    """The slots for so many trials: one a device, or else so many cores shared out evenly.

    `workers` = 0 means every device or core. Fewer trials than cores get several cores each, so
    that a last large trial owns the machine; more workers than cores share them.
    """
    platform, numbers = devices
    owned = numbers or available_cores()
    owned = [owned[i % len(owned)] for i in range(workers or len(owned))]
    count = min(trials, len(owned))
    shared = _compilation_cache()
    if numbers:
        return [Slot((), shared | _ONE_DEVICE[platform](owned[i])) for i in range(count)]
    shares = [tuple(dict.fromkeys(owned[i::count])) for i in range(count)]
    return [Slot(cores, shared | _threads(len(cores))) for cores in shares]


def run(
    function: str,
    tasks: Sequence[Task],
    slots: Sequence[Slot],
    interrupt: Interrupt,
    attempts: int = ATTEMPTS,
) -> Iterator[Event | None]:
    """Runs the tasks in order; yields events, and None now and then so that a display can move.

    `function` is 'module:name', imported in the worker. After an interrupt no task starts, workers
    get SIGTERM (a second interrupt: SIGKILL), and tasks that had not finished yield no event.
    """
    waiting = collections.deque((task, 1) for task in tasks)
    workers = [_Worker(slot) for slot in slots]
    told = 0
    try:
        while any(worker.task for worker in workers) or (waiting and not interrupt.count):
            for worker in workers:
                if waiting and not worker.task and not interrupt.count:
                    worker.start(function, *waiting.popleft())
                    yield Event("started", worker.task.key, worker.attempt)
            if interrupt.count > told:
                told = interrupt.count
                for worker in workers:
                    worker.signal(signal.SIGTERM if told == 1 else signal.SIGKILL)
            running = [worker.future for worker in workers if worker.task]
            futures.wait(running, timeout=_TICK, return_when=futures.FIRST_COMPLETED)
            for worker in workers:
                event = worker.poll(attempts, stopping=bool(interrupt.count))
                if event and event.kind == "retried":
                    waiting.appendleft((worker.last, event.attempt + 1))
                if event:
                    yield event
            yield None
    finally:
        for worker in workers:
            worker.close()


class _Worker:
    """The process of one slot: a pebble pool of one, thrown away whole when its process dies.

    A process killed while it holds a lock of its pool would block the one that pebble puts in its
    place; a new pool has new locks.
    """

    def __init__(self, slot: Slot):
        self.slot = slot
        self.pool: pebble.ProcessPool | None = None
        self.process: multiprocessing.process.BaseProcess | None = None
        self.task: Task | None = None
        self.last: Task | None = None
        self.attempt = 0
        self.future: futures.Future | None = None

    def start(self, function: str, task: Task, attempt: int) -> None:
        if self.process is None or not self.process.is_alive():
            self.close()
        self.task, self.last, self.attempt = task, task, attempt
        if self.pool is None:
            self.pool = pebble.ProcessPool(
                max_workers=1,
                initializer=_prepare,
                initargs=(self.slot.cores, dict(self.slot.environment)),
                context=multiprocessing.get_context("spawn"),
            )
        before = set(multiprocessing.active_children())
        with _sigint_blocked():
            self.future = self.pool.schedule(_call, args=(function, task.args, str(task.log)))
        started = set(multiprocessing.active_children()) - before
        self.process = started.pop() if started else self.process

    def poll(self, attempts: int, stopping: bool) -> Event | None:
        """The event of a task that has ended, after which the worker is free; else None."""
        if self.task is None:
            return None
        if not self.future.done():
            if self.process.is_alive():
                return None
            # pebble may not see some deaths: one while idle, one with exit code 0.
            futures.wait([self.future], timeout=2)
        code, reason = self._outcome()
        key, self.task = self.task.key, None
        if code in FINAL:
            return Event("finished", key, self.attempt, code, reason)
        if stopping:
            return None
        kind = "retried" if self.attempt < attempts else "finished"
        return Event(kind, key, self.attempt, code, reason)

    def _outcome(self) -> tuple[int, str]:
        try:
            code = self.future.result(timeout=0)
            return code, "" if code == DONE else f"exit code {code}"
        except (OSError, futures.TimeoutError, futures.BrokenExecutor, futures.CancelledError):
            self.process.join(timeout=2)
            code = self.process.exitcode
            self.close()
        by = signal.Signals(-code).name if code and code < 0 else f"exit code {code}"
        return BUG, f"its process died ({by})"

    def signal(self, number: int) -> None:
        if self.process is not None and self.process.is_alive():
            os.kill(self.process.pid, number)

    def close(self) -> None:
        if self.pool is not None:
            self.pool.stop()
            self.pool.join()
        self.pool = self.process = None


def _prepare(cores: tuple[int, ...], environment: dict[str, str]) -> None:
    """Runs first in a worker, before jax is imported there."""
    os.environ.update(environment)
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A worker whose sweep was killed saves its trial and ends, as if it had been preempted."""
    multiprocessing.parent_process().join()
    os.kill(os.getpid(), signal.SIGTERM)


def _call(function: str, args: tuple, log: str) -> int:
    """Runs in a worker: calls 'module:name', its output appended to `log`; returns its exit code.

    The log is locked meanwhile, so that two sweeps in one folder, or a sweep and a worker that
    outlived the previous one, never run the same trial at the same time.
    """
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab", buffering=0) as file, _redirected(file.fileno()):
        fcntl.flock(file, fcntl.LOCK_EX)
        handler = signal.getsignal(signal.SIGTERM)
        try:
            module, name = function.split(":")
            return int(getattr(importlib.import_module(module), name)(*args))
        except SystemExit as leave:
            if isinstance(leave.code, int):
                return leave.code
            print(leave.code, file=sys.stderr)
            return BUG
        except BaseException:
            traceback.print_exc()
            return BUG
        finally:
            signal.signal(signal.SIGTERM, handler)


@contextlib.contextmanager
def _redirected(to: int) -> Iterator[None]:
    """Sends what this process prints, native code included, to a file descriptor."""
    saved = [os.dup(number) for number in (1, 2)]
    try:
        for number in (1, 2):
            os.dup2(to, number)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, old in zip((1, 2), saved, strict=True):
            os.dup2(old, number)
            os.close(old)


@contextlib.contextmanager
def _sigint_blocked() -> Iterator[None]:
    """Keeps a Ctrl-C, which reaches the whole terminal, from a process that starts inside.

    The mask is inherited, and the sweep alone decides what a Ctrl-C does to its workers.
    """
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


def _threads(count: int) -> dict[str, str]:
    """The environment of a CPU process that owns so many cores."""
    environment = {name: str(count) for name in _THREAD_COUNTS}
    if count == 1:
        environment["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_ONE_THREAD}".strip()
    return environment


def _compilation_cache() -> dict[str, str]:
    """One cache for all workers and all sweeps of this folder: a shape compiles once."""
    defaults = {
        "JAX_COMPILATION_CACHE_DIR": str(Path("cache/compiled").resolve()),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    return {name: os.environ.get(name, value) for name, value in defaults.items()}
