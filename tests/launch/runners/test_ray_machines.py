"""The Ray runner without Ray: machines that lack files, workers that do not start, wait or leave,
and the answers of workers."""

import os
import sys
import time
from types import SimpleNamespace

import pytest

from launch.errors import BAD_INPUT, BUG, DONE, PREEMPTED, BadInput
from launch.runners import local, ray, ray_cluster, ray_session, ray_worker
from launch.runners.ray_session import Lost, Session, WorkerHandle
from launch.runners.ray_worker import Begin, Reservation, Share, Status
from launch.runners.tasks import Interrupt, Resources, Task
from tests.launch.runners.test_ray import NEVER, Fake, finished, node, run, tasks, there, worker

__all__ = ["there"]  # a fixture


def said(events) -> list[str]:
    return [event.reason for event in events if event.kind == "said"]


def test_a_file_that_one_machine_lacks_ends_no_trial(monkeypatch, there):
    """A machine without the corpus ends every trial with BAD_INPUT."""
    lacking = lambda worker, _: (BAD_INPUT, "none") if worker.node == "a" else (DONE, "")  # noqa: E731
    events, session = run(monkeypatch, [f"t{i}" for i in range(12)], lacking)
    assert {event.code for event in finished(events).values()} == {DONE}
    assert len(finished(events)) == 12
    assert [line.partition(":")[0] for line in said(events)] == ["avoiding the machine a"]
    assert sum(place == "a" for _, place in session.begun) == 3


def test_bad_input_is_final_when_it_repeats_and_clears_the_machines(monkeypatch, there):
    wrong = lambda worker, begin: (BAD_INPUT, "x") if begin.task.key != "ok" else (DONE, "")  # noqa: E731
    events, session = run(monkeypatch, ["t0", "t1", "t2", "t3", "ok"], wrong)
    assert {k: e.code for k, e in finished(events).items()} == {
        **dict.fromkeys(("t0", "t1", "t2", "t3"), BAD_INPUT), "ok": DONE,
    }  # fmt: skip
    places = {key: [place for k, place in session.begun if k == key] for key, _ in session.begun}
    assert all(sorted(places[f"t{i}"]) == ["a", "b"] for i in range(4))
    assert len([line for line in said(events) if "avoiding" in line]) == len(
        [line for line in said(events) if line.endswith("is wrong") and "again" in line]
    )


def test_a_worker_that_dies_before_it_has_the_task_is_nobodys_fault_once(monkeypatch, there):
    def left(worker, begin):
        worker.heard_at, worker.given_at = 1.0, 2.0  # no answer since it was given the task
        return Lost(worker, "its worker died", False)

    events, _ = run(monkeypatch, ["t"], left)
    codes = [event.code for event in events if event.kind == "retried"]
    assert codes == [PREEMPTED, *[BUG] * 10] and finished(events)["t"].code == BUG


def test_a_run_asks_whether_the_workers_of_the_last_one_are_still_there(monkeypatch, there):
    _, session = run(monkeypatch, ["t"], lambda *_: (DONE, ""))
    assert session.renewed == 1
    session, asked = bare(), []
    session._ask = lambda one, begin, seconds: asked.append((one, seconds))
    session.workers = [one("a"), one("b")]
    session.workers[1].begin = Begin("x", "m:f", tasks(["t"])[0], 1, "s")
    assert session.workers[0].free
    session.renew()
    assert not session.workers[0].free and asked == [(session.workers[0], 0.0)]


def test_a_worker_with_an_old_answer_takes_no_task():
    held = one("a")
    assert held.free
    held.heard_at -= ray_session.RECENT + 1
    assert not held.free


def test_a_preemption_too_many_does_not_overflow(monkeypatch, there):
    tried = ray.Try(tasks(["t"])[0], preemptions=5_000)
    monkeypatch.setitem(ray._sessions, "w", Fake(None))
    whole = ray._Run("m:f", [], Resources(sweep="w"), Interrupt())
    assert whole._preempted(tried, "").attempt == 5_001


def test_a_worker_of_another_driver_is_left_and_its_task_runs_elsewhere(monkeypatch, there):
    session = Fake(None)

    def answers(seconds):
        for held in [held for held in session.workers if held.begin]:
            owner = "e" if held.node == "a" and len(session.begun) < 3 else "d"
            ended = (held.begin.token, DONE, "") if owner == "d" else None
            yield held, Status(owner, 0, held.node, None, held.begin, ended)

    session.answers = answers
    monkeypatch.setitem(ray._sessions, "w", session)
    events = [e for e in ray.run("m:f", tasks("tu"), Resources(sweep="w"), Interrupt()) if e]
    assert {event.code for event in finished(events).values()} == {DONE}
    assert [e.code for e in events if e.kind == "retried"] == [PREEMPTED]


def failing(monkeypatch, lost, resources=None):
    """The events of a run in which workers on machine a never answer, but are lost."""
    session = Fake(lambda worker, _: (DONE, ""))
    create = session.create

    def creating(reservation):
        create(reservation)
        session.workers[-1].answered = reservation.node != "a"

    def answers(seconds):
        for held in [held for held in session.workers if not held.answered]:
            session.workers.remove(held)
            yield lost(held)
        yield from Fake.answers(session, seconds)

    session.create, session.answers = creating, answers
    monkeypatch.setitem(ray._sessions, "w", session)
    return ray.run("m:f", tasks("tuvw"), Resources(sweep="w"), Interrupt())


def test_workers_that_never_start_on_the_last_machine_end_the_sweep(monkeypatch, there):
    lost = lambda held: Lost(held, "its worker died: No module named x", False)  # noqa: E731
    events = [event for event in failing(monkeypatch, lost) if event]
    assert len(finished(events)) == 4  # on machine b
    del there[1]
    with pytest.raises(
        BadInput, match=r"starts on host-a, the last .* 3 attempts: .* named x; ins"
    ):
        for number, _ in enumerate(failing(monkeypatch, lost)):
            assert number < 2_000


def test_a_machine_that_does_not_see_the_folder_is_avoided_and_named(monkeypatch, there):
    lost = lambda held: Lost(held, str(ray_session.blind("/w", "far")), False, blind=True)  # noqa: E731
    events = [event for event in failing(monkeypatch, lost) if event]
    assert len(finished(events)) == 4
    assert ["/w is not there on far; give" in line for line in said(events)] == [True]
    del there[1]
    with pytest.raises(BadInput, match="is not there on far; give a folder that all machines"):
        list(failing(monkeypatch, lost))


def test_a_line_for_the_user_is_said_once(monkeypatch, there):
    left = iter(["waits", "waits", (DONE, "")])
    events, _ = run(monkeypatch, ["t"], lambda *_: next(left))
    assert said(events) == ["waits"]


def bare(**more) -> Session:
    """A session that has not looked for workers."""
    session = Session.__new__(Session)
    session.driver, session.workers, session.blind = "d", [], {}
    session.resources = Resources(sweep="/w")
    session.dismiss = session.workers.remove
    session._ask = lambda *_, **__: None
    return session


def one(name: str, **more) -> WorkerHandle:
    actor = SimpleNamespace(_actor_id=SimpleNamespace(hex=lambda: name))
    held = WorkerHandle(actor, name, name, None, time.monotonic(), name, answered=True, **more)
    held.heard_at = time.monotonic()
    return held


def test_a_worker_that_waits_for_resources_is_neither_lost_nor_suspect(monkeypatch):
    session = bare()
    session.workers.append(one("a"))
    (held,) = session.workers
    held.answered, held.asked_at = False, time.monotonic() - ray_session.STARTING - 1
    monkeypatch.setattr(ray_cluster, "is_pending", lambda actor: actor == "a")
    (line,) = session._silent(held)
    assert "has not started for 60 s" in line and session.workers == [held]
    assert list(session._silent(held)) == []
    held.asked_at -= ray_session.STARTING + 1
    monkeypatch.setattr(ray_cluster, "is_pending", lambda actor: False)
    (lost,) = session._silent(held)
    assert "no sign of life" in lost.reason and session.workers == []


def test_a_blind_worker_is_asked_again_for_a_minute(monkeypatch):
    session = bare()
    session.workers.append(one("a"))
    (held,), blind = session.workers, Status("d", 0, "far", None, blind=True)
    held.answered = False
    assert list(session._heard(held, blind)) == [] and session.workers and not held.free
    seen = list(session._heard(held, Status("d", 0, "far", None)))
    assert seen and held.free
    held.blind_since -= ray_session.LOOK_AGAIN + 1
    (lost,) = session._heard(held, blind)
    assert lost.blind and session.blind == {"a": "far"} and not session.workers


class RayError(Exception):
    """Ray's, of which not all are of an actor."""


class Unschedulable(RayError):
    pass


def test_every_error_of_ray_is_a_lost_worker(monkeypatch):
    errors = SimpleNamespace(RayError=RayError, ActorUnschedulableError=Unschedulable)
    errors.RayActorError = type("RayActorError", (RayError,), {})

    def answer(error):
        def get(_):
            raise error

        fake_ray = SimpleNamespace(exceptions=errors, get=get, wait=lambda found, **_: (found, []))
        monkeypatch.setitem(sys.modules, "ray", fake_ray)
        session = bare()
        session.workers.append(one("a"))
        session.workers[0].question = "q"
        (lost,) = session.answers(0)
        assert not session.workers
        return lost

    monkeypatch.setattr(ray_cluster, "nodes", lambda: [node("a")])
    died = answer(RayError("no uv\n\x1b[31mModuleNotFoundError: x\x1b[0m\n"))
    assert died.reason == "its worker died: ModuleNotFoundError: x" and not died.with_node
    assert answer(Unschedulable("it is gone")).with_node
    with pytest.raises(KeyError):  # what is no error of Ray's is a bug
        answer(KeyError("x"))


def test_a_question_returns_at_once_when_its_task_has_ended_in_between(tmp_path, monkeypatch):
    actor = worker(tmp_path, monkeypatch)
    task = Task("t", ("t", str(tmp_path), "", 0.01), tmp_path / "t/log.txt")
    ended = actor.begin_and_wait("d", 20, Begin("x", "tests.launch.fake:run", task, 1, "s"), NEVER)
    assert ended.ended[0] == "x"
    began = time.monotonic()
    assert actor.begin_and_wait("d", 5, None, NEVER).ended[0] == "x"
    assert time.monotonic() - began < 1
    actor.begin_and_wait("d", 0.2, None, NEVER, busy=False)  # an idle worker waits
    assert time.monotonic() - began >= 0.2
    actor.worker.close()


@pytest.mark.parametrize(
    ("how", "ended"),
    [
        ("raise", (BUG, "exit code 1: RuntimeError: a bug in the trial")),
        ("die", (ray_worker.KILLED, "its process died (SIGKILL)")),  # its log says nothing of that
    ],
)
def test_a_trial_that_fails_tells_the_last_line_of_its_log(tmp_path, monkeypatch, how, ended):
    actor = worker(tmp_path, monkeypatch)
    task = Task("t", ("t", str(tmp_path), how, 0.01), tmp_path / "t/log.txt")
    (tmp_path / "t").mkdir()
    task.log.write_text("trial writes to t\n")
    status = actor.begin_and_wait("d", 20, Begin("x", "tests.launch.fake:run", task, 1, "s"), NEVER)
    assert status.ended[1:] == ended
    actor.worker.close()


def test_a_worker_comes_to_see_a_folder_that_is_mounted_late(tmp_path, monkeypatch):
    actor = worker(tmp_path, monkeypatch, f"{tmp_path}/late/sweep.json")
    assert actor.status().blind
    (tmp_path / "late").mkdir()
    (tmp_path / "late/sweep.json").write_text("{}")
    assert not actor.begin_and_wait("d", 0, None, NEVER).blind
    assert not worker(tmp_path, monkeypatch, str(tmp_path)).status().blind


def test_a_worker_of_another_slot_takes_no_trial(monkeypatch, there):
    """As one of the stage before, which had more slots, when it answers after the first look."""
    session = Fake(lambda *_: (DONE, ""))
    session.create(ray_cluster.reservations(there, 2, Resources())[0])
    monkeypatch.setitem(ray._sessions, "w", session)
    begun = ray._Run("m:f", tasks(["t"]), Resources(sweep="w"), Interrupt())
    begun.slots = {"another slot": "a"}
    assert list(begun._give_tasks()) == [] == session.begun == session.workers


def test_only_a_sweep_that_takes_a_whole_machine_pins_cores(tmp_path, monkeypatch):
    pinned = lambda workers: {  # noqa: E731
        one.share.pinned
        for one in ray_cluster.reservations([node("a", 4)], 9, Resources(workers=workers))
    }
    assert pinned(0) == {True} and pinned(8) == {True}
    monkeypatch.setattr(local, "available_cores", lambda: sorted(os.sched_getaffinity(0)))
    for share in (Share(1, 0, 1), Share(1, 0, 1, pinned=True)):
        actor = worker(tmp_path, monkeypatch, share=share)
        assert bool(actor.worker.slot.cores) == share.pinned
        assert actor.worker.slot.environment["OMP_NUM_THREADS"] == "1"
    assert pinned(1) == {False}


def test_a_slot_of_whole_machines_is_found_again(monkeypatch):
    reservation = Reservation("a", Share(), {}, peers=(Reservation("b", Share(index=1), {}),))
    assert reservation.nodes == {"a", "b"}
    assert ray_worker.last_line("nowhere/log.txt") == ""
