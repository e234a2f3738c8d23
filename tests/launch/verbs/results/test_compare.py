"""Tests of the verb `compare`: folders, tables, names, output and errors."""

import json
import re

import pytest

from launch.__main__ import main
from launch.verbs.results.compare import named
from scaling.csv_file import to_csv
from tests.scaling.fits.test_comparison import ladder
from tests.scaling.ladder import simulate, write_runs

QUICK = "--draws=50"


@pytest.fixture
def paths(tmp_path):
    """A folder of runs, and a table of runs that need half the compute."""
    table = tmp_path / "better.csv"
    table.write_text(to_csv(ladder(2.0, 4).points))
    return str(write_runs(tmp_path / "runs", ladder(1.0, 3).points)), str(table)


def test_a_folder_against_a_table(tmp_path, paths, capsys):
    out = tmp_path / "c.json"
    assert main(["compare", *paths, QUICK, f"--json={out}"]) == 0
    shown = capsys.readouterr().out
    assert "better needs 0." in shown and "times the compute of runs" in shown
    assert "significant (two-sided p" in shown and "nats per token" in shown
    pair = json.loads(out.read_text())["pairs"][0]
    assert pair["multiplier"]["lo"] < 2 < pair["multiplier"]["hi"]


def test_other_data_are_shouted(tmp_path, paths, capsys):
    other = str(write_runs(tmp_path / "other", ladder(2.0, 4).points, dataset="f" * 16))
    assert main(["compare", paths[0], other, QUICK]) == 0
    assert capsys.readouterr().out.startswith("WARNING: LOSSES ARE NOT COMPARABLE")
    same = str(write_runs(tmp_path / "same", ladder(2.0, 4).points))
    assert main(["compare", paths[0], same, QUICK]) == 0
    assert "WARNING" not in capsys.readouterr().out


def test_the_page_lies_where_out_says(tmp_path, paths, capsys):
    pytest.importorskip("vl_convert")
    names = "--names=old,new"
    assert main(["compare", *paths, QUICK, names, f"--out={tmp_path / 'page'}"]) == 0
    shown = capsys.readouterr().out
    page = (tmp_path / "page" / "index.html").read_text()
    compared = json.loads((tmp_path / "page" / "comparison.json").read_text())
    assert "new against old" in page and compared["made"]["command"] in page
    pair = compared["pairs"][0]
    for saved in (pair["multiplier"], pair["second_opinion"], pair["trend"]):
        low, high = 1 / saved["hi"], 1 / saved["lo"]
        assert f"{1 / saved['value']:.3g} <small>[{low:.3g}, {high:.3g}]</small>" in page
        assert f"{1 / saved['value']:.3g} [{low:.3g}, {high:.3g}]" in shown
    assert f"new needs {1 / pair['multiplier']['value']:.3g} [" in shown
    trend = "the factor at the lowest of these losses, divided by that at the highest"
    assert trend in page and f"{trend}: {1 / pair['trend']['value']:.3g} [" in shown
    assert shown.endswith(f"\nreport: {tmp_path / 'page' / 'index.html'}\n")
    assert "new needs" in page and "times the compute of old for equal loss" in page
    text = re.sub("<script.*?</script>", "", page, flags=re.DOTALL)
    assert "times less" not in text.lower() and "× " not in text


def test_names_come_from_paths():
    assert named(["runs/a", "b/points.csv"]) == ["a", "points"]
    assert named(["x/a", "y/a/", "b"]) == ["a (1)", "a (2)", "b"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "give two or more ladders"),
        (["RUNS"], "give two or more ladders"),
        (["RUNS", "none.csv"], "none.csv does not exist; give folders of runs"),
        (["RUNS", "TABLE", "--names=a"], "2 ladders take 2 different names"),
        (["RUNS", "TABLE", "--names=a,a"], "2 ladders take 2 different names"),
        (["RUNS", "TABLE", "--method=eye"], "method=eye is unknown"),
        (["RUNS", "TABLE", "--measure=x"], "measure=x is unknown"),
        (["RUNS", "FEW"], "FEW: parametric: 4 points are too few"),
        (["RUNS", "TABLE", "--params=with_head"], "needs the columns"),
        (["RUNS", "TABLE", "--config.seed=1"], "reads no config"),
        (["RUNS", "TABLE", "--wat=1"], "unknown flag --wat; see --help"),
    ],
)
def test_bad_input_is_one_line(tmp_path, paths, capsys, argv, message):
    few = tmp_path / "FEW.csv"
    few.write_text(to_csv(simulate(budgets=(1e12,), sizes=4, held_out=0)))
    places = {"RUNS": paths[0], "TABLE": paths[1], "FEW": str(few)}
    assert main(["compare", *(places.get(arg, arg) for arg in argv)]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_places_that_cannot_be_written_are_one_line(tmp_path, paths, capsys):
    (tmp_path / "file").write_text("")
    for flag in ("json", "out"):
        argv = ["compare", *paths, "--draws=0", f"--{flag}={tmp_path / 'file' / 'x'}"]
        assert main(argv) == 2
        error = capsys.readouterr().err
        assert f"{flag}={tmp_path / 'file' / 'x'} cannot be written" in error
        assert error.count("\n") == 1


def test_eight_ladders_have_no_colours(paths, capsys):
    assert main(["compare", *[paths[1]] * 8, "--draws=0"]) == 2
    assert "8 ladders are too many; give at most 7" in capsys.readouterr().err
