"""What the time of a trial went to, over all processes that trained it one after the other.

Every moment since the trial first began is counted once, so the parts add up to the wall time.
Checkpoints carry the parts up to their step. A resumed process counts what was done after that step
as lost, and the time in which no process trained as stopped. The last moment at which a killed
process is known to have lived is its last row of metrics.
"""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data.atomic import write_atomic

PARTS = {
    "start_up": "from the command to the first chunk: imports, data, restoring",
    "compile": "compiling the training program",
    "data": "waiting for data",
    "train": "training steps that are part of the result, and those now being redone",
    "evaluate": "evaluating, the compilation of that program included",
    "save": "what training waited for while saving",
    "lost": "work after the last checkpoint of a process that was killed",
    "rewound": "work that was undone because of a spike",
    "stopped": "between the end of one process and the start of the next",
    "other": "everything else",
}
FILE = "ledger.json"


class Ledger:
    """The seconds of one trial by PARTS. `begun` is the Unix time at which this process began with
    the trial; None: now."""

    def __init__(self, begun: float | None = None):
        now = time.time()
        self.begun = min(begun or now, now)
        self.first = self.begun  # of the process that began the trial
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self._counted = time.perf_counter() - (now - self.begun)

    def spent(self, part: str) -> None:
        """Counts the time since the last call for `part`."""
        now = time.perf_counter()
        self.seconds[part] += now - self._counted
        self._counted = now

    def move(self, source: str, target: str, seconds: float) -> None:
        """Counts `seconds` of `source` for `target` instead."""
        self.seconds[source] -= seconds
        self.seconds[target] += seconds

    def meta(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        self.spent("other")
        return {"seconds": dict(self.seconds), "at": time.time()}

    def resume(self, workdir: Path, step: int, saved: Mapping[str, Any]) -> None:
        """Adds what earlier processes spent, given the `meta` of the checkpoint of `step`, {} for
        none. Does nothing in the first process of a trial."""
        known = _read(workdir / FILE)
        if not known:
            return
        self.first = min(known["begun"], self.begun)
        # It also counts what processes spent that ended before they saved another checkpoint.
        if known["step"] == step or not saved:
            saved = {"seconds": known["seconds"], "at": known["alive"]}
        at = min(saved["at"], self.begun)
        alive = min(max(at, known["alive"], _last_row(workdir)), self.begun)
        for part, seconds in saved["seconds"].items():
            self.seconds[part] = self.seconds.get(part, 0.0) + seconds
        self.seconds["lost"] += alive - at
        self.seconds["stopped"] += self.begun - alive

    def rewind(self, saved: Mapping[str, Any]) -> None:
        """Counts what was spent since the checkpoint with the `meta` `saved` as rewound; {}: since
        the first step."""
        self.spent("other")
        undone = {"data", "train", "evaluate", "save", "other"}
        before = saved.get("seconds", {})
        for part in undone:
            kept = min(self.seconds[part], before.get(part, 0.0))
            self.move(part, "rewound", self.seconds[part] - kept)

    def write(self, workdir: Path, step: int, part: str = "other") -> None:
        """Writes what was spent until now, at `step`, the time since the last part for `part`."""
        self.spent(part)
        about = {"begun": self.first, "alive": time.time(), "step": step, "seconds": self.seconds}
        write_atomic(workdir / FILE, json.dumps(about).encode())

    def result(self) -> dict[str, Any]:
        """The entry `goodput` of result.json: the wall time, the share of it that went to training,
        and the seconds of each part."""
        self.spent("other")
        wall = sum(self.seconds.values())
        share = self.seconds["train"] / wall if wall else 0.0
        return {"wall_seconds": wall, "train_share": share, "seconds": dict(self.seconds)}


def _read(file: Path) -> dict[str, Any]:
    """The content of a ledger; {} if there is none or it is damaged."""
    try:
        found = json.loads(file.read_text())
        return found if {"begun", "alive", "step", "seconds"} <= found.keys() else {}
    except (OSError, ValueError, AttributeError):
        return {}


def _last_row(workdir: Path) -> float:
    """The Unix time at which metrics.jsonl was last written; 0 if there is none."""
    try:
        found = (workdir / "metrics.jsonl").stat()
        return float(getattr(found, "st_mtime", None) or found.mtime)  # the latter in a bucket
    except OSError:
        return 0.0
