"""Runs tasks on this machine: one process for each CPU core, or for each accelerator device.

Every slot has a worker process that runs one task after another. When the process dies, the slot
gets a new one and the task another attempt.
"""

import collections
import concurrent.futures as futures
import contextlib
import importlib
import importlib.util
import multiprocessing
import operator
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterable, Iterator

import pebble

from data.atomic import lock
from data.buckets.mirrored import appending
from data.files import to_path
from launch.child_process import end_with_parent, output_to
from launch.errors import BAD_INPUT, BUG, DIVERGED, DONE, IN_USE
from launch.runners.tasks import Event, Interrupt, Resources, Slot, Task

ATTEMPTS = 3
FINAL = {DONE, BAD_INPUT, DIVERGED, IN_USE}
"""Exit codes that are final: another attempt would end the same way."""

DIED = "its process died ({})"  # by a signal or with an exit code

_END = object()  # after the last task
_TICK = 0.25  # seconds between polls of the workers, and so the reaction time to Ctrl-C
_ONE_THREAD = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
_THREAD_COUNTS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

# Platform -> the environment in which jax sees only the device of that number.
_ONE_DEVICE = {
    "gpu": lambda device: {"CUDA_VISIBLE_DEVICES": device},
    "tpu": lambda device: {
        "TPU_VISIBLE_CHIPS": device,
        "TPU_PROCESS_BOUNDS": "1,1,1",
        "TPU_CHIPS_PER_PROCESS_BOUNDS": "1,1,1",
    },
}


def available_cores() -> list[int]:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def accelerators() -> tuple[str, list[str]]:
    """The platform and the numbers of its devices; ('cpu', []) where there is no accelerator.

    A child process looks: a parent that starts jax would hold the devices that its workers need.
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


def resources(workers: int = 0) -> Resources:
    """What this machine has, for `workers` tasks at a time; 0: one for each device or core."""
    platform, devices = accelerators()
    return Resources(platform, tuple(devices), workers)


def slots(tasks: int, resources: Resources) -> list[Slot]:
    """One slot for each device, or the cores divided evenly over the slots.

    Fewer tasks than cores get several cores each, so that a last large trial has the whole machine
    to itself; more workers than cores share them.
    """
    owned = list(resources.devices) or available_cores()
    owned = [owned[i % len(owned)] for i in range(resources.workers or len(owned))]
    count = min(tasks, len(owned))
    shared = compilation_cache(resources.compiled)
    if resources.devices:
        one_device = _ONE_DEVICE[resources.platform]
        return [Slot((), shared | one_device(owned[i])) for i in range(count)]
    shares = [tuple(dict.fromkeys(owned[i::count])) for i in range(count)]
    return [Slot(cores, shared | threads(len(cores))) for cores in shares]


def run(
    function: str,
    tasks: Iterable[Task | None],
    resources: Resources,
    interrupt: Interrupt,
    attempts: int = ATTEMPTS,
) -> Iterator[Event | None]:
    """Runs the tasks as `launch.runners.Runner.run` says; a task whose process dies, or that ends
    with a bug, is tried `attempts` times.

    `function` is imported in the worker. On an interrupt the workers get SIGTERM, on a second one
    SIGKILL.
    """
    again: collections.deque[tuple[Task, int]] = collections.deque()
    new = iter(tasks)
    most = operator.length_hint(tasks, sys.maxsize)  # a generator has no length
    workers = [Worker(slot) for slot in slots(most, resources)]
    seen = 0  # requests to stop that the workers have been sent
    ended = not workers  # whether `tasks` has no more
    try:
        while any(worker.task for worker in workers) or (
            (again or not ended) and not interrupt.count
        ):
            for worker in workers:
                if worker.task or interrupt.count or (ended and not again):
                    continue
                task, attempt = again.popleft() if again else (next(new, _END), 1)
                ended = ended or task is _END
                if isinstance(task, Task):
                    worker.start(function, task, attempt)
                    yield Event("started", worker.task.key, worker.attempt)
            if interrupt.count > seen:
                seen = interrupt.count
                for worker in workers:
                    worker.signal(signal.SIGTERM if seen == 1 else signal.SIGKILL)
            wait_for(workers, _TICK)
            for worker in workers:
                event = worker.poll(attempts, stopping=bool(interrupt.count))
                if event and event.kind == "retried":
                    again.appendleft((worker.last, event.attempt + 1))
                if event:
                    yield event
            yield None
    finally:
        for worker in workers:
            worker.close()


def wait_for(workers: Iterable["Worker"], seconds: float) -> None:
    """Waits until a task of one of the workers has ended, and for at most `seconds`."""
    running = [worker.future for worker in workers if worker.task]
    futures.wait(running, timeout=seconds, return_when=futures.FIRST_COMPLETED)


class Worker:
    """The process of one slot: a pebble pool of size one, replaced when its process dies.

    A process that is killed while it holds a lock of its pool would block its successor there; a
    new pool has new locks.
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
        """The event of a task that has ended, which frees the worker; None while it runs."""
        if self.task is None:
            return None
        if not self.future.done():
            if self.process is not None and self.process.is_alive():
                return None
            # pebble misses some deaths: while idle, and with exit code 0.
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
            code = None  # of a process that died before it was seen
            if self.process is not None:
                self.process.join(timeout=2)
                code = self.process.exitcode
            self.close()
        by = signal.Signals(-code).name if code and code < 0 else f"exit code {code}"
        return BUG, DIED.format(by)

    def signal(self, number: int) -> None:
        if self.process is not None and self.process.is_alive():
            os.kill(self.process.pid, number)

    def close(self) -> None:
        if self.pool is not None:
            self.pool.stop()
            self.pool.join()
        self.pool = self.process = None


def _prepare(cores: tuple[int, ...], environment: dict[str, str]) -> None:
    """Runs first in a worker, before it imports jax."""
    os.environ.update(environment)
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
    # A worker whose sweep was killed saves its trial and ends, as if it had been preempted.
    end_with_parent(multiprocessing.parent_process().join, signal.SIGTERM)


def _call(function: str, args: tuple, log: str) -> int:
    """Runs in a worker: calls 'module:name', appends its output to `log`, returns its exit code.

    The log is locked during the call, so that two sweeps in one folder, or a sweep and a worker
    that outlived an earlier one, never run the same trial at the same time: the second call returns
    IN_USE. In a bucket only the lock of the trial's folder sees to that.
    """
    with appending(to_path(log)) as file, output_to(file.fileno()):
        if lock(file) is False:
            return IN_USE
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
def _sigint_blocked() -> Iterator[None]:
    """Processes started in here do not receive a Ctrl-C, which goes to the whole terminal.

    They inherit the signal mask; the sweep alone decides what a Ctrl-C does to its workers.
    """
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


def threads(count: int) -> dict[str, str]:
    """The environment of a CPU process that owns `count` cores."""
    environment = {name: str(count) for name in _THREAD_COUNTS}
    if count == 1:
        environment["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_ONE_THREAD}".strip()
    return environment


def compilation_cache(folder: str) -> dict[str, str]:
    """One cache for all workers and sweeps that share the folder: each shape compiles once."""
    defaults = {
        "JAX_COMPILATION_CACHE_DIR": str(to_path(folder).resolve()),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    return {name: os.environ.get(name, value) for name, value in defaults.items()}
