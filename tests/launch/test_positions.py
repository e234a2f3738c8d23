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
from launch.verbs.results.compare import behind_lines
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
    assert elsewhere.about["paired"] == 0 < other.about["paired"]


@pytest.mark.slow
def test_a_carried_and_a_reset_run_are_paired_on_equal_windows_only(
    text_folder, compiled_once, tmp_path
):
    """One reads on from window to window, the other reads windows spread over the text."""
    keys = {"objective.name": "next_token", "model.family": "recurrent", "model.n_layers": "1"}
    found = {}
    for name, carry in (("reset", "False"), ("carried", "True")):
        config = toy.config(text_folder, **keys, **{"model.carry_state": carry})
        assert trial.run(config, tmp_path / name / "one") == 0
        found[name] = by_position(name, tmp_path / name, lambda share: None)
    reset, carried = found["reset"], found["carried"]
    assert np.array_equal(reset.tokens, carried.tokens) and reset.dataset == carried.dataset
    first = {name: [tuple(row) for row in one.windows] for name, one in found.items()}
    shared = set(first["reset"]) & set(first["carried"])
    assert len(shared) < len(first["reset"]) == 16
    _, about = compare_with_first([reset, carried])
    assert about["paired"] == len(shared)
    # On the same windows, in another order, a run is not behind itself.
    order = np.random.default_rng(0).permutation(16)
    again = replace(
        reset, about=copy.deepcopy(reset.about), windows=reset.windows[order],
        nats=reset.nats[order], tokens=reset.tokens[order],
    )  # fmt: skip
    _, about = compare_with_first([reset, again])
    assert [part["behind"] for part in about["bins"]] == [0] * len(about["bins"])
    apart = replace(again, about=copy.deepcopy(reset.about), windows=1 + reset.windows)
    _, about = compare_with_first([reset, apart])
    assert about["paired"] == 0 and "behind" not in about["bins"][0]
    lines = behind_lines([reset.about, about | {"ladder": "apart"}], 8)
    assert lines[-1] == "  apart     none: it was scored on other windows"
