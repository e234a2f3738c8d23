"""Tests of runs that hang, and of signals during the imports."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launch import __main__ as command_line
from tests import spawn
from tests.launch.trial.test_folder import TINY, flags
from train.watch import Watchdog

# `isoflop train` whose data read hangs at step 8, in the process whose index is the first argument.
HANGS = """
import sys, time
from train import loop
from train.parallel import processes
read, who = loop.read_steps, sys.argv.pop(1)
def hang(config, dataset, step, *rest):
    if step >= 8 and str(processes.index()) == who:
        time.sleep(1000)
    return read(config, dataset, step, *rest)
loop.read_steps = hang
from launch.__main__ import entry
entry()
"""


def hanging(home: Path, name: str, who: int, *flags: str, patience: int = 8) -> subprocess.Popen:
    keys = {"data.corpora": f"{home}/text.txt", "data.cache": f"{home}/cache"} | TINY
    keys |= {"log.stall_timeout": patience, "train.chunk": 4, "checkpoint.every": "4 steps"}
    keys |= {"train.duration": "64 steps"}
    given = [f"--config.{key}={value}" for key, value in keys.items()]
    command = [sys.executable, "-c", HANGS, str(who), "train", "--config=configs/base.py"]
    return subprocess.Popen(
        [*command, f"--workdir={home}/{name}", *flags, *given],
        cwd=spawn.ROOT, env=os.environ | {"PYTHONPATH": str(spawn.ROOT)}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def test_a_process_without_progress_ends_with_its_stacks():
    code = (
        "import time; from train.watch import Watchdog\n"
        "def hang():\n time.sleep(60)\n"
        "with Watchdog(0.4, 'trial', 0) as watchdog:\n watchdog.progress(8); hang()"
    )
    command, begun = [sys.executable, "-c", code], time.monotonic()
    done = subprocess.run(command, cwd=spawn.ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 42 and time.monotonic() - begun < 30
    assert "trial made no progress for 0.4 s after step 8 (log.stall_timeout)" in done.stderr
    assert " in hang\n" in done.stderr and "run it again" in done.stderr


@pytest.mark.slow
def test_a_read_that_hangs_ends_the_run_with_its_stacks(text_folder, compiled_once):
    # The first run compiles, so that compilation does not stall the second.
    keys = {"train.duration": "4 steps", "train.chunk": 4, "log.stall_timeout": 0}
    assert command_line.main(flags(text_folder, text_folder / "compiles", **keys)) == 0
    process = hanging(text_folder, "hangs", 0)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 42, output
    assert "trial made no progress for 8 s after step 8 (log.stall_timeout)" in output
    assert " in hang\n" in output and "run it again" in output
    assert (text_folder / "hangs/checkpoints/4/manifest.json").exists()
    assert not (text_folder / "hangs/result.json").exists()


@pytest.mark.slow
def test_one_of_two_processes_hangs_and_both_end(text_folder, compiled_once):
    from tests.launch.trial.test_distributed import free_port

    where = f"--coordinator=127.0.0.1:{free_port()}", "--processes=2"
    both = [hanging(text_folder, "two", 1, *where, f"--process={i}", patience=60) for i in range(2)]
    outputs = [process.communicate(timeout=400)[0] for process in both]
    assert [process.returncode for process in both] == [42, 42], outputs
    assert any("made no progress for 60 s after step 8" in output for output in outputs), outputs


def test_a_run_that_makes_progress_is_left_alone():
    with Watchdog(0.2, "quick", 0) as watchdog:
        for step in range(20):
            time.sleep(0.02)
            watchdog.progress(step)
    with Watchdog(0, "patient", 0):
        time.sleep(0.3)


def catches(process: subprocess.Popen, number: int) -> bool:
    """Whether a process handles a signal."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="this machine has no /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_modules_are_imported_is_42(text_folder, number):
    if signal.getsignal(number) is signal.SIG_IGN:
        pytest.skip("this machine's shell ignores the signal, and so do its children")
    process = spawn.train(text_folder, "early", TINY)
    while not catches(process, signal.SIGTERM):
        time.sleep(0.001)
    assert "jaxlib" not in Path(f"/proc/{process.pid}/maps").read_text()  # not imported yet
    process.send_signal(number)
    output = process.communicate(timeout=100)[0]
    assert process.returncode == 42 and "run it again" in output, output
    assert "Traceback" not in output and not (text_folder / "early").exists()
