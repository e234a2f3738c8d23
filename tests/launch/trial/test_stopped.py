"""Tests of runs that stop early at `checkpoint.stop_at` and go on later."""

import re
import shutil

import pytest

from launch.files import ended, read_json, write_json
from launch.trial.identity import trial_id
from launch.trial.resolve import prepare, resolve
from scaling.runs import read_runs
from tests.launch.trial.test_trunk import config, home, numbers, state, train  # noqa: F401

COSINE = {"schedule.name": "cosine", "train.duration": "100 steps"}


@pytest.fixture(scope="module")
def plain(home):  # noqa: F811
    return train(home, "plain", **COSINE)


@pytest.fixture(scope="module")
def stages(home):  # noqa: F811
    """The result of a run after each of two stops and at its end, and its folder."""
    results = []
    for stop_at in ("35 steps", "75 %", ""):  # the second at an evaluation, the first at none
        folder = train(home, "staged", **COSINE, **{"checkpoint.stop_at": stop_at})
        results.append(read_json(folder / "result.json"))
    return results, folder


def test_a_run_that_stops_and_goes_on_ends_as_one_that_never_stopped(plain, stages):
    _, staged = stages
    assert state(staged, 100) == state(plain, 100)
    result, rows = numbers(staged)
    assert result == numbers(plain)[0]
    assert [row for row in rows if "extra" not in row] == numbers(plain)[1]
    assert [row["step"] for row in rows if "extra" in row] == [35]


def test_without_the_saved_state_it_would_not(home, plain, stages):  # noqa: F811
    other = train(home, "other", **COSINE | {"train.duration": "35 steps"})
    assert read_json(other / "result.json")["eval_loss"] != stages[0][0]["eval_loss"]


def test_a_stopped_result_counts_the_steps_that_were_taken(plain, stages):
    first, second, last = stages[0]
    assert [r["status"] for r in stages[0]] == ["stopped", "stopped", "done"]
    assert (first["steps"], first["tokens"]) == (35, 35 * 4 * 16)
    assert first["planned"]["tokens"] == last["tokens"] == 100 * 4 * 16
    assert first["flops"]["6nd"] == pytest.approx(0.35 * last["flops"]["6nd"], rel=1e-12)
    assert first["epochs_of_data"] == pytest.approx(0.35 * last["epochs_of_data"], rel=1e-12)
    assert first["hyperparameters"]["total_steps"] == 100
    assert [step for step, *_ in first["curve"]] == [25, 35]
    assert [step for step, *_ in second["curve"]] == [25, 50, 75]
    assert first["eval_loss"] == first["curve"][-1][2] > second["eval_loss"] > last["eval_loss"]
    assert "planned" not in last and last["id"] == first["id"]


def test_the_stop_is_no_part_of_a_trials_id_and_ends_nothing_for_good(home, stages):  # noqa: F811
    made = config(home, **COSINE)
    data = prepare(made)
    with_stop = config(home, **COSINE, **{"checkpoint.stop_at": "35 steps"})
    assert trial_id(resolve(made, data)) == trial_id(resolve(with_stop, data))
    beyond = config(home, **COSINE, **{"checkpoint.stop_at": "120 steps"})
    assert resolve(beyond, data).checkpoint.stop_at == ""
    folder = train(home, "first", **COSINE, **{"checkpoint.stop_at": "35 steps"})
    assert ended(folder) == "" and ended(stages[1]) == "done"


def test_a_stop_at_a_checkpoint_without_an_evaluation_evaluates_there(home, stages):  # noqa: F811
    keep = {"checkpoint.keep_at": ("35 steps",)}
    folder = train(home, "cut", **COSINE, **keep, **{"checkpoint.stop_at": "50 steps"})
    shutil.rmtree(folder / "checkpoints" / "50")
    train(home, "cut", **COSINE, **keep, **{"checkpoint.stop_at": "35 steps"})
    found, expected = read_json(folder / "result.json"), stages[0][0]
    assert (found["steps"], found["eval_loss"]) == (35, expected["eval_loss"])
    assert found["curve"] == expected["curve"]


def test_a_stopped_run_enters_no_law(tmp_path, stages):
    for name, result in zip(("cut", "later", "whole"), stages[0], strict=True):
        write_json(
            tmp_path / name / "result.json", result | {"tokens": 1e6, "flops": {"6nd": 4.6e10}}
        )
    points = read_runs(tmp_path)
    assert len(points) == 1 and points.left_out == {"stopped": 2}


@pytest.mark.parametrize(
    "value,message",
    [
        ("0 steps", "checkpoint.stop_at='0 steps' is less than one step; give it more, or ''"),
        ("soon", "checkpoint.stop_at='soon' is not a duration"),
    ],
)
def test_a_bad_stop_is_refused(home, value, message):  # noqa: F811
    wrong = config(home, **COSINE, **{"checkpoint.stop_at": value})
    with pytest.raises(ValueError, match=re.escape(message)):
        resolve(wrong, prepare(wrong))
