"""Tests of the verb `show`."""

import json

import pytest

from configs import base
from launch.__main__ import main
from launch.trial.folder import locked


def write(file, content) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content))


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run that is done, with a tiny model."""
    monkeypatch.chdir(tmp_path)
    config = json.loads(base.get_config().to_json())
    config["model"] |= {"d_model": 48, "n_layers": 2}
    config["train"]["duration"] = "20 steps"
    config["data"]["hash"] = "c0ffee"
    config["optimizer"]["learning_rate"] = 0.0125
    config["code"] = {"fingerprint": "abc", "earlier": ["def"], "files": {"data/x.py": "1"}}
    result = {
        "id": "r-1", "status": "done", "sweep": "s", "overrides": {"model.d_model": 48},
        "params": {"embedding": 1000, "mlp": 2500, "head": 0}, "tokens": 2e6, "steps": 20,
        "batch": 100_000, "epochs_of_data": 0.5, "train_loss": 1.75,
        "flops": {"6nd": 1e12, "palm": 1.5e12}, "seconds": 75.0, "compile_seconds": 2.0,
        "tokens_per_second": 26666.7, "mfu": 0.4, "device": "cpu", "devices": 1,
        "metrics": {"loss": {"value": 2.0, "se": 0.125, "unit": "nats/token"},
                    "bits_per_byte": {"value": float("nan"), "se": None, "unit": "bits/byte"}},
        "parent": {"init_from": "runs/old", "init_hash": "0a"}, "versions": {"jax": "9.9"},
        "rollout_tokens_per_second": 1500.4, "update_tokens_per_second": 90000.0,
    }  # fmt: skip
    rows = [
        {"step": n, "tokens": 100 * n, "loss": 4 / n, "seconds": 2.0 * n, "tokens_per_second": 50.0,
         "model_flops_per_second": 1e5} for n in (5, 10, 15, 20)
    ]  # fmt: skip
    rows += [{"step": 20, "tokens": 2000, "eval_loss": 0.25}]
    home = tmp_path / "runs/r"
    write(home / "config.json", config)
    write(home / "result.json", result)
    write(home / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    write(home / "checkpoints/10/manifest.json", "{}")
    write(home / "checkpoints/20/manifest.json", "{}")
    write(home / "checkpoints/15/half", "written")
    return home


def test_everything_about_a_finished_run(run, capsys):
    assert main(["show", "runs/r", "--json=out.json"]) == 0
    text = capsys.readouterr().out
    for line in (
        "r-1: done at step 20 of 20",
        "sweep       s",
        "loss 2.0000 ± 0.1250 nats/token",
        "parameters  3.5k: embedding 1k, mlp 2.5k",
        "2M in 20 steps of 100,000, 0.5 epochs of the data",
        "1e12 6nd, 1.5e12 palm",
        "1:15 training, 0:02 compiling, 26,667 tokens/s, MFU 40.0%",
        "rollouts 1,500 tokens/s, updates 90,000 tokens/s",
        "1 × cpu",
        "stdlib, tokenizer bytes, c0ffee",
        "weights of runs/old (0a)",
        "steps 10, 20\n",
        "abc, before that def",
        "jax 9.9",
        "model: n_layers=2, d_model=48\n",
        "train: duration=20 steps\n",
        "optimizer: learning_rate=0.0125\n",
        "━ training loss   ━ validation loss   over steps",
    ):
        assert line in text, line
    assert "n_heads" not in text  # it is at its default
    about = json.loads((run.parents[1] / "out.json").read_text())
    assert about["curves"]["training loss"]["value"] == [0.8, 0.4, 4 / 15, 0.2]
    assert about["curves"]["validation loss"] == {
        "steps": [20], "tokens": [2000], "flops": [2000 * 2000.0], "seconds": [40.0],
        "value": [0.25],
    }  # fmt: skip
    assert about["settings"] == {
        **{"model.n_layers": 2, "model.d_model": 48, "train.duration": "20 steps"},
        **{"optimizer.learning_rate": 0.0125, "data.hash": "c0ffee"},
    }
    assert about["result"]["metrics"]["bits_per_byte"]["value"] is None  # nan is no JSON


@pytest.mark.parametrize(
    ("x", "last"), [("steps", "20"), ("tokens", "2k"), ("seconds", "0:40"), ("flops", "4e6")]
)
def test_curves_over_any_axis(run, capsys, x, last):
    assert main(["show", "--run=runs/r", f"--x={x}", "--log=xy"]) == 0
    text = capsys.readouterr().out
    assert f"over {x}, both axes logarithmic" in text and text.split()[-1] == last


def test_runs_that_have_not_ended_and_diverged_ones(run, capsys):
    write(run / "metrics.jsonl", '{"step": 5, "loss": 3.0}\n{"step": 9, "diverged": "loss is nan"}')
    write(run / "result.json", {"status": "diverged", "eval_loss": None, "steps": 20})
    assert main(["show", "runs/r"]) == 0
    text = capsys.readouterr().out
    assert "r: diverged at step 9 of 20" in text and "fault       loss is nan" in text
    (run / "result.json").unlink()
    assert main(["show", "runs/r"]) == 0
    assert "r: stopped; the same command goes on at step 9 of 20" in capsys.readouterr().out
    with locked(run):
        assert main(["show", "runs/r"]) == 0
        assert "r: running at step 9 of 20 (process " in capsys.readouterr().out
    (run / "metrics.jsonl").unlink()
    assert main(["show", "runs/r"]) == 0
    assert "no curve yet" in capsys.readouterr().out


def test_a_converted_run_does_not_name_text_that_it_was_not_trained_on(run, capsys):
    config = json.loads((run / "config.json").read_text())
    config["data"]["hash"] = ""
    for name in ("result.json", "metrics.jsonl"):
        (run / name).unlink()
    write(run / "config.json", config)
    write(run / "huggingface/config.json", "{}")
    assert main(["show", "runs/r"]) == 0
    text = capsys.readouterr().out
    assert "r: converted, not trained here\n" in text and "stdlib" not in text


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["nowhere"], "--run=nowhere holds no run"),
        (["runs/s"], "--run=runs/s holds a sweep; name one of its trials, which isoflop runs"),
        ([], "--run is not given"),
        (["runs/r", "--x=step"], "--x=step"),
        (["runs/broken"], "is not valid JSON"),
    ],
)
def test_bad_input_is_one_line(run, capsys, flags, message):
    write(run.parent / "s/sweep.json", "{}")
    write(run.parent / "broken/result.json", "{")
    assert main(["show", *flags]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_text_from_outside_does_not_move_the_cursor(run, capsys):
    config = json.loads((run / "config.json").read_text())
    config["data"]["tokenizer"] = "\x1b[2J[red]x"
    write(run / "config.json", config)
    assert main(["show", "runs/r"]) == 0
    text = capsys.readouterr().out
    assert "\x1b" not in text and "\\x1b[2J[red]x" in text
