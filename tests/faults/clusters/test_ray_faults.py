"""Sweeps on a Ray cluster of several machines, which are raylets here, while parts of it fail."""

import collections
import contextlib
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data.files import to_path
from tests.bucket import bucket
from tests.faults.clusters import ray_cluster_here as here

CONFIG = """
from configs import base, space

def get_config(arg="10"):
    config = base.get_config()
    config.data.corpora, config.data.cache = ("{home}/text.txt",), "{home}/cache"
    config.model.update(n_layers=1, d_model=16, n_heads=2, context_length=8)
    config.train.update(batch_size=4, duration="8 steps")
    config.eval.update(sequences=4, batch_size=4)
    config.log.update(tensorboard=False, every="2 steps")
    config.checkpoint.every = "4 steps"
    config.holdout = False
    return config

def get_sweep(config):
    return [dict(seed=seed) for seed in range({trials})]
"""

SEARCH = """
def get_search(config):
    axes = {"optimizer.learning_rate": space.log_uniform(1e-4, 1e-1)}
    return space.search("tpe", axes, trials=6)
"""

WRITERS = """
import os, time
from launch.trial import run
from train import checkpoint
from train.optimizers.schedule import SCHEDULES

SCHEDULES["unused"] = lambda done, h: done  # a file must add something

def noted(kind, path):
    with open("{home}/writers.txt", "a") as file:  # one write, so that lines do not mix
        file.write(f"{{kind}} {{path}} {{os.getpid()}} {{time.time()}}\\n")

def wrapped(kind, function, place):
    def call(*args, **more):
        noted(kind, place(*args))
        return function(*args, **more)
    return call

checkpoint.write_manifest = wrapped("save", checkpoint.write_manifest, lambda path, _: path)
run.end = wrapped("end", run.end, lambda _, __, record, *___: record.workdir)
"""
"""A file of the user's that travels to the workers, and notes there which process writes what."""


@pytest.fixture
def home(text_folder, tmp_path) -> Path:
    os.link(text_folder / "text.txt", tmp_path / "text.txt")
    return tmp_path


def config(home: Path, trials: int) -> Path:
    (home / "writers.py").write_text(WRITERS.format(home=home))
    file = home / "many.py"
    file.write_text(CONFIG.format(home=home, trials=trials))
    return file


def require_one_writer(home: Path, trials: int) -> None:
    """Each result was written, each by one process, and no trial had two writers at a time."""
    found = here.results(home / "w")
    assert len(found) == trials and set(found.values()) == {"done"}
    saves, ends = collections.defaultdict(list), collections.Counter()
    for line in (home / "writers.txt").read_text().splitlines():
        kind, path, process, when = line.split()
        if kind == "save":
            saves[Path(path).parent.parent.name].append((float(when), process))
        else:
            ends[Path(path).name] += 1
    assert set(ends) == set(found)
    again = [key for key, count in ends.items() if count > 1]
    assert len(again) <= 0.01 * trials, again  # killed between the note and the file
    for key, writes in saves.items():
        order = [process for _, process in sorted(writes)]
        changes = sum(a != b for a, b in itertools.pairwise(order))
        assert changes == len(set(order)) - 1, (key, writes)


@pytest.mark.slow
def test_of_500_trials_none_is_lost_and_none_has_two_writers(home):
    """50 workers are killed, and 8 are frozen, with their actors or without, and thawed later."""
    trials, draw = int(os.environ.get("TRIALS", 500)), random.Random(0)
    kills, freezes = trials // 10, max(2, trials // 60)
    with here.cluster(nodes=4) as cluster:
        driver = here.sweep(
            cluster, config(home, trials), home / "w", "--fit=false", f"--import={home}/writers.py"
        )
        try:
            here.until(lambda: len(here.results(home / "w")) > 4, 300, driver)
            frozen = []
            while kills or freezes or frozen:
                done = len(here.results(home / "w"))
                assert driver.poll() is None or not (kills or freezes), (kills, freezes)
                if frozen and time.monotonic() > frozen[0][0]:
                    for one in frozen.pop(0)[1]:
                        here.kill(one, signal.SIGCONT)
                wanted = (kills + freezes) * trials // (trials // 10 + max(2, trials // 60))
                due = trials - done < wanted
                if (kills or freezes) and due and (now := here.workers(cluster)):
                    actor, process = draw.choice(now)
                    if kills and (not freezes or draw.random() < 0.8):
                        kills -= 1
                        here.kill(draw.choice((actor, process, process)))
                    elif freezes:
                        freezes -= 1
                        both = (actor, process) if draw.random() < 0.5 else (process,)
                        for one in both:
                            here.kill(one, signal.SIGSTOP)
                        frozen.append((time.monotonic() + 45, both))
                time.sleep(0.2)
            assert driver.wait(600) == 0, (home / "driver.txt").read_text()[-3000:]
        finally:
            driver.kill()
    require_one_writer(home, trials)


@pytest.mark.slow
def test_a_machine_leaves_another_joins_and_the_driver_dies(home):
    trials = int(os.environ.get("TRIALS", 100))
    flags = config(home, trials), home / "w", "--fit=false", f"--import={home}/writers.py"
    count = lambda: len(here.results(home / "w"))  # noqa: E731
    with here.cluster(nodes=2) as cluster:
        driver = here.sweep(cluster, *flags)
        try:
            here.until(lambda: count() > trials // 10, 300, driver)
            cluster.remove_node(cluster.machines[0])
            here.add(cluster)
            here.until(lambda: count() > trials // 3, 300, driver)
            here.until(lambda: len(here.workers(cluster)) == 2)
            before = {actor.pid for actor, _ in here.workers(cluster)}
            driver.kill()
            driver.wait()
            driver = here.sweep(cluster, *flags)
            here.until(lambda: count() > trials // 2, 300, driver)
            assert before & {actor.pid for actor, _ in here.workers(cluster)}  # went on
            assert driver.wait(600) == 0, (home / "driver.txt").read_text()[-3000:]
            here.until(lambda: not here.workers(cluster), 20)
        finally:
            driver.kill()
    require_one_writer(home, trials)
    assert "was lost" in (home / "driver.txt").read_text()


@pytest.mark.slow
def test_workers_whose_driver_stays_away_save_and_end(home):
    file = config(home, 4)
    file.write_text(file.read_text().replace('"8 steps"', '"1e9 steps"'))
    with here.cluster(nodes=2) as cluster:
        driver = here.sweep(cluster, file, home / "w", "--fit=false", alone=8.0)
        here.until(lambda: len(list((home / "w").glob("*/checkpoints/*"))) >= 2, 300, driver)
        driver.kill()
        driver.wait()
        assert here.workers(cluster)
        here.until(lambda: not here.workers(cluster), 60)
    texts = [log.read_text() for log in (home / "w").glob("*/log.txt")]
    assert sum("stopped" in text.lower() for text in texts) == 2, texts
    assert not here.results(home / "w")


def numbers(workdir: Path) -> dict[str, dict]:
    """Each result.json without times and the name of the sweep."""
    timed = ("seconds", "tokens_per_second", "compile_seconds", "sweep", "mfu", "goodput")
    found = {}
    for file in workdir.glob("*/result.json"):
        about = json.loads(file.read_text())
        found[file.parent.name] = {key: value for key, value in about.items() if key not in timed}
    return found


@pytest.mark.slow
def test_a_trial_on_two_slices_goes_on_within_30_seconds_of_the_death_of_a_rank(home):
    """Each slice is a machine with four devices, which are threads of a CPU; gloo is the network.
    A driver that is killed later is followed by one that goes on with the same workers."""
    file = config(home, 1)
    text = file.read_text().replace('"8 steps"', '"400 steps"')
    text = text.replace('"4 steps"', '"50 steps"').replace('"2 steps"', '"1 steps"')
    file.write_text(text)
    flags = "--fit=false", "--slice=v5e-4", "--slices=2", "--config.mesh.data=8"
    flags += ("--config.mesh.fsdp=1", "--config.train.batch_size=8", "--config.eval.batch_size=8")
    flags += ("--config.eval.sequences=8",)
    with here.cluster(nodes=0) as cluster, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=4")
        for name in "xy":
            taken = {"TPU": 4, name: 1, "TPU-v5litepod-4-head": 1}
            here.add(cluster, resources=taken, labels={"ray.io/tpu-slice-name": name})
        whole, _ = on_slices(cluster, home / "whole", file, flags, kill=False)
        killed, took = on_slices(cluster, home / "killed", file, flags, kill=True)
    assert killed == whole and took < 30, took
    print(f"training again after {took:.1f} s")
    assert len(whole) > 300


def on_slices(cluster, workdir, file_of, flags, kill) -> tuple[list, float]:
    """(steps with their losses, seconds from the death of a rank to the next row)."""
    driver, took = here.sweep(cluster, file_of, workdir, *flags), 0.0
    try:
        here.until(lambda: len(metrics(workdir)) > 120, 300, driver)
        if kill:
            (file,), began = workdir.glob("*/metrics.jsonl"), time.time()
            here.kill(here.workers(cluster)[1][1].children()[0])
            said = lambda: "trying again" in (workdir.parent / "driver.txt").read_text()  # noqa: E731
            here.until(said, 60, driver)
            retried = time.time()
            here.until(lambda: file.stat().st_mtime > retried, 60, driver)
            took = file.stat().st_mtime - began
            driver.kill()
            driver.wait()
            actors = {actor.pid for actor, _ in here.workers(cluster)}
            began, driver = len(metrics(workdir)), here.sweep(cluster, file_of, workdir, *flags)
            here.until(lambda: len(metrics(workdir)) > began + 30, 120, driver)
            assert actors == {actor.pid for actor, _ in here.workers(cluster)}
        assert driver.wait(600) == 0, (workdir.parent / "driver.txt").read_text()[-3000:]
    finally:
        driver.kill()
    return [(row["step"], row["loss"]) for row in metrics(workdir)], took


def metrics(workdir: Path) -> list[dict]:
    """The rows of the only trial that have a loss."""
    files = list(workdir.glob("*/metrics.jsonl"))
    lines = files[0].read_text().splitlines() if files else []
    with contextlib.suppress(json.JSONDecodeError):
        return [row for line in lines if "loss" in (row := json.loads(line))]
    return []


@pytest.mark.slow
@pytest.mark.parametrize("way", ["plain", "asha", "tpe"])
def test_ray_gives_the_numbers_of_the_plain_sweep(home, way):
    """Without a cluster, so that Ray runs here. What ASHA and TPE choose depends on the order in
    which trials end, so that there only trials that ran in both are compared, and one at a time."""
    file = config(home, 5)
    if way == "tpe":
        text = file.read_text()
        file.write_text(text[: text.index("def get_sweep")] + SEARCH)
    flags = {"plain": (), "asha": ("--stop=asha", "--rungs=2 steps,4 steps"), "tpe": ()}[way]
    found = {}
    for on in ("local", "ray"):
        command = ["sweep", f"--config={file}", f"--workdir={home}/{on}", f"--on={on}", *flags]
        command += ["--workers=1", "--fit=false"] if way != "plain" else ["--fit=false"]
        done = subprocess.run(
            [sys.executable, "-m", "launch", *command],
            cwd=here.ROOT,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        found[on] = numbers(home / on)
    assert len(found["local"]) == {"plain": 5, "asha": 5, "tpe": 6}[way]
    assert found["ray"] == found["local"]


@pytest.mark.slow
def test_trials_in_a_bucket_have_the_numbers_of_the_local_runner(home):
    """On the emulator, which Ray's workers find by the environment that travels."""
    file, found = config(home, 3), {}
    with bucket():
        for on in ("local", "ray"):
            workdir = f"gs://bucket/{on}"
            command = ["sweep", f"--config={file}", f"--workdir={workdir}", f"--on={on}"]
            done = subprocess.run(
                [sys.executable, "-m", "launch", *command, "--workers=1", "--fit=false"],
                cwd=here.ROOT,
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, done.stderr[-3000:]
            found[on] = numbers(to_path(workdir))
    assert len(found["local"]) == 3 and found["ray"] == found["local"]


@pytest.mark.slow
def test_two_drivers_of_one_folder_train_no_trial_twice(home):
    flags = config(home, 40), home / "w", "--fit=false", f"--import={home}/writers.py"
    with here.cluster(nodes=3) as cluster:
        drivers = [here.sweep(cluster, *flags, "--workers=2"), here.sweep(cluster, *flags)]
        try:
            assert [driver.wait(400) for driver in drivers] == [0, 0]
        finally:
            for driver in drivers:
                driver.kill()
    require_one_writer(home, 40)
