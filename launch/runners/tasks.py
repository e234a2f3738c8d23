"""What runners and the sweep exchange: tasks, events, resources, and requests to stop."""

import signal
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from launch.errors import DONE


@dataclass(frozen=True)
class Cluster:
    """Where a cluster is, and what one trial takes of it. `cores` and `gpus` are of one machine;
    `slice` is the type of a TPU slice, such as v5e-16, of which a trial takes `slices`."""

    address: str = ""  # HOST:PORT, ray://HOST:PORT, auto; "": $RAY_ADDRESS, or one of its own
    cores: int = 0  # 0: the cores of a machine divided over the trials
    gpus: int = 0
    slice: str = ""
    slices: int = 1
    wait_for_nodes: bool = False  # for machines that are to come
    platform: str = ""  # 'cpu', 'gpu' or 'tpu' of the trials; "": what the machines have


@dataclass(frozen=True)
class Resources:
    """What a runner has: the platform ('cpu', 'gpu' or 'tpu'), the numbers of its accelerator
    devices (none on CPUs), how many tasks may run at a time (0: as many as there is room for),
    the folder in which they share compiled code, that of the sweep, and the cluster, if any.
    """

    platform: str = "cpu"
    devices: tuple[str, ...] = ()
    workers: int = 0
    compiled: str = "cache/compiled"
    sweep: str = ""
    cluster: Cluster = Cluster()


@dataclass(frozen=True)
class Slot:
    """Where one task runs at a time: the CPU cores it owns (none: it owns one accelerator device),
    and the environment variables that are set there before jax starts."""

    cores: tuple[int, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """One call `function(*args) -> exit code`. Its output is appended to the file `log`."""

    key: str
    args: tuple
    log: Path


@dataclass(frozen=True)
class Event:
    """What happened to a task: 'started', 'retried' or 'finished', in which attempt, and why. A
    'said' event is of no task: its reason is a line for the user."""

    kind: str
    key: str
    attempt: int
    code: int = DONE
    reason: str = ""


class Interrupt:
    """While entered, counts Ctrl-C and SIGTERM instead of letting them raise."""

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
        """Adds a request to stop: the first lets tasks save, the second kills them."""
        self.count += 1
