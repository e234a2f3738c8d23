"""Tests what an index is worth in parameters, on a law whose inverse is known."""

import json

import numpy as np
import pytest

from scaling.design.planning import read_law
from scaling.estimators.index_worth import size_factor
from tests.scaling.design.test_planning import EPOCH, law_of


@pytest.fixture
def law(tmp_path):
    (tmp_path / "law.json").write_text(json.dumps(law_of(EPOCH)))
    return read_law(tmp_path / "law.json")


def test_the_factor_inverts_the_law(law):
    n, factor = 1e8, 1.7
    a, alpha = law.constants["A"][0], law.constants["alpha"][0]
    saved = a * n**-alpha - a * (factor * n) ** -alpha
    found = size_factor(law, n, saved, 0.0)
    assert found["value"] == pytest.approx(factor)
    assert size_factor(law, n, 0.0, 0.0)["value"] == 1
    assert size_factor(law, n, -saved, 0.0)["value"] < 1
    assert size_factor(law, n, 2 * saved, 0.0)["value"] > factor


def test_a_saving_that_no_size_reaches_is_infinite(law):
    n = 1e8
    reducible = law.constants["A"] * n ** -law.constants["alpha"]
    found = size_factor(law, n, float(reducible[0]), 0.0)
    assert found["value"] is None and found["never"] > 0
    below = size_factor(law, n, 0.5 * float(reducible[0]), 0.0)
    assert below["value"] is not None and below["never"] == 0


def test_the_interval_holds_the_error_of_the_saving(law):
    law = type(law)(**{**vars(law), "theta": np.repeat(law.theta[:1], 400, axis=0)})
    exact, noisy = (size_factor(law, 1e8, 0.05, error) for error in (0.0, 0.01))
    assert exact["lo"] == exact["hi"] == exact["value"]
    assert noisy["lo"] < noisy["value"] < noisy["hi"]
    a, alpha = law.constants["A"][0], law.constants["alpha"][0]
    ends = (1 - (0.05 + 1.645 * 0.01 * np.array([-1, 1])) / (a * 1e8**-alpha)) ** (-1 / alpha)
    np.testing.assert_allclose([noisy["lo"], noisy["hi"]], ends, rtol=0.02)
    assert (
        size_factor(type(law)(**{**vars(law), "theta": law.theta[:1]}), 1e8, 0.05, 0.0)["lo"]
        is None
    )
