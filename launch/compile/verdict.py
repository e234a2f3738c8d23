"""The report of a compiled program in words: a table, a verdict, a ranking of several."""

from collections.abc import Callable
from typing import Any

import rich.table

from launch.amounts import amount, byte_size
from train.parallel.chips import CHIPS, GIB


def shortage(report: dict[str, Any]) -> str:
    """How much memory a program that does not fit lacks."""
    memory = largest(report)
    over = memory["peak"] - memory["hbm"]
    what = "the rollout of " if memory is not report["memory"] else ""
    return (
        f"{what}{report['detail']['name']} does not fit {report['topology']}: it needs "
        f"{gib(memory['peak'])} of the {gib(memory['hbm'])} that a device has, {gib(over)} too much"
    )


def largest(report: dict[str, Any]) -> dict[str, Any]:
    """The memory of the program that needs most: the step's, or that of a rollout."""
    programs = [report, report["rollout"]] if "rollout" in report else [report]
    return max((of["memory"] for of in programs), key=lambda memory: memory["peak"])


def verdict(report: dict[str, Any], config: Any) -> str:
    """Whether the program fits, by how much, and which config keys would help if not."""
    memory = largest(report)
    if report["fits"]:
        free = memory["hbm"] - memory["peak"]
        return (
            f"FITS: {gib(memory['peak'])} of {gib(memory['hbm'])}, {gib(free)} free "
            f"({free / memory['hbm']:.0%})"
        )
    turned = [advice for key, helps, advice in KNOBS if _helps(key, helps, config, report)]
    return f"DOES NOT FIT: {shortage(report)}\nTry one of: " + "; ".join(turned)


def _helps(key: str, helps: Callable[[Any, dict], bool], config: Any, report: dict) -> bool:
    section, _, leaf = key.partition(".")
    return helps(config[section][leaf], report)


def _rows(report: dict[str, Any]) -> float:
    """Sequences of each group of devices that shares them."""
    mesh = report["detail"]["mesh"]
    return report["detail"]["batch_size"] / (mesh.get("data", 1) * mesh.get("fsdp", 1))


def _mostly_state(report: dict[str, Any]) -> bool:
    return report["memory"]["argument"] > report["memory"]["hbm"] / 2


UNMEASURED = "never compared with a run"  # the estimated time of a rollout
# (config key, whether changing it could help, what to try), cheapest first.
KNOBS = (
    (
        "mesh.data",
        lambda value, report: report["detail"]["mesh"].get("data", 1) > 1,
        "mesh.data=1 mesh.fsdp=-1, which splits parameters and moments over all devices",
    ),
    (
        "train.accumulation",
        lambda value, report: _rows(report) / value > 1,
        "a larger train.accumulation, or a smaller train.batch_size",
    ),
    ("model.remat", lambda value, report: value != "full", "model.remat=full"),
    ("train.loss_chunk", lambda value, report: not value, "train.loss_chunk=512"),
    ("optimizer.moments", lambda value, report: value != "bfloat16", "optimizer.moments=bfloat16"),
    ("optimizer.offload", lambda value, report: not value, "optimizer.offload=True"),
    ("mesh.sequence", lambda value, report: _rows(report) <= 1, "mesh.sequence=2 or more"),
    ("mesh.tensor", lambda value, report: _rows(report) <= 1, "mesh.tensor=2 or more"),
    (
        "mesh.fsdp",
        lambda value, report: _mostly_state(report),
        "a larger topology: the state alone takes more than half of a device",
    ),
    ("model.context_length", lambda value, report: True, "a shorter model.context_length"),
)


def heading(report: dict[str, Any]) -> str:
    """What was compiled, and for which slice."""
    detail = report["detail"]
    mesh = " ".join(f"{axis}={size}" for axis, size in detail["mesh"].items())
    return (
        f"{detail['name']}: {amount(detail['parameters'])} parameters on {report['topology']}, "
        f"{report['devices']} devices, {mesh}"
    )


def table(report: dict[str, Any]) -> rich.table.Table:
    """The report as a table."""
    memory, flops, detail = report["memory"], report["flops"], report["detail"]
    out = rich.table.Table(box=None, pad_edge=False, show_header=False)
    out.add_row(
        "of one device, one step",
        f"batch {detail['batch_size']} x {detail['context_length']} tokens over all devices",
    )
    for name, size in detail.get("state", {}).items():
        out.add_row(f"memory: {name}", gib(size))
    out.add_row("memory: arguments", gib(memory["argument"]))
    out.add_row("memory: temporary", gib(memory["temporary"]))
    if memory.get("host"):
        out.add_row("memory: on the host", gib(memory["host"]))
    out.add_row("memory: peak", f"{gib(memory['peak'])} of {gib(memory['hbm'])}")
    if flops["matmul"] is not None:
        _measured(out, report)
    if "rollout" in report:
        _rollout(out, report["rollout"])
    for loop in detail["loops_counted_once"][1:]:  # the first is the loop over steps
        out.add_row("WARNING", f"loop {loop} counted once: its trip count is unknown")
    out.add_row("compiled in", f"{detail['compile_seconds']:.1f} s")
    return out


def _measured(out: rich.table.Table, report: dict[str, Any]) -> None:
    """Adds the rows that only a program that fits has."""
    flops, detail = report["flops"], report["detail"]
    needed = detail["recompute"]  # None: the family does not say how many its products need
    times = "" if needed is None else f", {needed:.3f} x what the model needs"
    out.add_row("FLOPs of the model", f"{flops['model'] / 1e12:.4g} T (PaLM's count)")
    out.add_row(
        "FLOPs of products",
        f"{flops['matmul'] / 1e12:.4g} T{times}",
    )
    for name, kernel in detail["kernel_flops"].items():
        note = "UNKNOWN, counted as 0" if name in detail["unknown_kernels"] else "by formula"
        out.add_row(f"  of them {name}", f"{kernel / 1e12:.4g} T ({note})")
    if detail["kernel_flops"]:
        out.add_row("kernels, at the chip's peak", f"{detail['kernel_seconds']:.4g} s")
    for kind, moved in report["collectives"].items():
        out.add_row(
            kind,
            f"{byte_size(moved['payload'])} payload, {byte_size(moved['wire'])} on the wire, "
            f"{detail['calls'][kind]:,} calls",
        )
    out.add_row("wire time, if nothing hides it", f"{detail['wire_seconds']:.4g} s")
    if "*" in report["topology"]:
        out.add_row("WARNING", "traffic between slices is not counted")
    band = f"ESTIMATE, {error_band(detail)}"
    out.add_row("cycles, without kernels", f"{report['estimated_cycles']:.4g} (the compiler's own)")
    out.add_row("step, with kernels", f"{report['estimated_step_seconds']:.4g} s ({band})")
    out.add_row("MFU", f"{report['estimated_mfu']:.1%} ({band})")
    band = f"ESTIMATE, {UNMEASURED}" if "rollout" in report else band
    out.add_row("tokens/s", f"{detail['tokens_per_second']:,.0f} of all devices ({band})")


def _rollout(out: rich.table.Table, rollout: dict[str, Any]) -> None:
    """Adds the rows of the program that makes the batches of `updates` steps."""
    memory, flops = rollout["memory"], rollout["flops"]
    out.add_row(
        "of one rollout",
        f"{rollout['responses']:,} responses of {rollout['response_tokens']:,} tokens, for "
        f"{rollout['updates']:,} steps",
    )
    for name in ("argument", "temporary", "resident"):
        out.add_row(f"rollout: memory: {name}", gib(memory[name]))
    out.add_row("rollout: memory: peak", f"{gib(memory['peak'])} of {gib(memory['hbm'])}")
    if flops["matmul"] is not None:
        seconds = rollout["estimated_seconds"]
        out.add_row("rollout: FLOPs of the models", f"{flops['model'] / 1e12:.4g} T (PaLM's count)")
        out.add_row("rollout: FLOPs of products", f"{flops['matmul'] / 1e12:.4g} T")
        out.add_row("rollout: time", f"{seconds:.4g} s (ESTIMATE, {UNMEASURED})")
    out.add_row("rollout: compiled in", f"{rollout['compile_seconds']:.1f} s")


def error_band(detail: dict[str, Any]) -> str:
    """How far the estimate may be from a measured step."""
    band = detail["error_band"]
    return f"±{band:.0%}" if band else "error unknown on this chip"


def listing() -> rich.table.Table:
    """What `--topologies` prints."""
    out = rich.table.Table(box=None, pad_edge=False, header_style="bold")
    for column in ("chip", "devices", "HBM", "bf16", "clock", "ICI", "slices"):
        out.add_column(column, no_wrap=column != "slices")
    for kind, chip in CHIPS.items():
        if not chip.slices:
            continue
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
    return f"{size / GIB:.2f} GiB"


def outcome(variant: Any) -> str:
    """The outcome of one variant of a search, in a few words."""
    if variant.report is None:
        return f"FAILED: {variant.error}"
    memory = variant.report["memory"]
    held = f"{gib(memory['peak'])} of {gib(memory['hbm'])}"
    if not variant.fits:
        return f"{held}: does not fit"
    return (
        f"{held}, est. {variant.report['detail']['tokens_per_second']:,.0f} tokens/s, "
        f"MFU {variant.report['estimated_mfu']:.1%}"
    )


def ranking(variants: list) -> rich.table.Table:
    """A table of the variants of a search, in the given order."""
    out = rich.table.Table(box=None, pad_edge=False, header_style="bold")
    for column in ("", "variant", "peak", "recompute", "wire", "est. step", "est. tokens/s", "MFU"):
        wide = column == "variant"
        out.add_column(column, justify="left" if wide else "right", no_wrap=not wide)
    for place, variant in enumerate(variants, 1):
        report = variant.report
        if not variant.fits:
            why = "does not fit" if report else variant.error
            peak = gib(report["memory"]["peak"]) if report else ""
            out.add_row("", f"{variant}: {why}", peak, *[""] * 5)
            continue
        wire = sum(moved["wire"] for moved in report["collectives"].values())
        out.add_row(
            str(place),
            str(variant),
            gib(report["memory"]["peak"]),
            "—" if (times := report["detail"]["recompute"]) is None else f"{times:.3f}",
            f"{byte_size(wire)}",
            f"{report['estimated_step_seconds']:.4g} s",
            f"{report['detail']['tokens_per_second']:,.0f}",
            f"{report['estimated_mfu']:.1%}",
        )
    return out
