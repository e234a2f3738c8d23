"""Tests counted baselines, models with other components, and mixed families."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from launch.__main__ import main
from scaling.csv_file import read_csv, to_csv
from scaling.fits.analysis import analyse
from scaling.fits.comparison import Ladder, compare
from scaling.runs import read_runs
from scaling.settings import Settings
from scaling.table import Baseline, count, sha256
from tests.scaling.ladder import result, simulate, write_runs

QUICK = Settings(draws=20)
LSTM = {"embedding": 100, "recurrent": 4000, "head": 300}


def ngram(folder, name="ngram-5", **changes):
    """Writes the result of a counted model like a sweep does."""
    found = {
        "id": name,
        "status": "done",
        "family": "ngram",
        "counted": True,
        "params": {"1-grams": 256, "5-grams": 250_000},
        "tokens": 5e6,
        "flops": {"6nd": 0},
        "eval_loss": 1.9,
        "eval_loss_se": 0.01,
        "holdout": True,
    }
    (folder / name).mkdir(parents=True)
    (folder / name / "result.json").write_text(json.dumps(found | changes))


@pytest.fixture
def folder(tmp_path):
    return write_runs(tmp_path / "runs", simulate())


def test_counted_models_are_neither_fitted_nor_held_out(folder):
    before = analyse(read_runs(folder), QUICK)
    ngram(folder)
    ngram(folder, "bare", params={}, flops=0, eval_loss_se=None)
    points = read_runs(folder)
    law = analyse(points, QUICK)
    for part in ("parametric", "isoflop", "envelope", "holdout", "warnings"):
        assert law[part] == before[part], part
    assert law["points"] == before["points"] and before["baselines"] == []
    bare, five = law["baselines"]
    assert five == {"id": "ngram-5", "family": "ngram", "params": 250_256, "tokens": 5e6,
                    "flops": 0, "loss": 1.9, "loss_se": 0.01}  # fmt: skip
    assert (bare["params"], bare["loss_se"]) == (0, None)
    assert json.loads(json.dumps(law, allow_nan=False)) == law


def test_one_that_is_not_counted_would_be_fitted(folder):
    """Negative control."""
    before = read_runs(folder)
    ngram(folder, counted=False, holdout=False, flops={"6nd": 6 * 250_256 * 5e6})
    after = read_runs(folder)
    assert len(after) == len(before) + 1 and after.baselines == ()


def test_a_folder_of_baselines_alone_is_no_ladder(tmp_path):
    ngram(tmp_path / "runs")
    with pytest.raises(ValueError, match="only baselines; a fit needs trained runs"):
        read_runs(tmp_path / "runs")


def test_baselines_are_in_every_plot_of_loss_and_on_the_terminal(
    folder, tmp_path, capsys, without_pictures
):
    ngram(folder)
    ngram(folder, "ngram-2", flops={"6nd": 3e12}, eval_loss=2.5)
    out = tmp_path / "report"
    assert main(["fit", f"--runs={folder}", f"--out={out}", "--draws=20"]) == 0
    shown = capsys.readouterr().out
    assert "baseline ngram-5 (ngram, 250k parameters, 5M tokens): 1.9000 ± 0.0100" in shown
    page = (out / "index.html").read_text()
    specs = json.loads(re.search(r'id="specs">(.*)</script>\n', page)[1])
    for name in ("frontier", "isoflop", "loss_curves", "plane"):
        layers = [layer for layer in specs[name]["layer"] if layer["data"].get("values")]
        of = {
            (row["Run"], layer["mark"]["type"])
            for layer in layers
            for row in layer["data"]["values"]
            if str(row.get("Run", "")).startswith("ngram")
        }
        unplaced = {"rule", "text"} if name in ("frontier", "loss_curves") else {"point", "text"}
        assert of == {("ngram-2", kind) for kind in ("point", "text")} | {
            ("ngram-5", kind) for kind in unplaced
        }, name
    assert "baseline, ngram" in page


def test_baselines_are_on_the_page_of_a_comparison(folder, tmp_path):
    pytest.importorskip("altair")
    from scaling.report.comparison_figures import frontiers

    ngram(folder, flops={"6nd": 3e12})
    points = read_runs(folder)
    ladders = [Ladder("a", points), Ladder("b", simulate(seed=2))]
    compared = compare(ladders, QUICK)
    layers = frontiers(ladders, compared).chart.to_dict()["layer"]
    rows = [row for layer in layers for row in layer["data"]["values"]]
    assert {"ngram-5"} == {row["Run"] for row in rows if row.get("Kind") == "ngram"}


def test_points_csv_reads_back_with_baselines_and_components(folder, tmp_path):
    ngram(folder)
    path = folder / "sim-000" / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"params": LSTM, "family": "lstm"}))
    points = read_runs(folder)
    table = tmp_path / "points.csv"
    table.write_text(to_csv(points))
    again = read_csv(table)
    assert to_csv(again) == table.read_text() and sha256(again) == sha256(points)
    assert again.baselines == points.baselines and len(points.baselines) == 1
    assert "params_recurrent" in table.read_text().splitlines()[0].split(",")
    assert again.components["recurrent"][0] == 4000 and again.components["recurrent"][1] == 0
    bits = read_csv(table, "bits")
    assert bits.baselines[0].loss == pytest.approx(1.9 * np.log(2))


def test_conventions_follow_rules_not_names(tmp_path):
    points = simulate(held_out=0)
    folder = write_runs(tmp_path / "runs", points, params=LSTM)
    found = read_runs(folder)
    for convention, n in {"total": 4400, "non_embedding": 4000, "with_head": 4300}.items():
        assert (count(found, convention).params == n).all()
    tied = write_runs(tmp_path / "tied", points, params={"embedding": 100, "recurrent": 4000})
    assert (count(read_runs(tied), "with_head").params == 4100).all()


def test_columns_that_do_not_add_up_are_no_components(tmp_path):
    """A column such as params_in_billions of an older table is ignored."""
    table = tmp_path / "p.csv"
    table.write_text("params,tokens,loss,params_b\n1e6,2e7,3.1,0.001\n2e6,2e7,3.0,text\n")
    assert read_csv(table).components == {}
    table.write_text("params,tokens,loss,params_b\n1e6,2e7,3.1,1e-3\n2e6,2e7,3.0,2e-3\n")
    assert read_csv(table).components == {}
    table.write_text("params,tokens,loss,params_b,params_c\n1e6,2e7,3,4e5,6e5\n2e6,2e7,2,1e6,1e6\n")
    assert set(read_csv(table).components) == {"b", "c"}


def test_families_and_objectives_fitted_as_one_are_named(tmp_path):
    points = simulate(held_out=0)
    facts = [{"family": "lstm"}] * 6 + [{"objective": "masked"}] * 2 + [{}] * 10
    found = analyse(replace(points, facts=tuple(facts)), QUICK)
    message = next(w["message"] for w in found["warnings"] if w["code"] == "mixed")
    assert message == (
        "2 families are fitted as one: decoder (12 runs), lstm (6 runs); "
        "2 objectives are fitted as one: masked (2 runs), next_token (16 runs)"
    )
    alone = analyse(replace(points, facts=({"family": "lstm"},) * len(points)), QUICK)
    assert "mixed" not in {w["code"] for w in alone["warnings"]}


def test_an_unknown_place_is_null_in_the_chart_and_the_loss_is_needed(tmp_path):
    row = result(simulate(), 0) | {"counted": True, "eval_loss": None}
    folder = write_runs(tmp_path / "runs", simulate())
    (folder / "sim-000" / "result.json").write_text(json.dumps(row))
    with pytest.raises(ValueError, match="loss must be positive"):
        read_runs(folder)
    pytest.importorskip("altair")
    from scaling.report.axes import baseline_rows

    lone = Baseline("x", "ngram", np.nan, 5e6, 0.0, 1.9, np.nan)
    (shown,) = baseline_rows(replace(simulate(), baselines=(lone,)))
    assert (shown["N"], shown["D"], shown["C"], shown["FLOPs"]) == (None, 5e6, None, "unknown")


def test_a_folder_of_counted_models_is_drawn_beside_ladders_and_is_none(folder, tmp_path, capsys):
    pytest.importorskip("vl_convert")
    other = write_runs(tmp_path / "other", simulate(seed=1))
    for order, loss in ((2, 2.5), (5, 1.9)):
        ngram(tmp_path / "ngrams", f"ngram-{order}", eval_loss=loss, flops={"6nd": 5e6 * order})
    page = tmp_path / "page"
    paths = [str(folder), str(other), str(tmp_path / "ngrams")]
    assert main(["compare", *paths, "--draws=20", f"--out={page}"]) == 0
    compared = json.loads((page / "comparison.json").read_text())
    assert [part["name"] for part in compared["ladders"]] == ["runs", "other"]
    assert len(compared["pairs"]) == 1  # no counted model enters a ratio of compute
    text = (page / "index.html").read_text()
    assert "counting operations" in text and "ngram-5" in text and "2.5e7" in text
    for name in ("tokens", "parameters"):
        assert (page / "figures" / f"{name}.svg").read_text().count("ngram") > 0


def test_kinds_of_loss_are_not_mixed(folder, capsys):
    ngram(folder, predicts="the next token of text")
    ngram(folder, "masked", predicts="masked tokens")
    with pytest.raises(ValueError, match="they predict masked tokens and the next token of text"):
        read_runs(folder)
    assert main(["fit", f"--runs={folder}", "--draws=0"]) == 2
    assert "these losses cannot be compared" in capsys.readouterr().err
