"""Tests of the laws of repeated sampling and of reward over-optimisation, on planted constants."""

import json

import numpy as np
import pytest

from launch.__main__ import main
from scaling.csv_file import read_csv
from scaling.fits.robust_fit import bootstrap, fit
from scaling.laws import LAWS
from scaling.laws.over_optimisation import BEST_OF_N, RL
from scaling.report.wording import methods

A, B = -1.8, -0.35
ALPHA, BETA = 0.9, 0.12
EXACT = {"alpha": ALPHA, "beta": BETA}
K = np.unique(np.round(np.geomspace(1, 1000, 14)))
KL = np.geomspace(0.05, 60, 16)
TRUE = {
    BEST_OF_N.name: lambda d: d * (ALPHA - BETA * d),
    RL.name: lambda d: d * (ALPHA - BETA * np.log(d)),
}


def table(path, columns):
    rows = zip(*columns.values(), strict=True)
    lines = [",".join(columns), *(",".join(map(repr, map(float, row))) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


def fitted(tmp_path, law, columns, *flags):
    out = tmp_path / "law.json"
    source = table(tmp_path / "t.csv", columns)
    assert main(["fit", f"--table={source}", f"--law={law}", f"--json={out}", *flags]) == 0
    return json.loads(out.read_text())["parametric"]


def test_pass_at_k_is_recovered_from_a_table(tmp_path, capsys):
    part = fitted(tmp_path, "pass_at_k", {"k": K, "pass_at_k": np.exp(A * K**B)}, "--draws=20")
    assert (part["a"]["value"], part["b"]["value"]) == pytest.approx((A, B), rel=1e-6)
    assert "pass@k = exp(a k^b)" in capsys.readouterr().out and part["linear"] is False


def test_a_loss_against_examples_is_recovered_from_a_table(tmp_path, capsys):
    loss = 0.2 + 6.0 * K[3:] ** -0.6
    part = fitted(tmp_path, "examples_only", {"examples": K[3:], "loss": loss}, "--draws=20")
    found = {name: part[name]["value"] for name in "KE"} | {"gamma": part["gamma"]["value"]}
    assert found == pytest.approx({"K": 6.0, "E": 0.2, "gamma": 0.6}, rel=1e-5)
    source = table(tmp_path / "t.csv", {"tokens": K, "loss": K})
    assert main(["fit", f"--table={source}", "--law=examples_only"]) == 2
    assert "lacks the columns examples" in capsys.readouterr().err


@pytest.mark.parametrize("law", [BEST_OF_N, RL], ids=lambda law: law.name)
def test_a_reward_that_falls_below_zero_is_fitted(tmp_path, law, capsys):
    reward = TRUE[law.name](np.sqrt(KL))
    rest = TRUE[law.name](np.sqrt(200.0))
    columns = {"kl": [*KL, 200.0], "gold_reward": [*reward, rest]}
    if law is BEST_OF_N:
        assert rest < 0
    part = fitted(tmp_path, law.name, columns, "--draws=20", "--holdout=row-18")
    assert (part["alpha"]["value"], part["beta"]["value"]) == pytest.approx((ALPHA, BETA), rel=1e-6)
    about = json.loads((tmp_path / "law.json").read_text())["holdout"]["runs"][0]
    assert about["predicted"]["value"] == pytest.approx(rest, rel=1e-5)
    assert law.formula.replace("alpha", "α").replace("beta", "β") in capsys.readouterr().out


@pytest.mark.parametrize("law", [BEST_OF_N, RL], ids=lambda law: law.name)
def test_the_other_form_fits_worse(law):
    noise = np.random.default_rng(0).normal(0, 0.02, len(KL))
    reward = TRUE[law.name](np.sqrt(KL)) + noise
    other = RL if law is BEST_OF_N else BEST_OF_N
    own, wrong = (fit(one, {"kl": KL}, reward, "squares").residuals.std() for one in (law, other))
    assert own < 0.03 and wrong > 2 * own


def test_the_intervals_cover_the_planted_constants():
    """90 % intervals of both kinds of law: at least 80 % of 2 x 2 x 25 hold their constant."""
    rng, inside = np.random.default_rng(3), []
    for _ in range(25):
        for name, inputs, true, truth, noise in (
            ("pass_at_k", {"k": K}, np.exp(A * K**B), {"a": A, "b": B}, 0.02),
            (BEST_OF_N.name, {"kl": KL}, TRUE[BEST_OF_N.name](np.sqrt(KL)), EXACT, 0.05),
        ):
            law = LAWS[name]
            noisy = law.unscaled(law.scaled(true) + noise * rng.normal(size=len(true)))
            found = fit(law, inputs, noisy, "squares")
            draws = bootstrap(found, np.arange(len(true)), 200, resampling="residuals")
            for constant, values in law.constants(draws).items():
                low, high = np.percentile(values, [5, 95])
                inside.append(low <= truth[constant] <= high)
    assert 0.8 <= np.mean(inside) <= 0.98


def test_only_the_response_of_a_linear_law_may_be_negative(tmp_path, capsys):
    source = table(tmp_path / "t.csv", {"kl": KL, "gold_reward": -KL})
    assert (read_csv(source, law=BEST_OF_N).response(BEST_OF_N) < 0).all()
    source = table(tmp_path / "t.csv", {"kl": -KL, "gold_reward": KL})
    assert main(["fit", f"--table={source}", f"--law={RL.name}"]) == 2
    assert "kl must be positive" in capsys.readouterr().err
    source = table(tmp_path / "t.csv", {"k": K, "pass_at_k": np.where(K < 2, 0.0, 0.5)})
    assert main(["fit", f"--table={source}", "--law=pass_at_k"]) == 2
    assert "pass_at_k must be positive and finite, but is 0" in capsys.readouterr().err
    source = table(tmp_path / "t.csv", {"kl": KL, "gold_reward": np.where(KL < 1, np.inf, 1.0)})
    assert main(["fit", f"--table={source}", f"--law={RL.name}"]) == 2
    assert "gold_reward must be a finite number" in capsys.readouterr().err


def test_weights_by_standard_errors_of_a_reward(tmp_path):
    """Two points lie far off the law with large errors; weights let the others decide."""
    reward = TRUE[RL.name](np.sqrt(KL))
    reward[[3, 9]] += 0.5
    errors = np.where(np.isin(np.arange(len(KL)), [3, 9]), 10.0, 0.01)
    columns = {"kl": KL, "gold_reward": reward, "gold_reward_se": errors}
    flags = ("--objective=squares", "--draws=0")
    weighted = fitted(tmp_path, RL.name, columns, *flags, "--weights=loss_se")
    plain = fitted(tmp_path, RL.name, columns, *flags)
    assert weighted["alpha"]["value"] == pytest.approx(ALPHA, abs=1e-4)
    assert abs(plain["alpha"]["value"] - ALPHA) > 1e-2


def test_the_report_of_a_linear_law_has_differences(tmp_path):
    figures = pytest.importorskip("scaling.report.law_figures")
    reward = TRUE[RL.name](np.sqrt(KL)) + np.random.default_rng(0).normal(0, 0.03, len(KL))
    fitted(tmp_path, RL.name, {"kl": KL, "gold_reward": reward}, "--draws=0")
    law = json.loads((tmp_path / "law.json").read_text())
    figure = figures.residuals(read_csv(tmp_path / "t.csv", law=RL), law)
    assert "Measured minus law" in figure.chart.to_json() and "%" not in figure.caption
    assert "of the gold_reward with analytic" in methods(law)
