"""Tests of what each key does, and of which keys are mixed up."""

from itertools import product

import numpy as np
import pytest
from scipy.stats import f

from scaling.ranking.confounding import confounding
from scaling.ranking.marginal_effects import additive_model, effects
from tests.scaling.ranking.simulated import compared

RATE, WIDTH = "optimizer.learning_rate", "model.d_model"


def crossed(seeds, noise, rates=(1, 2, 4, 8)):
    """A grid of rates and widths with an effect of the width alone."""
    random = np.random.default_rng(1)
    rows = []
    for rate, width, seed in product(rates, (32, 64), range(seeds)):
        loss = 2 - 0.1 * (width == 64) + noise * random.normal()
        rows.append(({RATE: rate, WIDTH: width, "seed": seed}, loss))
    return compared(rows)


@pytest.mark.parametrize("seeds", [1, 2])
def test_a_grid_shows_plain_means_and_the_key_that_matters(seeds):
    found, keys = crossed(seeds, 0.01)
    rows = {row["key"]: row for row in effects(additive_model(found, keys), 0.95)}
    for place, width in enumerate((32, 64)):
        shown = rows[WIDTH]["marginal"][place]
        plain = np.mean([one.mean for one in found if one.values[WIDTH] == width])
        assert shown["mean"] == pytest.approx(plain) and shown["n"] == 4
        assert shown["lo"] < 2 - 0.1 * (width == 64) < shown["hi"]
    assert rows[WIDTH]["p"] < 0.01 and rows[RATE]["p"] > 0.2


def test_two_way_analysis_of_variance_known_value():
    """The F test of a replicated grid is that of the textbook: against the variance of seeds."""
    found, keys = crossed(5, 0.1)
    model = additive_model(found, keys)
    sums = np.array([one.measured for one in found]).reshape(4, 2, 5)
    seeds = sums - sums.mean(axis=(0, 1)) + sums.mean() - sums.mean(axis=2, keepdims=True)
    error = (seeds**2).sum() / 28  # 4 x 2 cells less one, times 5 seeds less one
    widths = 20 * ((sums.mean(axis=(0, 2)) - sums.mean()) ** 2).sum()
    assert model.p_value(1) == pytest.approx(f.sf(widths / error, 1, 28), rel=0.05)


def borrowed(share):
    """30 configurations: the rate does nothing; of those with rate 2, `share` are wide."""
    random = np.random.default_rng(1)
    rows = []
    for number in range(30):
        good = number % 3 == 0
        wide = random.random() < (share if good else 1 - share)
        key = {RATE: 2 if good else 1, WIDTH: 64 if wide else 32, "model.dropout": number}
        rows.append((key, 2 - 0.3 * wide + 0.01 * random.normal()))
    return compared(rows)


def test_an_effect_is_adjusted_for_another_keys_and_the_confounding_is_said():
    found, keys = borrowed(0.8)
    model = additive_model(found, keys)
    raw = [model.y[model.factors[0].level == g].mean() for g in range(2)]
    assert raw[0] - raw[1] > 0.1  # rate 2 looks better by far
    rows = {row["key"]: row for row in effects(model, 0.95)}
    adjusted = [row["mean"] for row in rows[RATE]["marginal"]]
    assert abs(adjusted[0] - adjusted[1]) < 0.02 and rows[RATE]["p"] > 0.05
    texts = [entry["text"] for entry in confounding(model, 1.0) if entry["keys"] == [RATE, WIDTH]]
    assert any("also differ in d_model (64 there, 32 in the rest)" in text for text in texts)


def test_a_balanced_grid_is_not_confounded():
    found, keys = crossed(1, 0.01)
    assert confounding(additive_model(found, keys), 1.0) == []


def test_keys_that_always_move_together_are_told_so():
    rows = [({RATE: rate, "model.n_layers": n, WIDTH: 16 * n}, 2.0 + n + rate)
            for rate in (1, 2) for n in (2, 3, 4)]  # fmt: skip
    found, keys = compared(rows)
    model = additive_model(found, keys)
    shown = {row["key"]: row for row in effects(model, 0.95)}
    assert shown["model.n_layers"]["p"] == shown[WIDTH]["p"] == 0.0 and shown[RATE]["p"] == 0.0
    assert "moves with model.d_model" in shown["model.n_layers"]["note"]
    assert [row["value"] for row in shown[WIDTH]["marginal"]] == [32, 48, 64]
    (entry,) = confounding(model, 1.0)
    assert entry["text"].startswith("n_layers and d_model always move together")


def test_a_key_of_many_values_is_a_parabola_and_finds_an_optimum_inside():
    random = np.random.default_rng(0)
    rows = []
    for _ in range(24):
        rate, other = np.exp(random.uniform(-6, 0)), random.random()
        rows.append(({RATE: rate, "optimizer.b2": other}, 2 + 0.1 * (np.log(rate) + 3) ** 2))
    found, keys = compared(rows)
    shown = {row["key"]: row for row in effects(additive_model(found, keys), 0.95)}
    assert shown[RATE]["p"] < 1e-6 and shown["optimizer.b2"]["p"] == 1.0
    means = [row["mean"] for row in shown[RATE]["marginal"]]
    values = [row["value"] for row in shown[RATE]["marginal"]]
    assert "parabola in the logarithm" in shown[RATE]["note"]
    assert means == pytest.approx(2 + 0.1 * (np.log(values) + 3) ** 2)
    # Text that differs in nearly every trial groups nothing.
    named = [(settings | {"model.note": f"n{i}"}, loss) for i, (settings, loss) in enumerate(rows)]
    found, keys = compared(named)
    assert {f.key.name for f in additive_model(found, keys).factors} == {"learning_rate", "b2"}


def test_keys_that_move_in_opposite_directions_keep_their_own_values():
    random = np.random.default_rng(1)
    pairs = [(0.004, 32, 3.0), (0.002, 64, 2.0), (0.001, 128, 1.0)]
    rows = [
        ({RATE: rate, WIDTH: width, "seed": seed}, loss + 0.01 * random.normal())
        for rate, width, loss in pairs
        for seed in range(2)
    ]
    found, keys = compared(rows)
    shown = {row["key"]: row["marginal"] for row in effects(additive_model(found, keys), 0.95)}
    means = {key: {m["value"]: round(m["mean"]) for m in rows} for key, rows in shown.items()}
    assert means == {RATE: {0.001: 1, 0.002: 2, 0.004: 3}, WIDTH: {32: 3, 64: 2, 128: 1}}
    assert [m["value"] for m in shown[RATE]] == [0.001, 0.002, 0.004]
