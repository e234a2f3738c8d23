"""Tests of the loss by position of a ladder's representative run."""

import copy
import json
from dataclasses import replace

import numpy as np
import pytest

from launch.evaluation.positions import (
    _gain,
    by_position,
    compare_with_first,
    representative,
)
from launch.evaluation.tally import Tally
from launch.trial import run as trial
from tests.launch import toy


def test_the_gain_is_that_of_the_last_whole_bin_over_the_one_before():
    tally = Tally()
    for shift in (0.0, 0.1, 0.3):
        nats = np.full(20, 2.0)  # positions 1 to 20: the last whole bin is 8 to 15
        nats[7:15] = 1.5 - shift
        tally.add(tally.text("", 0), 0, nats)
    gain = _gain(tally)
    assert (gain["since"], gain["until"]) == ([4, 7], [8, 15])
    assert gain["value"] == pytest.approx(0.5 + 0.4 / 3)
    assert gain["se"] == pytest.approx(np.std([0, 0.1, 0.3], ddof=1) / 3**0.5)
    short = Tally()
    short.add(short.text("", 0), 0, np.ones(1))
    assert _gain(short) is None


def write(folder, name, loss, **more):
    (folder / name).mkdir(parents=True)
    result = {"status": "done", "eval_loss": loss, "flops": {"6nd": 1e12}}
    (folder / name / "result.json").write_text(json.dumps(result | more))


def test_the_best_of_the_largest_runs_stands_for_a_ladder(tmp_path):
    with pytest.raises(FileNotFoundError, match="has no finished run"):
        representative(tmp_path)
    write(tmp_path, "small", 1.0, flops={"6nd": 1e11})
    write(tmp_path, "large", 1.6, flops={"6nd": 1.02e12})
    write(tmp_path, "best", 1.5)
    write(tmp_path, "failed", 0.5, status="diverged")
    assert representative(tmp_path).name == "best"
    write(tmp_path / "counted", "2", 2.0, counted=True)
    write(tmp_path / "counted", "5", 1.9, counted=True, flops={"6nd": 1e3})
    assert representative(tmp_path / "counted").name == "5"


def test_a_run_is_scored_on_its_own_validation_windows(text_folder, compiled_once):
    keys = {"objective.name": "next_token", "model.family": "decoder", "model.n_layers": "1"}
    config = toy.config(text_folder, **keys, **{"model.n_heads": "2"})
    assert trial.run(config, text_folder / "ladder" / "one") == 0
    scored = by_position("ladder", text_folder / "ladder", lambda share: None)
    found = scored.about
    assert (found["run"], found["context"], found["counted"]) == ("one", 16, False)
    assert [(one["first"], one["last"]) for one in found["bins"]] == [
        (1, 1),
        (2, 3),
        (4, 7),
        (8, 15),
    ]
    result = json.loads((text_folder / "ladder/one/result.json").read_text())
    assert found["params"] == sum(result["params"].values())
    weights = np.array([1, 2, 4, 8, 1])
    whole = [one["loss"] for one in found["bins"]]
    assert np.dot(weights[:4] / 15, whole) == pytest.approx(result["eval_loss"], abs=0.2)
    assert result["predicts"] == "the next token of text"
    # Another run whose loss is 0.5 higher in the last bin is that far behind, and only there.
    worse = scored.nats.copy()
    worse[:, 3] += 0.5 * scored.tokens[:, 3]
    other = replace(scored, about=copy.deepcopy(found), nats=worse)
    _, behind = compare_with_first([scored, other])
    apart = [part["behind"] for part in behind["bins"]]
    assert apart == pytest.approx([0, 0, 0, 0.5]) and behind["bins"][3]["behind_se"] < 1e-6
    elsewhere = replace(other, about=copy.deepcopy(found), dataset="another text")
    assert "behind" not in compare_with_first([scored, elsewhere])[1]["bins"][0]
