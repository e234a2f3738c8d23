"""TensorBoard as a view of a run: scalars, samples of text, and its row of the page HPARAMS."""

import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from train.flatten import flatten

SECTIONS = ("seed", "model", "objective", "optimizer", "schedule", "train")


def hyperparameters(resolved: Any) -> dict[str, bool | float | str]:
    """Every key of SECTIONS of a resolved config. Trials of one family and objective have the same
    keys with the same types: durations and other numbers are floats, lists are text."""
    found = flatten(resolved).items()
    return {key: _typed(value) for key, value in found if key.partition(".")[0] in SECTIONS}


def _typed(value: Any) -> bool | float | str:
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return float(value)
    steps = re.fullmatch(r"(\d+) steps", value) if isinstance(value, str) else None
    if steps:
        return float(steps[1])
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


class Board:
    """A TensorBoard file. Not tensorboardX's SummaryWriter: if the disk is full, its thread and its
    exit handler print tracebacks, while here the caller gets the OSError."""

    def __init__(self, folder: Path, first: int, new: bool | None = None):
        """TensorBoard hides what older files in `folder` have from the step `first` on. `new` says
        whether there are none, where it is not `folder` that TensorBoard reads."""
        from tensorboardX.event_file_writer import EventsWriter  # slow to import
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        self._event = Event
        self._new = not list(folder.glob("events*")) if new is None else new
        folder.mkdir(parents=True, exist_ok=True)
        self._file = EventsWriter(str(folder / "events"))
        start = SessionLog(status=SessionLog.START)
        self._file.write_event(Event(wall_time=time.time(), step=first, session_log=start))

    def describe(self, hyperparameters: Mapping[str, Any]) -> None:
        """Writes the row of the page HPARAMS, once for a folder. The page adds the final values of
        all scalars, and begins with the hyperparameters that differ between the runs it shows; a
        summary of the experiment, which tensorboardX would add, would switch this off."""
        from tensorboardX.summary import hparams

        if self._new:
            self._write(0, hparams(dict(hyperparameters), {})[1])

    def write(self, row: Mapping[str, Any]) -> None:
        """Writes the numbers of a row of metrics.jsonl as scalars."""
        from tensorboardX.summary import scalar

        numbers = {key: value for key, value in row.items() if isinstance(value, int | float)}
        step = numbers.pop("step")
        self._write(step, *(scalar(key, value) for key, value in numbers.items()))

    def write_text(self, step: int, tag: str, text: str) -> None:
        """Shows a text as it is: TensorBoard reads Markdown, where indented lines are code."""
        from tensorboardX.summary import text as summary

        self._write(step, summary(tag, "".join(f"    {line}\n" for line in text.split("\n"))))

    def end(self) -> None:
        """Marks the row of the page HPARAMS as finished."""
        from tensorboardX.summary import hparams

        self._write(0, hparams({}, {})[2])

    def close(self) -> None:
        self._file.close()

    def _write(self, step: int, *summaries: Any) -> None:
        for summary in summaries:
            event = self._event(wall_time=time.time(), step=step, summary=summary)
            self._file.write_event(event)
        self._file.flush()
