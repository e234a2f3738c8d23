"""Tests of the messages of `isoflop train` around a run, and about changed code."""

import json
import shutil
import signal
import time
from pathlib import Path

import pytest

from configs import base
from launch import __main__ as command_line
from launch.files import read_json
from launch.trial import fingerprint, messages
from tests import spawn
from tests.launch.trial.test_folder import TINY, flags
from train import progress


@pytest.fixture(scope="module")
def home(text_folder, compiled_once) -> Path:
    return text_folder


def train(capsys, home: Path, workdir: Path, *more: str, **changes) -> tuple[int, str]:
    capsys.readouterr()
    code = command_line.main([*flags(home, workdir, **changes), *more])
    return code, capsys.readouterr().out


@pytest.fixture(scope="module")
def whole(home) -> Path:
    assert command_line.main(flags(home, home / "whole")) == 0
    return home / "whole"


@pytest.fixture
def run(whole, tmp_path) -> Path:
    """A copy of a finished run."""
    shutil.copytree(whole, tmp_path / "run")
    return tmp_path / "run"


def test_a_dry_run_says_what_would_be_trained_and_writes_nothing(home, whole, tmp_path, capsys):
    code, output = train(capsys, home, tmp_path / "run", "--dry_run")
    result = read_json(whole / "result.json")
    assert code == 0 and not (tmp_path / "run").exists()
    first, second, third, fourth = output.splitlines()
    assert first.startswith("trial: 7.66k parameters (embedding 4.1k, position 256, attention ")
    assert "2.56k tokens in 40 steps of 64; 0.0403 epochs of " in second
    assert result["epochs_of_data"] == pytest.approx(0.0403, rel=0.01)
    assert " FLOPs (6nd); about 0:06 on " in third and f"{tmp_path}/run" in fourth
    assert "seed" not in output
    code, output = train(capsys, home, whole, "--dry_run")
    assert code == 0 and "holds the result already: done" in output
    assert command_line.main([*flags(home, whole, seed=9), "--dry_run"]) == 2


def test_the_next_command_of_a_run_of_conversations_is_to_talk(tmp_path):
    config = base.get_config(kind="conversations")
    (line,) = messages._to_sample(config, tmp_path)
    assert line == f"  talk with it: isoflop chat --run={tmp_path}"
    config = base.get_config(objective="reward", kind="preferences")
    assert messages._to_sample(config, tmp_path) == []  # it writes nothing


def test_the_summary_has_the_losses_and_the_next_command(home, run, capsys):
    (run / "result.json").unlink()
    code, output = train(capsys, home, run)
    result = read_json(run / "result.json")
    last = output.splitlines()[-2:]
    assert code == 0 and f"eval loss {result['eval_loss']:.4f} nats/token" in last[0]
    assert f"{result['bits_per_byte']:.4f} bits/byte" in last[0]
    assert str(run / "result.json") in last[0]
    command = last[1].partition("isoflop ")[2]
    assert command == f"sample --run={run} --prompt='The '"
    assert command_line.main(["sample", f"--run={run}", "--prompt=The ", "--tokens=2"]) == 0
    code, output = train(capsys, home, run)
    assert code == 0 and f"done, eval loss {result['eval_loss']:.4f} nats/token" in output
    assert "use another --workdir to train it again" in output and "isoflop sample" in output


def test_a_diverged_run_names_the_remedy_whenever_it_is_asked(home, tmp_path, capsys):
    bad = {"optimizer.learning_rate": 1e30, "schedule.warmup": "0 %"}
    for _ in range(2):
        code, output = train(capsys, home, tmp_path / "run", **bad)
        assert code == 43 and "diverged; try a lower --config.optimizer.learning_rate" in output
        assert "(here 1e30)" in output and "diverged/diverged.json holds" in output
    assert (tmp_path / "run/diverged/diverged.json").exists()


@pytest.mark.slow
def test_ctrl_c_says_what_is_saved_and_how_to_go_on(home, tmp_path):
    keys = {"train.duration": "40000 steps", "log.every": "4 steps"}
    process = spawn.train(home, "stops", TINY | keys)
    log = home / "stops" / "metrics.jsonl"
    while process.poll() is None and not (log.exists() and log.stat().st_size):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=100)[0]
    assert process.returncode == 42, output
    saved = max(int(p.name) for p in (home / "stops/checkpoints").iterdir())
    line = f"trial: stopped; a checkpoint of step {saved:,} of 40,000 is saved. The same command"
    assert line in output and "Traceback" not in output


def test_lines_have_the_time_left_and_no_stale_values(capsys, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    shown = progress.Progress("name", 1000)
    row = {"step": 100, "loss": 2.0, "eval_loss": 2.5}
    for now, step in ((5, 50), (15, 100), (26, 160), (36, 170), (47, 200), (100, 1000)):
        clock[0] = now
        row = row | {47: {"step": 200, "loss": 1.5}, 100: {"step": 1000, "loss": 1.0}}.get(now, {})
        shown.update(step, row)
    assert capsys.readouterr().err.splitlines() == [
        "name: step 100/1000, 0:03:00 left, loss 2.0000, eval 2.5000",
        "name: step 160/1000, 0:02:40 left",
        "name: step 200/1000, 0:03:44 left, loss 1.5000",
        "name: step 1000/1000, loss 1.0000",
    ]


# The fingerprint of the code.


def edited(run: Path, name: str) -> None:
    """Rewrites the config.json of a run as if it was trained with another version of a file."""
    config = json.loads((run / "config.json").read_text())
    config["code"]["files"][name] = "0" * 12
    config["code"]["fingerprint"] = "before"
    (run / "config.json").write_text(json.dumps(config))


def test_a_run_keeps_the_fingerprint_of_its_code(whole):
    code = read_json(whole / "config.json")["code"]
    assert code["files"] == fingerprint.files() and code["earlier"] == []
    assert {"train/step.py", "model/transformer/layers.py", "data/order.py"} <= code["files"].keys()
    assert read_json(whole / "result.json")["code"] == {
        "fingerprint": fingerprint.of_files(fingerprint.files()), "earlier": [],
    }  # fmt: skip


def test_edited_code_is_a_warning_on_done_and_on_resume(home, run, whole, capsys):
    assert "warning: " not in train(capsys, home, run)[1]
    edited(run, "train/step.py")
    code, output = train(capsys, home, run)
    warning = next(line for line in output.splitlines() if line.startswith("warning: "))
    assert code == 0 and "was trained by other code" in warning and ": train/step.py." in warning
    (run / "result.json").unlink()
    code, output = train(capsys, home, run)
    assert code == 0 and "goes on with other code; changed since: train/step.py." in output
    result = read_json(run / "result.json")
    assert result["code"]["earlier"] == ["before"]
    assert result["id"] == read_json(whole / "result.json")["id"]  # not part of the identity
    assert "warning: " not in train(capsys, home, run)[1]


def test_a_run_of_an_older_version_has_no_fingerprint(home, run, capsys):
    config = read_json(run / "config.json")
    del config["code"]
    (run / "config.json").write_text(json.dumps(config))
    code, output = train(capsys, home, run)
    assert code == 0 and "warning: " not in output


def test_comments_and_docstrings_do_not_count():
    one = fingerprint.file_hash('"""A."""\n\ndef f(x):\n    """B."""\n    return x + 1  # c\n')
    other = fingerprint.file_hash('"""Z."""\ndef f( x ):\n    """Y."""\n    return x+1\n')
    assert one == other
    assert one != fingerprint.file_hash('"""A."""\n\ndef f(x):\n    """B."""\n    return x + 2\n')
