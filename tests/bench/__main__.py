"""Runs all CPU benchmarks (`make bench`).

    python -m tests.bench [--quick] [--shapes=S1,S3] [--json=FILE] [--torch_python=PATH]

Measures training speed relative to the peers and to plain matrix products (MFU), compile times, the
overhead of the training loop, the loader, and how long a checkpoint pauses training.

Takes about 6 minutes on two idle cores. With --quick it takes one minute: fewer rounds, no training
of S4, no loop. Always uses two cores. PyTorch is measured if this Python or the one at PATH has it.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from absl import app, flags
from rich.console import Console
from rich.table import Table

from launch.runners import local
from launch.runners.tasks import Resources
from tests.bench.race import machine, referee
from tests.bench.race.shapes import SHAPES

JSON = flags.DEFINE_string("json", "", "File to write all measurements to.")
QUICK = flags.DEFINE_bool("quick", False, "Fewer and shorter rounds; no training of S4, no loop.")
NAMES = flags.DEFINE_list("shapes", [], "Shapes to measure; all if empty.")
TORCH_PYTHON = flags.DEFINE_string("torch_python", sys.executable, "A Python that has PyTorch.")

LOOP_SHAPE, CHECKPOINT_SHAPE = "S2", "S4"


def main(_: list[str]) -> None:
    status = Console(stderr=True)
    unknown = set(NAMES.value) - set(SHAPES)
    if unknown:
        raise app.UsageError(f"--shapes={','.join(unknown)} unknown; use {', '.join(SHAPES)}")
    cores = local.available_cores()[: referee.CORES]
    if len(cores) < referee.CORES:
        raise app.UsageError(f"the benchmark needs {referee.CORES} cores, this process has 1")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
    about = machine.describe(TORCH_PYTHON.value)
    torch_python = TORCH_PYTHON.value if about["versions"]["torch"] else None
    if not torch_python:
        status.print(f"no PyTorch in {TORCH_PYTHON.value}: that peer is left out (--torch_python)")
    rounds, seconds = (2, 1.0) if QUICK.value else (5, 2.0)
    found = {"machine": about, "shapes": {}}
    for name in NAMES.value or [n for n in SHAPES if SHAPES[n].together or not QUICK.value]:
        teams = referee.contestants(SHAPES[name], torch_python)
        found["shapes"][name] = referee.compete(
            SHAPES[name], teams, rounds, seconds, lambda text: status.print(f"[dim]{text}")
        )
    status.print("[dim]loader")
    found["loader"] = alone("loader", seconds)
    status.print("[dim]checkpoint")
    found["checkpoint"] = alone("checkpoint", CHECKPOINT_SHAPE)
    if not QUICK.value:
        status.print("[dim]loop")
        found["loop"] = alone("loop", LOOP_SHAPE)
    report(found, Console() if sys.stdout.isatty() else Console(width=100))
    if JSON.value:
        Path(JSON.value).write_text(json.dumps(found, indent=1) + "\n")


def alone(module: str, argument: object) -> dict:
    """The JSON that a benchmark of this folder prints when it runs alone on one core."""
    slot = local.slots(referee.CORES, Resources())[0]
    done = subprocess.run(
        [sys.executable, "-m", f"tests.bench.{module}", str(argument)],
        capture_output=True,
        text=True,
        cwd=referee.REPOSITORY,
        env=referee.environment(slot.environment) | {"JAX_ENABLE_COMPILATION_CACHE": "true"},
        preexec_fn=referee.pin(slot.cores),
    )
    if done.returncode:
        raise RuntimeError(f"tests.bench.{module}: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def report(found: dict, console: Console) -> None:
    about = found["machine"]
    versions = ", ".join(f"{name} {v}" for name, v in about["versions"].items() if v)
    console.print(f"{about['processor']}, 2 of {about['cores']} cores, load {about['load']:.1f}")
    console.print(
        f"Python {about['python']}, {versions}, XLA_FLAGS={about['XLA_FLAGS'] or 'unset'}"
    )
    table = Table("shape", "contestant", title="Training and bare products, GFLOP/s on two cores")
    for column in ("min", "median", "max", "compile s", "ours is", "(min–max)", "target"):
        table.add_column(column, justify="right")
    for name, shape in found["shapes"].items():
        for contestant, g in shape["gflops"].items():
            rates = [f"{g[key]:.1f}" for key in ("min", "median", "max")]
            compiled = f"{shape['compile_seconds'][contestant]:.1f}"
            ratio = shape["ratios"].get(contestant)
            table.add_row(name, contestant, *rates, compiled, *(against(ratio) if ratio else ()))
        table.add_section()
    console.print(table)
    console.print(
        f"{referee.PRODUCTS}: square float32 matrix products on the same cores; what ours is of it "
        "is its MFU"
    )
    saved = found["checkpoint"]
    console.print(
        f"Checkpoint of {saved['bytes'] / 1e6:.0f} MB ({saved['shape']}), one core: training "
        f"stands still for {1e3 * saved['stall_seconds']:.0f} ms; on disk and hashed after "
        f"{saved['write_seconds']:.2f} s; read from memory and verified in "
        f"{saved['verify_seconds']:.2f} s"
    )
    rate, load = found["loader"], found["loader"]["target"]
    console.print(
        f"Loader alone, one core: {rate['batches']:.0f} Mtok/s by the batch "
        f"{verdict(rate['batches'] >= load)} (target {load}); {rate['chunks']:.0f} by the chunk"
    )
    if loop := found.get("loop"):
        console.print(
            f"Loop over the bare chunk of {loop['chunk']} steps of {loop['shape']}: "
            f"{loop['cost']:+.1%} {verdict(loop['cost'] <= loop['target'])} "
            f"(target ≤ {loop['target']:.0%}; best rounds {loop['bare_ms']:.2f} → "
            f"{loop['loop_ms']:.2f} ms, {loop['cost_of_minima']:+.1%})"
        )


def against(ratio: dict) -> tuple[str, str, str]:
    """Three table cells: 'ours is', its range over rounds, and the target with its verdict."""
    target = ratio["target"]
    goal = f"≥ {target:.1f}× {verdict(ratio['median'] >= target)}" if target else ""
    return f"{ratio['median']:.2f}×", f"({ratio['min']:.2f}–{ratio['max']:.2f})", goal


def verdict(met: bool) -> str:
    return "[green]met[/]" if met else "[red]missed[/]"


if __name__ == "__main__":
    app.run(main)
