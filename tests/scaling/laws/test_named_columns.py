"""Tests laws with other inputs, responses and constants, from the table to the report."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from launch.__main__ import main
from scaling.csv_file import read_csv, to_csv
from scaling.design.planning import plan, read_law
from scaling.design.prediction import write_prediction
from scaling.fits.analysis import analyse
from scaling.fits.comparison import Ladder, compare
from scaling.fits.parametric import fit_parametric
from scaling.laws import LAWS
from scaling.laws.additive import additive_starts
from scaling.laws.law import Law, log_sum, power_law_bounds, unstack
from scaling.runs import read_runs
from scaling.settings import Settings
from tests.scaling.ladder import simulate, write_runs

SHARED = {"A": 30.0, "B": 60.0, "E": 1.1, "alpha": 0.3}


def shared_exponent(theta, x):
    """L = E + A N^-α + B D^-α: constants A, B, E as in Hoffmann's law, but a single exponent."""
    a, b, e, alpha = unstack(theta)
    log_n, log_d = x["params"], x["tokens"]
    log_loss, (of_n, of_d, of_e) = log_sum(a - alpha * log_n, b - alpha * log_d, e)
    return log_loss, np.stack([of_n, of_d, of_e, -of_n * log_n - of_d * log_d], axis=1)


def experts(theta, x):
    """K N^p X^q for X experts."""
    k, p, q = unstack(theta)
    value = k + p * x["params"] + q * x["num_experts"]
    ones = np.ones_like(value)
    return value, np.stack([ones, ones * x["params"], ones * x["num_experts"]], axis=1)


def experts_starts(x, log_response):
    return np.array([[np.median(log_response), p, q] for p in (-0.1, 0.1) for q in (-0.1, 0.1)])


ONE_EXPONENT = Law(
    name="shared_exponent",
    formula="L = E + A N^-alpha + B D^-alpha",
    paper="a test",
    inputs=("params", "tokens"),
    coordinates=("log_A", "log_B", "log_E", "alpha"),
    function=shared_exponent,
    grid=lambda x, log_loss: np.unique(additive_starts(x, log_loss)[:, :4], axis=0),
    bounds=power_law_bounds("alpha"),
    exponents={"alpha": "params"},
    floor="E",
)
ACCURACY = Law(
    name="expert_accuracy",
    formula="accuracy = K N^p X^q",
    paper="a test",
    inputs=("params", "num_experts"),
    coordinates=("log_K", "p", "q"),
    function=experts,
    grid=experts_starts,
    response="accuracy",
    better="up",
)
LOSS = replace(
    ACCURACY, name="expert_loss", response="loss", better="down", formula="L = K N^p X^q"
)
# Hoffmann's law with other names for its constants.
RENAMED = replace(
    LAWS["parametric"],
    name="renamed",
    coordinates=("log_size", "log_length", "log_rest", "p", "q"),
    bounds=power_law_bounds("p", "q"),
    exponents={"p": "params", "q": "tokens"},
    floor="rest",
    split=("size", "length", "rest", "p", "q"),
)


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    for law in (ONE_EXPONENT, ACCURACY, LOSS, RENAMED):
        monkeypatch.setitem(LAWS, law.name, law)


@pytest.fixture
def accuracies(tmp_path):
    """A CSV of runs with columns run, params, num_experts, accuracy and note."""
    n, x = (v.ravel() for v in np.meshgrid(np.geomspace(1e6, 1e8, 6), [1, 2, 4, 8]))
    rows = [f"r{i},{a},{b},{0.1 * a**0.05 * b**0.1},some text"
            for i, (a, b) in enumerate(zip(n, x, strict=True))]  # fmt: skip
    path = tmp_path / "any.csv"
    path.write_text("run,params,num_experts,accuracy,note\n" + "\n".join(rows) + "\n")
    return path


def law_json(tmp_path, *flags):
    """Runs the verb `fit`, which also writes a report, and returns law.json."""
    pytest.importorskip("vl_convert")
    out = tmp_path / "law.json"
    flags = (*flags, "--draws=60", f"--json={out}", f"--out={tmp_path / 'report'}")
    assert main(["fit", *flags]) == 0
    return json.loads(out.read_text())


def page(tmp_path):
    text = (tmp_path / "report" / "index.html").read_text()
    return re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)


def test_a_law_of_any_columns_is_fitted_reported_and_held_out(tmp_path, accuracies, capsys):
    flags = (f"--table={accuracies}", "--law=expert_accuracy", "--holdout=r5")
    law = law_json(tmp_path, *flags)
    part = law["parametric"]
    assert part["response"] == "accuracy" and part["constants"] == ["K", "p", "q"]
    for name, value in {"K": 0.1, "p": 0.05, "q": 0.1}.items():
        assert part[name]["value"] == pytest.approx(value, rel=1e-4)
    held = law["holdout"]["runs"][0]
    assert held["predicted"]["value"] == pytest.approx(held["outcome"], rel=1e-4)
    assert held["num_experts"] == 1 and held["tokens"] is None
    assert "lacks tokens, flops, loss" in law["isoflop"]["reason"]
    assert law["points"]["range"] == {"params": [1e6, 1e8], "num_experts": [1, 8]}
    assert "no_floor_law" not in {w["code"] for w in law["warnings"]}
    assert "Predicted accuracy" in page(tmp_path) and "nan" not in page(tmp_path)
    assert (tmp_path / "report" / "figures" / "residuals.png").is_file()
    assert "accuracy = K N^p X^q" in capsys.readouterr().out
    again = read_csv(tmp_path / "report" / "points.csv", law=ACCURACY)
    assert again.other["accuracy"] == pytest.approx(
        read_csv(accuracies, law=ACCURACY).other["accuracy"], rel=0
    )


def test_the_same_inputs_with_the_loss_as_their_response(tmp_path, accuracies):
    table = tmp_path / "loss.csv"
    table.write_text(accuracies.read_text().replace("accuracy", "loss", 1))
    part = law_json(tmp_path, f"--table={table}", "--law=expert_loss")["parametric"]
    assert part["q"]["value"] == pytest.approx(0.1, rel=1e-4)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "lacks the columns tokens, loss: it has run, params, num_experts"),
        (["--law=expert_loss"], "lacks the columns loss"),
        (["--law=expert_accuracy", "--holdout=largest"], "needs the compute of every run"),
        (["--law=expert_accuracy", "--weights=loss_se"], "needs a positive accuracy_se"),
        (["--law=expert_accuracy", "--fix=E=1"], "no constant E to fix; use one of K, p, q"),
        (["--law=expert_accuracy", "--drop_worst=99"], "drop_worst=99 of 24"),
    ],
)
def test_what_such_a_table_cannot_carry_is_one_line(accuracies, capsys, flags, message):
    assert main(["fit", f"--table={accuracies}", *flags]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_the_worst_and_the_best_follow_the_direction_of_the_response(tmp_path, accuracies):
    law = law_json(tmp_path, f"--table={accuracies}", "--law=expert_accuracy", "--drop_worst=1")
    assert law["points"]["left_out"] == {"of lowest accuracy": 1}
    assert law["points"]["range"]["params"][0] == 1e6 and law["points"]["n"] == 23


def test_runs_give_a_law_its_columns_from_their_metrics(tmp_path):
    points = simulate(held_out=0)
    folder = write_runs(tmp_path / "runs", points, metrics={"accuracy": 0.5})
    law = replace(ACCURACY, inputs=("params", "learning_rate"))
    found = read_runs(folder, law)
    assert set(found.other) == {"accuracy", "learning_rate"} and (found.response(law) == 0.5).all()
    with pytest.raises(ValueError, match="has no num_experts, which law=expert_accuracy needs"):
        read_runs(folder, ACCURACY)


@pytest.fixture
def ladder(tmp_path):
    """A CSV whose loss follows the law with a single exponent."""
    points = simulate(held_out=0)
    a, b, e, alpha = SHARED.values()
    loss = e + a * points.params**-alpha + b * points.tokens**-alpha
    path = tmp_path / "ladder.csv"
    path.write_text(to_csv(replace(points, loss=loss)))
    return path


def test_constants_a_b_and_e_alone_are_not_taken_for_hoffmanns_law(tmp_path, ladder):
    law = law_json(tmp_path, f"--table={ladder}", "--law=shared_exponent")
    part = law["parametric"]
    for name, value in SHARED.items():
        assert part[name]["value"] == pytest.approx(value, rel=1e-3)
    assert law["optimum"] == [] and law["frontier"]["implied"] is None and "a" not in part
    assert "Irreducible loss E" in page(tmp_path)
    with pytest.raises(ValueError, match="plan needs the parametric law"):
        read_law(tmp_path / "law.json")
    points, settings = read_csv(ladder), Settings(law="shared_exponent", draws=20)
    ladders = [Ladder("a", points), Ladder("b", points)]
    with pytest.raises(ValueError, match="law=shared_exponent has no optimal split of compute"):
        compare(ladders, settings, method="parametric")


def test_predictions_are_by_any_law_of_the_loss_from_a_size(tmp_path, ladder, accuracies, capsys):
    size = ["--params=1e6", "--tokens=1e8"]
    own = ["--law=shared_exponent", "--draws=20"]
    assert main(["predict", f"--table={ladder}", *size, *own]) == 0
    assert "A 30, B 60, E 1.1, α 0.3" in capsys.readouterr().out
    argv = ["predict", f"--table={accuracies}", *size, "--law=expert_accuracy", "--draws=20"]
    assert main(argv) == 2
    assert "describes accuracy, but predictions are of the loss" in capsys.readouterr().err
    table = tmp_path / "loss.csv"
    table.write_text(accuracies.read_text().replace("accuracy", "loss", 1))
    points = read_csv(table, law=LOSS)
    with pytest.raises(ValueError, match="these points have no num_experts"):
        write_prediction(
            tmp_path / "p.json",
            points,
            {"params": 1e6, "tokens": 1e8},
            Settings(law="expert_loss", draws=20),
        )


def test_a_split_is_known_by_what_the_law_says_of_it(tmp_path):
    """Renaming the constants changes no number of the analysis."""
    points = simulate()
    one, other = (
        analyse(points, Settings(draws=60, law=name)) for name in ("parametric", "renamed")
    )
    names = dict(zip(RENAMED.split, LAWS["parametric"].split, strict=True))
    for own, usual in names.items():
        assert other["parametric"][own] == one["parametric"][usual]
    for key in ("optimum", "sensitivity", "frontier", "holdout"):
        assert other[key] == one[key]
    plans = []
    for place, law in ((tmp_path / "one", one), (tmp_path / "other" / "report", other)):
        place.mkdir(parents=True)
        (place / "law.json").write_text(json.dumps(law))
    for folder in (tmp_path / "one", tmp_path / "other"):
        plans.append(plan(read_law(folder), ("flops", 1e15))["run"])
    assert plans[0] == plans[1]
    with pytest.raises(FileNotFoundError, match=r"contains neither law\.json nor report/law.json"):
        read_law(tmp_path)


def test_a_law_whose_parts_do_not_fit_is_refused():
    with pytest.raises(ValueError, match="F is not one of its constants"):
        replace(ONE_EXPONENT, floor="F")
    with pytest.raises(ValueError, match="a split needs the response loss"):
        replace(RENAMED, response="accuracy")
    clash = replace(LAWS["parametric"], coordinates=("log_A", "log_n", "log_E", "alpha", "beta"),
                    split=None)  # fmt: skip
    LAWS["clash"] = clash
    try:
        with pytest.raises(ValueError, match=r"law\.json already has an entry n"):
            analyse(simulate(held_out=0), Settings(law="clash", draws=0))
    finally:
        del LAWS["clash"]


def test_held_out_points_are_refused_by_the_fit_itself():
    with pytest.raises(ValueError, match="held-out points are never fitted"):
        fit_parametric(simulate(), Settings(draws=0))
