"""Tests of reading the JSON files of runs, and of the one-line errors for damaged files."""

import json

import pytest

from configs import base
from launch.__main__ import main
from launch.files import instead, read_config, read_json, read_model
from launch.pilot.rounds import row_of
from model import families
from model.transformer import family as decoder
from model.transformer.config import ModelConfig
from scaling.csv_file import to_csv
from scaling.report.page import read_configs
from scaling.runs import read_runs
from tests.scaling.ladder import simulate, write_runs


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[" * 100_000, "it is nested too deeply"),
        (b'{"a":' * 100_000, "it is nested too deeply"),
        (b"[1]", "holds no JSON object"),
        (b"{", "is not valid JSON"),
        (b"\xff", "is not valid JSON"),
        (b"", "is not valid JSON"),
    ],
)
def test_a_damaged_file_is_refused_in_one_line(tmp_path, content, message):
    (tmp_path / "result.json").write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        read_json(tmp_path / "result.json")
    shown = str(error.value)
    assert shown.startswith(str(tmp_path / "result.json")) and "\n" not in shown
    assert "delete" not in shown  # that is for the caller to say
    with pytest.raises(ValueError, match=message) as error:
        read_json(tmp_path / "result.json", "ask for it")
    assert str(error.value) == f"{shown}; ask for it"


def test_only_a_run_s_own_config_is_to_be_deleted(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"; delete it and run again$"):
        read_config(tmp_path)
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(ValueError, match=r"; download it again$"):
        read_config(tmp_path)
    (tmp_path / "checkpoints").mkdir()  # control: a run, whatever else lies in its folder
    with pytest.raises(ValueError, match=r"; delete it and run again$"):
        read_config(tmp_path)


def run_of(folder, **changes):
    """Writes a config.json with these changes to its `model` section; None removes a key."""
    section = base.get_config().model.to_dict() | {"vocab_size": 257, "d_ff": 512}
    section |= {"n_kv_heads": 4, "head_dim": 32} | changes
    section = {key: value for key, value in section.items() if value is not None}
    (folder / "config.json").write_text(json.dumps({"model": section}))
    return folder


def test_a_key_that_is_younger_than_the_run_has_its_default(tmp_path):
    whole = read_model(run_of(tmp_path), "run")
    assert isinstance(whole, ModelConfig) and whole.d_model == 128
    assert read_model(run_of(tmp_path, logit_softcap=None, qk_norm=None), "run") == whole


@pytest.mark.parametrize("verb", [["sample", "--run=RUN"], ["convert", "--from=RUN", "--to_hf=hf"]])
def test_an_unknown_key_of_a_model_is_refused_in_one_line(verb, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run_of(tmp_path, colour=3)
    assert main([part.replace("RUN", str(tmp_path)) for part in verb]) == 2
    error = capsys.readouterr().err
    assert "model.colour is unknown to it; use the version that wrote the run" in error
    assert error.count("\n") == 1 and [p.name for p in tmp_path.iterdir()] == ["config.json"]


def test_a_pilot_refuses_a_trial_without_a_loss(tmp_path):
    trial = {"params": {"mlp": 7, "norm": 1}, "tokens": 9, "status": "done", "eval_loss": 2.5}
    rate = {"optimizer.learning_rate": 1e-3, "model.d_model": 64, "train.duration": "6e11 flops"}
    trial["overrides"] = rate
    assert row_of(trial, tmp_path) == (6e11, 8, 9, 64, 1e-3, 2.5)
    assert row_of(trial | {"status": "diverged", "eval_loss": None}, tmp_path)[-1] == float("inf")
    with pytest.raises(
        ValueError, match=r"result\.json has no eval_loss \(status None\); delete it"
    ):
        row_of(trial | {"status": None, "eval_loss": None}, tmp_path)


DEEP = b'{"a":' * 100_000
RESULT = {"status": "done", "id": "a", "params": {"mlp": 7}, "tokens": 9, "flops": {"6nd": 1.0}}

DONE = RESULT | {"eval_loss": 2.0}


@pytest.mark.parametrize(
    ("argv", "file", "content", "message"),
    [
        *(
            (["fit", "--runs=runs"], "runs/a/result.json", content, message)
            for content, message in (
                (DEEP, "nested too deeply); delete it and run the trial again"),
                (b"[1]", "holds no JSON object; delete it and run the trial again"),
                (b"{}", "has no finished run (1 without status)"),
                (json.dumps(RESULT).encode(), "lacks eval_loss"),
                (json.dumps(DONE | {"params": [7]}).encode(), "wrong type"),
                (json.dumps(DONE | {"hyperparameters": 7}).encode(), "wrong type"),
            )
        ),
        *(
            (argv, "law.json", content, message)
            for argv in (["plan", "--flops=1e21"], ["pilot", "--budgets=1e9,3e9,9e9"])
            for content, message in (
                (DEEP, "law=law.json is not a law.json: law.json is not valid JSON (it is nested"),
                (b"[1]", "law=law.json is not a law.json: law.json holds no JSON object"),
                (b"{}", "law=law.json is not a law.json (KeyError('parametric'))"),
            )
        ),
        *(
            (["fit", "--table=t.csv"], "t.prediction.json", content, message)
            for content, message in (
                (DEEP, "is not a prediction (t.prediction.json is not valid JSON (it is nested"),
                (b"{}", "is not a prediction (it lacks made, target, points); move it elsewhere"),
                (b"[]", "is not a prediction (t.prediction.json holds no JSON object)"),
            )
        ),
        (["sweep", "--workdir=w"], "s.json", DEEP, "config=s.json is not valid JSON: it is nested"),
    ],
)  # fmt: skip
def test_damaged_json_is_one_line_in_every_verb(
    argv, file, content, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_bytes(content)
    (tmp_path / "t.csv").write_text(to_csv(simulate()))
    named = {"law.json": ["--law=law.json"], "s.json": ["--config=s.json"]}
    assert main([*argv, *named.get(file, [])]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_a_report_leaves_out_the_settings_that_it_cannot_read(tmp_path, capsys):
    runs = write_runs(tmp_path / "runs", simulate())
    damaged = sorted(runs.glob("*/config.json"))
    assert damaged
    damaged[0].write_bytes(DEEP)
    points = read_runs(runs)
    assert len(read_configs(points)) == len(damaged) - 1
    assert capsys.readouterr().err.count(f"a run: {damaged[0]} is not valid JSON") == 1


@pytest.mark.parametrize(
    ("objective", "kind", "said"),
    [
        ("next_token", "text", ""),
        ("ppo", "tasks", ""),  # whose policy has a value head, a class
        ("next_token", "joined_pairs", ". It was trained on pairs: use isoflop translate --run="),
        ("classify", "labelled", ". It is a classifier: use isoflop classify --run="),
        ("reward", "preferences", ". It scores texts: isoflop show "),
    ],
)
def test_a_run_that_continues_no_text_says_what_reads_it(tmp_path, objective, kind, said):
    config = {"objective": {"name": objective}, "data": {"kind": kind}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    cfg = decoder.derive(families.keys(decoder) | {"vocab_size": 9, "n_classes": 1})
    found = instead(decoder, cfg, tmp_path)
    assert found.startswith(said) and bool(found) == bool(said)
