"""Prints what `isoflop tokenize --compare` measured."""

import sys
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from scaling.printable import printable
from scaling.report.tokenizers.tokenizer_page import number, share


def show(about: dict[str, Any]) -> None:
    """Three tables: all texts together, each text, and the sentences in pieces."""
    # Rich assumes that a pipe is 80 columns wide and would truncate the numbers.
    console = Console(width=None if sys.stdout.isatty() else 140)
    names = [plain(one["name"]) for one in about["tokenizers"]]
    heads = ("bytes/token", "tokens/word", "unknown", "come back", "MB/s", "seconds")
    table = Table("tokenizer", "vocabulary", *heads)
    for column in table.columns[1:]:
        column.justify = "right"
    count = len(about["texts"])
    for name, one in zip(names, about["tokenizers"], strict=True):
        table.add_row(
            name, f"{one['vocab_size']:,}", f"{one['bytes_per_token']:.3f}",
            number(one["fertility"]), share(one["unknown"]), f"{one['came_back']} of {count}",
            f"{one['megabytes_per_second']:.1f}", f"{one['seconds_until_ready']:.1f}",
        )  # fmt: skip
    console.print(table)
    table = Table("bytes/token, tokens/word")
    for name in names:
        table.add_column(name)
    for text in about["texts"]:
        cells = [one["texts"][text] for one in about["tokenizers"]]
        table.add_row(
            plain(text), *(f"{c['bytes_per_token']:.2f}  {number(c['fertility'])}" for c in cells)
        )
    console.print(table)
    for place, sentence in enumerate(about["sentences"]):
        console.print(plain(sentence), soft_wrap=True)
        for name, one in zip(names, about["tokenizers"], strict=True):
            found = one["sentences"][place]
            split = "|".join(printable(piece) for piece in found)
            console.print(Text(f"  {name}: {len(found)} tokens  {split}"), soft_wrap=True)


def plain(text: str) -> Text:
    """A text from outside, without escapes and without markup."""
    return Text(printable(text))
