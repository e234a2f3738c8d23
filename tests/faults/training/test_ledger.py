"""Tests of the goodput ledger: its parts are where the time went, and add up to the wall time."""

import contextlib
import io
import json
import time
from pathlib import Path

import pytest

from data.prefetch import prefetch
from launch.__main__ import main as isoflop
from launch.verbs.models import train as train  # imported before the time counts
from tests import spawn
from tests.launch.trial.test_distributed import wait_for_step
from train import loop
from train.evaluate import Evaluator
from train.recovery import ledger
from train.recovery.ledger import FILE, PARTS, Ledger

TINY = {
    "model.n_layers": 1, "model.d_model": 16, "model.n_heads": 2, "model.context_length": 16,
    "train.batch_size": 4, "train.duration": "64 steps", "train.chunk": 8, "eval.sequences": 16,
    "eval.batch_size": 8, "eval.every": "32 steps", "checkpoint.every": "16 steps",
    "log.every": "8 steps", "log.tensorboard": "false",
}  # fmt: skip
LONG = {"train.duration": "20000 steps", "checkpoint.every": "2000 steps", "log.every": "50 steps"}


@pytest.fixture(scope="module")
def home(text_folder, compiled_once) -> Path:
    return text_folder


def goodput(folder: Path) -> dict:
    return json.loads((folder / "result.json").read_text())["goodput"]


@pytest.fixture
def clock(monkeypatch):
    """Sets the clocks of the ledger: time.time() and time.perf_counter() are now[0]."""
    now = [1000.0]
    monkeypatch.setattr(ledger.time, "time", lambda: now[0])
    monkeypatch.setattr(ledger.time, "perf_counter", lambda: now[0])
    return now


def spend(clock: list, book: Ledger, **parts: float) -> None:
    for part, seconds in parts.items():
        clock[0] += seconds
        book.spent(part)


def test_a_killed_process_is_counted_as_lost_and_stopped(clock, tmp_path):
    book = Ledger()
    spend(clock, book, start_up=4)
    book.resume(tmp_path, 0, {})
    book.write(tmp_path, 0)
    spend(clock, book, compile=2, train=10)
    saved = book.meta()  # at 1016
    spend(clock, book, save=1, train=7)
    (tmp_path / "metrics.jsonl").write_text("")  # at 1024, and then it is killed
    clock[0] = 1100.0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledger, "_last_row", lambda folder: 1024.0)
        for number in range(2):  # the second resumes from the same checkpoint
            other = Ledger()
            spend(clock, other, start_up=3)
            other.resume(tmp_path, 50, saved)
            other.write(tmp_path, 50)
            assert sum(other.seconds.values()) == clock[0] - 1000.0
            if number == 0:
                clock[0] += 5.0  # killed again, with a row just before
                patch.setattr(ledger, "_last_row", lambda folder: 1107.0)
                clock[0] = 1200.0
    spend(clock, other, train=6)
    found = other.result()
    assert found["wall_seconds"] == 209.0 == sum(found["seconds"].values())
    expected = {"start_up": 10, "compile": 2, "train": 16, "lost": 8 + 4, "stopped": 76 + 93}
    assert {part: s for part, s in found["seconds"].items() if s} == expected
    assert found["train_share"] == 16 / 209


def test_a_process_that_ends_by_itself_loses_nothing(clock, tmp_path):
    book = Ledger()
    spend(clock, book, train=5)
    saved = book.meta()
    spend(clock, book, save=2)
    book.write(tmp_path, 10)
    clock[0] += 30
    other = Ledger()
    other.resume(tmp_path, 10, saved)
    found = other.result()["seconds"]
    assert {part: s for part, s in found.items() if s} == {"train": 5, "save": 2, "stopped": 30}


def test_a_rewind_moves_what_is_undone(clock):
    book = Ledger()
    spend(clock, book, compile=2, train=5)
    saved = book.meta()
    spend(clock, book, train=3, evaluate=1)
    book.rewind(saved)
    found = book.result()["seconds"]
    assert {part: s for part, s in found.items() if s} == {"compile": 2, "train": 5, "rewound": 4}


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"begun": 1}', "\0"])
def test_a_damaged_ledger_is_none(tmp_path, content):
    (tmp_path / FILE).write_text(content)
    book = Ledger()
    book.resume(tmp_path, 8, {"seconds": {"train": 5.0}, "at": 1.0})
    assert book.seconds["lost"] == book.seconds["train"] == 0


def test_clocks_that_disagree_lose_no_second(clock, tmp_path):
    book = Ledger()
    spend(clock, book, train=5)
    saved = book.meta()
    book.write(tmp_path, 0)
    clock[0] -= 600  # the next host's clock
    other = Ledger()
    other.resume(tmp_path, 10, saved)
    assert all(seconds >= 0 for seconds in other.seconds.values())
    assert other.seconds["train"] == 5


SLOW = 0.3  # seconds that a fault adds to each of the last three reads and to each evaluation


def test_each_part_has_what_was_spent_on_it(home, monkeypatch):
    """The time that training waits for batches counts as data, slow evaluations as evaluate; all
    add up to the wall time within 1 %."""
    read, evaluate, take = loop.read_steps, Evaluator.__call__, prefetch.__next__
    waited = [0.0]

    def slow_read(config, dataset, step, *given):
        time.sleep(SLOW if step >= 40 else 0)
        return read(config, dataset, step, *given)

    def timed(batches):
        began = time.monotonic()
        try:
            return take(batches)
        finally:
            waited[0] += time.monotonic() - began

    def slow_evaluation(*given):
        time.sleep(SLOW)
        return evaluate(*given)

    monkeypatch.setattr(loop, "read_steps", slow_read)
    monkeypatch.setattr(prefetch, "__next__", timed)
    monkeypatch.setattr(Evaluator, "__call__", slow_evaluation)
    begun = time.time()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        keys = TINY | {"eval.every": "64 steps"}  # no evaluation while the last batches are read
        assert isoflop(spawn.arguments(home, "slow", keys)) == 0
    wall = (home / "slow/result.json").stat().st_mtime - begun
    found = goodput(home / "slow")
    parts = found["seconds"]
    assert list(parts) == list(PARTS) and sum(parts.values()) == pytest.approx(wall, rel=0.01)
    assert 0.2 < waited[0] == pytest.approx(parts["data"], abs=0.05) and SLOW <= parts["evaluate"]
    assert parts["train"] < parts["compile"] + 1  # control: no part has the time of another
    assert parts["lost"] == parts["stopped"] == parts["rewound"] == 0 < parts["train"]
    assert parts["other"] < 0.1 * wall


@pytest.mark.slow
def test_across_a_kill_the_ledger_adds_up_to_the_wall_time(home):
    """Killed once, stopped for 5 s, and preempted once: within 1 % of the time from the start of
    the first process to the result, as this test's clock has it."""
    begun, asleep = time.time(), 5.0
    process = spawn.train(home, "killed", TINY | LONG)
    wait_for_step(home, "killed", 3000)
    process.kill()
    process.communicate(timeout=60)
    time.sleep(asleep)
    process = spawn.train(home, "killed", TINY | LONG)
    wait_for_step(home, "killed", 8000)
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 42
    process = spawn.train(home, "killed", TINY | LONG)
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 0, output
    wall = (home / "killed/result.json").stat().st_mtime - begun
    found = goodput(home / "killed")
    print(json.dumps({"wall": wall, **found}))
    parts = found["seconds"]
    assert found["wall_seconds"] == pytest.approx(wall, rel=0.01)
    assert sum(parts.values()) == pytest.approx(wall, rel=0.01)
    assert parts["lost"] > 0 and asleep <= parts["stopped"] < asleep + 6  # and Python starts twice
