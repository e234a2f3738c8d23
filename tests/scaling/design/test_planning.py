"""Tests plans against brute force, closed forms and published numbers."""

import json
from dataclasses import replace

import numpy as np
import pytest

from scaling.design.planning import (
    BUDGETS,
    at_flops,
    at_loss,
    at_params,
    at_tokens,
    over_trained,
    plan,
    read_law,
)
from scaling.fits.analysis import analyse
from scaling.laws import LAWS
from scaling.settings import Settings
from tests.scaling.ladder import TRUTH, best_params, simulate, true_loss

# Besiroglu et al. 2024, table 1.
EPOCH = {"A": 482.01, "B": 2085.43, "E": 1.8172, "alpha": 0.3478, "beta": 0.3658}
CHINCHILLA = 5.76e23


def law_of(constants, draws=None, **points):
    """A law.json with the given constants, as a dict."""
    value = {name: {"value": v, "lo": None, "hi": None} for name, v in constants.items()}
    return {
        "parametric": value
        | {
            "law": LAWS["parametric"].formula,
            "paper": "test",
            "spread": 0.004,
            "n": 100,
            "cloud": draws or {},
        },
        "isoflop": {"reason": "none", "minima": [{"flops": 1e20}, {"flops": 1e21}]},
        "points": {"n": 100, "sha256": "0", "source": "test"} | points,
        "settings": {"params": "total", "flops": "6nd", "level": 0.9},
    }


@pytest.fixture
def write(tmp_path):
    def writer(law):
        (tmp_path / "law.json").write_text(json.dumps(law))
        return read_law(tmp_path / "law.json")

    return writer


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """The law fitted to a simulated ladder, with its cloud."""
    path = tmp_path_factory.mktemp("plan") / "law.json"
    path.write_text(json.dumps(analyse(simulate(), Settings(draws=200))))
    return read_law(path)


def test_the_epoch_law_wants_about_twenty_tokens_a_parameter(write):
    """Besiroglu et al. 2024: about 20 at Chinchilla's compute; Hoffmann's approach 3 gives more."""
    best = plan(write(law_of(EPOCH)), ("flops", CHINCHILLA))["optimum"]
    g = (EPOCH["alpha"] * EPOCH["A"] / (EPOCH["beta"] * EPOCH["B"])) ** (
        1 / (EPOCH["alpha"] + EPOCH["beta"])
    )
    a = EPOCH["beta"] / (EPOCH["alpha"] + EPOCH["beta"])
    n = g * (CHINCHILLA / 6) ** a
    assert best["params"]["value"] == pytest.approx(n, rel=1e-9)
    assert best["tokens_per_param"]["value"] == pytest.approx(CHINCHILLA / 6 / n**2, rel=1e-9)
    assert 17 < best["tokens_per_param"]["value"] < 24
    hoffmann = {"A": 406.4, "B": 410.7, "E": 1.6934, "alpha": 0.3392, "beta": 0.2849}
    other = plan(write(law_of(hoffmann)), ("flops", CHINCHILLA))["optimum"]
    assert other["tokens_per_param"]["value"] > 50


def test_the_optimum_beats_every_other_size(write):
    law = write(law_of(TRUTH))
    n, _ = at_flops(law, 1e13)
    sizes = n[0] * np.geomspace(0.3, 3, 4001)
    losses = true_loss(sizes, 1e13 / 6 / sizes)
    assert n[0] == pytest.approx(sizes[losses.argmin()], rel=1e-3)
    assert n[0] == pytest.approx(best_params(1e13), rel=1e-9)


def test_every_budget_gives_the_same_optimum(write):
    law = write(law_of(TRUTH))
    n, d = at_flops(law, 1e13)
    loss = float(true_loss(n[0], d[0]))
    for other in (at_tokens(law, d[0]), at_params(law, n[0]), at_loss(law, loss)):
        assert other[0][0] == pytest.approx(n[0], rel=1e-9)
        assert other[1][0] == pytest.approx(d[0], rel=1e-9)


@pytest.mark.parametrize("inference_tokens", [1e7, 1e9, 1e12])
def test_the_over_trained_model_is_the_cheapest_by_brute_force(write, inference_tokens):
    law, loss = write(law_of(TRUTH)), 2.0
    n, d = over_trained(law, loss, inference_tokens)
    assert float(true_loss(n[0], d[0])) == pytest.approx(loss, rel=1e-9)

    def cost(sizes):
        left = loss - TRUTH["E"] - TRUTH["A"] * sizes ** -TRUTH["alpha"]
        length = (TRUTH["B"] / left) ** (1 / TRUTH["beta"])
        return 6 * sizes * length + 2 * sizes * inference_tokens

    smallest = (TRUTH["A"] / (loss - TRUTH["E"])) ** (1 / TRUTH["alpha"])
    sizes = smallest * np.geomspace(1 + 1e-6, 30, 400_000)
    assert n[0] == pytest.approx(sizes[cost(sizes).argmin()], rel=1e-3)
    assert cost(n[0]) <= cost(sizes).min() * (1 + 1e-9)
    # Negative control: the compute-optimal model differs and costs more.
    plain = at_loss(law, loss)[0][0]
    assert n[0] < plain and cost(plain) > cost(n[0])


def test_without_use_the_cheapest_is_compute_optimal(write):
    law = write(law_of(TRUTH))
    assert over_trained(law, 2.0, 1e-3)[0][0] == pytest.approx(at_loss(law, 2.0)[0][0], rel=1e-6)


def test_intervals_come_from_the_draws(fitted, write):
    best = plan(fitted, ("flops", 3e13))["optimum"]
    for name, truth in (("params", best_params(3e13)), ("tokens", 3e13 / 6 / best_params(3e13))):
        assert best[name]["lo"] < best[name]["value"] < best[name]["hi"]
        assert best[name]["lo"] < truth < best[name]["hi"]
    assert best["loss"]["lo"] < true_loss(best_params(3e13), 5e12 / best_params(3e13))
    bare = plan(write(law_of(TRUTH)), ("flops", 3e13))["optimum"]
    assert bare["params"]["lo"] is None and bare["loss"]["hi"] is None


def test_the_loss_interval_holds_a_runs_noise(fitted):
    wide = plan(fitted, ("flops", 1e13))["optimum"]["loss"]
    quiet = plan(replace(fitted, spread=0.0), ("flops", 1e13))["optimum"]["loss"]
    assert wide["hi"] - wide["lo"] > 1.5 * (quiet["hi"] - quiet["lo"])


def test_both_approaches_are_there(fitted):
    planned = plan(fitted, ("flops", 1e13))
    other = planned["second_opinion"]
    assert other["params"]["lo"] < other["params"]["value"] < other["params"]["hi"]
    ratio = other["params"]["value"] / planned["optimum"]["params"]["value"]
    assert 0.5 < ratio < 2


def test_other_sizes_cost_more(fitted):
    rows = plan(fitted, ("flops", 1e13))["around"]
    losses, costs = ([row[key] for row in rows] for key in ("loss", "compute_for_same_loss"))
    assert losses.index(min(losses)) == 2
    assert costs[2] == pytest.approx(1) and all(c is None or c > 1 for c in costs[:2] + costs[3:])


@pytest.mark.parametrize(("flops", "far"), [(9e21, False), (1.1e22, True)])
def test_far_extrapolation_is_labelled(write, flops, far):
    warnings = plan(write(law_of(EPOCH)), ("flops", flops))["warnings"]
    assert any("EXTRAPOLATION" in text for text in warnings) == far


def test_the_fitted_range_of_law_json_counts(write):
    reach = {"flops": [1e18, 1e23], "tokens_per_param": [1, 50]}
    law = write(law_of(EPOCH, range=reach))
    assert plan(law, ("flops", 9e23))["warnings"] == []
    planned = plan(law, ("flops", 1e22), inference_tokens=1e15)
    assert any("tokens per parameter" in text for text in planned["warnings"])


def test_draws_that_never_reach_the_loss_are_counted(write):
    draws = {name: [value] * 4 for name, value in TRUTH.items()} | {"E": [0.9, 0.9, 0.9, 1.99]}
    planned = plan(write(law_of(TRUTH, draws)), ("loss", 1.98), inference_tokens=1e9)
    assert planned["inference"]["draws_that_reach_it"] == 0.75
    assert np.isfinite(planned["inference"]["params"]["hi"])


@pytest.mark.parametrize(
    ("budget", "more", "message"),
    [
        (("loss", 0.8), {}, "not above the law's irreducible loss E = 0.9"),
        (("flops", -1.0), {}, "flops=-1 must be positive"),
        (("flops", float("nan")), {}, "flops=nan must be positive"),
        (("flops", 1e13), {"inference_tokens": -1.0}, "inference_tokens=-1"),
        (("flops", 1e13), {"inference_tokens": 1e9, "loss": 0.5}, "loss=0.5 is not above"),
    ],
)
def test_what_cannot_be_planned_says_why(write, budget, more, message):
    with pytest.raises(ValueError, match=message):
        plan(write(law_of(TRUTH)), budget, **more)


def test_a_file_without_a_law_says_so(tmp_path, write):
    with pytest.raises(FileNotFoundError, match="isoflop fit --json="):
        read_law(tmp_path / "none.json")
    with pytest.raises(ValueError, match="has no parametric law to plan with: too few"):
        write(law_of(TRUTH) | {"parametric": {"reason": "too few"}})
    other = law_of(TRUTH)
    other["parametric"]["law"] = LAWS["over_training"].formula
    with pytest.raises(ValueError, match="plan needs the parametric law"):
        write(other)
    for text in ("{", "[]", "{}"):
        (tmp_path / "law.json").write_text(text)
        with pytest.raises(ValueError, match=r"is not a law\.json"):
            read_law(tmp_path / "law.json")


def test_budgets_are_all_named():
    assert set(BUDGETS) == {"flops", "tokens", "params", "loss"}
