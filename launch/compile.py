"""This file is `isoflop compile`: the real training program, compiled for a TPU slice, measured.

isoflop compile --config=configs/pretrain.py:llama2-7b --topology=v5e:16x16
isoflop compile --config=configs/pretrain.py:tiny --topology=v5e:4x4 --search
isoflop compile --topologies

No TPU is needed, nor any text where the vocabulary is known: the TPU compiler runs here, ahead of
time, and what it made is measured. All numbers are of one device and one optimiser step. A config
that does not fit is bad input: the report is printed and written, and the exit code is 2.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rich.console
import rich.table
from absl import flags as absl_flags

from data.shards import write_atomic
from launch import flags
from launch.display import si
from launch.errors import BAD_INPUT, DONE, BadInput, bad_input
from launch.files import write_json
from train import topology as topologies


def make_flags() -> absl_flags.FlagValues:
    values = absl_flags.FlagValues()
    own = {"flag_values": values}
    absl_flags.DEFINE_string("config", None, "the config file, FILE.py or FILE.py:ARG", **own)
    absl_flags.DEFINE_string("topology", None, "the slice: v5e:4x4, v5p:4x4x8, 2*v5e:16x16", **own)
    absl_flags.DEFINE_string("json", None, "file of the report, or of the ranking", **own)
    absl_flags.DEFINE_string("hlo", None, "file for the optimised program's text", **own)
    absl_flags.DEFINE_boolean("topologies", False, "list the chips and slices, then end", **own)
    absl_flags.DEFINE_boolean("search", False, "compile variants of the config, rank them", **own)
    absl_flags.DEFINE_integer("limit", 0, "variants that a search tries at most; 0: all", **own)
    return values


def main(argv: Sequence[str]) -> int:
    """Exit code 0: it fits; 2: bad input, or it does not fit."""
    values = make_flags()
    overrides = flags.parse(values, argv, __doc__)
    console = rich.console.Console(soft_wrap=True)
    if values.topologies:
        console.print(listing())
        return DONE
    for name in ("config", "topology"):
        if not values[name].value:
            raise BadInput(f"--{name} is missing; isoflop compile --help shows an example")
    with bad_input():
        topology = topologies.parse(values.topology)
        config = flags.load_config(values.config, overrides)
    topologies.prepare_environment()  # before jax is imported
    report = one(config, topology, values.hlo)
    if values.json:
        write_json(Path(values.json), report)
    console.print(table(report))
    console.print(verdict(report), highlight=False)
    if not report["fits"]:
        print(f"isoflop compile: {shortage(report)}", file=sys.stderr)
    return DONE if report["fits"] else BAD_INPUT


def one(config: Any, topology: topologies.Topology, hlo: str | None = None) -> dict[str, Any]:
    """The report of one config; its optimised program goes to the file `hlo`, if named."""
    from launch.trial import resolve_sizes
    from train import compiled, sharding

    with bad_input():
        resolved = resolve_sizes(config, topology.devices)
        mesh = sharding.make_mesh(dict(resolved.mesh), topologies.devices(topology))
    try:
        program = compiled.compile_chunk(resolved, mesh)
    except sharding.Misfit as error:
        raise BadInput(error) from error
    if hlo and program.text:
        write_atomic(Path(hlo), program.text.encode())
    return compiled.describe(resolved, topology, mesh, program)


def shortage(report: dict[str, Any]) -> str:
    """By how much a program that does not fit is too large."""
    memory = report["memory"]
    over = memory["peak"] - memory["hbm"]
    return (
        f"{report['detail']['name']} does not fit {report['topology']}: it needs "
        f"{gib(memory['peak'])} of the {gib(memory['hbm'])} that a device has, {gib(over)} too much"
    )


def verdict(report: dict[str, Any]) -> str:
    """Fits or not, by how much, and which knob to turn."""
    memory = report["memory"]
    if report["fits"]:
        free = memory["hbm"] - memory["peak"]
        return (
            f"FITS: {gib(memory['peak'])} of {gib(memory['hbm'])}, {gib(free)} free "
            f"({free / memory['hbm']:.0%})."
        )
    knobs = [text for wanted, text in KNOBS if wanted(report)]
    return f"DOES NOT FIT: {shortage(report)}.\n  To mend it: " + "; ".join(knobs) + "."


def _rows(report: dict[str, Any]) -> int:
    """Sequences of one device."""
    return report["detail"]["batch_size"] // report["devices"]


# What to try where a program does not fit, and when that could help.
KNOBS = (
    (
        lambda r: r["memory"]["argument"] > r["memory"]["hbm"] / 2,
        "more chips, for the state alone takes more than half of a device",
    ),
    (
        lambda r: r["detail"]["mesh"].get("data", 1) > 1,
        "mesh.data=1 mesh.fsdp=-1, so that the state is split over all devices",
    ),
    (lambda r: _rows(r) > 1, "a smaller train.batch_size, or a larger train.accumulation"),
    (lambda r: True, "a shorter model.context_length"),
)


def table(report: dict[str, Any]) -> rich.table.Table:
    """The report, for people."""
    memory, flops, detail = report["memory"], report["flops"], report["detail"]
    mesh = " ".join(f"{axis}={size}" for axis, size in detail["mesh"].items())
    out = rich.table.Table(box=None, pad_edge=False, show_header=False)
    out.title = (
        f"{detail['name']}: {si(detail['parameters'])} parameters on {report['topology']}, "
        f"{report['devices']} devices, {mesh}"
    )
    out.title_justify = "left"
    out.add_row(
        "of one device, one step",
        f"batch {detail['batch_size']} x {detail['context_length']} tokens over all devices",
    )
    out.add_row("memory: arguments", gib(memory["argument"]))
    out.add_row("memory: temporary", gib(memory["temporary"]))
    out.add_row("memory: peak", f"{gib(memory['peak'])} of {gib(memory['hbm'])}")
    if flops["matmul"] is not None:
        _measured(out, report)
    out.add_row("compiled in", f"{detail['compile_seconds']:.1f} s")
    return out


def _measured(out: rich.table.Table, report: dict[str, Any]) -> None:
    """The rows of a program that fits."""
    flops, detail = report["flops"], report["detail"]
    out.add_row("FLOPs of the model", f"{flops['model'] / 1e12:.4g} T (PaLM's count)")
    out.add_row(
        "FLOPs of products",
        f"{flops['matmul'] / 1e12:.4g} T, {detail['recompute']:.3f} x what the model needs",
    )
    for name, kernel in detail["kernel_flops"].items():
        note = "UNKNOWN, counted as 0" if name in detail["unknown_kernels"] else "by formula"
        out.add_row(f"  of them {name}", f"{kernel / 1e12:.4g} T ({note})")
    for kind, moved in report["collectives"].items():
        out.add_row(
            kind,
            f"{si(moved['payload'])}B payload, {si(moved['wire'])}B on the wire, "
            f"{detail['calls'][kind]:,} calls",
        )
    out.add_row("wire time, if nothing hides it", f"{detail['wire_seconds']:.4g} s")
    band = f"ESTIMATE, ±{detail['error_band']:.0%}"
    out.add_row("cycles", f"{report['estimated_cycles']:.4g} ({band})")
    out.add_row("step", f"{report['estimated_step_seconds']:.4g} s ({band})")
    out.add_row("MFU", f"{report['estimated_mfu']:.1%} ({band})")
    out.add_row("tokens/s", f"{detail['tokens_per_second']:,.0f} of all devices ({band})")


def listing() -> rich.table.Table:
    """What `--topologies` prints."""
    out = rich.table.Table(box=None, pad_edge=False, header_style="bold")
    for column in ("chip", "devices", "HBM", "bf16", "clock", "ICI", "slices"):
        out.add_column(column, no_wrap=True)
    for kind, chip in topologies.CHIPS.items():
        out.add_row(
            kind,
            str(chip.per_chip),
            gib(chip.hbm),
            f"{chip.peak / 1e12:.0f} TFLOP/s",
            f"{chip.clock / 1e9:.2f} GHz",
            f"{chip.ici / 1e9:.0f} GB/s",
            " ".join(chip.slices),
        )
    return out


def gib(size: float) -> str:
    """Bytes as '2.71 GiB'."""
    return f"{size / topologies.GIB:.2f} GiB"
