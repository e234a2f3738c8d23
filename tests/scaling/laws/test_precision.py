"""Tests the law of post-training quantisation: it finds the constants that made its points."""

import json

import numpy as np
import pytest

from launch.__main__ import main
from scaling.laws import LAWS

TRUE = {"C": 40.0, "gamma_D": 0.4, "gamma_N": 0.6, "gamma": 0.7}
LAW = LAWS["precision"]


def log_degradation(n, d, bits) -> np.ndarray:
    t = TRUE
    return np.log(t["C"]) + t["gamma_D"] * np.log(d) - t["gamma_N"] * np.log(n) - bits / t["gamma"]


def grid() -> tuple[np.ndarray, ...]:
    shape = np.meshgrid([2e4, 6e4, 2e5], [1e5, 1e6], [2.5, 3.5, 4.5, 6.5])
    return tuple(axis.ravel() for axis in shape)


def test_the_function_is_the_formula_and_its_slopes_are_right():
    n, d, bits = grid()
    x = {"params": np.log(n), "tokens": np.log(d), "bits": np.log(bits)}
    theta = np.array([[np.log(TRUE["C"]), *list(TRUE.values())[1:]]])
    value, slopes = LAW.evaluate(theta, x)
    np.testing.assert_allclose(value[0], log_degradation(n, d, bits), rtol=1e-12)
    for i in range(4):
        step = np.eye(4)[i] * 1e-6
        change = LAW.evaluate(theta + step, x)[0] - LAW.evaluate(theta - step, x)[0]
        np.testing.assert_allclose(slopes[0, i], change[0] / 2e-6, rtol=1e-6, atol=1e-6)


def test_a_fit_finds_the_constants(tmp_path, capsys):
    n, d, bits = grid()
    noisy = np.exp(log_degradation(n, d, bits) + np.random.default_rng(0).normal(0, 1e-3, len(n)))
    rows = zip(n, d, bits, noisy, strict=True)
    text = "params,tokens,bits,degradation\n" + "".join(f"{a},{b},{c},{e}\n" for a, b, c, e in rows)
    (tmp_path / "p.csv").write_text(text)
    argv = [f"--table={tmp_path / 'p.csv'}", "--law=precision", "--draws=0"]
    assert main(["fit", *argv, f"--json={tmp_path / 'law.json'}"]) == 0
    found = json.loads((tmp_path / "law.json").read_text())["parametric"]
    for name, value in TRUE.items():
        assert found[name]["value"] == pytest.approx(value, rel=0.05), name
