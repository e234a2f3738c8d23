"""This file is `isoflop compile`: the real training program, compiled for a TPU slice, measured.

isoflop compile --config=configs/pretrain.py:llama2-7b --topology=v5e:16x16
isoflop compile --config=configs/pretrain.py:tiny --topology=v5e:4x4 --search
isoflop compile --topologies
isoflop compile --table=docs/scaling-up.md

No TPU is needed, nor any text where the vocabulary is known: the TPU compiler runs here, ahead of
time, and what it made is measured. All numbers are of one device and one optimiser step. A config
that does not fit is bad input: the report is printed and written, and the exit code is 2.
--search compiles meshes, rematerialisation policies and batch sizes, each in a process of its own,
and ranks them by estimated tokens a second. --table compiles what configs/compiled.py lists and
writes the table of it into a page.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rich.console
from absl import flags as absl_flags

from data.shards import write_atomic
from launch import flags
from launch.errors import BAD_INPUT, DONE, BadInput, bad_input
from launch.files import write_json
from train.ahead_of_time import topology as topologies

PLAIN_WIDTH = 120  # characters of a line where there is no terminal


def make_flags() -> absl_flags.FlagValues:
    values = absl_flags.FlagValues()
    own = {"flag_values": values}
    absl_flags.DEFINE_string("config", None, "the config file, FILE.py or FILE.py:ARG", **own)
    absl_flags.DEFINE_string("topology", None, "the slice: v5e:4x4, v5p:4x4x8, 2*v5e:16x16", **own)
    absl_flags.DEFINE_string("json", None, "file of the report, or of the ranking", **own)
    absl_flags.DEFINE_string("hlo", None, "file for the optimised program's text", **own)
    absl_flags.DEFINE_boolean("topologies", False, "list the chips and slices, then end", **own)
    absl_flags.DEFINE_string("table", None, "page to write the table of compiled configs in", **own)
    absl_flags.DEFINE_boolean("search", False, "compile variants of the config, rank them", **own)
    absl_flags.DEFINE_integer("limit", 0, "variants that a search tries at most; 0: all", **own)
    absl_flags.DEFINE_integer("workers", 1, "compilations of a search side by side", **own)
    return values


def main(argv: Sequence[str]) -> int:
    """Exit code 0: it fits; 2: bad input, or it does not fit."""
    values = make_flags()
    overrides = flags.parse(values, argv, __doc__)
    topologies.prepare_environment()
    from launch.compile import variants as compile_search
    from launch.compile import (
        verdict as compile_text,  # these import jax, which reads the environment
    )

    console = rich.console.Console(highlight=False)
    console.width = console.width if console.is_terminal else PLAIN_WIDTH
    if values.topologies:
        console.print(compile_text.listing())
        return DONE
    if values.table:
        from launch.compile import docs_table as compile_table

        return compile_table.run(Path(values.table))
    for name in ("config", "topology"):
        if not values[name].value:
            raise BadInput(f"--{name} is missing; isoflop compile --help shows an example")
    with bad_input():
        topology = topologies.parse(values.topology)
        config = flags.load_config(values.config, overrides)
    if values.search:
        return compile_search.run(values, config, topology, overrides, console)
    report = one(config, topology, values.hlo)
    if values.json:
        with bad_input():
            write_json(Path(values.json), report)
    console.print(compile_text.heading(report), soft_wrap=True)
    console.print(compile_text.table(report))
    console.print(compile_text.verdict(report, config), soft_wrap=True)
    if not report["fits"]:
        print(f"isoflop compile: {compile_text.shortage(report)}", file=sys.stderr)
    return DONE if report["fits"] else BAD_INPUT


def one(config: Any, topology: topologies.Topology, hlo: str | None = None) -> dict[str, Any]:
    """The report of one config; its optimised program goes to the file `hlo`, if named."""
    from launch.trial.resolve import resolve_sizes
    from train.ahead_of_time import compiled
    from train.parallel import sharding

    with bad_input():
        resolved = resolve_sizes(config, topology.devices)
        mesh = sharding.make_mesh(dict(resolved.mesh), topologies.devices(topology))
    try:
        program = compiled.compile_chunk(resolved, mesh)
    except sharding.MeshError as error:
        raise BadInput(error) from error
    if hlo and program.text:
        write_atomic(Path(hlo), program.text.encode())
    return compiled.describe(resolved, topology, mesh, program)
