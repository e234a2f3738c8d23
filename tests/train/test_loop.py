"""Tests whole runs: interruption and resumption, divergence, and their output files."""

import contextlib
import io
import json
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from launch.__main__ import main as isoflop
from tests import spawn
from train import metrics
from train.checkpoint import damage, finished, read_meta, restore_params
from train.record import Events
from train.watch import divergence

TINY = {
    "model.n_layers": 1, "model.d_model": 16, "model.n_heads": 2, "model.context_length": 16,
    "model.dropout": 0.1, "train.batch_size": 4, "train.duration": "500 steps", "train.chunk": 16,
    "eval.sequences": 16, "eval.batch_size": 8, "eval.every": "125 steps",
    "checkpoint.every": "64 steps", "log.every": "50 steps", "log.tensorboard": "true",
}  # fmt: skip
LONG = {"train.duration": "4000 steps"}


@pytest.fixture(scope="module")
def home(text_folder, compiled_once) -> Path:
    """The folder of all runs of this module, which share its caches and one program."""
    return text_folder


def start(home: Path, name: str, **overrides) -> subprocess.Popen:
    """Starts a run in a child process, where it can be killed."""
    return spawn.train(home, name, TINY | overrides)


def finish(home: Path, name: str, **overrides) -> tuple[int, str]:
    """Trains a run to its end in this process. Returns the exit code and what it printed."""
    with contextlib.redirect_stdout(io.StringIO()) as output, contextlib.redirect_stderr(output):
        code = isoflop(spawn.arguments(home, name, TINY | overrides))
    return code, output.getvalue()


def trained(home: Path, name: str, **overrides) -> Path:
    """Trains a run to its end and returns its folder."""
    code, output = finish(home, name, **overrides)
    assert code == 0, output
    return home / name


@pytest.fixture(scope="module")
def whole(home) -> Path:
    return trained(home, "whole")


@pytest.fixture(scope="module")
def long(home) -> Path:
    """A run that is long enough to be interrupted ten times."""
    return trained(home, "long", **LONG)


def numbers(run: Path) -> list[dict]:
    """The rows of a run's metrics without times and speeds."""
    clock = {"seconds", "tokens_per_second", "model_flops_per_second", "mfu"}
    rows = metrics.read(run / "metrics.jsonl")
    return [{k: v for k, v in row.items() if k not in clock} for row in rows]


def assert_same_run(one: Path, other: Path) -> None:
    for name, leaf in restore_params(one / "checkpoints")[0]["blocks"]["mlp"]["up"].items():
        theirs = restore_params(other / "checkpoints")[0]["blocks"]["mlp"]["up"][name]
        assert leaf.tobytes() == theirs.tobytes()
    ours, theirs = (restore_params(run / "checkpoints")[0] for run in (one, other))
    flat = lambda tree: np.concatenate([np.ravel(x) for x in leaves(tree)])  # noqa: E731
    assert flat(ours).tobytes() == flat(theirs).tobytes()
    assert numbers(one) == numbers(other)


def leaves(tree: dict) -> list:
    return [x for v in tree.values() for x in (leaves(v) if isinstance(v, dict) else [v])]


def interrupted(home: Path, name: str, number: int, times: int, **overrides) -> int:
    """Interrupts and resumes a run `times` times at random moments.

    Returns how many of the signals stopped the run before its end.
    """
    rng, felt = random.Random(number), 0
    for _ in range(times):
        process = start(home, name, **overrides)
        log = home / name / "metrics.jsonl"
        before = log.stat().st_mtime if log.exists() else 0
        while process.poll() is None and not (log.exists() and log.stat().st_mtime > before):
            time.sleep(0.01)  # wait until it trains
        time.sleep(rng.random() * 0.075)
        if process.poll() is None:
            process.send_signal(number)
        process.communicate(timeout=300)
        felt += process.returncode in (-signal.SIGKILL, 42)
    trained(home, name, **overrides)
    return felt


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_killed_and_resumed_is_bit_identical(home, whole, number):
    assert interrupted(home, number.name, number, times=2) == 2
    assert_same_run(home / number.name, whole)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_killed_ten_times_it_is_bit_identical(home, long, number):
    name = f"{number.name}-10"
    assert interrupted(home, name, number, 10, **LONG) == 10
    assert_same_run(home / name, long)


def test_control_another_seed_is_another_run(home, whole):
    other = trained(home, "other", seed=1)
    with pytest.raises(AssertionError):
        assert_same_run(other, whole)


def test_a_finished_run_is_not_trained_again(home, whole):
    before = (whole / "metrics.jsonl").stat().st_mtime
    code, output = finish(home, "whole")
    assert code == 0 and "holds the result already: done" in output
    assert (whole / "metrics.jsonl").stat().st_mtime == before


def test_a_run_killed_between_its_last_checkpoint_and_its_result_gets_one(home, whole):
    shutil.copytree(whole, home / "late")
    (home / "late/result.json").unlink()
    code, output = finish(home, "late")
    assert code == 0 and "resuming at step 500 of 500" in output
    before, after = (json.loads((home / f"{n}/result.json").read_text()) for n in ("whole", "late"))
    assert before["eval_loss"] == after["eval_loss"] and before["curve"] == after["curve"]


def test_what_a_run_writes_down(whole):
    rows = metrics.read(whole / "metrics.jsonl")
    training = [row for row in rows if "loss" in row]
    assert [row["step"] for row in training] == list(range(50, 501, 50))
    result = json.loads((whole / "result.json").read_text())
    assert result["status"] == "done" and result["steps"] == 500
    assert result["tokens"] == 500 * 4 * 16 == training[-1]["tokens"]
    assert [point[0] for point in result["curve"]] == list(range(125, 501, 125))
    assert result["eval_loss"] == result["curve"][-1][2] < result["curve"][0][2]
    # Tokens are bytes here, so nats per token and bits per byte differ only by a factor of ln 2.
    assert result["bits_per_byte"] == pytest.approx(result["eval_loss"] / np.log(2), rel=1e-3)
    assert training[-1]["learning_rate"] == pytest.approx(1e-4)  # the schedule ends with the run
    assert list((whole / "tensorboard").glob("events*"))


def test_a_diverging_run_stops_with_43_and_keeps_the_evidence(home):
    changes = {"optimizer.learning_rate": 1e30, "optimizer.clip_norm": 0}
    code, output = finish(home, "diverges", **changes)
    assert code == 43, output
    evidence = json.loads((home / "diverges/diverged/diverged.json").read_text())
    assert evidence["fault"] in output
    assert len(evidence["loss"]) == len(evidence["grad_norm"]) >= 1
    assert restore_params(home / "diverges/diverged")[0].keys() == {
        *("blocks", "embed", "final_norm", "position")
    }
    assert json.loads((home / "diverges/result.json").read_text())["status"] == "diverged"
    code, output = finish(home, "diverges", **changes)
    assert code == 43 and "holds the result already: diverged" in output
    assert "try a lower --config.optimizer.learning_rate (here 1e30)" in output


def test_an_update_that_ruins_the_parameters_is_no_result(home):
    """The losses before the update are fine; only the evaluation after the last step shows it."""
    changes = {
        "optimizer.learning_rate": 1e38, "optimizer.clip_norm": 0, "schedule.warmup": "0 %",
        "train.duration": "1 steps", "eval.every": "1 steps",
    }  # fmt: skip
    code, output = finish(home, "ruined", **changes)
    assert code == 43 and "eval_loss is not finite" in output
    result = json.loads((home / "ruined/result.json").read_text(), parse_constant=pytest.fail)
    assert result["status"] == "diverged" and result["eval_loss"] is None


def test_a_signal_before_training_begins_is_42_too(home):
    process = start(home, "early")
    time.sleep(1.0)
    process.send_signal(signal.SIGTERM)
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 42, output
    assert not (home / "early/result.json").exists()


@pytest.mark.parametrize("victim", ["manifest.json", "largest"])
def test_damage_is_set_aside_and_trained_over(home, whole, victim):
    folder = home / f"damaged-{victim}"
    shutil.copytree(whole, folder)
    (folder / "result.json").unlink()
    newest = finished(folder / "checkpoints")[0]
    files = sorted((p for p in newest.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    path = newest / victim if victim == "manifest.json" else files[-1]
    content = bytearray(path.read_bytes())
    content[0] ^= 0x80
    path.write_bytes(bytes(content))
    code, output = finish(home, folder.name)
    assert code == 0 and "is damaged" in output and "resuming at step" in output
    assert finished(folder / "checkpoints")[0].name == newest.name
    assert damage(newest) is None and newest.with_name(f"{newest.name}.damaged").exists()
    assert_same_run(folder, whole)


def test_a_checkpoint_knows_the_eval_loss_of_its_own_step_only(whole):
    rows = {r["step"]: r["eval_loss"] for r in numbers(whole) if "eval_loss" in r}
    for path in finished(whole / "checkpoints"):
        assert read_meta(path)["eval_loss"] == rows.get(int(path.name))


def test_divergence_is_seen_and_noise_is_not():
    calm = [2.0, 2.1, 1.9] * 10
    assert divergence({"loss": [2.5, 5.9]}, calm, 3.0) is None
    assert "above 3 times its median 2" in divergence({"loss": [2.5, 6.1]}, calm, 3.0)
    assert divergence({"loss": [6.1]}, calm[:10], 3.0) is None  # too few losses for a median
    assert divergence({"loss": [float("nan")]}, [], 3.0) == "loss is not finite"
    bad_gradient = {"loss": [1.0], "grad_norm": [float("inf")]}
    assert divergence(bad_gradient, calm, 3.0) == "grad_norm is not finite"


def test_events_end_chunks():
    events = Events(total=100, log_every=30, eval_every=50, checkpoint_every=0, chunk=16)
    assert [events.after(step) for step in (0, 29, 30, 49, 60, 99)] == [30, 30, 50, 50, 90, 100]
    assert events.due(90, events.log_every) and not events.due(90, events.eval_every)
    assert events.due(100, events.checkpoint_every)
    assert not events.due(90, events.checkpoint_every)


def test_rewinding_drops_later_rows_and_a_cut_one(tmp_path):
    log = metrics.MetricsLog(tmp_path)
    for step in (1, 2, 3):
        log.write({"step": step})
    with open(log.path, "a") as file:
        file.write('{"step": 2, "lo')
    log.rewind(2)
    assert log.path.read_text() == '{"step": 1}\n{"step": 2}\n'
