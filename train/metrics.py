"""Reads and writes the metrics of a run: metrics.jsonl, samples.jsonl, and TensorBoard as a view of
both."""

import contextlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data.atomic import write_atomic
from data.buckets.lease import Lease
from data.buckets.mirrored import Mirrored
from data.buckets.scratch import scratch
from data.files import is_remote
from train.viewers.tensorboard import Board


class MetricsLog:
    """Appends rows to metrics.jsonl, one JSON object per line. Every row has a "step". A resumed
    run first drops the rows after the step that it resumes from, so that no step appears twice. A
    `silent` log, used in processes other than 0, writes nothing. In a bucket, rows are kept on this
    machine and copied at most every 30 s, by `copy` and at the end."""

    def __init__(
        self,
        workdir: Path,
        tensorboard: bool = False,
        silent: bool = False,
        lease: Lease | None = None,
    ):
        self.path = workdir / "metrics.jsonl"
        self.samples = self.path.with_name("samples.jsonl")
        self._board = None
        self._tensorboard, self._silent, self._lease = tensorboard, silent, lease
        self._home: Path | None = None
        self._mirrors: dict[Path, Mirrored] = {}  # of the files in a bucket

    def rewind(self, step: int, hyperparameters: Mapping[str, Any] = {}) -> None:
        """Drops damaged rows and those after `step`. TensorBoard shows the `hyperparameters`."""
        if self._silent:
            return
        if is_remote(self.path):
            self._mirrors = {}
            for path in (self.path, self.samples):
                self._mirrors[path] = Mirrored(path, self._lease)
        path, samples = map(self._local, (self.path, self.samples))
        copy(path, path, step)
        if samples.exists():
            copy(samples, samples, step)
        if self._tensorboard:
            self._board = self._open_board(self.path.parent / "tensorboard", step + 1)
            self._board.describe(hyperparameters)

    def _open_board(self, folder: Path, first: int) -> Board:
        if not is_remote(folder):
            return Board(folder, first)
        local = self._home = scratch()
        board = Board(local, first, new=not list(folder.glob("events*")))
        for file in local.glob("events*"):
            self._mirrors[folder / file.name] = Mirrored(
                folder / file.name, self._lease, local=file
            )
        return board

    def write(self, row: dict) -> None:
        self._append(self.path, row)
        if self._board is not None:
            self._board.write(row)

    def write_sample(self, row: dict) -> None:
        """Appends a row with "step", "tokens", "prompt" and "text" to samples.jsonl."""
        self._append(self.samples, row)
        if self._board is not None:
            name = f"samples/{row['prompt']}" if row["prompt"] else "samples"
            self._board.write_text(row["step"], name, row["prompt"] + row["text"])

    def _append(self, path: Path, row: dict) -> None:
        if self._silent:
            return
        with open(self._local(path), "a") as file:
            file.write(json.dumps(row) + "\n")

    def _local(self, path: Path) -> Path:
        return self._mirrors[path].local if path in self._mirrors else path

    def copy(self) -> None:
        """Brings all rows to the bucket, if the run's folder is in one. LostLock if another process
        has the folder."""
        for mirror in self._mirrors.values():
            mirror.copy()

    def close(self, done: bool = False) -> None:
        """Writes everything. What a run without the lock of its folder has not written is lost."""
        with contextlib.ExitStack() as last:  # each is closed, even if one before it fails
            if self._home:
                last.callback(shutil.rmtree, self._home, ignore_errors=True)
            for mirror in self._mirrors.values():
                last.callback(mirror.close)
            if self._board is not None:
                last.callback(self._board.close)
                if done:
                    self._board.end()


def column(metric: str) -> str:
    """The name of an evaluated metric in metrics.jsonl; that of its standard error adds `_se`."""
    return metric if metric == "bits_per_byte" else f"eval_{metric}"


def read(path: Path) -> list[dict]:
    """The complete rows of a metrics file, each with a "step"; [] if there is no file."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    rows = []
    for line in content.splitlines():
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
    write_atomic(target, "".join(rows).encode())
