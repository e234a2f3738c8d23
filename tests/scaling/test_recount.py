"""This file tests how counting moves an exponent: Pearce & Song's conversion, FLOPs that grow."""

import numpy as np
import pytest

from scaling.parametric import frontier_exponents
from scaling.recount import fit_embedding, recounted_exponent, recounted_optima, total_params

# Besiroglu et al. 2024, and Hoffmann et al. 2022, as Pearce & Song took them.
EPOCH = {"A": 482.01, "B": 2085.43, "E": 1.8172, "alpha": 0.3478, "beta": 0.3658}
HOFFMANN = {"A": 406.4, "B": 410.7, "E": 1.6934, "alpha": 0.3392, "beta": 0.2849}


def test_the_published_law_seen_without_embeddings():
    """.775 without embeddings, .512 with them; Hoffmann's constants: .74 and .46."""
    assert recounted_exponent(EPOCH) == pytest.approx(0.775, abs=5e-4)
    assert recounted_exponent(EPOCH, with_embeddings=True) == pytest.approx(0.512, abs=1e-3)
    assert recounted_exponent(HOFFMANN) == pytest.approx(0.74, abs=2e-3)
    assert recounted_exponent(HOFFMANN, with_embeddings=True) == pytest.approx(0.46, abs=5e-3)


def test_without_embeddings_to_leave_out_nothing_moves():
    """Negative control: the conversion, not the fit of the line, makes the difference."""
    exact = EPOCH["beta"] / (EPOCH["alpha"] + EPOCH["beta"])
    assert recounted_exponent(EPOCH, embedding=1e-9) == pytest.approx(exact, abs=1e-3)


def test_optima_obey_the_first_order_condition():
    """Eq. 6 of the paper: C as a function of N*, in closed form."""
    flops = np.geomspace(1e14, 1e20, 7)
    n = recounted_optima(EPOCH, flops)
    gamma, alpha, beta = 47_491.0, EPOCH["alpha"], EPOCH["beta"]
    slope = 1 + gamma / 3 * n ** (-2 / 3)
    scale = beta * EPOCH["B"] / (alpha * EPOCH["A"])
    tokens = (scale * total_params(n) ** (alpha + 1) / slope / n) ** (1 / beta)
    assert 6 * n * tokens == pytest.approx(flops, rel=0.03)  # the grid of sizes is this fine


def test_the_constant_of_a_family_is_found():
    n = np.geomspace(1e5, 1e9, 12)
    assert fit_embedding(n, total_params(n, 317.0)) == pytest.approx(317.0)


def test_exponents_where_a_token_costs_more_than_its_parameters():
    """Against a search: a = β / (α + gβ) where C = k N^g D."""
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
