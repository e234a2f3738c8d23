"""Reads and writes the metrics of a run: metrics.jsonl, and TensorBoard as a view of it."""

import json
import time
from pathlib import Path

from data.atomic import write_atomic


class MetricsLog:
    """Appends rows to metrics.jsonl, one JSON object per line. Every row has a "step". A resumed
    run first drops the rows after the step that it resumes from, so that no step appears twice. A
    `silent` log, used in processes other than 0, writes nothing."""

    def __init__(self, workdir: Path, tensorboard: bool = False, silent: bool = False):
        self.path = Path(workdir) / "metrics.jsonl"
        self._board = None
        self._tensorboard, self._silent = tensorboard, silent

    def rewind(self, step: int) -> None:
        """Drops damaged rows and those after `step`."""
        if self._silent:
            return
        copy(self.path, self.path, step)
        if self._tensorboard:
            self._board = _Board(self.path.parent / "tensorboard", step + 1)

    def write(self, row: dict) -> None:
        if self._silent:
            return
        with open(self.path, "a") as file:
            file.write(json.dumps(row) + "\n")
        if self._board is not None:
            self._board.write(row)

    def close(self) -> None:
        if self._board is not None:
            self._board.close()


class _Board:
    """A TensorBoard file. Not tensorboardX's SummaryWriter: if the disk is full, its thread and its
    exit handler print tracebacks, while here the caller gets the OSError."""

    def __init__(self, folder: Path, first: int):
        """TensorBoard hides what older files in `folder` have from the step `first` on."""
        from tensorboardX.event_file_writer import EventsWriter  # slow to import
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        folder.mkdir(parents=True, exist_ok=True)
        self._event = Event
        self._file = EventsWriter(str(folder / "events"))
        start = SessionLog(status=SessionLog.START)
        self._file.write_event(Event(wall_time=time.time(), step=first, session_log=start))

    def write(self, row: dict) -> None:
        from tensorboardX.summary import scalar

        about = {"wall_time": time.time(), "step": row["step"]}
        for key, value in row.items():
            if isinstance(value, int | float) and key != "step":
                self._file.write_event(self._event(**about, summary=scalar(key, value)))
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def read(path: Path) -> list[dict]:
    """The complete rows of a metrics file, each with a "step"; [] if there is no file."""
    if not Path(path).exists():
        return []
    rows = []
    for line in Path(path).read_bytes().splitlines():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue  # truncated by a kill, or damaged
        if isinstance(row, dict) and type(row.get("step")) is int:
            rows.append(row)
    return rows


def copy(source: Path, target: Path, until: int) -> None:
    """Replaces `target` with the complete rows of `source` up to step `until`."""
    rows = [json.dumps(row) + "\n" for row in read(source) if row["step"] <= until]
    write_atomic(Path(target), "".join(rows).encode())
