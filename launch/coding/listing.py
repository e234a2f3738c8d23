"""What a compression found: the content of its JSON file, and its text for the terminal."""

from pathlib import Path, PurePath
from typing import Any

import rich.console

from launch.amounts import clock
from launch.coding.coder import Coder, Compressed
from launch.screen.fitted_table import Column, fitted, left_out
from model import families
from scaling.printable import printable


def described(
    coder: Coder,
    path: Path,
    out: Path,
    made: Compressed,
    seconds: float,
    seconds_back: float | None,
    others: list[dict[str, Any]],
) -> dict[str, Any]:
    """The content of the JSON file. `seconds_back` is None if the file was not decompressed."""
    header, whole = made.header, len(made.file)
    return {
        "file": str(path),
        "out": str(out),
        "run": str(coder.run),
        "step": coder.step,
        "family": families.name_of(coder.family),
        "model": header.model,
        "bytes": header.bytes,
        "sha256": header.sha256,
        "tokens": header.tokens,
        "gap_bytes": made.gap_bytes,
        "streams": header.streams,
        "overlap": header.overlap,
        "model_bits": made.bits,
        "coded_bytes": header.content,
        "gaps_coded_bytes": header.gaps,
        "header_bytes": whole - header.content - header.gaps,
        "coding_overhead": 8 * header.content / made.bits - 1 if made.bits else None,
        "compressed_bytes": whole,
        "bits_per_byte": 8 * whole / header.bytes if header.bytes else None,
        "seconds": seconds,
        "seconds_back": seconds_back,
        "verified": seconds_back is not None,
        "platform": header.platform,
        "others": others,
    }


def show(about: dict[str, Any]) -> None:
    """Prints the sizes and speeds of all programs, and what the file consists of."""
    console = rich.console.Console(highlight=False, markup=False)
    size = about["bytes"]
    own = {
        "name": "isoflop",
        "setting": PurePath(about["run"]).name,
        "bytes": about["compressed_bytes"],
    }
    own |= {key: about[key] for key in ("seconds", "seconds_back")}
    rows = [own, *about["others"]]
    names = [f"{row['name']} {printable(row['setting'])}" for row in rows]
    packed = [row.get("bytes") for row in rows]
    columns = [
        Column("", names, number=False),
        Column("bytes", [f"{n:,}" if n is not None else "-" for n in packed]),
        Column("bits/byte", [f"{8 * n / size:.4f}" if n and size else "-" for n in packed]),
        Column("ratio", [f"{size / n:.3f}" if n else "-" for n in packed]),
        Column("MB/s", [_speed(size, row.get("seconds")) for row in rows]),
        Column("back, MB/s", [_speed(size, row.get("seconds_back")) for row in rows], 1),
    ]
    console.print(f"{printable(about['file'])}: {size:,} bytes, {about['tokens']:,} tokens")
    table, missing = fitted(columns, console.width)
    console.print(table, soft_wrap=True)
    if missing := [name for name in missing if name]:
        console.print(left_out(missing), soft_wrap=True)
    for line in _notes(about):
        console.print(line, soft_wrap=True)


def _notes(about: dict[str, Any]) -> list[str]:
    notes = [f"{row['name']}: {row['missing']}" for row in about["others"] if "missing" in row]
    parts = f"{about['coded_bytes']:,} bytes of coded tokens, {about['header_bytes']:,} of header"
    if about["gap_bytes"]:
        parts += f", {about['gaps_coded_bytes']:,} for {about['gap_bytes']:,} bytes that no token spells"  # fmt: skip  # noqa: E501
    notes.append(parts)
    if (overhead := about["coding_overhead"]) is not None:
        bits = f"({about['model_bits'] / 8:,.1f} bytes)"
        notes.append(f"coding costs {100 * overhead:.1e} % above the model's probabilities {bits}")
    notes.append(f"the model is not in the file: decompressing needs {printable(about['run'])}")
    done = "verified" if about["verified"] else "not verified; --verify decompresses it at once"
    notes.append(f"{printable(about['out'])} in {clock(about['seconds'])}, {done}")
    return notes


def _speed(size: int, seconds: float | None) -> str:
    return f"{size / 1e6 / seconds:.3g}" if seconds else "-"
