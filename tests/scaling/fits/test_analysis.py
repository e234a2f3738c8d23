"""Tests the whole analysis: law.json, coverage of intervals, predictions, errors, warnings."""

import json
from dataclasses import replace

import numpy as np
import pytest

from scaling.fits.analysis import analyse
from scaling.fits.parametric import fit_parametric
from scaling.fits.warnings import critical_batch
from scaling.laws import LAWS
from scaling.runs import read_runs
from scaling.settings import Settings
from scaling.table import ARRAYS, fitted_rows
from tests.scaling.ladder import TRUTH, best_params, simulate, true_loss, write_runs

QUICK = Settings(draws=40)  # too few for the slow intervals of the sensitivity table


def kept(points):
    return fitted_rows(points, LAWS["parametric"])


def is_value(v):
    return set(v) == {"value", "lo", "hi"}


@pytest.fixture(scope="module")
def law(tmp_path_factory):
    folder = write_runs(tmp_path_factory.mktemp("ladder") / "runs", simulate())
    return analyse(read_runs(folder), QUICK)


def test_law_json_holds_the_contract(law):
    for part, names in {
        "parametric": ("A", "B", "E", "alpha", "beta", "a", "b", "gamma"),
        "isoflop": ("a", "b"),
        "frontier": ("E", "K", "gamma"),
    }.items():
        for name in names:
            v = law[part][name]
            assert is_value(v)
            assert v["lo"] < v["value"] < v["hi"]
    assert isinstance(law["parametric"]["objective"], float)
    assert len(law["isoflop"]["minima"]) == 3
    assert law["points"]["n"] == 18 and len(law["points"]["sha256"]) == 64
    assert {w["code"] for w in law["warnings"]} >= {"warmup_params", "freedom"}
    assert all(w["threshold"] and w["source"] for w in law["warnings"])
    assert json.loads(json.dumps(law, allow_nan=False)) == law


def test_the_implied_frontier_is_the_law_along_its_optima():
    exact = analyse(simulate(noise=0), Settings(draws=0))["frontier"]["implied"]
    e, k, gamma = (exact[name]["value"] for name in ("E", "K", "gamma"))
    n = best_params(1e15)
    assert e + k * 1e15**-gamma == pytest.approx(true_loss(n, 1e15 / 6 / n), rel=1e-4)


def test_the_held_out_run_is_never_fitted():
    points = simulate()
    wrong = replace(points, loss=points.loss * np.where(points.holdout, 2.0, 1.0))
    fitted, other = (analyse(p, QUICK) for p in (points, wrong))
    assert fitted["parametric"] == other["parametric"]
    assert fitted["points"]["sha256"] == other["points"]["sha256"]
    assert other["holdout"]["runs"][0]["error"] > 0.9 and not other["holdout"]["runs"][0]["inside"]
    seen = analyse(replace(wrong, holdout=np.zeros(len(wrong), bool)), QUICK)
    assert seen["parametric"]["E"] != fitted["parametric"]["E"]


def coverage(repetitions, budgets, sizes, span, draws=200):
    """Shares of simulated ladders whose 90 % intervals hold the truth and the outcome."""
    hits = dict.fromkeys(("E", "alpha", "beta", "outcome"), 0)
    for seed in range(repetitions):
        points = simulate(0.004, 1000 + seed, budgets, sizes, span)
        found = fit_parametric(kept(points), Settings(draws=draws, seed=seed))
        drawn = found.fitted.law.constants(found.draws)
        for name in ("E", "alpha", "beta"):
            low, high = np.percentile(drawn[name], [5, 95])
            hits[name] += low <= TRUTH[name] <= high
        v = found.predict({"params": points.params[-1], "tokens": points.tokens[-1]}, seed)
        hits["outcome"] += v["lo"] <= points.loss[-1] <= v["hi"]
    return {name: count / repetitions for name, count in hits.items()}


@pytest.mark.slow
def test_intervals_of_a_small_ladder_are_honest():
    """18 runs and one held out. With a true rate of .9, 99 % of rates are in [.82, .97]."""
    rates = coverage(100, (1e12, 3e12, 1e13), 6, 4.0, draws=100)
    assert all(0.82 <= rate <= 0.97 for rate in rates.values()), rates


@pytest.mark.slow
@pytest.mark.parametrize(
    ("budgets", "sizes", "span"),
    [
        ((1e12, 3e12, 1e13, 3e13), 7, 4.0),
        ((1e12, 3e12, 1e13, 3e13), 5, 3.0),
        ((1e12, 3e12, 1e13), 5, 3.0),
    ],
)
def test_intervals_over_200_ladders(budgets, sizes, span):
    rates = coverage(200, budgets, sizes, span, draws=400)
    assert all(0.85 <= rate <= 0.95 for rate in rates.values()), rates


@pytest.mark.slow
def test_an_interval_without_the_noise_of_a_run_would_not_be_honest():
    """Negative control: the uncertainty of the law alone misses far too many outcomes."""
    inside = 0
    for seed in range(60):
        points = simulate(0.004, 1000 + seed)
        found = fit_parametric(kept(points), Settings(draws=75, seed=seed))
        row = points.select(points.holdout)
        low, high = np.percentile(found.fitted.law.loss(found.draws, row.columns()), [5, 95])
        inside += low <= row.loss[0] <= high
    assert inside / 60 < 0.82


def test_predict_is_the_parametric_law():
    v = fit_parametric(kept(simulate()), QUICK).predict({"params": 1e5, "tokens": 1e8})
    assert is_value(v) and v["lo"] < v["value"] < v["hi"]
    assert v["value"] == pytest.approx(true_loss(1e5, 1e8), rel=0.01)


def test_what_cannot_be_fitted_says_why():
    few = analyse(simulate(budgets=(1e12,), sizes=4, held_out=0), QUICK)
    assert few["parametric"]["E"] == {"value": None, "lo": None, "hi": None}
    assert "4 points are too few for 5 constants" in few["parametric"]["reason"]
    assert few["isoflop"]["a"]["value"] is None and "3 are needed" in few["isoflop"]["reason"]
    assert few["frontier"]["E"]["value"] is None and "3 are needed" in few["frontier"]["reason"]
    assert "few_budgets" in {w["code"] for w in few["warnings"]}


def test_no_power_law_no_constants():
    """The loss hardly depends on the size, so alpha diverges."""
    points = simulate(noise=0, sizes=4, held_out=0)
    flat = 1.2 + 400 * points.tokens**-0.37 + (points.params < 1.05 * points.params.min()) * 0.05
    law = analyse(replace(points, loss=flat), QUICK)
    assert law["parametric"]["alpha"]["value"] is None
    assert "no power law in size" in law["parametric"]["reason"]


@pytest.mark.parametrize("name", ["params", "tokens"])
def test_an_exponent_takes_three_values_of_its_input(name):
    """Two sizes cannot determine alpha, which would stay where the search began."""
    points = simulate(sizes=6, held_out=0)
    values = getattr(points, name)
    for count in (2, 3):
        steps = np.geomspace(values.min(), values.max(), count)
        few = replace(points, **{name: steps[np.arange(len(points)) % count]})
        few = replace(few, loss=true_loss(few.params, few.tokens))
        part = analyse(few, QUICK)["parametric"]
        assert (part.get("reason") is None) == (count == 3)
        if count == 2:
            assert f"at least 3 different {name}, but these 18 runs have 2" in part["reason"]


def test_repeated_data_is_refused(tmp_path):
    folder = write_runs(tmp_path / "runs", simulate(), epochs_of_data=6.0)
    law = analyse(read_runs(folder), QUICK)
    assert "more than 4 times" in law["parametric"]["reason"]
    assert law["holdout"]["runs"] == []


def test_conventions_move_the_exponent(law):
    by = {
        (row["params"], row["flops"]): row["parametric"]["a"]["value"] for row in law["conventions"]
    }
    assert set(by) == {
        (n, c)
        for n in ("total", "non_embedding", "with_head")
        for c in ("6nd", "kaplan", "chinchilla", "palm")
    }
    assert abs(by["total", "6nd"] - by["non_embedding", "6nd"]) > 0.005


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        ("warmup_share", {"warmup_steps": 400, "steps": 1000, "total_steps": 1000}),
        ("schedule_end", {"warmup_steps": 1, "steps": 1000, "total_steps": 2000}),
        ("epochs", {"epochs_of_data": 2.0}),
        ("critical_batch", {"batch": 4_000_000.0}),
        ("guessing", {"vocab_size": 8.0}),
    ],
)
def test_warnings_follow_the_facts(tmp_path, law, code, changes):
    points = simulate()
    usual = {"warmup_steps": 1, "steps": 1000, "total_steps": 1000, "epochs_of_data": 0.5}
    good, bad = (
        {
            w["code"]
            for w in analyse(replace(points, facts=(facts,) * len(points)), QUICK)["warnings"]
        }
        for facts in (usual, usual | changes)
    )
    assert code in bad and code not in good


def test_the_critical_batch_is_kaplans_and_converts_by_bytes():
    """2e8 L^(-1/.21) for their tokens; the loss of a byte-level model is converted to them."""
    points = simulate(held_out=0)
    assert critical_batch(points) == pytest.approx(2e8 * points.loss ** (-1 / 0.21))
    nats_a_byte = {"bits_per_byte": 1.2 / np.log(2)}
    bytes_ = replace(points, loss=np.full(len(points), 1.2), facts=(nats_a_byte,) * len(points))
    per_token = 96 / 22.9
    expected = 2e8 * (1.2 * per_token) ** (-1 / 0.21) * per_token
    assert critical_batch(bytes_) == pytest.approx(expected)


GOOD = simulate(0.002, held_out=0, budgets=(1e11, 1e12, 1e13, 1e14))


def codes(points):
    return {w["code"]: w["message"] for w in analyse(points, QUICK)["warnings"]}


@pytest.fixture(scope="module")
def unwarned():
    return codes(GOOD)


def tied(points):
    """Points with components: half of every model is a tied embedding."""
    half = {"embedding": points.params / 2, "mlp": points.params / 2}
    return replace(points, components=half)


SPREAD = np.tile([1.0, 1.06], 12)
WARNED = {
    "logits": tied,
    "edge": lambda p: p.select((np.arange(len(p)) % 6 > 1) | (p.flops < 5e13)),
    "uneven_budgets": lambda p: replace(p, tokens=p.tokens * SPREAD, flops=p.flops * SPREAD),
    "evaluation_noise": lambda p: replace(p, loss_se=0.3 * p.loss),
    "left_out": lambda p: replace(p, left_out={"failed": 2}),
    "extrapolation": lambda p: replace(p, holdout=p.flops > 2e12),
    "floor": lambda p: replace(p, loss=p.loss - TRUTH["E"]),
}


@pytest.mark.parametrize("code", WARNED)
def test_warnings_follow_the_points(code, unwarned):
    assert code not in unwarned and code in codes(WARNED[code](GOOD))


def test_too_few_sizes_in_a_budget_are_named_beside_good_budgets():
    thin = GOOD.select((GOOD.flops < 5e13) | (np.arange(len(GOOD)) % 2 == 0))
    message = codes(thin)["edge"]
    assert message.startswith("1 budgets left out: C = 1e+14: 3 sizes; a minimum needs at least 4")


def test_a_frontier_through_three_minima_is_doubted_and_its_floor_has_no_absurd_bound():
    law = analyse(simulate(seed=1, held_out=0), QUICK)
    messages = {w["code"]: w["message"] for w in law["warnings"]}
    assert "it fits them exactly" in messages["freedom"]
    e = law["frontier"]["E"]
    assert e["lo"] == 0 and "E in [0, " in messages["frontier_floor"]
    wide = simulate(0.001, budgets=tuple(np.geomspace(1e11, 1e16, 7)), held_out=0)
    assert not codes(wide).keys() & {"freedom", "frontier_floor"}


def test_every_other_analysis_has_an_interval_that_holds_its_value():
    law = analyse(simulate(held_out=0), Settings(draws=100))
    rows = [row for row in law["sensitivity"] if row["group"] in ("objective", "outliers")]
    assert len(rows) == 8
    for row in rows:
        assert all(row[k]["lo"] < row[k]["value"] < row[k]["hi"] for k in ("E", "alpha", "a"))
    chosen = next(row for row in rows if row["label"] == "Huber, δ = 1e-3")
    assert chosen["a"] == law["parametric"]["a"]


def test_equal_losses_are_no_law():
    points = simulate(held_out=0)
    part = analyse(replace(points, loss=np.full(len(points), 3.0)), QUICK)["parametric"]
    assert "all 18 losses are 3; check the column" in part["reason"]


@pytest.mark.parametrize(
    ("rates", "warned"), [((1e-3, 2e-3, 4e-3), True), ((4e-3, 1e-3, 2e-3), False)]
)
def test_a_best_learning_rate_at_the_edge_is_named(rates, warned):
    """Three rates at every size; the last has the lowest loss."""
    one = simulate(held_out=0)
    three = replace(one, **{name: np.repeat(getattr(one, name), 3) for name in ARRAYS})
    lower = np.tile([1.02, 1.01, 1.0], len(one))
    points = replace(
        three,
        run=np.array([f"r{i}" for i in range(len(three))]),
        loss=three.loss * lower,
        facts=tuple({"learning_rate": rate} for rate in rates * len(one)),
    )
    law = analyse(points, QUICK)
    found = [w for w in law["warnings"] if w["code"] == "learning_rate_edge"]
    assert bool(found) == warned
    assert not warned or "highest tried (0.004) at 18 sizes" in found[0]["message"]
    assert law["points"]["n"] == 18 and law["points"]["untuned"] == 36
    alone = analyse(one, QUICK)["parametric"]
    assert law["parametric"]["E"]["value"] == pytest.approx(alone["E"]["value"], rel=1e-9)


def test_seeds_of_one_learning_rate_all_count():
    """Negative control: runs that differ only in their seed are repetitions, not a search."""
    one = simulate(held_out=0)
    two = replace(one, **{name: np.repeat(getattr(one, name), 2) for name in ARRAYS})
    points = replace(
        two,
        run=np.array([f"r{i}" for i in range(len(two))]),
        facts=tuple({"learning_rate": 1e-3, "seed": i % 2} for i in range(len(two))),
    )
    law = analyse(points, QUICK)
    assert (law["points"]["n"], law["points"]["untuned"]) == (36, 0)


def test_a_biased_grid_and_decaying_curves_are_named(law):
    """The ladder has decaying curves but no biased grid; a wide, lopsided grid is biased."""
    assert {w["code"] for w in law["warnings"]} >= {"envelope_schedule"}
    assert "grid_bias" not in {w["code"] for w in law["warnings"]}
    base = simulate(0.001, sizes=11, span=30, held_out=0)
    n = base.params * 0.1
    wide = replace(base, params=n, tokens=base.flops / 6 / n)
    wide = replace(wide, loss=true_loss(wide.params, wide.tokens))
    found = analyse(wide, replace(QUICK, window=11))
    assert max(found["isoflop"]["grid_bias"]["params"]) > 0.2
    assert "grid_bias" in {w["code"] for w in found["warnings"]}


def test_the_optimum_is_the_laws_with_intervals_that_widen():
    rows = analyse(simulate(), QUICK)["optimum"]
    for row in rows:
        n = best_params(row["flops"])
        assert row["params"]["value"] == pytest.approx(n, rel=0.25)
        assert row["tokens_per_param"]["value"] == pytest.approx(
            row["tokens"]["value"] / row["params"]["value"]
        )
    wide = [np.log(row["loss"]["hi"] / row["loss"]["lo"]) for row in rows]
    assert wide[0] < wide[1] < wide[2]


def test_far_predictions_are_labelled():
    near, far = (analyse(simulate(held_out=k), QUICK)["holdout"]["runs"][0] for k in (3.0, 30.0))
    assert (near["extrapolated"], far["extrapolated"]) == (False, True)
    assert far["extrapolation"] == pytest.approx(30, rel=0.01)


def test_collinear_designs_are_named():
    points = simulate(sizes=1, span=1, budgets=tuple(np.geomspace(1e12, 1e14, 12)), held_out=0)
    codes = {w["code"] for w in analyse(points, QUICK)["warnings"]}
    assert "collinear" in codes
    assert "collinear" not in {w["code"] for w in analyse(simulate(), QUICK)["warnings"]}
