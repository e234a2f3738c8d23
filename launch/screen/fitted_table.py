"""Tables of trials that fit the width of a terminal: what does not fit is left out and named."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import rich.cells
import rich.console
import rich.table
import rich.text

from scaling.printable import printable
from scaling.report.number_text import brief

LONGEST = 24  # characters of a setting in a cell
MOST_NAMED = 8  # columns that a note names
GAP = 2  # spaces between two columns


@dataclass(frozen=True)
class Column:
    """A column of text cells, or of anything that rich shows. Columns with a higher `spare` are
    left out first; those with 0 never are."""

    title: str
    cells: Sequence[Any]
    spare: int = 0
    number: bool = True  # aligned right

    @property
    def width(self) -> int:
        """Characters of the widest cell."""
        widths = [
            rich.cells.cell_len(cell) if isinstance(cell, str) else getattr(cell, "width", 0) or 0
            for cell in (self.title, *self.cells)
        ]
        return max(widths)


def fitted(columns: Sequence[Column], width: int) -> tuple[rich.table.Table, list[str]]:
    """(a table of `width` characters, the titles of the columns that did not fit). Text cells are
    shown as they are, without markup."""
    kept, left = _kept(columns, width)
    table = rich.table.Table(box=None, header_style="bold", pad_edge=False)
    for column in kept:
        justify = "right" if column.number else "left"
        table.add_column(rich.text.Text(column.title), justify=justify, no_wrap=True)
    for cells in zip(*(column.cells for column in kept), strict=True):
        table.add_row(*(rich.text.Text(c) if isinstance(c, str) else c for c in cells))
    return table, left


def aligned(columns: Sequence[Column], width: int) -> tuple[list[str], list[str]]:
    """The same as lines of text, the titles first, for cells that are all text: thousands of rows
    take no time."""
    kept, left = _kept(columns, width)
    padded = []
    for column in kept:
        wide, number = column.width, column.number
        texts = (column.title, *column.cells)
        spaces = (" " * (wide - rich.cells.cell_len(text)) for text in texts)
        padded.append([s + t if number else t + s for s, t in zip(spaces, texts, strict=True)])
    return ["  ".join(cells).rstrip() for cells in zip(*padded, strict=True)], left


def _kept(columns: Sequence[Column], width: int) -> tuple[list[Column], list[str]]:
    """(the columns that fit, the titles of the others). Columns of equal `spare` are kept from left
    to right."""
    room, kept = width + GAP, []
    for column in sorted(columns, key=lambda column: column.spare):
        wide = column.width + GAP
        if column.spare == 0 or wide <= room:
            room -= wide
            kept.append(id(column))
    here = [id(column) in kept for column in columns]
    return (
        [column for column, fits in zip(columns, here, strict=True) if fits],
        [column.title for column, fits in zip(columns, here, strict=True) if not fits],
    )


def left_out(titles: Sequence[str]) -> str:
    """A line that names the columns that did not fit, the first of them if they are many."""
    more = f" and {len(titles) - MOST_NAMED} more" if len(titles) > MOST_NAMED else ""
    return f"no room for {', '.join(titles[:MOST_NAMED])}{more}; a wider terminal shows more"


def cell(value: Any) -> str:
    """A setting in a narrow cell: at most LONGEST characters, '—' for an unknown value."""
    text = "—" if value is None else printable(brief(value))
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
