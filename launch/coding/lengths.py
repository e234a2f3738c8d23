"""The description lengths of a sweep: the content of their JSON file, and the terminal's table."""

from pathlib import Path
from typing import Any

import rich.console

from launch.amounts import amount, byte_size
from launch.coding.description import FORMATS, breaks_even
from launch.screen.fitted_table import Column, cell, fitted, left_out
from scaling.printable import printable


def described(
    path: Path, size: int, found: dict[str, Any], others: list[dict[str, Any]]
) -> dict[str, Any]:
    """The content of the JSON file, and of the page: what `description.described` found for `size`
    bytes, beside other programs. `pays_from` is the length of text from which a model is worth its
    bytes beside `than`, the best of them."""
    able = [row for row in others if "bytes" in row]
    than = min(able, key=lambda row: row["bytes"])
    rows = [row | {"pays_from": breaks_even(row, size, than["bytes"])} for row in found["rows"]]
    about = {"file": str(path), "bytes": size, "than": than["name"], "others": others}
    return about | found | {"rows": rows}


def show(about: dict[str, Any]) -> None:
    """Prints a row for each trial. `*` marks the shortest description in each form."""
    console = rich.console.Console(highlight=False, markup=False)
    rows, best = about["rows"], about["best"]

    def totals(name: str) -> list[str]:
        texts = []
        for row in rows:
            total = row["total_bytes"].get(name)
            mark = "*" if best.get(name) == row["run"] else " "
            texts.append("-" if total is None else f"{total:,}{mark}")
        return texts

    coded = [row["text_bytes"]["float32"] for row in rows]
    columns = [
        Column("trial", [cell(row["run"]) for row in rows], number=False),
        Column("params", [amount(row["params"]) for row in rows]),
        Column("bits/byte", [f"{8 * n / about['bytes']:.4f}" for n in coded]),
        Column("text, bytes", [f"{n:,}" for n in coded], 2),
        *(Column(f"+ {name}", totals(name)) for name in FORMATS),
        Column("online", [f"{n:.4f}" if (n := row["online"]) else "-" for row in rows], 3),
        Column("pays from", [_size(row["pays_from"]) for row in rows], 1),
    ]
    console.print(f"{printable(about['file'])}: {about['bytes']:,} bytes")
    table, missing = fitted(columns, console.width)
    console.print(table, soft_wrap=True)
    if missing:
        console.print(left_out(missing), soft_wrap=True)
    for row in about["others"]:
        text = f"{row['bytes']:,} bytes" if "bytes" in row else f"- ({row['missing']})"
        console.print(f"{row['name']} {row['setting']}: {text}", soft_wrap=True)
    console.print("* the shortest description: the model and the coded text together")
    console.print(
        f"pays from: the text from which zstd model and text are shorter than {about['than']}, if "
        "both keep their rates",
        soft_wrap=True,
    )
    if any(row["online"] for row in rows):
        console.print(
            "online: bits per token of the trial's own training text, coded while it was trained "
            "(first epoch), which needs no model in the file",
            soft_wrap=True,
        )
    for one in about["left_out"]:
        console.print(f"left out: {printable(one['run'])}: {printable(one['reason'])}")


def _size(number: float | None) -> str:
    return "-" if number is None else byte_size(number)
