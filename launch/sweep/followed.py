"""Follows a metrics.jsonl that is being written: reads only what was added since the last look."""

import json
import os
from pathlib import Path
from typing import Any


class Followed:
    """The newest value of each column of a metrics.jsonl in `row`, and the curve of its training
    losses, or of evaluation losses where there are no others, in `losses`."""

    def __init__(self, file: Path):
        self.file = file
        self._begin(None)

    def _begin(self, inode: int | None) -> None:
        self.row: dict[str, Any] = {}
        self._curves: dict[str, list[float]] = {"loss": [], "eval_loss": []}
        self._inode, self._read = inode, 0

    @property
    def losses(self) -> list[float]:
        return self._curves["loss"] or self._curves["eval_loss"]

    def look(self) -> "Followed":
        """Reads the whole lines that were added, or all after the file was replaced, as a run does
        when it resumes. A damaged line is left out, and a missing file is empty."""
        try:
            with open(self.file, "rb") as stream:
                about = os.fstat(stream.fileno())
                if about.st_ino != self._inode or about.st_size < self._read:
                    self._begin(about.st_ino)
                stream.seek(self._read)
                added = stream.read(about.st_size - self._read)
        except FileNotFoundError:
            self._begin(None)
            return self
        whole = added[: added.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.splitlines():
            self._add(line)
        return self

    def _add(self, line: bytes) -> None:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            return
        if not isinstance(row, dict):
            return
        self.row |= row
        for name, curve in self._curves.items():
            if isinstance(row.get(name), int | float):
                curve.append(row[name])
