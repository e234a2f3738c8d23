"""Tests recorded predictions: written once, never changed, judged when the run has finished."""

from dataclasses import replace

import numpy as np
import pytest

from scaling.design import prediction
from scaling.design.prediction import read_predictions, refuse_other_settings, write_prediction
from scaling.fits.analysis import analyse
from scaling.runs import read_runs
from scaling.settings import Settings
from scaling.table import ARRAYS
from tests.scaling.ladder import simulate, write_runs

QUICK = Settings(draws=40)
TARGET = {"run": "sim-018", "params": 127e3, "tokens": 4e7, "flops": 3e13}


def test_a_prediction_is_written_once(tmp_path):
    path, points = tmp_path / "prediction.json", simulate()
    first = write_prediction(path, points, TARGET, QUICK)
    before = path.read_bytes()
    again = write_prediction(path, points, TARGET, Settings(draws=50))
    assert (first["kept"], again["kept"]) == (False, True)
    assert path.read_bytes() == before
    assert (again["made"], again["loss"]) == (first["made"], first["loss"])
    assert [p.name for p in tmp_path.iterdir()] == ["prediction.json"]
    assert first["target"] == TARGET
    assert first["loss"]["lo"] < first["loss"]["value"] < first["loss"]["hi"]


def test_other_points_make_another_prediction(tmp_path):
    path, points = tmp_path / "prediction.json", simulate()
    write_prediction(path, points, TARGET, QUICK)
    before = path.read_bytes()
    fewer = points.select(np.arange(len(points)) != 3)
    record = write_prediction(path, fewer, TARGET, QUICK)
    assert record["path"].endswith("prediction-2.json")
    assert path.read_bytes() == before
    assert [r["path"] for r in read_predictions([path])] == [str(path), record["path"]]
    assert write_prediction(path, fewer, TARGET, QUICK)["path"] == record["path"]


def test_only_numbered_files_of_the_same_name_belong_to_a_prediction(tmp_path):
    """`report.json` next to `r.json`, or any other file with that beginning, is not one of them."""
    points = simulate()
    other = write_prediction(tmp_path / "prediction.json", points, TARGET, QUICK)
    (tmp_path / "p-report.json").write_text("{}")
    (tmp_path / "p-2.txt").write_text("no JSON")
    record = write_prediction(tmp_path / "p.json", points, TARGET, QUICK)
    assert record["path"] == str(tmp_path / "p.json") and not record["kept"]
    assert read_predictions([tmp_path / "p.json"])[0]["path"] == record["path"]
    again = write_prediction(tmp_path / "p.json", points, TARGET | {"params": 2e5}, QUICK)
    assert again["path"] == str(tmp_path / "p-2.json")
    paths = [r["path"] for r in read_predictions([tmp_path / "p.json"])]
    assert paths == [record["path"], again["path"]] and other["path"] not in paths


def test_numbered_files_have_the_suffix_of_the_prediction(tmp_path):
    path, points = tmp_path / "p.txt", simulate()
    write_prediction(path, points, TARGET, QUICK)
    assert write_prediction(path, points, TARGET, QUICK)["kept"]
    assert [p.name for p in tmp_path.iterdir()] == ["p.txt"]


CHANGES = {"law": "over_training", "objective": "squares", "delta": 0.01, "draws": 41, "seed": 7}


@pytest.mark.parametrize("name", CHANGES)
def test_other_settings_are_refused(tmp_path, name):
    path, points = tmp_path / "p.json", simulate()
    write_prediction(path, points, TARGET, QUICK)
    other = replace(QUICK, **{name: CHANGES[name]})
    record = write_prediction(path, points, TARGET, other)
    refuse_other_settings(record, QUICK)
    wanted = rf"^{name}={CHANGES[name]} differs from {name}={getattr(QUICK, name)} of .*p\.json"
    with pytest.raises(ValueError, match=wanted):
        refuse_other_settings(record, other)


@pytest.mark.parametrize("objective", ["huber", "squares", "absolute"])
def test_settings_of_an_older_prediction_follow_from_its_law(tmp_path, objective):
    """Its draws and seed are unknown."""
    settings = Settings(draws=40, objective=objective)
    record = write_prediction(tmp_path / "p.json", simulate(), TARGET, settings)
    del record["settings"]
    refuse_other_settings(record, replace(settings, draws=50, seed=1))
    for name in ("law", "objective"):
        with pytest.raises(ValueError, match=f"^{name}=.* differs from"):
            other = {"law": "over_training", "objective": OTHER_OBJECTIVE[objective]}
            refuse_other_settings(record, replace(settings, **{name: other[name]}))


OTHER_OBJECTIVE = {"huber": "absolute", "squares": "huber", "absolute": "squares"}


def test_a_prediction_is_judged_at_the_length_that_it_was_made_for(tmp_path):
    """The table also has earlier evaluations of the run, and they come first."""
    points = simulate(held_out=20.0)
    held = np.flatnonzero(points.holdout)
    target = {"run": str(points.run[held[0]])}
    target |= {name: float(getattr(points, name)[held[0]]) for name in ("params", "tokens")}
    record = write_prediction(tmp_path / "p.json", points, target, QUICK)
    rows = np.concatenate([held, held, np.arange(len(points))])
    early = replace(points, **{name: getattr(points, name)[rows] for name in ARRAYS})
    for row, share in enumerate((0.2, 0.5)):
        early.tokens[row] *= share
        early.loss[row] *= 2
    judged = analyse(early, QUICK, [record])["holdout"]["registered"][0]
    assert judged["outcome"] == points.loss[held[0]]
    assert judged["extrapolated"] and judged["extrapolation"] > 10


def test_the_outcome_joins_law_json_and_leaves_the_prediction(tmp_path):
    points = simulate()
    folder = write_runs(tmp_path / "runs", points)
    held = points.select(points.holdout)
    target = TARGET | {"params": float(held.params[0]), "tokens": float(held.tokens[0])}
    path = folder / "prediction.json"
    record = write_prediction(path, points, target, QUICK)
    before = path.read_bytes()
    law = analyse(read_runs(folder), QUICK, read_predictions([path]))
    judged = law["holdout"]["registered"][0]
    assert judged["outcome"] == held.loss[0]
    assert judged["error"] == pytest.approx(held.loss[0] / record["loss"]["value"] - 1)
    assert path.read_bytes() == before


def test_sweeps_that_share_a_folder_make_one_prediction(tmp_path, monkeypatch):
    """Another sweep writes its prediction while this one computes the same."""
    points, path = simulate(), tmp_path / "prediction.json"
    first = write_prediction(path, points, TARGET, QUICK)
    read, seen = prediction.read_predictions, []

    def read_later(paths):
        seen.append(paths)
        return [] if len(seen) == 1 else read(paths)

    monkeypatch.setattr(prediction, "read_predictions", read_later)
    assert write_prediction(path, points, TARGET, QUICK) == first | {"kept": True}
    assert len(seen) == 2
    assert [file.name for file in tmp_path.iterdir()] == ["prediction.json"]
