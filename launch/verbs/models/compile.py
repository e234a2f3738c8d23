"""`isoflop compile`: compiles the real training program for a TPU slice and measures it.

isoflop compile --config=configs/pretrain.py:llama2-7b --topology=v5e:16x16
isoflop compile --config=configs/pretrain.py:tiny --topology=v5e:4x4 --search
isoflop compile --topologies
isoflop compile --table=docs/scaling-up.md

This needs no TPU, and no text if the vocabulary is known: the TPU compiler runs on this machine,
ahead of time. All numbers are of one device and one optimiser step. A config that does not fit is
bad input: the report is printed and written, and the exit code is 2.
--search compiles meshes, rematerialisation policies and batch sizes, each in a separate process,
and ranks them by estimated tokens per second. --table compiles what configs/compiled.py lists and
writes a table of it into a page.
"""

import sys
from collections.abc import Sequence
from typing import Any

import rich.console
from absl import flags as absl_flags

from data.atomic import write_atomic
from data.files import to_path
from launch import flags
from launch.alive import alive
from launch.config import config_file
from launch.errors import BAD_INPUT, DONE, BadInput, bad_input, writing
from launch.files import write_json
from train.ahead_of_time import topology
from train.parallel.chips import Slice

PLAIN_WIDTH = 120  # characters per line where the output is not a terminal


def make_flags() -> absl_flags.FlagValues:
    values = absl_flags.FlagValues()
    absl_flags.DEFINE_string(
        "config", None, "the config: FILE.py, FILE.py:ARG or FILE.json", values
    )
    absl_flags.DEFINE_string(
        "topology", None, "the slice: v5e:4x4, v5e-16, v5p:4x4x8, 2*v5e:16x16", values
    )
    flags.define_path("json", None, "write the report, or the ranking, to this file", values)
    flags.define_path("hlo", None, "write the text of the optimised program to this file", values)
    absl_flags.DEFINE_boolean("topologies", False, "list the chips and slices, and stop", values)
    flags.define_path("table", None, "write the table of compiled configs into this page", values)
    absl_flags.DEFINE_boolean("search", False, "compile variants of the config, rank them", values)
    absl_flags.DEFINE_integer(
        "limit",
        0,
        "search at most this many variants; 0: all",
        lower_bound=0,
        flag_values=values,
    )
    absl_flags.DEFINE_integer(
        "workers",
        1,
        "compilations that a search runs at once",
        lower_bound=1,
        flag_values=values,
    )
    flags.define_import(values)
    return values


def main(argv: Sequence[str]) -> int:
    """Exit code 0: it fits; 2: bad input, or it does not fit."""
    values = make_flags()
    overrides = flags.parse(values, argv, __doc__)
    topology.prepare_environment()
    from launch.compile import docs_table, variants, verdict  # import jax, which reads that

    console = rich.console.Console(highlight=False)
    console.width = console.width if console.is_terminal else PLAIN_WIDTH
    if values.topologies:
        console.print(verdict.listing())
        return DONE
    if values.table:
        return docs_table.run(to_path(values.table))
    for name in ("config", "topology"):
        if not values[name].value:
            raise BadInput(f"--{name} is missing; isoflop compile --help shows an example")
    with bad_input():
        target = topology.parse(values.topology)
        config = config_file.load_config(values.config, overrides)
    if values.search:
        return variants.run(values, config, target, overrides, console)
    report = compiled_report(config, target, values.hlo)
    if values.json:
        with writing("json", values.json):
            write_json(to_path(values.json), report)
    console.print(verdict.heading(report), soft_wrap=True)
    console.print(verdict.table(report))
    console.print(verdict.verdict(report, config), soft_wrap=True)
    if not report["fits"]:
        print(f"isoflop compile: {verdict.shortage(report)}", file=sys.stderr)
    return DONE if report["fits"] else BAD_INPUT


def compiled_report(config: Any, target: Slice, hlo: str | None = None) -> dict[str, Any]:
    """The report of one config; writes the text of its optimised program to `hlo`, if given.

    Raises BadInput for sizes that do not fit the slice, for frozen models of unknown size, and
    without the TPU compiler.
    """
    from launch.compile import frozen_models
    from launch.trial.resolve import resolve_sizes
    from train.ahead_of_time import compiled
    from train.parallel import sharding

    with bad_input():
        resolved = resolve_sizes(config, target.devices)
        start = frozen_models.start(resolved)
        mesh = sharding.make_mesh(dict(resolved.mesh), topology.devices(target))
    try:
        with alive("compiling"):
            program = compiled.compile_chunk(resolved, mesh, start)
    except sharding.MeshError as error:
        raise BadInput(error) from error
    if hlo and program.text:
        with writing("hlo", hlo):
            write_atomic(to_path(hlo), program.text.encode())
    return compiled.describe(resolved, target, mesh, program)
