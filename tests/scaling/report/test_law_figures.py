"""Tests the data in the figures of the law: contours of equal loss, the frontier, exponents."""

import numpy as np
import pytest

pytest.importorskip("altair")

from scaling.csv_file import read_csv
from scaling.fits.analysis import analyse
from scaling.laws import LAWS
from scaling.report.law_figures import (
    by_input,
    contours,
    efficient,
    exponents,
    iso_compute,
    plane,
)
from scaling.settings import Settings
from tests.scaling.ladder import TRUTH, best_params, simulate

THETA = np.array(
    [np.log(TRUTH["A"]), np.log(TRUTH["B"]), np.log(TRUTH["E"]), TRUTH["alpha"], TRUTH["beta"]]
)
N, D = (1e4, 1e6), (1e6, 1e8)


def columns(rows):
    return {"params": np.array([r["N"] for r in rows]), "tokens": np.array([r["D"] for r in rows])}


def test_contours_are_lines_of_equal_loss():
    rows = contours(THETA, N, D)
    loss = LAWS["parametric"].loss(THETA, columns(rows))
    assert loss == pytest.approx(np.array([r["Loss"] for r in rows]), rel=1e-9)
    assert len({r["Loss"] for r in rows}) == sum(r["Named"] for r in rows) == 9
    wrong = LAWS["parametric"].loss(THETA + np.eye(5)[1] * 0.1, columns(rows))
    assert np.abs(wrong / loss - 1).max() > 0.01


def test_the_frontier_of_the_plane_is_the_optimum():
    rows = columns(efficient(THETA, simulate(), N, D))
    flops = 6 * rows["params"] * rows["tokens"]
    assert rows["params"] == pytest.approx(best_params(flops), rel=1e-9)
    lines = columns(iso_compute(simulate(), N, D))
    powers = np.log10(6 * lines["params"] * lines["tokens"])
    assert powers == pytest.approx(np.round(powers), abs=1e-9)


def test_figures_of_the_law_need_one():
    points = simulate()
    full = analyse(points, Settings(draws=20))
    assert plane(points, full) is not None
    shown = exponents(full).chart.to_dict()["layer"][-1]["data"]["values"]
    known = [row for row in full["sensitivity"] if row["a"]["value"] is not None]
    assert len(shown) == len(known) + len(full["conventions"])
    bare = analyse(points, Settings(draws=0, law="frontier"))
    assert plane(points, bare) is None


def test_laws_of_one_input_are_drawn_over_their_points(tmp_path):
    """Lines run through exact points, each with the name of its part; a wrong exponent does not."""
    law, parts = LAWS["examples_only"], []
    m = np.geomspace(30, 3000, 7)
    for name, gamma in (("full", 0.6), ("lora", 0.4)):
        rows = "".join(f"{x},{0.3 + 5 * x**-gamma}\n" for x in m)
        (tmp_path / f"{name}.csv").write_text(f"examples,loss\n{rows}")
        points = read_csv(tmp_path / f"{name}.csv", law=law)
        parts.append((name, points, analyse(points, Settings(draws=0, law=law.name))))
    lines, dots = (layer["data"]["values"] for layer in by_input(parts).chart.to_dict()["layer"])
    for name, gamma, other in (("full", 0.6, 0.4), ("lora", 0.4, 0.6)):
        x, y = np.array([(row["X"], row["Y"]) for row in lines if row["Name"] == name]).T
        assert y == pytest.approx(0.3 + 5 * x**-gamma, rel=1e-4)
        assert np.abs(y / (0.3 + 5 * x**-other) - 1).max() > 0.1
        assert [row["X"] for row in dots if row["Name"] == name] == pytest.approx(m)
    two_inputs = simulate()
    assert by_input([("a", two_inputs, analyse(two_inputs, Settings(draws=0)))]) is None
