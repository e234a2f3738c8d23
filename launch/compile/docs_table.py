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
from launch.errors import BUG, DONE, BadInput, bad_input, writing
from launch.files import AGAIN, read_json, write_json

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
    """Exit code 0: every row has a report; 1: rows that failed to compile are left out."""
    with bad_input():
        before, after = split_page(page)
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
    return BUG if failed else DONE


def split_page(page: Path) -> tuple[str, str]:
    """The page before and after the table. Raises BadInput if it lacks the lines that mark it."""
    text = page.read_text("utf-8")
    begin, end = text.find(BEGIN), text.find(END)
    if begin < 0 or end < begin:
        raise BadInput(
            f"table={page} has no lines '{BEGIN}' and '{END}' to write between; add them"
        )
    return text[: begin + len(BEGIN)] + "\n", text[end:]


def compile_row(name: str, folder: Path) -> str:
    """Compiles a row in a separate process and writes its report; returns the error, or ''."""
    family, topology, overrides = _row_spec(name)
    print(f"compiling {name}: {family} on {topology}", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", "launch", "compile", f"--config=configs/pretrain.py:{family}"]
    variant = variants.Variant(overrides)
    variants.compile_apart(variant, [*command, f"--topology={topology}"])
    if variant.report:
        with writing("table", folder):
            write_json(folder / f"{name}.json", variant.report | {"row": _row_spec(name)})
    return variant.error


def _row_spec(name: str) -> list:
    """Family, topology and overrides of a row of either table: a list, as in the JSON report."""
    return list((COMPILED | PUBLISHED)[name][:3])


def _report(name: str, folder: Path) -> dict[str, Any] | None:
    """The stored report of a row; None if it is missing or the row has changed since."""
    report = read_json(folder / f"{name}.json", AGAIN)
    return report if report and report.get("row") == _row_spec(name) else None


def table(folder: Path) -> str:
    """The rows that have a report, as two Markdown tables."""
    reports = {name: _report(name, folder) for name in (*COMPILED, *PUBLISHED)}
    lines = [HEADER]
    lines += [compiled_row(name, reports[name]) for name in COMPILED if reports[name]]
    lines += ["", PUBLISHED_HEADER]
    lines += [published_row(name, reports[name]) for name in PUBLISHED if reports[name]]
    return "\n".join(lines) + "\n"


def compiled_row(name: str, report: dict[str, Any]) -> str:
    """One line of the table of compiled configs."""
    family, _, overrides = COMPILED[name]
    memory, detail, sent = report["memory"], report["detail"], report["collectives"]
    cells = [
        f"{family}{_other_overrides(overrides)}, {amount(detail['parameters'])}",
        *_location_cells(report, overrides),
        f"{memory['peak'] / 2**30:.2f} of {memory['hbm'] / 2**30:.2f}",
    ]
    if not report["fits"]:
        return _too_large(cells, report, HEADER)
    error = f"± {detail['error_band']:.0%}" if detail["error_band"] else "± ?"
    cells += [
        f"{detail['recompute']:.2f}",
        f"{_gigabytes(sent, ('all-gather',), 'payload'):.1f}",
        f"{_gigabytes(sent, REDUCING, 'payload'):.1f}",
        f"{_gigabytes(sent, tuple(sent), 'wire'):.1f}",
        f"{report['estimated_cycles']:.3g}",
        f"{detail['kernel_seconds']:.3g}",
        f"{report['estimated_step_seconds']:.3g} {error}",
        f"{report['estimated_mfu']:.0%}",
    ]
    return _line(cells)


def published_row(name: str, report: dict[str, Any]) -> str:
    """One line of the table that compares estimates with published measurements."""
    _, _, overrides, rate = PUBLISHED[name]
    detail, estimate = report["detail"], report["estimated_step_seconds"]
    cells = [
        f"{name.split('-')[0]} {amount(detail['parameters'])}",
        *_location_cells(report, overrides),
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
    return _line(cells)


def _too_large(cells: list[str], report: dict[str, Any], header: str) -> str:
    """The line of a config that does not fit: the remaining columns stay empty."""
    cells = [*cells, f"does not fit: {gib(report['memory']['peak'])}"]
    n_columns = header.partition("\n")[0].count("|") - 1
    return _line([*cells, *[""] * (n_columns - len(cells))])


def _line(cells: list[str]) -> str:
    return "|" + "|".join(f" {cell} " if cell else "" for cell in cells) + "|"


def _location_cells(report: dict[str, Any], overrides: dict[str, Any]) -> list[str]:
    """Topology, mesh, batch and policy of a row."""
    detail = report["detail"]
    return [
        f"{report['topology']}, {report['devices']}",
        " ".join(f"{axis} {size}" for axis, size in detail["mesh"].items() if size > 1),
        f"{detail['batch_size']:,} × {detail['context_length']:,}",
        overrides["model.remat"],
    ]


def _other_overrides(overrides: dict[str, Any]) -> str:
    """A row's overrides of model and optimiser that no other column shows."""
    shown = ("model.remat", "model.scan_layers", "model.context_length")
    sections = ("model.", "optimizer.")
    others = {k: v for k, v in overrides.items() if k.startswith(sections) and k not in shown}
    return "".join(f" {key.split('.')[1]}={value}" for key, value in others.items())


def _gigabytes(sent: dict[str, Any], kinds: tuple[str, ...], bytes_of: str) -> float:
    """GB of these collectives."""
    return sum(sent[kind][bytes_of] for kind in kinds if kind in sent) / 1e9
