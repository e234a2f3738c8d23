"""Tests fixed constants: they stay fixed in the fit and in the bootstrap."""

import json
import re

import numpy as np
import pytest
import scipy.optimize

from launch.__main__ import main
from launch.verbs.results.fit import fixed
from scaling.csv_file import to_csv
from scaling.design.planning import plan, read_law
from scaling.fits.analysis import analyse
from scaling.fits.parametric import fit_parametric
from scaling.laws import LAWS
from scaling.settings import Settings
from scaling.table import fitted_rows
from tests.scaling.ladder import simulate

POINTS = fitted_rows(simulate(), LAWS["parametric"])
CONSTANTS = ("A", "B", "E", "alpha", "beta")


def fitted(draws=0, **fix):
    return fit_parametric(POINTS, Settings(draws=draws, objective="squares", fix=fix))


def test_fixing_a_constant_at_its_optimum_gives_the_same_optimum():
    free = fitted().fitted
    for name in ("alpha", "A"):
        again = fitted(**{name: free.constants()[name]}).fitted
        assert again.objective == pytest.approx(free.objective, rel=1e-9)
        for other, value in free.constants().items():
            assert again.constants()[other] == pytest.approx(value, rel=1e-5)


def test_fixed_elsewhere_the_others_are_where_scipy_puts_them():
    found, free = fitted(alpha=0.45).fitted, fitted().fitted
    log_n, log_d, log_loss = (np.log(v) for v in (POINTS.params, POINTS.tokens, POINTS.loss))

    def squares(theta):
        a, b, e, beta = theta
        value = np.exp(a - 0.45 * log_n) + np.exp(b - beta * log_d) + np.exp(e)
        return ((np.log(value) - log_loss) ** 2).sum() / 2

    start = np.array([np.log(100), np.log(400), np.log(0.9), 0.37])
    options = {"maxiter": 20_000, "maxfev": 20_000, "xatol": 1e-10, "fatol": 1e-16}
    direct = scipy.optimize.minimize(squares, start, method="Nelder-Mead", options=options)
    assert found.objective == pytest.approx(direct.fun, rel=1e-6)
    assert found.objective > 1.05 * free.objective
    expected = [*np.exp(direct.x[:3]), 0.45, direct.x[3]]
    constants = found.constants()
    assert [constants[name] for name in CONSTANTS] == pytest.approx(expected, rel=1e-3)
    assert constants["a"] == pytest.approx(direct.x[3] / (0.45 + direct.x[3]), rel=1e-3)


def test_the_bootstrap_leaves_it_alone_and_has_its_degree_of_freedom():
    free, held = fitted(40), fitted(40, alpha=0.35)
    drawn = held.constants(held.draws)
    assert (drawn["alpha"] == 0.35).all() and np.ptp(drawn["beta"]) > 0
    assert np.ptp(free.constants(free.draws)["alpha"]) > 0
    assert np.std(drawn["A"]) < 0.2 * np.std(free.constants(free.draws)["A"])
    squares = (held.fitted.residuals**2).sum()
    assert held.fitted.spread == pytest.approx(np.sqrt(squares / (len(POINTS) - 4)))


def test_a_fixed_exponent_needs_no_variety_of_its_input():
    """Two sizes do not determine alpha and E; with alpha known they do."""
    points = POINTS.select(np.isin(np.arange(len(POINTS)) % 6, (1, 4)))
    sizes = np.where(np.arange(len(points)) % 2, 2e5, 5e4)
    two = points.select(np.ones(len(points), bool))
    two.params[:] = sizes
    two.loss[:] = 0.9 + 40 * sizes**-0.35 + 400 * two.tokens**-0.37
    found = fit_parametric(two, Settings(draws=0, fix={"alpha": 0.35, "E": 0.9}))
    assert found.fitted.constants()["A"] == pytest.approx(40, rel=1e-3)
    with pytest.raises(ValueError, match="at least 3 different params"):
        fit_parametric(two, Settings(draws=0, fix={"B": 400.0}))


def test_law_json_the_terminal_and_the_page_say_fixed(tmp_path, capsys, without_pictures):
    table, out = tmp_path / "p.csv", tmp_path / "law.json"
    table.write_text(to_csv(simulate()))
    flags = ["--fix=alpha=.35,E=0.9", "--fix=A=40", "--draws=60", f"--json={out}"]
    assert main(["fit", f"--table={table}", *flags, f"--out={tmp_path / 'r'}"]) == 0
    law = json.loads(out.read_text())
    fix = {"alpha": 0.35, "E": 0.9, "A": 40.0}
    assert law["parametric"]["fixed"] == law["settings"]["fix"] == fix
    assert law["parametric"]["alpha"] == {"value": 0.35, "lo": None, "hi": None}
    assert law["parametric"]["beta"]["lo"] < law["parametric"]["beta"]["hi"]
    assert len(law["parametric"]["coordinates"]) == 5
    rows = [row for row in law["sensitivity"] if row["group"] == "objective"]
    assert all(row["alpha"]["value"] == 0.35 for row in rows)
    shown = capsys.readouterr().out
    assert re.search(r"α +0\.35 fixed", shown) and not re.search(r"beta .*fixed", shown)
    page = (tmp_path / "r" / "index.html").read_text()
    assert "<i>α</i> = 0.35<small> fixed</small>" in page and "E = 0.9 was fixed." in page
    law_of_file = read_law(out)
    assert law_of_file.dof == law["parametric"]["n"] - 2
    assert plan(law_of_file, ("flops", 1e14))["optimum"]["params"]["value"] > 0


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--fix=delta=1", "no constant delta to fix; use one of A, B, E, alpha, beta"),
        ("--fix=a=.5", "no constant a to fix; use one of A, B, E, alpha, beta"),
        ("--fix=alpha", "fix=alpha has no number; write --fix=alpha=0.35"),
        ("--fix=alpha=x", "fix=alpha=x has no number"),
        ("--fix=alpha=.3,alpha=.4", "alpha is fixed twice"),
        ("--fix=alpha=7", "alpha of --law=parametric must be above 0.001 and below 2"),
        ("--fix=E=-1", "E of --law=parametric must be above 0"),
        ("--fix=A=1,B=1,E=1,alpha=.3,beta=.3", "leaves no constant of --law=parametric to fit"),
    ],
)
def test_what_cannot_be_fixed_is_one_line(tmp_path, capsys, flag, message):
    (tmp_path / "p.csv").write_text(to_csv(simulate()))
    assert main(["fit", f"--table={tmp_path / 'p.csv'}", flag]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_flags_repeat_or_take_commas():
    assert fixed(["alpha=.35,E=1", "A = 4"]) == {"alpha": 0.35, "E": 1.0, "A": 4.0}
    assert fixed([]) == {}


@pytest.mark.parametrize("name", LAWS)
def test_any_constant_of_any_law_can_be_fixed(name):
    law, random = LAWS[name], np.random.default_rng(0)
    columns = {
        "params": random.uniform(1e5, 1e9, 9),
        "tokens": random.uniform(1e8, 1e11, 9),
        "flops": random.uniform(1e14, 1e20, 9),
        "unique_tokens": random.uniform(5e7, 1e10, 9),
        "k": random.uniform(1, 100, 9),
        "bits": random.uniform(2, 8, 9),
        "kl": random.uniform(0.1, 30, 9),
        "examples": random.uniform(10, 1e5, 9),
    }
    x = law.log_inputs(columns)
    theta = law.starts(x, np.log(random.uniform(2, 4, 9)))[:1]
    constants = law.constants(theta)
    for at, constant in enumerate(law.names):
        held = law.fix({constant: float(constants[constant][0])})
        rest = np.delete(theta, at, axis=1)
        assert held.complete(rest) == pytest.approx(theta)
        assert held.evaluate(rest, x)[0] == pytest.approx(law.evaluate(theta, x)[0])
        assert held.evaluate(rest, x)[1].shape == (1, len(law.names) - 1, 9)
        assert held.starts(x, np.zeros(9)).shape[1] == len(law.names) - 1


def test_nothing_fixed_is_the_law_itself():
    one, other = (analyse(POINTS, Settings(draws=20, fix=fix)) for fix in ({}, {"beta": 0.37}))
    assert one["parametric"]["fixed"] == {} and other["parametric"]["fixed"] == {"beta": 0.37}
    assert one["parametric"]["alpha"]["value"] != other["parametric"]["alpha"]["value"]
