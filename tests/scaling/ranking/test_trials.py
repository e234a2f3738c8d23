"""Tests of how the trials of a folder are read."""

import json
import math

import pytest

from scaling.ranking.trials import read_sweeps, short_names, varied_keys


def _write(file, content):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content))


@pytest.fixture
def runs(tmp_path):
    """A folder with a sweep of four trials (done, damaged, unfinished, waiting) and a lone run."""
    base = {"seed": 0, "model": {"d_model": 32}, "optimizer": {"learning_rate": 0.1, "b1": 0.9}}
    rates = {"a": 0.1, "b": 0.2, "c": 0.3, "d": 0.3}
    trials = {
        key: {"overrides": {"optimizer.learning_rate": rate, "seed": seed, "model.d_model": 32}}
        for seed, (key, rate) in enumerate(rates.items())
    }
    _write(tmp_path / "s/sweep.json", {"config": "c.py", "base": base, "trials": trials})
    result = {"status": "done", "metrics": {"loss": {"value": 2.5, "se": 0.1}}, "seed": 0}
    _write(tmp_path / "s/a/result.json", result | {"params": {"mlp": 3, "head": 4}})
    _write(tmp_path / "s/b/result.json", "{")
    _write(tmp_path / "s/c/config.json", base)
    _write(tmp_path / "alone/config.json", base)
    _write(tmp_path / "alone/result.json", {"status": "done", "eval_loss": 3.0, "metrics": {}})
    return tmp_path


def test_a_sweep_lists_every_trial_with_its_status(runs):
    sweep, alone = read_sweeps(runs)
    assert [(t.id, t.status) for t in sweep.trials] == [
        ("a", "done"), ("b", "damaged"), ("c", "unfinished"), ("d", "waiting")
    ]  # fmt: skip
    assert sweep.varied == ("optimizer.learning_rate",)  # neither d_model, all 32, nor the seed
    first = sweep.trials[0]
    assert (first.params, first.seed, sweep.trials[3].seed, first.metric()) == (7, 0, 3, (2.5, 0.1))
    assert first.settings["optimizer.b1"] == 0.9
    assert math.isnan(sweep.trials[2].metric()[0]) and math.isnan(first.metric("accuracy")[0])
    assert [t.id for t in alone.trials] == ["alone"] and alone.trials[0].metric()[0] == 3.0


def test_a_folder_may_be_a_sweep_or_one_run(runs):
    assert [s.name for s in read_sweeps(runs / "s")] == ["s"]
    (lone,) = read_sweeps(runs / "alone")
    assert [t.folder for t in lone.trials] == [runs / "alone"]


def test_a_folder_without_runs_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"runs={tmp_path} holds no run"):
        read_sweeps(tmp_path)
    with pytest.raises(FileNotFoundError, match="holds no run"):
        read_sweeps(tmp_path / "nowhere")


def test_varied_keys_and_their_short_names():
    settings = [{"a.x": 1, "b.x": 2, "name": "p"}, {"a.x": 1, "b.x": 3, "c.y": [1]}]
    assert varied_keys(settings) == ("b.x", "c.y")
    assert short_names(("a.x", "b.x", "c.y")) == {"a.x": "a.x", "b.x": "b.x", "c.y": "y"}
