import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from launch.errors import BAD_INPUT, BUG, DIVERGED, DONE
from launch.runners import local
from launch.runners.tasks import Event, Interrupt, Resources, Task
from tests.launch import fake

ROOT = Path(__file__).resolve().parents[3]
FAKE = "tests.launch.fake:run"


def tasks(folder, names, behaviour="", seconds=0.1):
    return [
        Task(name, (name, str(folder), behaviour, seconds), folder / name / "log.txt")
        for name in names
    ]


def run(todo, count=2, interrupt=None):
    """All events of a run, without the None values between them."""
    interrupt = interrupt or Interrupt()
    resources = Resources(workers=count)
    return [event for event in local.run(FAKE, todo, resources, interrupt) if event]


@pytest.mark.parametrize(
    ("behaviour", "code", "attempts", "reason"),
    [
        ("", DONE, 1, ""),
        ("diverge", DIVERGED, 1, "exit code 43"),
        ("bad", BAD_INPUT, 1, "exit code 2"),
        ("raise", BUG, 3, "exit code 1"),
        ("die", BUG, 3, "its process died (SIGKILL)"),
    ],
)
def test_an_exit_code_is_final_or_costs_an_attempt(tmp_path, behaviour, code, attempts, reason):
    events = run(tasks(tmp_path, ["odd"], behaviour) + tasks(tmp_path, ["even"]))
    last = {event.key: event for event in events if event.kind == "finished"}
    assert last["odd"] == Event("finished", "odd", attempts, code, reason)
    assert last["even"].code == DONE
    assert sum(event.kind == "retried" for event in events) == attempts - 1


def test_a_task_is_asked_for_when_a_worker_is_free_and_not_before(tmp_path):
    ended, asked_after = [], []

    def ask():
        for name in ["a", "b", "c", "d"]:
            asked_after.append(len(ended))
            yield from tasks(tmp_path, [name], "raise" if name == "d" else "")

    for event in local.run(FAKE, ask(), Resources(workers=2), Interrupt()):
        if event and event.kind == "finished":
            ended.append(event.key)
    assert asked_after[:2] == [0, 0] and asked_after[2] >= 1 and asked_after[3] >= 2
    assert sorted(ended) == ["a", "b", "c", "d"]  # d after three attempts, and none is left out


@pytest.mark.slow
def test_a_process_that_leaves_with_exit_code_0_in_mid_trial_is_no_success(tmp_path):
    (*_, last) = run(tasks(tmp_path, ["t"], "exit 0"))
    assert (last.code, last.reason) == (BUG, "its process died (exit code 0)")


def test_a_worker_lives_from_trial_to_trial_on_its_own_core(tmp_path):
    names = [f"t{i}" for i in range(6)]
    run(tasks(tmp_path, names))
    seen = [fake.environment(tmp_path, name) for name in names]
    count = min(2, len(local.available_cores()))
    assert len({one["pid"] for one in seen}) == 2
    if hasattr(os, "sched_setaffinity"):
        assert len({tuple(one["affinity"]) for one in seen}) == count
        assert all(len(one["affinity"]) == 1 for one in seen)
    assert all("--xla_cpu_multi_thread_eigen=false" in one["XLA_FLAGS"] for one in seen)
    assert {one["OMP_NUM_THREADS"] for one in seen} == {"1"}


def test_output_and_tracebacks_go_to_the_trials_own_log(tmp_path, capfd):
    run([*tasks(tmp_path, ["good"]), *tasks(tmp_path, ["bug"], "raise")])
    assert (tmp_path / "good" / "log.txt").read_text() == "trial good starts\n"
    assert "RuntimeError: a bug in the trial" in (tmp_path / "bug" / "log.txt").read_text()
    assert capfd.readouterr() == ("", "")


def test_slots_share_out_the_cores(monkeypatch):
    monkeypatch.setattr(local, "available_cores", lambda: [0, 1, 2, 3])

    def cores(tasks, workers=0):
        return [slot.cores for slot in local.slots(tasks, Resources(workers=workers))]

    assert cores(20) == [(0,), (1,), (2,), (3,)]
    assert cores(20, 2) == [(0,), (1,)]
    assert cores(1) == [(0, 1, 2, 3)]  # the last trial uses all cores
    assert cores(1, 2) == [(0, 1)]
    assert cores(3) == [(0, 3), (1,), (2,)]
    assert cores(20, 6) == [(0,), (1,), (2,), (3,), (0,), (1,)]
    many, one = (local.slots(tasks, Resources())[0].environment for tasks in (1, 4))
    assert "XLA_FLAGS" not in many and many["OMP_NUM_THREADS"] == "4"
    assert one["OMP_NUM_THREADS"] == "1"


def test_xla_flags_and_cache_of_the_user_are_kept(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=x")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/mine")
    slot = local.slots(99, Resources())[0]
    assert slot.environment["XLA_FLAGS"].startswith("--xla_dump_to=x --xla_cpu")
    assert slot.environment["JAX_COMPILATION_CACHE_DIR"] == "/mine"


@pytest.mark.parametrize(
    ("platform", "key"), [("gpu", "CUDA_VISIBLE_DEVICES"), ("tpu", "TPU_VISIBLE_CHIPS")]
)
def test_one_process_a_device(platform, key):
    two = Resources(platform, ("2", "5"))
    slots = local.slots(20, two)
    assert [slot.environment[key] for slot in slots] == ["2", "5"]
    assert all(slot.cores == () and "XLA_FLAGS" not in slot.environment for slot in slots)
    assert len(local.slots(1, two)) == 1


def test_without_an_accelerator_plugin_nothing_is_probed(monkeypatch):
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("probed"))
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert local.accelerators() == ("cpu", [])


@pytest.mark.parametrize(
    ("said", "visible", "found"),
    [
        ("warning\ndevices gpu 2\n", None, ("gpu", ["0", "1"])),
        ("devices gpu 2\n", "4,6", ("gpu", ["4", "6"])),
        ("devices cpu 1\n", None, ("cpu", [])),
        ("", None, ("cpu", [])),
    ],
)
def test_devices_are_counted_in_another_process(monkeypatch, said, visible, found):
    monkeypatch.setattr(local.importlib.util, "find_spec", lambda _: True)
    answer = subprocess.CompletedProcess([], 0, stdout=said)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: answer)
    monkeypatch.delenv("JAX_PLATFORMS")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert local.accelerators() == found


def killer(stop, killed, seed):
    """Kills a random worker process at random moments until `stop` is set."""
    generator = random.Random(seed)
    while not stop.wait(generator.uniform(0.1, 0.4)):
        alive = [p for p in multiprocessing.active_children() if "pebble" in p.name]
        if alive:
            os.kill(generator.choice(alive).pid, signal.SIGKILL)
            killed.append(1)


@pytest.mark.slow
def test_twenty_trials_whose_three_workers_are_killed_at_random_all_end_none_twice(tmp_path):
    names = [f"t{i:02}" for i in range(20)]
    stop, killed = threading.Event(), []
    thread = threading.Thread(target=killer, args=(stop, killed, 0))
    thread.start()
    # Up to 50 attempts. Another test covers how many kills a trial survives.
    events = list(
        local.run(FAKE, tasks(tmp_path, names, seconds=0.2), Resources(workers=3), Interrupt(), 50)
    )
    stop.set()
    thread.join()
    finished = [event for event in events if event and event.kind == "finished"]
    assert sorted(event.key for event in finished) == names
    assert {event.code for event in finished} == {DONE}
    assert sorted((tmp_path / "runs").read_text().split()) == names
    assert len(killed) >= 3 and any(event.attempt > 1 for event in finished)


def test_tasks_that_are_added_on_the_way_are_run_too(tmp_path):
    more = tasks(tmp_path, ["a", "b", "c"], seconds=0.05)
    given, finished = [more[0]], []
    for event in local.run(FAKE, given, Resources(workers=1), Interrupt()):
        if event and event.kind == "finished":
            finished.append(event.key)
            given += more[len(given) : len(given) + 1]
    assert finished == ["a", "b", "c"]


@pytest.mark.slow
def test_a_clean_stop_lets_trials_save_and_the_next_run_goes_on(tmp_path):
    names = [f"t{i}" for i in range(4)]
    todo = tasks(tmp_path, names, seconds=2.0)
    interrupt = Interrupt()
    fake.when(lambda: len(fake.under_way(tmp_path)) == 2, interrupt.request)
    events = run(todo, 2, interrupt)
    assert [event.kind for event in events] == ["started", "started"]
    steps = {name: int((tmp_path / name / "step").read_text()) for name in names[:2]}
    assert all(0 < step < 10 for step in steps.values())
    assert not (tmp_path / "t2").exists()
    assert {event.code for event in run(todo) if event.kind == "finished"} == {DONE}
    assert sorted((tmp_path / "runs").read_text().split()) == names


def test_a_second_request_kills(tmp_path):
    interrupt = Interrupt()
    interrupt.request()
    assert run(tasks(tmp_path, ["t"]), 1, interrupt) == []  # nothing starts once stopped
    interrupt = Interrupt()
    todo = [Task("t", (60,), tmp_path / "log")]
    events = local.run("time:sleep", todo, Resources(workers=1), interrupt)
    assert next(events).kind == "started"
    began = time.monotonic()
    interrupt.request(), interrupt.request()
    assert [event for event in events if event] == []
    assert time.monotonic() - began < 5


def test_workers_of_a_killed_sweep_save_their_trial_and_end(tmp_path):
    script = (
        "from launch.runners import local\n"
        "from launch.runners.tasks import Interrupt, Resources, Task\n"
        "from pathlib import Path; import sys\n"
        "if __name__ == '__main__':\n"
        "  f = Path(sys.argv[1])\n"
        f"  t = [Task('t', ('t', str(f), '', 8.0), f / 'log.txt')]\n"
        f"  list(local.run({FAKE!r}, t, Resources(workers=1), Interrupt()))\n"
    )
    (tmp_path / "main.py").write_text(script)
    command = [sys.executable, str(tmp_path / "main.py"), str(tmp_path)]
    parent = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)})
    step = tmp_path / "t" / "step"
    wait_for(step.exists)
    worker = fake.environment(tmp_path, "t")["pid"]
    parent.kill()
    parent.wait()
    wait_for(lambda: not fake.alive(worker))
    assert int(step.read_text()) < 10


def wait_for(condition, seconds=20):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "timed out"
        time.sleep(0.05)
