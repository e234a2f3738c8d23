"""Tests the effect of parameter and FLOP counting on exponents (Pearce & Song's conversion)."""

import numpy as np
import pytest

from scaling.laws.law import frontier_exponents
from scaling.laws.recount import efficient_tokens, ladder_exponent

# Besiroglu et al. 2024 and Hoffmann et al. 2022, with the values that Pearce & Song use.
EPOCH = {"A": 482.01, "B": 2085.43, "E": 1.8172, "alpha": 0.3478, "beta": 0.3658}
HOFFMANN = {"A": 406.4, "B": 410.7, "E": 1.6934, "alpha": 0.3392, "beta": 0.2849}
# N_total = N + EMBEDDING N^(1/3), where N excludes embeddings: their fit to the Chinchilla family,
# which has a vocabulary of 32,000 and a width of about 39 times its depth.
EMBEDDING = 47_491.0
# The budgets of their figures, for which models of Kaplan's sizes, 768 to 1.5e9, are optimal.
BUDGETS = {False: (10**12.95, 10**20.7), True: (10**13.4, 10**20.7)}
EXACT = EPOCH["beta"] / (EPOCH["alpha"] + EPOCH["beta"])


def total_params(params, embedding=EMBEDDING):
    """N with embeddings from N without them, eq. 4."""
    return params + embedding * np.cbrt(params)


def recounted_exponent(constants, embedding=EMBEDDING, with_embeddings=False):
    """The exponent a of N* ∝ C^a that Kaplan et al. would find at their scale.

    It is the slope of a line through the optima of 100 budgets.
    """
    params = np.geomspace(1e-3, 1e15, 4000)
    total = total_params(params, embedding)
    slope = (params + embedding * np.cbrt(params) / 3) / total
    counted, growth = (total, np.ones(len(total))) if with_embeddings else (params, slope)
    flops = 6 * counted * efficient_tokens(constants, total, growth)
    budgets = np.linspace(*np.log(BUDGETS[with_embeddings]), 100)
    optima = np.interp(budgets, np.log(flops), np.log(counted))
    return float(np.polyfit(budgets, optima, 1)[0])


def searched_exponent(constants, low, high, embedding=EMBEDDING):
    """The same by brute force: the size of lowest loss on a grid, for every budget."""
    n = np.geomspace(10, 1e12, 4000)
    flops = np.geomspace(low, high, 100)
    tokens = flops[:, None] / 6 / n
    loss = constants["A"] * total_params(n, embedding) ** -constants["alpha"]
    loss = loss + constants["B"] * tokens ** -constants["beta"]
    return np.polyfit(np.log(flops), np.log(n[loss.argmin(axis=1)]), 1)[0]


def test_the_published_law_seen_without_embeddings():
    """.775 without embeddings and .512 with them; for Hoffmann's constants .74 and .46."""
    assert recounted_exponent(EPOCH) == pytest.approx(0.775, abs=5e-4)
    assert recounted_exponent(EPOCH, with_embeddings=True) == pytest.approx(0.512, abs=1e-3)
    assert recounted_exponent(EPOCH, with_embeddings=True) == pytest.approx(EXACT, abs=1e-6)
    assert recounted_exponent(HOFFMANN) == pytest.approx(0.74, abs=2e-3)
    assert recounted_exponent(HOFFMANN, with_embeddings=True) == pytest.approx(0.46, abs=5e-3)


def test_closed_form_and_search_agree():
    assert recounted_exponent(EPOCH) == pytest.approx(
        searched_exponent(EPOCH, 10**12.95, 10**20.7), abs=1e-3
    )


def test_without_embeddings_to_leave_out_nothing_moves():
    """Negative control: the line through the optima alone does not change the exponent."""
    assert recounted_exponent(EPOCH, embedding=1e-9) == pytest.approx(EXACT, abs=1e-4)


def test_a_ladder_is_counted_as_it_is():
    """Sizes of the published family, over the budgets for which they are optimal."""
    n = np.geomspace(1e4, 1e8, 30)
    found = ladder_exponent(EPOCH, n, total_params(n))
    assert found == pytest.approx(searched_exponent(EPOCH, 3e14, 2e18), abs=0.02)
    assert found > EXACT + 0.2
    assert ladder_exponent(EPOCH, n, 1.3 * n) == pytest.approx(EXACT, abs=1e-6)
    assert ladder_exponent(EPOCH, n[:3], n[:3]) is None


def test_exponents_where_a_token_costs_more_than_its_parameters():
    """a = β / (α + gβ) if C = k N^g D, compared with a search."""
    growth, log_n = 0.8, np.linspace(0, 40, 400_001)
    best = []
    for flops in (1e18, 1e20):
        tokens = flops / (7 * np.exp(growth * log_n))
        loss = EPOCH["A"] * np.exp(-EPOCH["alpha"] * log_n) + EPOCH["B"] * tokens ** -EPOCH["beta"]
        best.append(log_n[np.argmin(loss)])
    found = frontier_exponents(EPOCH["alpha"], EPOCH["beta"], growth)
    assert (best[1] - best[0]) / np.log(100) == pytest.approx(found["a"], abs=1e-3)
    assert found["a"] * growth + found["b"] == pytest.approx(1)
    assert found["a"] - frontier_exponents(EPOCH["alpha"], EPOCH["beta"])["a"] > 0.03
