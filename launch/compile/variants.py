"""Compiles variants of a config for a TPU slice and ranks them by estimated throughput.

Each variant is compiled in a separate process: one that crashes the compiler becomes a line of the
ranking and does not end the search.
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

from data.files import to_path
from launch.amounts import clock
from launch.checkout import ROOT
from launch.compile import verdict
from launch.errors import BAD_INPUT, DONE, writing
from launch.files import AGAIN, read_json, write_json
from model.transformer.config import CHOICES
from train.parallel.chips import Slice

# Most devices along an axis in a search. Axes without an entry have no limit.
LARGEST_AXIS = {"tensor": 8, "sequence": 16}
LONG_CONTEXT = 32_768  # shortest context, in tokens, for which a search splits sequences
ROWS = (1, 2, 4, 8, 16)  # values of train.batch_per_device


def meshes(config: Any, devices: int) -> list[dict[str, int]]:
    """Every mesh of the config's axes with a power of two along each; fsdp takes any odd factor."""
    axes = sorted(config.mesh)
    most = {axis: LARGEST_AXIS.get(axis, devices) for axis in axes}
    if config.model.context_length < LONG_CONTEXT:
        most["sequence"] = 1
    sizes = [[2**k for k in range(most[a].bit_length()) if devices % 2**k == 0] for a in axes]
    odd = devices // (devices & -devices)
    found = []
    for chosen in itertools.product(*sizes):
        mesh = dict(zip(axes, chosen, strict=True))
        mesh["fsdp"] = mesh.get("fsdp", 1) * odd
        if math.prod(mesh.values()) == devices:
            found.append({f"mesh.{axis}": size for axis, size in mesh.items()})
    return sorted(found, key=lambda mesh: -mesh["mesh.fsdp"])


def policies(config: Any, devices: int) -> list[dict[str, Any]]:
    """The rematerialisation policies. Layers are scanned: otherwise each is compiled separately."""
    return [{"model.remat": name, "model.scan_layers": True} for name in CHOICES["remat"]]


def batches(config: Any, devices: int) -> list[dict[str, int]]:
    """Batch sizes, smallest first: once one does not fit, larger ones are skipped."""
    return [{"train.batch_per_device": rows} for rows in ROWS]


# A search tries the product of these; it walks the last in order until one does not fit.
DIMENSIONS: tuple[Callable[[Any, int], list[dict]], ...] = (meshes, policies, batches)


@dataclass
class Variant:
    """Overrides and their outcome: a report, or one line that says why there is none."""

    overrides: dict[str, Any]
    report: dict[str, Any] | None = None
    error: str = ""
    seconds: float = 0.0

    @property
    def fits(self) -> bool:
        return bool(self.report and self.report["fits"])

    @property
    def rank(self) -> tuple:
        """Sort key: what fits, fastest first; then what does not, smallest first; then failures."""
        if self.fits:
            return 0, -self.report["detail"]["tokens_per_second"]
        return (1, self.report["memory"]["peak"]) if self.report else (2, 0)

    def __str__(self) -> str:
        return " ".join(f"{key.split('.')[-1]}={v}" for key, v in self.overrides.items())


def groups(config: Any, devices: int, limit: int) -> list[list[Variant]]:
    """Groups of variants that differ only in the last dimension; at most `limit` in all, 0: all."""
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
    topology: Slice,
    overrides: Mapping[str, str],
    console: rich.console.Console,
) -> int:
    """Exit code 0: something fits; 2: nothing does."""
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
        progress.stopped = True  # after an interrupt, running compilations finish and none starts
        pool.shutdown(cancel_futures=True)
        _show(tried, values, topology, console)
    return DONE if any(variant.fits for variant in tried) else BAD_INPUT


def _show(
    tried: list[Variant],
    values: absl_flags.FlagValues,
    topology: Slice,
    console: rich.console.Console,
) -> None:
    """Writes and prints the ranking of the variants tried."""
    ranking = sorted(tried, key=lambda variant: variant.rank)
    if values.json:
        rows = [{"overrides": v.overrides, "error": v.error, "report": v.report} for v in ranking]
        with writing("json", values.json):
            write_json(to_path(values.json), {"topology": topology.name, "ranking": rows})
    console.print(verdict.ranking(ranking))
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
    """Compiles a variant in a separate process and fills in its report or error."""
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
        variant.report = read_json(file, AGAIN)
    if variant.report is None:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        variant.error = lines[-1].removeprefix("isoflop compile: ")


class _Progress:
    """Prints a line on stderr for each finished variant, with the time left."""

    def __init__(self, total: int):
        self.total, self.count, self.begun = total, 0, time.monotonic()
        self.stopped = False

    def done(self, variant: Variant) -> None:
        self.count += 1
        left = (time.monotonic() - self.begun) / self.count * (self.total - self.count)
        text = f"[{self.count}/{self.total}] {variant}: {verdict.outcome(variant)}"
        after = f"; about {clock(left)} left" if self.count < self.total else ""
        print(f"{text} ({variant.seconds:.0f} s{after})", file=sys.stderr, flush=True)

    def skip(self, count: int) -> None:
        """Lowers the total: `count` variants will not be tried."""
        self.total -= count
