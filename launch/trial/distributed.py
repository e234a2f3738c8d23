"""Runs of several processes: finds and joins them, checks that their input is equal, ends them.

Flags, SLURM or a TPU say which processes take part (`find`). Only `isoflop train` uses this; the
workers of a sweep are runs of one process.

Each process of a run is a child of the command. When another process dies, jax's coordination
service ends the child by SIGABRT, which Python cannot catch. The parent then prints one line and
returns the exit code that means "run it again".
"""

import contextlib
import errno
import glob
import importlib.util
import os
import re
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from launch.child_process import end_with_parent, output_to
from launch.errors import BAD_INPUT, BUG, DONE, PREEMPTED, BadInput
from train.flatten import flatten


class Absent(Exception):
    """Another process did not come in time, in one line. It may come next time."""


HEARTBEAT = 10  # seconds without a sign of life after which a process counts as lost
PREPARATION = 3600  # seconds that one process may read and tokenize text longer than another
VISIBLE = 60  # seconds after which every host sees a file that one has written

# What jax says when processes do not meet -> what to do about it.
_NOT_MET = {
    "Unexpected task": "process 0 was given a smaller --processes; give all the same number",
    "incarnation": "another process has the same --process; give each its own",
    "ddress already in use": "that port is taken on this host; name another",
    "": "start process 0 on that host and all others, each with the same --coordinator and "
    "--processes, or give them longer with --wait",
}


class Alone(Exception):
    """This process of several ends with `code`, and does not wait for the others, which may wait
    for it: they end as if it were lost."""

    def __init__(self, code: int):
        self.code = code


def alone(code: int) -> int:
    """The exit code of a process that cannot go on; raises Alone in a run of several."""
    from train.parallel import processes

    if processes.count() > 1:
        raise Alone(code)
    return code


@dataclass(frozen=True)
class Cluster:
    """Which process this is, of how many, and where number 0 listens; None: the TPU knows."""

    coordinator: str | None = None  # host:port
    processes: int | None = None
    process: int | None = None
    devices: tuple[int, ...] | None = None  # of this host, those that are its own; None: all

    def __str__(self) -> str:
        if self.coordinator is None:
            return "this process of a TPU"
        return f"process {self.process} of {self.processes}"


def find(
    coordinator: str | None = None, processes: int | None = None, process: int | None = None
) -> Cluster | None:
    """The cluster that the flags name, or that of SLURM or a TPU; None for a single process.

    ValueError if some of the flags are missing or they contradict each other.
    """
    given = {"coordinator": coordinator, "processes": processes, "process": process}
    if processes == 1:
        return None
    if all(value is None for value in given.values()):
        return of_slurm(os.environ) or (Cluster() if _tpu_is_here() else None)
    if missing := [f"--{name}" for name, value in given.items() if value is None]:
        raise ValueError(
            f"{' and '.join(missing)} missing: a run of several processes is given "
            "--coordinator=HOST:PORT --processes=N --process=I"
        )
    if not re.fullmatch(r".+:\d+", coordinator):
        raise ValueError(f"--coordinator={coordinator} is not HOST:PORT; use 10.0.0.1:8476, say")
    if not 0 <= process < processes:
        raise ValueError(
            f"--process={process} is not among --processes={processes}; they are numbered from "
            f"0 to {processes - 1}"
        )
    return Cluster(coordinator, processes, process)


def of_slurm(environment: Mapping[str, str]) -> Cluster | None:
    """The tasks of an `srun` of several; None elsewhere.

    Tasks that share a host take a GPU each, by their number there, unless each is shown its own.
    """
    if int(environment.get("SLURM_STEP_NUM_TASKS", 1)) == 1:
        return None
    # 'gpu[07-09,12],…' and 'gpu07,…' begin with gpu07, where task 0 runs.
    name = re.match(r"([^\[,]+)(?:\[([^\],-]+))?", environment["SLURM_STEP_NODELIST"])
    port = 61440 + int(environment["SLURM_JOB_ID"]) % 4096  # a port that is nobody's by default
    alone = environment["SLURM_STEP_TASKS_PER_NODE"].split("(")[0] == "1"
    shown = environment.get("CUDA_VISIBLE_DEVICES", ",")
    return Cluster(
        f"{''.join(name.groups(''))}:{port}",
        int(environment["SLURM_STEP_NUM_TASKS"]),
        int(environment["SLURM_PROCID"]),
        None if alone or "," not in shown else (int(environment["SLURM_LOCALID"]),),
    )


def _tpu_is_here() -> bool:
    """Whether jax may find a TPU, whose other hosts it then knows."""
    wanted = os.environ.get("JAX_PLATFORMS", "tpu")
    chips = glob.glob("/dev/accel*") or glob.glob("/dev/vfio/[0-9]*")
    return "tpu" in wanted and bool(chips) and importlib.util.find_spec("libtpu") is not None


def run(cluster: Cluster, work: Callable[[], int], wait: int) -> int:
    """The exit code of `work()`, called once all processes have met, within `wait` seconds.

    Prints one line and returns 42 if another process does not come or is lost later, and 2 if
    they cannot meet: the same number twice, a port that is taken.
    """
    with tempfile.TemporaryFile("w+") as notes:
        notes.write("not met")
        notes.flush()
        end, alive = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(alive)
            os.setpgid(0, 0)  # a Ctrl-C reaches the parent, which passes it on
            # A read of the pipe returns when the parent, which holds its other end, is gone.
            end_with_parent(lambda: os.read(end, 1), signal.SIGKILL)
            _leave(_one_process(cluster, work, wait, notes))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, _: os.kill(child, number))
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        notes.seek(0)
        return code if code >= 0 else _explain(cluster, signal.Signals(-code), notes.read(), wait)


def _explain(cluster: Cluster, by: signal.Signals, notes: str, wait: int) -> int:
    """One line on a process that was ended by a signal; the exit code."""
    if by == signal.SIGABRT and notes:
        sign, remedy = next((s, text) for s, text in _NOT_MET.items() if s in notes)
        met = f"{cluster} did not meet the others at --coordinator={cluster.coordinator}"
        print(f"isoflop train: {met} within --wait={wait} s; {remedy}", file=sys.stderr)
        return BAD_INPUT if sign else PREEMPTED
    if by == signal.SIGABRT:
        print(f"isoflop train: {cluster} has lost another; {_AGAIN}", file=sys.stderr)
        return PREEMPTED
    print(f"isoflop train: {cluster} was ended by {by.name}; {_AGAIN}", file=sys.stderr)
    return PREEMPTED if by in (signal.SIGTERM, signal.SIGKILL) else BUG


_AGAIN = "run all of them again, they go on from the last checkpoint"


def _one_process(cluster: Cluster, work: Callable[[], int], wait: int, notes: IO[str]) -> int:
    """What the child does; its exit code."""
    import jax

    try:
        _join(cluster, wait, notes)
        code = _refused(cluster) or work()
        _part()
        return code
    except Alone as end:
        return end.code
    except BadInput as error:
        print(f"isoflop train: {error}", file=sys.stderr)
        return BAD_INPUT
    except Absent as error:
        print(f"isoflop train: {error}", file=sys.stderr)
        return PREEMPTED
    except BaseException as error:
        if isinstance(error, jax.errors.JaxRuntimeError | TimeoutError):
            # A collective may fail before jax knows that its peer is gone, and ends us.
            time.sleep(1.3 * HEARTBEAT)
        traceback.print_exception(error)
        return BUG


def _join(cluster: Cluster, wait: int, notes: IO[str]) -> None:
    """Meets the others. What jax logs goes to `notes`, which are empty once that is done."""
    import jax

    if cluster.coordinator is not None:
        _meet(cluster, wait)
    several = (
        {}
        if cluster.coordinator is None
        else {
            "coordinator_address": cluster.coordinator,
            "num_processes": cluster.processes,
            "process_id": cluster.process,
            "local_device_ids": cluster.devices,
            "cluster_detection_method": "deactivate",
        }
    )
    with output_to(notes.fileno(), [sys.stderr.fileno()]):
        try:
            jax.distributed.initialize(
                **several,
                initialization_timeout=wait,
                heartbeat_timeout_seconds=HEARTBEAT,
                shutdown_timeout_seconds=6 * HEARTBEAT,
            )
        except (ValueError, RuntimeError) as error:
            if "DEADLINE_EXCEEDED" in str(error):
                raise Absent(
                    f"{cluster} did not meet all others within --wait={wait} s; {_AGAIN}"
                ) from None
            if several:
                raise BadInput(f"{cluster} cannot take part: {error}") from error
            return  # a TPU of one host
    notes.truncate(0)


def _meet(cluster: Cluster, wait: int) -> None:
    """Waits until all processes are here. Absent names those that are missing; BadInput says what
    another attempt would meet again."""
    from train.parallel import meeting

    met = f"{cluster} did not meet the others at --coordinator={cluster.coordinator}"
    met += f" within --wait={wait} s"
    try:
        meeting.meet(cluster.coordinator, cluster.processes, cluster.process, wait)
    except meeting.NotMet as error:
        signs = {meeting.TOO_LARGE: "Unexpected task", meeting.TAKEN: "incarnation"}
        if error.why in signs:
            raise BadInput(f"{met}; {_NOT_MET[signs[error.why]]}") from None
        verb = "processes {} are" if len(error.missing) > 1 else "process {} is"
        who = verb.format(", ".join(map(str, error.missing)))
        raise Absent(f"{met}: {who} missing; {_NOT_MET['']}") from None
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise BadInput(f"{met} ({error.strerror})") from error
        raise BadInput(f"{met}; {_NOT_MET['ddress already in use']}") from None


def _refused(cluster: Cluster) -> int:
    """Prints one line in every process and returns 2 if they cannot form one mesh; otherwise 0."""
    try:
        _require_one_mesh(cluster)
    except BadInput as error:
        print(f"isoflop train: {error}", file=sys.stderr)
        return BAD_INPUT
    return DONE


def _require_one_mesh(cluster: Cluster) -> None:
    import jax

    from train.parallel import processes

    if cluster.processes is not None:
        _require_equal("--processes", processes.exchange("processes", cluster.processes))
    here = [jax.local_device_count(), jax.devices()[0].device_kind, jax.__version__]
    for name, values in zip(
        ("the number of devices", "the kind of device", "the version of jax"),
        zip(*processes.exchange("devices", here), strict=True),
        strict=True,
    ):
        _require_equal(name, values)


def _require_equal(name: str, values: Any) -> None:
    for process, value in enumerate(values):
        if value != values[0]:
            raise BadInput(
                f"{name} is {values[0]} in process 0 and {value} in process {process}; "
                "give all processes the same"
            )


@contextlib.contextmanager
def together() -> Iterator[dict[str, Any]]:
    """Bad input of one process is bad input of all: each raises the same BadInput.

    Yields a dict for the values that must be equal in all. No process goes on before all are here.
    """
    from train.parallel import processes

    about, fault = {}, None
    try:
        yield about
    except BadInput as error:
        fault = error
    if processes.count() == 1:
        if fault:
            raise fault
        return
    said = processes.exchange("together", [fault and str(fault), about], PREPARATION)
    for process, (message, _) in enumerate(said):
        if message:
            raise BadInput(f"process {process}: {message}")
    first = said[0][1]
    for process, (_, other) in enumerate(said):
        for key in first:
            if other[key] != first[key]:
                raise BadInput(
                    f"{key} is {first[key]!r} in process 0 and {other[key]!r} in process "
                    f"{process}; give all processes the same, or --processes=1 for runs apart"
                )


def shared_keys(resolved: dict[str, Any]) -> dict[str, Any]:
    """The keys of a resolved config that must be equal in all processes: all but the paths of
    text."""
    apart = ("config.data.corpora", "config.data.cache")
    found = {f"config.{key}": value for key, value in flatten(resolved).items()}
    return {key: value for key, value in found.items() if key not in apart}


def require_shared(file: Path) -> None:
    """ValueError if this process does not see `file`, which process 0 wrote."""
    latest = time.monotonic() + VISIBLE
    while not file.exists():
        if time.monotonic() > latest:
            raise ValueError(
                f"{file}, which process 0 wrote, is not here; give a --workdir that all hosts share"
            )
        time.sleep(0.1)


def _part() -> None:
    """Ends all processes together, so that none takes the end of another for a loss."""
    import jax

    from train.parallel import processes

    processes.exchange("end", None)
    jax.distributed.shutdown()


def _leave(code: int) -> None:
    """Ends at once: a normal exit would wait for processes that may be gone."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
