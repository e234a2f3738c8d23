"""Benchmarks several implementations in turn, A B C A B C, so that noise affects them equally.

Each contestant is one process or several, always on two cores in total. While one trains, the
others wait. All compile before the first round.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from launch.runners import local
from launch.runners.tasks import Resources
from tests.bench.race.shapes import Shape

REPOSITORY = Path(__file__).parents[3]
CORES = 2
PRODUCTS = "products"  # plain matrix products: the peak of these cores
TARGETS = {
    "flax": {"S1": 2.0, "S2": 2.0, "S3": 2.0, "S4": 1.5},
    "torch": {"S1": 1.0, "S2": 1.0, "S3": 1.0, "lstm": 1.5, "gru": 1.5, "encoder_decoder": 1.0},
}
"""The lowest acceptable ratio of `ours` to each peer, by shape."""


@dataclass(frozen=True)
class Contestant:
    """A module that trains a model or multiplies matrices, and its number of processes."""

    name: str
    module: str
    processes: int
    python: str = sys.executable


def contestants(shape: Shape, torch_python: str | None) -> list[Contestant]:
    """Ours, the Flax peer, plain products and, if `torch_python` is given, the PyTorch peer.

    The Flax peer is one process of two threads; the others have as many processes as ours.
    """
    processes = CORES if shape.together else 1
    found = [
        Contestant("ours", "tests.bench.race.ours", processes),
        Contestant("flax", "tests.bench.race.peer_flax", 1),
        Contestant(PRODUCTS, "tests.bench.race.products", processes),
    ]
    if torch_python:
        found.append(Contestant("torch", "tests.bench.race.peer_torch", processes, torch_python))
    return found


def compete(
    shape: Shape,
    names: Sequence[Contestant],
    rounds: int,
    seconds: float,
    say: Callable[[str], None],
) -> dict:
    """GFLOP/s of each contestant in each round, and the ratio of `ours` to each of the others."""
    with ExitStack() as stack:
        teams = {}
        for contestant in names:
            say(f"{shape.name}: {contestant.name} compiles")
            teams[contestant.name] = stack.enter_context(team(contestant, shape))
        compiled = {name: max(ask(t, "compile_seconds")) for name, t in teams.items()}
        gflops = {name: [] for name in teams}
        for number in range(rounds):
            say(f"{shape.name}: round {number + 1} of {rounds}")
            for name, processes in teams.items():
                gflops[name].append(sum(ask(processes, "gflops", seconds)))
    ratios = {
        name: [a / b for a, b in zip(gflops["ours"], peer, strict=True)]
        for name, peer in gflops.items()
        if name != "ours"
    }
    return {
        "gflops": {name: summary(values) for name, values in gflops.items()},
        "compile_seconds": compiled,
        "ratios": {
            name: summary(values) | {"target": TARGETS.get(name, {}).get(shape.name)}
            for name, values in ratios.items()
        },
    }


def summary(values: Sequence[float]) -> dict:
    return {
        "min": min(values),
        "median": statistics.median(values),
        "max": max(values),
        "rounds": list(values),
    }


@contextmanager
def team(contestant: Contestant, shape: Shape) -> Iterator[list[subprocess.Popen]]:
    """Starts the contestant's processes, pinned like a sweep's workers, and ends them on exit."""
    with ExitStack() as stack:
        processes = []
        for slot in local.slots(contestant.processes, Resources()):
            errors = stack.enter_context(tempfile.TemporaryFile("w+"))
            process = subprocess.Popen(
                [contestant.python, "-m", contestant.module, shape.name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=REPOSITORY,
                env=environment(slot.environment),
                preexec_fn=pin(slot.cores),
            )
            process.errors = errors
            stack.callback(end, process)
            processes.append(process)
        yield processes


def environment(slot: Mapping[str, str]) -> dict[str, str]:
    """The environment of a process: CPU only, and no compilation cache."""
    fixed = {"JAX_PLATFORMS": "cpu", "JAX_ENABLE_COMPILATION_CACHE": "false"}
    return {**os.environ, **slot, **fixed}


def pin(cores: Sequence[int]) -> Callable[[], None] | None:
    if not hasattr(os, "sched_setaffinity"):
        return None
    return lambda: os.sched_setaffinity(0, cores)


def ask(processes: Sequence[subprocess.Popen], key: str, seconds: float | None = None) -> list:
    """`key` of each process's next answer. All are asked first, so that they run in parallel."""
    if seconds is not None:
        for process in processes:
            process.stdin.write(f"{seconds}\n")
            process.stdin.flush()
    return [answer(process)[key] for process in processes]


def answer(process: subprocess.Popen) -> dict:
    line = process.stdout.readline()
    if not line:
        process.errors.seek(0)
        cause = process.errors.read().strip().splitlines()[-1:] or ["no message"]
        raise RuntimeError(f"{' '.join(process.args[1:])} ended: {cause[0]}")
    return json.loads(line)


def end(process: subprocess.Popen) -> None:
    process.stdin.close()
    process.kill()
    process.wait()
    process.stdout.close()
