"""This file records a run: metrics.jsonl, the source of truth, and TensorBoard as a view of it."""

import json
import os
from pathlib import Path

# Peak dense bf16 FLOP/s of one device, from the makers' data sheets; matched by prefix.
PEAK_FLOPS = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5p": 459e12,
    "TPU v5": 459e12,
    "TPU v6": 918e12,
    "TPU7x": 1154e12,  # of each of the two devices of a chip
    "NVIDIA A100": 312e12,
    "NVIDIA H100": 989e12,  # SXM
    "NVIDIA H200": 989e12,
    "NVIDIA B200": 2250e12,
}


def peak_flops(device_kind: str) -> float | None:
    """FLOP/s that model FLOP utilisation is measured against, None where unknown (CPUs)."""
    return next((f for name, f in PEAK_FLOPS.items() if device_kind.startswith(name)), None)


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
    rows = [row for row in read(source) if row["step"] <= until]
    temporary = Path(target).with_suffix(".tmp")
    temporary.write_text("".join(json.dumps(row) + "\n" for row in rows))
    os.replace(temporary, target)
