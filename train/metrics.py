"""This file records a run: metrics.jsonl, the source of truth, and TensorBoard as a view of it."""

import json
from pathlib import Path

from data.atomic import write_atomic


class MetricsLog:
    """One JSON object a row, appended and flushed. Every row has "step"; a resumed run first drops
    the rows after the step it resumes from, so that no step is there twice. A `silent` one, of a
    process that is not the first, writes nothing."""

    def __init__(self, workdir: Path, tensorboard: bool = False, silent: bool = False):
        self.path = Path(workdir) / "metrics.jsonl"
        self._board = None
        self._tensorboard, self._silent = tensorboard, silent

    def rewind(self, step: int) -> None:
        """Begins after `step`: drops the rows beyond it, and a last row that was cut off."""
        if self._silent:
            return
        copy(self.path, self.path, step)
        if self._tensorboard:
            from tensorboardX import SummaryWriter  # slow to import

            folder = str(self.path.parent / "tensorboard")
            self._board = SummaryWriter(folder, purge_step=step + 1)

    def write(self, row: dict) -> None:
        if self._silent:
            return
        with open(self.path, "a") as file:
            file.write(json.dumps(row) + "\n")
        if self._board is not None:
            for key, value in row.items():
                if isinstance(value, int | float) and key != "step":
                    self._board.add_scalar(key, value, row["step"])
            self._board.flush()

    def close(self) -> None:
        if self._board is not None:
            self._board.close()


def read(path: Path) -> list[dict]:
    """The whole rows of a metrics file; [] if there is none."""
    if not Path(path).exists():
        return []
    rows = []
    for line in Path(path).read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue  # cut off by a kill
    return rows


def copy(source: Path, target: Path, until: int) -> None:
    """Writes the whole rows of `source` up to step `until` in place of `target`."""
    rows = [json.dumps(row) + "\n" for row in read(source) if row["step"] <= until]
    write_atomic(Path(target), "".join(rows).encode())
