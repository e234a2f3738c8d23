"""This file compiles variants of a config for a TPU slice and ranks them by estimated throughput.

Every variant is compiled by a process of its own, so that one that crashes the compiler is a line
of the ranking and not the end of the search.
"""

import itertools
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rich.console
from absl import flags as absl_flags

from launch.amounts import clock
from launch.checkout import ROOT
from launch.compile import verdict as compile_text
from launch.errors import BAD_INPUT, DONE, BadInput, bad_input
from launch.files import read_json, write_json
from model.transformer.config import CHOICES
from train.ahead_of_time.topology import Topology

# The most devices worth putting along an axis; the others take what remains.
LARGEST_AXIS = {"tensor": 8, "sequence": 16}
LONG_CONTEXT = 32_768  # tokens from which on a sequence is worth splitting
ROWS = (1, 2, 4, 8, 16)  # sequences of the devices that share them


def meshes(config: Any, devices: int) -> list[dict[str, int]]:
    """Every way to lay powers of two of the devices along the axes that the config has."""
    axes = sorted(config.mesh)
    most = {axis: LARGEST_AXIS.get(axis, devices) for axis in axes}
    if config.model.context_length < LONG_CONTEXT:
        most["sequence"] = 1
    sizes = [[2**k for k in range(most[a].bit_length()) if devices % 2**k == 0] for a in axes]
    # The odd part of the number of devices, if there is one, goes to fsdp.
    odd = devices // (devices & -devices)
    found = []
    for chosen in itertools.product(*sizes):
        mesh = dict(zip(axes, chosen, strict=True))
        mesh["fsdp"] = mesh.get("fsdp", 1) * odd
        if math.prod(mesh.values()) == devices:
            found.append({f"mesh.{axis}": size for axis, size in mesh.items()})
    return sorted(found, key=lambda mesh: -mesh["mesh.fsdp"])


def policies(config: Any, devices: int) -> list[dict[str, Any]]:
    """The rematerialisation policies, of layers in a scan: else every layer is compiled anew."""
    return [{"model.remat": name, "model.scan_layers": True} for name in CHOICES["remat"]]


def batches(config: Any, devices: int) -> list[dict[str, int]]:
    """Sequences a device, smallest first: where one does not fit, larger ones are not tried."""
    return [{"train.batch_per_device": rows} for rows in ROWS]


# What a search multiplies out; the last one is walked in order and ends where memory does.
DIMENSIONS: tuple[Callable[[Any, int], list[dict]], ...] = (meshes, policies, batches)


@dataclass
class Variant:
    """Overrides, and what came of them: a report, or one line that says why there is none."""

    overrides: dict[str, Any]
    report: dict[str, Any] | None = None
    error: str = ""
    seconds: float = 0.0

    @property
    def fits(self) -> bool:
        return bool(self.report and self.report["fits"])

    @property
    def rank(self) -> tuple:
        """What fits, fastest first; what does not, nearest first; what failed."""
        if self.fits:
            return 0, -self.report["detail"]["tokens_per_second"]
        return (1, self.report["memory"]["peak"]) if self.report else (2, 0)

    def __str__(self) -> str:
        return " ".join(f"{key.split('.')[-1]}={v}" for key, v in self.overrides.items())


def groups(config: Any, devices: int, limit: int) -> list[list[Variant]]:
    """Variants that differ in the last dimension alone, group by group; `limit` in all, 0: all."""
    *outer, inner = (dimension(config, devices) for dimension in DIMENSIONS)
    left, found = limit or math.inf, []
    for chosen in itertools.product(*outer):
        shared = {key: value for part in chosen for key, value in part.items()}
        group = [Variant(shared | last) for last in inner][: int(min(left, len(inner)))]
        left -= len(group)
        found += [group] if group else []
    return found


def run(
    values: absl_flags.FlagValues,
    config: Any,
    topology: Topology,
    overrides: Mapping[str, str],
    console: rich.console.Console,
) -> int:
    """Exit code 0: something fits; 2: nothing does."""
    if values.limit < 0 or values.workers < 1:
        raise BadInput(f"limit={values.limit} and workers={values.workers} must be 0 and 1 or more")
    todo = groups(config, topology.devices, values.limit)
    progress = _Progress(sum(len(group) for group in todo))
    command = [sys.executable, "-m", "launch", "compile", f"--config={values.config}"]
    command += [f"--topology={topology.name}"]
    command += [f"--config.{k}={v}" for k, v in overrides.items()]
    tried: list[Variant] = []
    pool = ThreadPoolExecutor(values.workers)
    try:
        for future in [pool.submit(_try, group, command, progress, tried) for group in todo]:
            future.result()
    finally:
        progress.stopped = True  # by an interrupt: what was begun ends, nothing else begins
        pool.shutdown(cancel_futures=True)
        _tell(tried, values, topology, console)
    return DONE if any(variant.fits for variant in tried) else BAD_INPUT


def _tell(
    tried: list[Variant],
    values: absl_flags.FlagValues,
    topology: Topology,
    console: rich.console.Console,
) -> None:
    """Writes and prints the ranking of what was tried."""
    ranking = sorted(tried, key=lambda variant: variant.rank)
    if values.json:
        rows = [{"overrides": v.overrides, "error": v.error, "report": v.report} for v in ranking]
        with bad_input():
            write_json(Path(values.json), {"topology": topology.name, "ranking": rows})
    console.print(compile_text.ranking(ranking))
    if not any(variant.fits for variant in ranking):
        none = f"{values.config} fits {topology.name} in none of {len(ranking)} variants"
        print(f"isoflop compile: {none}", file=sys.stderr)
        return
    flags = " ".join(f"--config.{key}={value}" for key, value in ranking[0].overrides.items())
    console.print(f"best by the compiler's estimate: {flags}", soft_wrap=True)


def _try(
    group: list[Variant], command: list[str], progress: "_Progress", tried: list[Variant]
) -> None:
    """Compiles the variants of a group until one does not fit, and adds them to `tried`."""
    for index, variant in enumerate(group):
        if progress.stopped:
            return
        begun = time.monotonic()
        compile_apart(variant, command)
        variant.seconds = time.monotonic() - begun
        tried.append(variant)
        if variant.report and not variant.fits:
            progress.skip(len(group) - index - 1)
            progress.done(variant)
            return
        progress.done(variant)


def compile_apart(variant: Variant, command: list[str]) -> None:
    """Compiles a variant in a process of its own and fills in what came of it."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "report.json"
        own = [f"--config.{key}={value}" for key, value in variant.overrides.items()]
        done = subprocess.run(
            [*command, *own, f"--json={file}"],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        variant.report = read_json(file)
    if variant.report is None:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        variant.error = lines[-1].removeprefix("isoflop compile: ")


class _Progress:
    """A line on stderr for each variant that is done, with the time left."""

    def __init__(self, total: int):
        self.total, self.count, self.begun = total, 0, time.monotonic()
        self.stopped = False

    def done(self, variant: Variant) -> None:
        self.count += 1
        left = (time.monotonic() - self.begun) / self.count * (self.total - self.count)
        text = f"[{self.count}/{self.total}] {variant}: {compile_text.outcome(variant)}"
        after = f"; about {clock(left)} left" if self.count < self.total else ""
        print(f"{text} ({variant.seconds:.0f} s{after})", file=sys.stderr, flush=True)

    def skip(self, count: int) -> None:
        """So many need not be tried."""
        self.total -= count
