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
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from launch.runners.local import threads
from tests.bucket import Bucket, Faults, bucket
from tests.faults.clusters import ray_cluster_here as here
from tests.spawn import ROOT

URL = "gs://bucket/many"
CONFIG = "tests/faults/buckets/many_trials.py"
TRIALS, KILLED, FROZEN = 50, 5, 4
NUMBERS = ("eval_loss", "train_loss", "curve", "steps", "tokens")
BEAT, TTL = 1.0, 6.0  # seconds, of the locks


def flags(home: Path) -> list[str]:
    # A part of 1: the report on the whole is not tested here.
    text = [f"--config.data.corpora={home}/text.txt", f"--config.data.cache={home}/cache"]
    return ["--part=1/1", *text]


@contextlib.contextmanager
def local_drivers(home: Path, workdir: Path) -> Iterator[list[subprocess.Popen]]:
    """Two drivers with two workers each, as two machines that share a bucket would have."""
    given = [f"--config={CONFIG}", f"--workdir={URL}", "--workers=2", *flags(home)]
    command = [sys.executable, "-m", "launch", "sweep", *given]
    with open(workdir / "driver.txt", "a") as log:
        yield [subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log) for _ in range(2)]


@contextlib.contextmanager
def ray_driver(home: Path, workdir: Path) -> Iterator[list[subprocess.Popen]]:
    """One driver of a Ray cluster of four machines."""
    log = workdir / "driver.txt"
    with here.cluster(nodes=4) as cluster:
        yield [here.sweep(cluster, CONFIG, URL, *flags(home), log=log)]


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


def disturb(
    served: Bucket, drivers: list[subprocess.Popen], random: random.Random, thaw_after: float
) -> list[str]:
    """Kills and freezes workers until all drivers end. Where an actor of Ray is the parent of a
    worker, every other one is frozen with it. What is frozen and still there is thawed after
    `thaw_after` seconds, long after its lock was taken. Returns the trials that were hit."""
    todo = ["kill"] * KILLED + ["freeze"] * FROZEN
    random.shuffle(todo)
    hit, frozen, thawed = [], [], 0
    try:
        while any(each.poll() is None for each in drivers):
            time.sleep(0.05)
            for processes, at in list(frozen):
                if time.monotonic() - at > thaw_after:
                    thawed += processes[0].is_running()
                    thaw(processes)
                    frozen.remove((processes, at))
            done = {name.split("/")[1] for name in of_kind(served, "/result.json$")}
            if not todo or len(done) < 4 * (KILLED + FROZEN - len(todo)) + 2:
                continue
            saved = {name.split("/")[1] for name in served.names("many/") if "manifest" in name}
            frozen_ids = {process.pid for processes, _ in frozen for process in processes}
            busy = {t: p for t, p in owners(served).items() if p not in frozen_ids}
            if not (choice := sorted(busy.keys() & saved - done - set(hit))):
                continue
            trial = random.choice(choice)
            with contextlib.suppress(psutil.NoSuchProcess):
                process = psutil.Process(busy[trial])
                if todo[-1] == "kill":
                    process.kill()
                else:
                    parent = process.parent()
                    is_actor = parent is not None and "RemoteWorker" in " ".join(parent.cmdline())
                    both = is_actor and todo.count("freeze") % 2
                    processes = [process, parent] if both else [process]
                    for one in processes:
                        one.suspend()
                    frozen.append((processes, time.monotonic()))
                todo.pop()
                hit.append(trial)
    finally:
        for processes, _ in frozen:
            thaw(processes)
    assert todo == [] and thawed, (todo, thawed)
    return hit


def thaw(processes: list[psutil.Process]) -> None:
    for process in processes:
        here.kill(process, signal.SIGCONT)


@pytest.mark.slow
@pytest.mark.parametrize("started, thaw_after", [(local_drivers, 2.5 * TTL), (ray_driver, 25.0)])
def test_50_trials_on_a_bucket_that_fails_each_end_once(
    started, thaw_after, text_folder, tmp_path, monkeypatch
):
    """503s, 429s, slow calls and lost answers; 5 workers are killed, 4 frozen past their locks and
    thawed. 50 results, each written once; each manifest is written once; the trials that were hit
    have the numbers of undisturbed ones."""
    monkeypatch.setenv("ISOFLOP_LOCK", f"{BEAT},{TTL}")
    faults = Faults(unavailable=0.03, too_many=0.02, slow=0.05, seconds=0.3, lost=0.01, seed=3)
    with bucket(faults=faults) as served:
        began = time.monotonic()
        with started(text_folder, tmp_path) as drivers:
            try:
                hit = disturb(served, drivers, random.Random(5), thaw_after)
            finally:
                for each in drivers:
                    each.kill()
                    each.wait()
        took = time.monotonic() - began
        said = (tmp_path / "driver.txt").read_text()
        assert {each.returncode for each in drivers} == {0}, said[-3000:]
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
    rates = {trial: read[f"many/{trial}/result.json"]["overrides"] for trial in hit}
    plain = undisturbed(text_folder, tmp_path, rates)
    for trial in hit:
        own = read[f"many/{trial}/result.json"]
        assert {key: own[key] for key in NUMBERS} == {key: plain[trial][key] for key in NUMBERS}


def undisturbed(home: Path, folder: Path, overrides: dict[str, dict]) -> dict[str, dict]:
    """The results of these trials on this machine, with one thread as the workers have it."""
    code = (
        "import json, os, sys; os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])\n"
        "from launch.__main__ import main\n"
        "for given in json.loads(sys.argv[1]): assert main(given) == 0"
    )
    text = {"data.corpora": f"{home}/text.txt", "data.cache": f"{home}/cache"}
    commands = [
        ["train", f"--config={CONFIG}", f"--workdir={folder / trial}"]
        + [f"--config.{key}={value!r}".replace("'", "") for key, value in (keys | text).items()]
        for trial, keys in overrides.items()
    ]
    environment = os.environ | threads(1)
    subprocess.run(
        [sys.executable, "-c", code, json.dumps(commands)], cwd=ROOT, env=environment, check=True
    )
    return {trial: json.loads((folder / trial / "result.json").read_text()) for trial in overrides}
