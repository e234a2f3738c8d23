"""Tests of processes that hang, freeze, die or never come: the others end, soon, and say why.

Each prints its figure; `pytest -s` shows them. The fast forms are in
tests/launch/trial/test_stalled.py and below.
"""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.launch.trial.test_distributed import (
    LONG,
    end,
    free_port,
    start,
    start_all,
    wait_for_step,
)
from tests.launch.trial.test_stalled import hanging
from train import watch
from train.checkpoint import finished
from train.watch import Watchdog

PATIENCE = 30  # seconds of log.stall_timeout: more than compiling takes


@pytest.fixture(scope="module")
def home(text_folder, compiled_once) -> Path:
    return text_folder


def trainer(process: subprocess.Popen) -> int:
    """The child of `isoflop train` that trains."""
    return int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])


def figure(what: str, seconds: float) -> float:
    print(f"\nfigure: {what}: {seconds:.1f} s")
    return seconds


def test_a_wait_for_data_is_said_before_it_ends_the_run(monkeypatch, capfd):
    monkeypatch.setattr(watch, "NOTICED", 0.2)
    with Watchdog(0.5, "trial", 8) as watchdog:
        watchdog._seconds = 1000  # ticks as often as with 0.5
        watchdog.waits(for_data=True)
        time.sleep(0.6)
        watchdog.waits(for_data=False)
    with Watchdog(0.5, "other", 8) as watchdog:  # control: it does not wait for data
        watchdog._seconds = 1000
        time.sleep(0.6)
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("isoflop: trial has waited for data for 0 s")
    assert "after step 8; it ends after 1000 s (log.stall_timeout)" in lines[0]


@pytest.mark.slow
def test_a_source_that_blocks_is_a_message_and_then_the_stacks(home):
    """The message comes after 10 s, the end after log.stall_timeout."""
    process = hanging(home, "blocks", 0, patience=PATIENCE)
    output = process.communicate(timeout=200)[0]
    assert process.returncode == 42, output
    message = output.index("trial has waited for data for 1")
    stacks = output.index(f"trial made no progress for {PATIENCE} s after step 8")
    assert message < stacks < output.index(" in hang\n")


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_hung_rank_ends_all_with_their_stacks(home, victim):
    """All are dead within log.stall_timeout + 5 s of the last step."""
    name, where = f"hung-{victim}", (f"--coordinator=127.0.0.1:{free_port()}", "--processes=2")
    both = [
        hanging(home, name, victim, *where, f"--process={i}", patience=PATIENCE) for i in range(2)
    ]
    newest = home / name / "checkpoints/8/manifest.json"  # it hangs after step 8
    latest = time.monotonic() + 120
    while not newest.exists():
        assert time.monotonic() < latest
        time.sleep(0.02)
    begun = time.monotonic()
    codes, outputs = end(*both)
    took = figure(f"rank {victim} hangs, log.stall_timeout={PATIENCE}", time.monotonic() - begun)
    assert codes == [42, 42], outputs
    assert took < PATIENCE + 5
    assert " in hang\n" in outputs[victim] and "(process " in "".join(outputs)
    assert any("most recent call first" in output for output in outputs)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
@pytest.mark.parametrize("victim", [0, 1])
def test_a_peer_that_freezes_or_dies_ends_the_others_within_15_seconds(home, victim, number):
    name = f"{number.name}-{victim}"
    processes = start_all(home, name, **LONG)
    wait_for_step(home, name, 40)
    pid = trainer(processes[victim])
    os.kill(pid, number)
    begun = time.monotonic()
    codes, outputs = end(processes[1 - victim])
    took = figure(f"{number.name} of process {victim}", time.monotonic() - begun)
    try:
        assert codes == [42] and "has lost another; run all" in outputs[0], outputs
        assert took < 15
    finally:
        if number == signal.SIGSTOP:
            os.kill(pid, signal.SIGCONT)  # thawed, it finds the others gone
        codes, outputs = end(processes[victim])
    assert codes == [42], outputs
    assert finished(home / name / "checkpoints")


@pytest.mark.slow
@pytest.mark.parametrize("several", [False, True])
def test_sigterm_saves_and_ends_within_5_seconds(home, several):
    """SIGTERM to one process, or to the second of two."""
    name = f"term-{several}"
    processes = start_all(home, name, **LONG) if several else [start(home, name, 2, **LONG)]
    wait_for_step(home, name, 40)
    processes[-1].send_signal(signal.SIGTERM)
    begun = time.monotonic()
    codes, outputs = end(*processes)
    took = figure(f"SIGTERM, {len(processes)} processes", time.monotonic() - begun)
    assert set(codes) == {42}, outputs
    assert took < 5
    saved = int(finished(home / name / "checkpoints")[0].name)
    assert saved >= 40 and saved % 8 == 0
