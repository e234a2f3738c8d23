"""Tests of the verb `predict`, and that `fit` reports the outcome without changing the file."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest

from launch.__main__ import main
from launch.checkout import ROOT
from scaling.csv_file import to_csv
from scaling.design.prediction import prediction_paths
from tests.scaling.ladder import simulate, write_runs

QUICK = ("--draws=50",)


@pytest.fixture
def ladder():
    """18 finished runs, and the held-out run that has not started yet."""
    points = simulate()
    return points.select(~points.holdout), points.select(points.holdout)


def read(path):
    return json.loads(path.read_text())


def test_a_folder_of_runs_from_prediction_to_outcome(tmp_path, ladder, capsys):
    done, coming = ladder
    runs = write_runs(tmp_path / "runs", done)
    size = [f"--params={coming.params[0]}", f"--tokens={coming.tokens[0]}"]
    assert main(["predict", f"--runs={runs}", *size, "--run=sim-018", *QUICK]) == 0
    path = tmp_path / "runs.prediction.json"
    assert not list(runs.glob("*.json"))
    before, record = path.read_bytes(), read(path)
    assert record["target"]["flops"] == pytest.approx(6 * coming.params[0] * coming.tokens[0])
    assert record["loss"]["lo"] < record["loss"]["value"] < record["loss"]["hi"]
    assert len(record["points"]["sha256"]) == 64 and record["made"].startswith("20")
    assert main(["fit", f"--runs={runs}", f"--json={tmp_path / 'a.json'}", *QUICK]) == 0
    assert read(tmp_path / "a.json")["holdout"]["registered"][0]["outcome"] is None

    write_runs(runs, coming)
    capsys.readouterr()
    assert main(["fit", f"--runs={runs}", f"--json={tmp_path / 'b.json'}", *QUICK]) == 0
    judged = read(tmp_path / "b.json")["holdout"]["registered"][0]
    assert judged["outcome"] == coming.loss[0]
    assert judged["error"] == pytest.approx(coming.loss[0] / record["loss"]["value"] - 1)
    assert "for sim-018" in capsys.readouterr().out
    assert path.read_bytes() == before


def test_a_prediction_in_the_folder_of_the_runs_still_counts(tmp_path, ladder):
    """Sweeps and older versions of `predict` write their predictions there."""
    done, coming = ladder
    runs = write_runs(tmp_path / "runs", done)
    size = [f"--params={coming.params[0]}", f"--tokens={coming.tokens[0]}", "--run=sim-018"]
    there = runs / "prediction.json"
    assert main(["predict", f"--runs={runs}", *size, f"--out={there}", *QUICK]) == 0
    assert main(["predict", f"--runs={runs}", *size, *QUICK]) == 0
    assert not (tmp_path / "runs.prediction.json").exists()  # the prediction exists already
    assert main(["fit", f"--runs={runs}", f"--json={tmp_path / 'law.json'}", *QUICK]) == 0
    registered = read(tmp_path / "law.json")["holdout"]["registered"]
    assert [record["path"] for record in registered] == [str(there)]


def test_a_folder_without_a_name_has_its_prediction_beside_it(tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path / "runs")
    wanted = tmp_path / "runs.prediction.json"
    assert prediction_paths(".", None) == [wanted, tmp_path / "runs" / "prediction.json"]
    assert prediction_paths("../runs/", None)[0].resolve() == wanted


def test_a_table_knows_the_run_by_its_size(tmp_path, ladder, capsys):
    done, coming = ladder
    table = tmp_path / "points.csv"
    table.write_text(to_csv(done))
    flops = f"--flops={6 * coming.params[0] * coming.tokens[0]}"
    argv = ["predict", f"--table={table}", f"--params={coming.params[0]}", flops, *QUICK]
    assert main(argv) == 0
    path = tmp_path / "points.prediction.json"
    before = path.read_bytes()
    out = f"--json={tmp_path / 'law.json'}"
    assert main(["fit", f"--table={table}", out, *QUICK]) == 0
    assert "parameters on" in capsys.readouterr().out
    table.write_text(to_csv(simulate()))
    assert main(["fit", f"--table={table}", out, *QUICK]) == 0
    judged = read(tmp_path / "law.json")["holdout"]["registered"][0]
    assert judged["target"]["run"] == "sim-018" and judged["outcome"] == coming.loss[0]
    assert path.read_bytes() == before and read(path)["target"]["run"] is None


def test_out_is_found_again_by_its_name(tmp_path, ladder):
    done, coming = ladder
    table = tmp_path / "points.csv"
    table.write_text(to_csv(done))
    out = tmp_path / "elsewhere" / "mine.json"
    size = [f"--params={coming.params[0]}", f"--tokens={coming.tokens[0]}"]
    assert main(["predict", f"--table={table}", *size, f"--out={out}", *QUICK]) == 0
    argv = ["fit", f"--table={table}", f"--json={tmp_path / 'law.json'}", *QUICK]
    assert main(argv) == 0
    assert read(tmp_path / "law.json")["holdout"]["registered"] == []
    assert main([*argv, f"--prediction={out}"]) == 0
    assert len(read(tmp_path / "law.json")["holdout"]["registered"]) == 1


def test_a_known_prediction_is_kept_and_says_so(tmp_path, ladder, capsys):
    done, coming = ladder
    table = tmp_path / "points.csv"
    table.write_text(to_csv(done))
    argv = ["predict", f"--table={table}", f"--params={coming.params[0]}", "--tokens=4e7"]
    path = tmp_path / "points.prediction.json"
    assert main([*argv, *QUICK]) == 0
    record, before = read(path), path.read_bytes()
    assert capsys.readouterr().out.endswith(f"\nwritten {record['made']}: {path}\n")
    assert main([*argv, *QUICK]) == 0
    said = f"\nalready predicted at {record['made']}; kept: {path}\n"
    assert capsys.readouterr().out.endswith(said)
    for flag, value, recorded in (("law", "over_training", "parametric"), ("seed", 7, 42)):
        assert main([*argv, *QUICK, f"--{flag}={value}"]) == 2
        shown = capsys.readouterr()
        assert shown.err.count("\n") == 1 and shown.out == ""
        assert f"{flag}={value} differs from --{flag}={recorded} of the prediction" in shown.err
        assert f"give --{flag}={recorded}, or another file with --out" in shown.err
    assert path.read_bytes() == before and len(list(tmp_path.glob("*.json"))) == 1
    other = [f"--out={tmp_path / 'other.json'}", "--seed=7"]
    assert main([*argv, *QUICK, *other]) == 0
    assert read(tmp_path / "other.json")["settings"]["seed"] == 7


def test_other_points_make_another_file(tmp_path, ladder):
    done, coming = ladder
    table, size = tmp_path / "points.csv", [f"--params={coming.params[0]}", "--tokens=4e7"]
    for kept in (len(done), len(done) - 1, len(done)):
        table.write_text(to_csv(done.select(np.arange(len(done)) < kept)))
        assert main(["predict", f"--table={table}", *size, *QUICK]) == 0
    names = {path.name for path in tmp_path.glob("*.json")}
    assert names == {"points.prediction.json", "points.prediction-2.json"}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--params=1e5"], "give two of them (given: --params=100000)"),
        ([], "give two of them (given: none)"),
        (["--params=-1", "--tokens=1e8"], "params=-1 must be positive"),
        (["--params=nan", "--tokens=1e8"], "params=nan must be positive"),
        (["--params=1e5", "--tokens=1e8", "--draws=0"], "a prediction needs an interval"),
        (["--params=1e5", "--tokens=1e8", "--holdout=x"], "matches no point"),
        (["--params=1e5", "--tokens=1e8", "--flops=1e10"], "0.000167 times 6·params·tokens"),
        (["--params=1e5", "--tokens=1e8", "--out=/"], "out=/ is a folder; name a file"),
        (["--params=1e5", "--tokens=1e8", "--loss_unit=x"], "loss_unit='x' is unknown"),
        (["--params=1e5", "--tokens=1e8", "--runs=x"], "either --runs=FOLDER or --table"),
        (["--params=1e5", "--tokens=1e8", "--run=sim-003"], "of this size has finished already"),
        (["--params=1e5", "--tokens=1e8", "--config.seed=1"], "reads no config"),
    ],
)
def test_bad_input_is_one_line(tmp_path, capsys, flags, message):
    table = tmp_path / "points.csv"
    table.write_text(to_csv(simulate()))
    assert main(["predict", f"--table={table}", *flags]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["points.csv"]


def test_a_size_that_has_finished_is_no_prediction(tmp_path, capsys):
    points = simulate()
    (tmp_path / "points.csv").write_text(to_csv(points))
    size = [f"--params={points.params[2]}", f"--tokens={points.tokens[2]}"]
    assert main(["predict", f"--table={tmp_path / 'points.csv'}", *size]) == 2
    assert re.search(
        r"run sim-002 of this size has finished .* with a loss", capsys.readouterr().err
    )


@pytest.mark.parametrize("verb", ["fit", "predict", "compare"])
def test_the_verb_loads_no_jax(verb):
    code = (
        f"import sys, launch.verbs.results.{verb};"
        "import scaling.design.prediction, scaling.fits.comparison;"
        "rooms = {'jax', 'flax', 'model', 'train', 'configs', 'data'};"
        "loaded = {name for name in sys.modules if name.split('.')[0] in rooms};"
        "loaded -= {'data', 'data.files', 'data.local'};"
        "sys.exit(f'loaded {loaded}' if loaded else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_prediction_that_is_not_there(tmp_path, capsys):
    (tmp_path / "points.csv").write_text(to_csv(simulate()))
    argv = ["fit", f"--table={tmp_path / 'points.csv'}", f"--prediction={tmp_path / 'no.json'}"]
    assert main(argv) == 2
    assert "does not exist" in capsys.readouterr().err
