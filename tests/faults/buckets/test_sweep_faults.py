"""A sweep in a bucket that fails at times, with workers that are killed and frozen."""

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from launch.__main__ import main as isoflop
from tests.bucket import Bucket, Faults, bucket
from tests.spawn import ROOT

CONFIG = "tests/faults/buckets/many_trials.py"
TRIALS, KILLED, FROZEN = 50, 5, 4
BEAT, TTL = 1.0, 6.0  # seconds, of the locks


def driver(home: Path, workdir: str) -> subprocess.Popen:
    """Starts a sweep, as one of several machines that share a bucket would."""
    # A part of 1: the report on the whole is not tested here.
    given = [f"--config={CONFIG}", f"--workdir={workdir}", "--workers=2", "--part=1/1"]
    text = [f"--config.data.corpora={home}/text.txt", f"--config.data.cache={home}/cache"]
    return subprocess.Popen(
        [sys.executable, "-m", "launch", "sweep", *given, *text],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def owners(served: Bucket) -> dict[str, int]:
    """The process that trains each trial now, by the trial's lock."""
    found = {}
    for name in served.names("many/"):
        if name.endswith("/lock"):
            with contextlib.suppress(Exception):  # released meanwhile
                found[name.split("/")[1]] = json.loads(served.read(name))["process"]
    return found


def of_kind(served: Bucket, pattern: str) -> Counter:
    return Counter(n for kind, n in served.writes if kind == "insert" and re.search(pattern, n))


def disturb(served: Bucket, drivers: list[subprocess.Popen], random: random.Random) -> list[str]:
    """Kills and freezes workers until all drivers end; thaws the frozen ones long after their locks
    were taken. Returns the trials that were hit."""
    todo = ["kill"] * KILLED + ["freeze"] * FROZEN
    random.shuffle(todo)
    hit, frozen = [], []
    while any(each.poll() is None for each in drivers):
        time.sleep(0.05)
        for pid, at in list(frozen):
            if time.monotonic() - at > 2.5 * TTL:
                os.kill(pid, signal.SIGCONT)
                frozen.remove((pid, at))
        done = {name.split("/")[1] for name in of_kind(served, "/result.json$")}
        if not todo or len(done) < 4 * (KILLED + FROZEN - len(todo)) + 2:
            continue
        saved = {name.split("/")[1] for name in served.names("many/") if "manifest" in name}
        busy = {t: p for t, p in owners(served).items() if p not in [f[0] for f in frozen]}
        if not (choice := sorted(busy.keys() & saved - done - set(hit))):
            continue
        trial = random.choice(choice)
        with contextlib.suppress(ProcessLookupError):
            if todo[-1] == "kill":
                os.kill(busy[trial], signal.SIGKILL)
            else:
                os.kill(busy[trial], signal.SIGSTOP)
                frozen.append((busy[trial], time.monotonic()))
            todo.pop()
            hit.append(trial)
    assert todo == []
    return hit


@pytest.mark.slow
def test_50_trials_on_a_bucket_that_fails_each_end_once(text_folder, tmp_path, monkeypatch):
    """Two drivers share the sweep. 503s, 429s, slow calls, lost answers; 5 workers killed, 4 frozen
    past their locks and thawed. 50 results, each written once; each manifest is written once; the
    trials that were hit have the numbers of undisturbed ones."""
    monkeypatch.setenv("ISOFLOP_LOCK", f"{BEAT},{TTL}")
    faults = Faults(unavailable=0.03, too_many=0.02, slow=0.05, seconds=0.3, lost=0.01, seed=3)
    with bucket(faults=faults) as served:
        began = time.monotonic()
        drivers = [driver(text_folder, "gs://bucket/many") for _ in range(2)]
        try:
            hit = disturb(served, drivers, random.Random(5))
            said = [each.communicate()[0] for each in drivers]
        finally:
            for each in drivers:
                each.kill()
        took = time.monotonic() - began
        assert [each.returncode for each in drivers] == [0, 0], said
        results = of_kind(served, "^many/[^/]*/result.json$")
        assert len(results) == TRIALS and set(results.values()) == {1}
        manifests = of_kind(served, "/manifest.json$")
        assert len(manifests) >= 4 * TRIALS and set(manifests.values()) == {1}
        read = {name: json.loads(served.read(name)) for name in results}
        assert {result["status"] for result in read.values()} == {"done"}
        for name in results:  # rows of each step, once
            rows = served.read(name.replace("result.json", "metrics.jsonl")).splitlines()
            steps = [json.loads(row)["step"] for row in rows if b'"loss"' in row]
            assert steps == [10, 20, 30, 40]
        # A process that was killed after its result has left its lock.
        assert {name.split("/")[1] for name in served.names() if "/lock" in name} <= set(hit)
        counts = {kind: round(n / TRIALS, 1) for kind, n in served.counts.most_common()}
        print(f"\n{took:.0f} s; requests a trial: {counts}; hit: {len(hit)}")
    monkeypatch.delenv("ISOFLOP_LOCK")
    for trial in hit:
        own = read[f"many/{trial}/result.json"]
        rate = own["overrides"]["optimizer.learning_rate"]
        keys = {"optimizer.learning_rate": rate, "data.corpora": f"{text_folder}/text.txt"}
        keys["data.cache"] = f"{text_folder}/cache"
        given = [f"--config.{key}={value}" for key, value in keys.items()]
        assert (
            isoflop(["train", f"--config={CONFIG}", f"--workdir={tmp_path / trial}", *given]) == 0
        )
        plain = json.loads((tmp_path / trial / "result.json").read_text())
        assert [own[key] for key in ("eval_loss", "train_loss", "curve")] == [
            plain[key] for key in ("eval_loss", "train_loss", "curve")
        ]
