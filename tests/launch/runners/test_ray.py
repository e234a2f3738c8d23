"""The Ray runner without Ray: which slots there are, and what becomes of each task. What needs Ray
itself is in tests/faults/clusters/test_ray_faults.py."""

import itertools
import json
import math
import os
import signal
import socket
import sys
import time
from pathlib import Path

import pytest

from launch.errors import BAD_INPUT, BUG, DIVERGED, DONE, IN_USE, PREEMPTED
from launch.runners import (
    local,
    ray,
    ray_cluster,
    ray_session,
    ray_worker,
    runner_named,
)
from launch.runners.ray_session import Lost, WorkerHandle
from launch.runners.ray_slices import Node
from launch.runners.ray_worker import Begin, Reservation, Share, Status
from launch.runners.tasks import Cluster, Event, Interrupt, Resources, Task
from launch.sweep.machine import machine
from launch.trial import fingerprint
from tests.launch import fake


def node(name: str, cores: float = 2, **more: float) -> Node:
    return Node(name, f"host-{name}", {"CPU": cores} | more, {})


def tasks(names) -> list[Task]:
    return [Task(name, (name,), Path(name) / "log.txt") for name in names]


NEVER = math.inf, math.inf
"""The patience of a worker that is in the process of the tests, which it would end."""


class Fake(ray_session.Session):
    """A session whose workers answer what `answer(worker, begin)` says: an exit code with a reason,
    None while the task runs, or Lost."""

    def __init__(self, answer):
        self.answer, self.workers, self.begun, self.signals = answer, [], [], []
        self.namespace, self.driver, self.blind, self.renewed = "n", "d", {}, 0

    def create(self, reservation):
        name, key = reservation.node, reservation.key
        worker = WorkerHandle(object(), name, key, None, 0.0, name, True, reservation=reservation)
        worker.idle_since, worker.heard_at = time.monotonic(), math.inf
        self.workers.append(worker)

    def renew(self):
        self.renewed += 1

    def ask(self, worker, begin=None):
        worker.begin = begin or worker.begin
        if begin:
            self.begun.append((begin.task.key, worker.node))

    def answers(self, seconds):
        for worker in [worker for worker in self.workers if worker.begin]:
            said = self.answer(worker, worker.begin)
            if isinstance(said, Lost | str):
                if isinstance(said, Lost):
                    self.workers.remove(worker)
                yield said
            elif said is not None:
                ended = (worker.begin.token, *said)
                yield worker, Status("d", 0, worker.node, None, None, ended)
        time.sleep(0.001)

    def dismiss(self, worker):
        self.workers.remove(worker)

    def signal(self, number):
        self.signals.append(number)


@pytest.fixture
def there(monkeypatch):
    """The machines of the cluster, two at first."""
    found = [node("a", 1), node("b", 1)]
    monkeypatch.setattr(ray_cluster, "nodes", lambda: list(found))
    monkeypatch.setattr(ray, "_LOOK", 0.0)
    monkeypatch.setattr(ray, "LONGEST_PAUSE", 0.001)
    return found


def run(monkeypatch, names, answer, interrupt=None, workers=0):
    """(the events of a run, its session)."""
    session = Fake(answer)
    monkeypatch.setitem(ray._sessions, "w", session)
    resources = Resources(workers=workers, sweep="w")
    events = ray.run("m:f", tasks(names), resources, interrupt or Interrupt())
    found = list(itertools.islice(events, 3_000))
    assert len(found) < 3_000, "the run did not end"
    return [one for one in found if one], session


def finished(events) -> dict[str, Event]:
    return {event.key: event for event in events if event.kind == "finished"}


def test_every_task_runs_once_and_a_final_code_ends_it(monkeypatch, there):
    codes = {"a": DONE, "b": DIVERGED, "c": BAD_INPUT, "d": IN_USE}
    del there[1]  # where there are others, BAD_INPUT is retried once
    events, session = run(monkeypatch, codes, lambda _, begin: (codes[begin.task.key], "why"))
    assert {key: event.code for key, event in finished(events).items()} == codes
    assert sorted(key for key, _ in session.begun) == sorted(codes)
    assert not any(event.kind == "retried" for event in events)


def test_a_failure_is_retried_three_times_and_on_the_other_machine(monkeypatch, there):
    events, session = run(monkeypatch, ["t"], lambda *_: (BUG, "exit code 1"))
    assert [event.kind for event in events] == [*["started", "retried"] * 3, "started", "finished"]
    assert finished(events)["t"].code == BUG and finished(events)["t"].attempt == 4
    (_, first), (_, second), *_ = session.begun
    assert {first, second} == {"a", "b"}
    assert f"exit code 1 on {second}" in [event.reason for event in events]


def test_a_run_ends_though_its_last_worker_has_died(monkeypatch, there):
    del there[1]
    events, session = run(monkeypatch, "tu", lambda worker, _: Lost(worker, "it died", False))
    assert set(finished(events)) == {"t", "u"} and not session.workers


def test_where_there_is_one_machine_a_failure_is_retried_there(monkeypatch, there):
    del there[1]
    events, session = run(monkeypatch, ["t"], lambda *_: (BUG, "exit code 1"))
    assert [place for _, place in session.begun] == ["a"] * 4 and len(finished(events)) == 1


@pytest.mark.parametrize("lost", [False, True])
def test_a_preemption_is_no_failure_however_often(monkeypatch, there, lost):
    """Unlike the death of a worker on a machine that is there, which is tried again ten times."""
    left = iter(range(12))

    def answer(worker, begin):
        if next(left, None) is None:
            return DONE, ""
        return Lost(worker, "its machine was lost", True) if lost else (PREEMPTED, "exit code 42")

    events, _ = run(monkeypatch, ["t"], answer)
    assert finished(events)["t"] == Event("finished", "t", 13, DONE, "")
    always = lambda worker, _: Lost(worker, "its worker died", False)  # noqa: E731
    events, _ = run(monkeypatch, ["t"], always)
    assert (finished(events)["t"].attempt, finished(events)["t"].code) == (11, BUG)
    killed = lambda *_: (ray_worker.KILLED, "its process died (SIGKILL)")  # noqa: E731
    events, session = run(monkeypatch, ["t"], killed)
    assert (finished(events)["t"].attempt, finished(events)["t"].code) == (11, BUG)
    assert {place for _, place in session.begun[:2]} == {"a", "b"}


def test_a_worker_that_is_killed_says_nothing_of_its_machine(monkeypatch, there):
    """Unlike a task that fails, as the next test shows."""
    killed = lambda w, _: (ray_worker.KILLED, "killed") if w.node == "a" else (DONE, "")  # noqa: E731
    events, _ = run(monkeypatch, [f"t{i}" for i in range(12)], killed)
    assert not [event for event in events if event.kind == "said"]
    assert {event.code for event in finished(events).values()} == {DONE}


def test_a_machine_where_three_tasks_fail_is_avoided_and_named_once(monkeypatch, there):
    bad = lambda worker, _: (BUG, "no disk") if worker.node == "a" else (DONE, "")  # noqa: E731
    events, session = run(monkeypatch, [f"t{i}" for i in range(12)], bad)
    said = [event.reason for event in events if event.kind == "said"]
    assert len(said) == 1 and said[0].startswith(
        "avoiding the machine a: 3 trials in a row failed w"
    )
    assert sum(place == "a" for _, place in session.begun) == 3
    assert {event.code for event in finished(events).values()} == {DONE}


def test_late_failures_and_the_last_machine_are_not_avoided(monkeypatch, there):
    bad = lambda worker, _: (BUG, "late") if worker.node == "a" else (DONE, "")  # noqa: E731
    monkeypatch.setattr(ray, "SOON", -1.0)
    events, _ = run(monkeypatch, [f"t{i}" for i in range(12)], bad)
    assert not [event for event in events if event.kind == "said"]
    monkeypatch.setattr(ray, "SOON", 60.0)
    events, _ = run(monkeypatch, [f"t{i}" for i in range(4)], lambda *_: (BUG, "everywhere"))
    assert len([event for event in events if event.kind == "said"]) == 1  # of two machines
    assert len(finished(events)) == 4


def test_machines_that_join_get_work_and_those_that_leave_none(monkeypatch, there):
    seen = []

    def answer(worker, begin):
        seen.append(begin.task.key)
        if len(set(seen)) == 5 and len(there) == 2:
            there[:] = [node("b", 1), node("c", 1)]
        if worker.node == "a" and len(set(seen)) >= 5:
            return Lost(worker, "its machine a was lost", True)
        return DONE, ""

    events, session = run(monkeypatch, [f"t{i}" for i in range(20)], answer)
    assert len(finished(events)) == 20
    assert {place for _, place in session.begun[-6:]} == {"b", "c"}


def test_an_interrupt_stops_what_runs_and_starts_nothing(monkeypatch, there):
    interrupt, asked = Interrupt(), []

    def answer(worker, begin):
        interrupt.count = max(interrupt.count, 1)
        asked.append(begin.task.key)
        return (PREEMPTED, "exit code 42") if len(asked) > 6 else None

    events, session = run(monkeypatch, [f"t{i}" for i in range(9)], answer, interrupt)
    assert {event.kind for event in events} == {"started"} and len(session.begun) == 2
    assert session.signals == [signal.SIGTERM]


def test_the_trials_that_an_earlier_driver_left_running_continue(monkeypatch, there):
    """The first event says so, though the only slot is taken and another task comes first."""
    del there[1]

    def adopting(signature):
        session = Fake(lambda worker, _: (DONE, ""))
        session.create(ray_cluster.reservations(there, 2, Resources())[0])
        session.workers[0].begin = Begin("old", "m:f", tasks(["t"])[0], 1, signature)
        monkeypatch.setitem(ray._sessions, "w", session)
        assert ray.adopted(Resources(sweep="w")) == {"t"}
        events = ray.run("m:f", tasks(["u", "t"]), Resources(sweep="w"), Interrupt())
        return [one for one in events if one], session.begun

    same = ray.hashlib.sha256(f"m:f{('t',)}".encode()).hexdigest()[:16]
    events, begun = adopting(same)
    assert (events[0].kind, events[0].key) == ("started", "t")
    assert set(finished(events)) == {"t", "u"} and [key for key, _ in begun] == ["u"]
    events, begun = adopting("another")  # of other arguments: run again after it
    assert set(finished(events)) == {"t", "u"} and sorted(key for key, _ in begun) == ["t", "u"]


def test_the_slots_of_one_machine_are_those_of_the_local_runner(monkeypatch):
    for cores, count in itertools.product((1, 2, 5, 8), (1, 2, 3, 20)):
        owned = list(range(cores))
        monkeypatch.setattr(local, "available_cores", lambda owned=owned: owned)
        for workers in (0, 3):
            resources = Resources(workers=workers)
            reservations = ray_cluster.reservations([node("a", cores)], count, resources)
            mine = [ray_worker._cores(reservation.share) for reservation in reservations]
            assert mine == [slot.cores for slot in local.slots(count, resources)]
            assert sum(reservation.demand["num_cpus"] for reservation in reservations) <= cores


def test_slots_follow_what_a_trial_asks_for():
    def each(there, tasks=9, **asked):
        workers = asked.pop("workers", 0)
        cluster = Cluster(**asked)
        found = Resources(ray_cluster.platform(there, cluster), (), workers, cluster=cluster)
        return [
            (reservation.node, reservation.demand)
            for reservation in ray_cluster.reservations(there, tasks, found)
        ]

    two = [node("a", 8), node("b", 3)]
    assert each(two, cores=3) == [("a", {"num_cpus": 3})] * 2 + [("b", {"num_cpus": 3})]
    assert len(each(two)) == 10 and len(each(two, workers=4)) == 4
    gpus = [node("a", 8, GPU=2), node("b", 8)]
    assert each(gpus) == [("a", {"num_cpus": 1, "num_gpus": 1})] * 2
    assert each(gpus, gpus=2) == [("a", {"num_cpus": 1, "num_gpus": 2})]
    assert {name for name, _ in each(gpus, cores=8)} == {"a", "b"}
    assert each([node("a", 8, TPU=1)]) == [("a", {"num_cpus": 1, "resources": {"TPU": 1}})]


def test_a_trial_that_fits_nowhere_is_refused_at_once():
    there = [node("a", 8), node("b", 2)]
    for asked, named in ((Cluster(cores=9), "cores=9"), (Cluster(gpus=1), "gpus=1")):
        found = Resources(ray_cluster.platform(there, asked), cluster=asked)
        with pytest.raises(ValueError, match=f"{named}: no machine .* the 2 there have up to 8 co"):
            ray_cluster.require_room(there, found)
    waits = Cluster(cores=9, wait_for_nodes=True)
    ray_cluster.require_room(there, Resources(cluster=waits))
    ray_cluster.require_room(there, Resources(cluster=Cluster(cores=8)))


def test_an_address_that_nothing_answers_is_one_line(monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for address in (f"127.0.0.1:{port}", f"ray://127.0.0.1:{port}"):
        with pytest.raises(ValueError, match=f"address={address} cannot be reached .*refused"):
            ray_cluster._require_reachable(address)
    for address in ("here", "10.0.0.1", "http://x:80/"):
        with pytest.raises(ValueError, match="is no address of a cluster; use auto"):
            ray_cluster._require_reachable(address)
    with socket.create_server(("127.0.0.1", 0)) as server:
        ray_cluster._require_reachable(f"127.0.0.1:{server.getsockname()[1]}")


def test_another_version_is_one_line():
    error = RuntimeError(
        "Version mismatch: The cluster was started with:\n    Ray: 2.9.0\n    Python: 3.10.1\n"
        "This process on node 10.0.0.1 was started with:\n    Ray: 2.60.0\n    Python: 3.11.7\n"
    )
    assert ray_cluster._explained("h:1", error) == (
        "address=h:1 has another version: Ray 2.9.0, Python 3.10.1 there; Ray 2.60.0, Python "
        "3.11.7 here; install the same on both"
    )


def test_flags_of_a_cluster_are_refused_elsewhere_and_a_missing_ray_is_named(monkeypatch):
    with pytest.raises(ValueError, match="cores needs a cluster, and on=local is not one"):
        machine("local", 1, cluster=Cluster(cores=2))
    assert machine("local", 1, cluster=Cluster()).several is False
    monkeypatch.setattr(ray_cluster.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'isoflop\[ray\]'"):
        machine("ray", 1)
    assert runner_named("ray") is ray


def test_drivers_of_one_folder_meet_in_one_namespace(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    monkeypatch.chdir(tmp_path)
    same = {ray_cluster.namespace(path) for path in ("a", f"{tmp_path}/a", "./a")}
    assert len(same) == 1
    assert ray_cluster.namespace("gs://b/a") not in same | {ray_cluster.namespace("gs://b/c")}


def test_the_environment_that_travels_has_no_secrets_and_no_paths(monkeypatch):
    """Ray writes it into its logs."""
    kept = {"XLA_FLAGS": "--x", "JAX_ENABLE_X64": "1", "STORAGE_EMULATOR_HOST": "http://x"}
    kept |= {"AWS_REGION": "r", "AWS_ENDPOINT_URL_S3": "http://y", "HF_HUB_OFFLINE": "1"}
    kept |= {"ISOFLOP_LOCK": "10,60"}
    left = ("JAX_PLATFORMS", "SECRET_TOKEN", "AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID")
    left += ("AWS_SESSION_TOKEN", "HF_TOKEN", "HF_HOME", "GOOGLE_APPLICATION_CREDENTIALS")
    left += ("FSSPEC_S3_SECRET", "AWS_PROFILE", "JAX_SOME_TOKEN")
    for name, value in (kept | dict.fromkeys(left, "s")).items():
        monkeypatch.setenv(name, value)
    taken = ray_cluster._environment()
    assert kept.items() <= taken.items() and not taken.keys() & set(left)


def test_a_sweep_of_several_machines_refuses_other_code(tmp_path, monkeypatch):
    now = {"model/a.py": "1", "train/b.py": "2"}
    monkeypatch.setattr(fingerprint, "files", lambda: dict(now))
    fingerprint.require_same(tmp_path)
    fingerprint.require_same(tmp_path)
    now |= {"train/b.py": "3", "train/c.py": "4"}
    with pytest.raises(ValueError, match=r"by other code than this: train/b.py and 1 more differ"):
        fingerprint.require_same(tmp_path)
    (tmp_path / "code.json").unlink()
    theirs = {"files": now | {"train/d.py": "5"}}

    def create(file, content):  # another driver is faster
        file.write_text(json.dumps(theirs))
        return False

    with monkeypatch.context() as at_once:
        at_once.setattr(fingerprint.drafts, "create", create)
        with pytest.raises(ValueError, match=r"by other code than this: train/d.py differs;"):
            fingerprint.require_same(tmp_path)
    (tmp_path / "code.json").unlink()
    (tmp_path / "t").mkdir()  # begun by a sweep on one machine
    (tmp_path / "t/config.json").write_text('{"code": {"files": {"model/a.py": "0"}}}')
    with pytest.raises(ValueError, match=r"by other code than this: model/a.py"):
        fingerprint.require_same(tmp_path)


def worker(tmp_path, monkeypatch, seen="", share=None) -> ray_worker.RemoteWorker:
    """An actor without Ray."""
    monkeypatch.setattr(sys.modules["__main__"], "__file__", None, raising=False)
    reservation = Reservation("n", share or Share(), {})
    actor = ray_worker.RemoteWorker("d", reservation, {}, os.getcwd(), seen)
    actor.patience = NEVER
    return actor


def test_a_worker_runs_one_task_of_its_own_driver(tmp_path, monkeypatch):
    actor = worker(tmp_path, monkeypatch)

    def begin(name, seconds=0.01, token=None):
        args = (name, str(tmp_path), "", seconds)
        task = Task(name, args, tmp_path / name / "log.txt")
        return Begin(token or name, "tests.launch.fake:run", task, 1, "s")

    ask = lambda driver, seconds, one: actor.begin_and_wait(driver, seconds, one, NEVER)  # noqa: E731
    assert ask("d", 20, begin("one")).ended == ("one", DONE, "")
    assert fake.environment(tmp_path, "one")["pid"] != os.getpid()
    assert ask("other", 20, begin("two")).running is None  # it belongs to d
    assert not actor.claim("other", "someone") and actor.claim("e", "d")
    assert ask("e", 0, begin("three", 3.0)).running.token == "three"
    assert ask("e", 0, begin("four")).running.token == "three"  # one at a time
    fake.when(lambda: (tmp_path / "three/step").exists(), actor.signal, signal.SIGTERM)
    assert ask("e", 20, None).ended[:2] == ("three", PREEMPTED)
    ask("e", 0, begin("five", 3.0))
    fake.when(lambda: (tmp_path / "five/step").exists(), actor.signal, signal.SIGKILL)
    assert ask("e", 20, None).ended[:2] == ("five", ray_worker.KILLED)
    actor.worker.close()
