"""Compiles the configurations of configs/compiled.py and writes tables of them into a page.

Each report is a file beside the page: docs/scaling-up/NAME.json for docs/scaling-up.md. A row whose
report exists is not compiled again, so an interrupted run continues where it stopped.
"""

import sys
from pathlib import Path
from typing import Any

from configs.compiled import COMPILED, PUBLISHED
from data.atomic import write_atomic
from launch.amounts import amount
from launch.compile import variants
from launch.compile.verdict import gib
from launch.errors import BAD_INPUT, DONE, BadInput, bad_input, writing
from launch.files import read_json, write_json

BEGIN, END = "<!-- compiled: begin -->", "<!-- compiled: end -->"
HEADER = (
    "| model | topology | mesh | batch × tokens | remat | peak, GiB | recompute | gathered, GB | "
    "reduced, GB | on the wire, GB | est. cycles | kernels, s | est. step, s | est. MFU |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|"
)
PUBLISHED_HEADER = (
    "| run | topology | mesh | batch × tokens | remat | measured TFLOP/s | step by that, s | "
    "est. step, s | of it kernels, s | est. / measured |\n"
    "|---|---|---|---|---|---|---|---|---|---|"
)
REDUCING = ("all-reduce", "reduce-scatter")


def run(page: Path) -> int:
    """Exit code 0: every row has a report; 2: some have none, and the table leaves those out."""
    with bad_input():
        before, after = around(page)
    folder, failed = page.with_suffix(""), []
    for name in (*COMPILED, *PUBLISHED):
        if _report(name, folder) is None and (error := compile_row(name, folder)):
            failed.append(f"{name}: {error}")
    with bad_input():
        content = before + table(folder) + after
    with writing("table", page):
        write_atomic(page, content.encode())
    for line in failed:
        print(f"isoflop compile: {line}", file=sys.stderr)
    return BAD_INPUT if failed else DONE


def around(page: Path) -> tuple[str, str]:
    """The page before and after the table; BadInput if it has no place for one."""
    text = page.read_text("utf-8")
    begin, end = text.find(BEGIN), text.find(END)
    if begin < 0 or end < begin:
        raise BadInput(
            f"table={page} has no lines '{BEGIN}' and '{END}' to write between; add them"
        )
    return text[: begin + len(BEGIN)] + "\n", text[end:]


def compile_row(name: str, folder: Path) -> str:
    """Compiles a row in a separate process and writes its report; returns the error, or ''."""
    family, topology, overrides = _row(name)
    print(f"compiling {name}: {family} on {topology}", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", "launch", "compile", f"--config=configs/pretrain.py:{family}"]
    variant = variants.Variant(overrides)
    variants.compile_apart(variant, [*command, f"--topology={topology}"])
    if variant.report:
        with writing("table", folder):
            write_json(folder / f"{name}.json", variant.report | {"row": _row(name)})
    return variant.error


def _row(name: str) -> list:
    """Family, topology and overrides of a row of either table."""
    return list((COMPILED | PUBLISHED)[name][:3])


def _report(name: str, folder: Path) -> dict[str, Any] | None:
    """The stored report of a row; None if there is none or the row has changed since."""
    found = read_json(folder / f"{name}.json")
    return found if found and found.get("row") == _row(name) else None


def table(folder: Path) -> str:
    """The rows that have a report, as two Markdown tables."""
    found = {name: _report(name, folder) for name in (*COMPILED, *PUBLISHED)}
    lines = [HEADER, *[row(name, found[name]) for name in COMPILED if found[name]], ""]
    lines += [PUBLISHED_HEADER]
    lines += [compared(name, found[name]) for name in PUBLISHED if found[name]]
    return "\n".join(lines) + "\n"


def row(name: str, report: dict[str, Any]) -> str:
    """One line of the table of compiled configs."""
    family, _, overrides = COMPILED[name]
    memory, detail, moved = report["memory"], report["detail"], report["collectives"]
    cells = [
        f"{family}{_beside(overrides)}, {amount(detail['parameters'])}",
        *_where(report, overrides),
        f"{memory['peak'] / 2**30:.2f} of {memory['hbm'] / 2**30:.2f}",
    ]
    if not report["fits"]:
        return _too_large(cells, report, HEADER)
    band = f"± {detail['error_band']:.0%}" if detail["error_band"] else "± ?"
    cells += [
        f"{detail['recompute']:.2f}",
        f"{_sent(moved, ('all-gather',), 'payload'):.1f}",
        f"{_sent(moved, REDUCING, 'payload'):.1f}",
        f"{_sent(moved, tuple(moved), 'wire'):.1f}",
        f"{report['estimated_cycles']:.3g}",
        f"{detail['kernel_seconds']:.3g}",
        f"{report['estimated_step_seconds']:.3g} {band}",
        f"{report['estimated_mfu']:.0%}",
    ]
    return f"| {' | '.join(cells)} |"


def compared(name: str, report: dict[str, Any]) -> str:
    """One line of the table that compares estimates with published measurements."""
    _, _, overrides, rate = PUBLISHED[name]
    detail, estimate = report["detail"], report["estimated_step_seconds"]
    cells = [
        f"{name.split('-')[0]} {amount(detail['parameters'])}",
        *_where(report, overrides),
        f"{rate}",
    ]
    if not report["fits"]:
        return _too_large(cells, report, PUBLISHED_HEADER)
    measured = report["flops"]["matmul"] / detail["recompute"] / (rate * 1e12)
    cells += [
        f"{measured:.3g}",
        f"{estimate:.3g}",
        f"{detail['kernel_seconds']:.3g}",
        f"{estimate / measured:.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def _too_large(cells: list[str], report: dict[str, Any], header: str) -> str:
    """The line of a config that does not fit: the remaining columns stay empty."""
    line = f"| {' | '.join(cells)} | does not fit: {gib(report['memory']['peak'])} |"
    return line + "|" * (header.partition("\n")[0].count("|") - line.count("|"))


def _where(report: dict[str, Any], overrides: dict[str, Any]) -> list[str]:
    """Topology, mesh, batch and policy of a row."""
    detail = report["detail"]
    return [
        f"{report['topology']}, {report['devices']}",
        " ".join(f"{axis} {size}" for axis, size in detail["mesh"].items() if size > 1),
        f"{detail['batch_size']:,} × {detail['context_length']:,}",
        overrides["model.remat"],
    ]


def _beside(overrides: dict[str, Any]) -> str:
    """A row's overrides of model and optimiser that no other column shows."""
    said = ("model.remat", "model.scan_layers", "model.context_length")
    sections = ("model.", "optimizer.")
    beside = {k: v for k, v in overrides.items() if k.startswith(sections) and k not in said}
    return "".join(f" {key.split('.')[1]}={value}" for key, value in beside.items())


def _sent(moved: dict[str, Any], kinds: tuple[str, ...], bytes_of: str) -> float:
    """GB of these collectives."""
    return sum(moved[kind][bytes_of] for kind in kinds if kind in moved) / 1e9
