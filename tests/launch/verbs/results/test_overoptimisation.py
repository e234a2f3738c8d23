"""Tests of `isoflop overoptimisation` on simulated rewards: proxies with heavy-tailed errors."""

import json

import numpy as np
import pytest

from launch.__main__ import main
from scaling.estimators import best_of_n, proxies
from scaling.fits.robust_fit import fit
from scaling.laws.over_optimisation import BEST_OF_N, RL
from scaling.report.proxies.proxy_page import table, turns_over

KL = np.geomspace(0.2, 40, 10)


def rewards(noise, tails, seed=0, shape=(60, 300)):
    """Gold rewards N(0, 1), and a proxy with errors of Student's t (tails=0: of a normal)."""
    rng = np.random.default_rng(seed)
    gold = rng.normal(size=shape)
    errors = rng.standard_t(tails, size=shape) if tails else rng.normal(size=shape)
    return gold + noise * errors, gold


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two proxies as .npz, the first with heavier errors; policies that follow the form of RL."""
    home = tmp_path_factory.mktemp("files")
    for name, noise, size in (("small", 1.2, 1e5), ("large", 0.5, 1e6)):
        proxy, gold = rewards(noise, 2.5)
        np.savez(home / f"{name}.npz", proxy=proxy, gold=gold, size=size)
    reward = np.sqrt(KL) * (0.8 - 0.35 * np.log(np.sqrt(KL)))
    noisy = reward + np.random.default_rng(1).normal(0, 0.01, len(KL))
    lines = [f"{kl},{value}" for kl, value in zip(KL, noisy, strict=True)]
    (home / "rl.csv").write_text("\n".join(["kl,gold_reward", *lines]) + "\n")
    return home


def study(tmp_path, *flags):
    out = tmp_path / "study.json"
    assert main(["overoptimisation", f"--json={out}", "--draws=100", *flags]) == 0
    return json.loads(out.read_text())


def test_heavy_tailed_proxies_turn_over_and_larger_ones_later(files, tmp_path, capsys):
    found = study(
        tmp_path, f"--samples={files / 'small.npz'}", f"--samples={files / 'large.npz'}",
        f"--policies=small={files / 'rl.csv'}",
    )  # fmt: skip
    small, large = found["samples"]
    assert (small["name"], small["size"], small["samples"]) == ("small", 1e5, 300)
    for part in (small, large):
        first, last = part["curve"][0], part["curve"][-1]
        assert first["n"] == 1 and first["gold"] == first["kl"] == 0
        assert last["kl"] == pytest.approx(best_of_n.kl(300))
        assert 1 < part["peak"]["n"] < 300 and turns_over(part)
        # The proxy itself never falls.
        assert (np.diff([row["proxy"] for row in part["curve"]]) > 0).all()
        beta = part["laws"][BEST_OF_N.name]["beta"]
        assert 0 < beta["lo"] < beta["value"] < beta["hi"]
    assert large["peak"]["gold"] > small["peak"]["gold"]
    (policies,) = found["policies"]
    assert policies["better"] == RL.name and policies["policies"] == 10
    constants = policies["laws"][RL.name]
    for name, value in (("alpha", 0.8), ("beta", 0.35)):
        assert constants[name]["value"] == pytest.approx(value, abs=0.02)
    printed = capsys.readouterr().out
    assert f"gold reward is highest at n = {small['peak']['n']} " in printed
    assert "it has fallen by" in printed and "R(d) = d (α - β log d)" in printed


def test_a_proxy_with_normal_errors_does_not_turn_over():
    """Then the gold reward of the best is a fixed share of the proxy's: it only rises."""
    found = proxies.describe_samples(proxies.Judged("n", *rewards(1.0, 0)), 50, 0)
    assert found["peak"]["n"] > 100 and not turns_over(found)
    gold, own = (np.array([row[name] for row in found["curve"]]) for name in ("gold", "proxy"))
    # E[gold | proxy] = proxy / 2, and the proxy is measured in its standard deviation, √2.
    assert gold[-1] == pytest.approx(own[-1] * np.sqrt(2) / 2, rel=0.1)


def test_a_gold_reward_at_its_bound_does_not_turn_over():
    """Gold rewards of 0 and 1 with a proxy that follows them: best-of-n only rises, to 1."""
    turned = []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        gold = (rng.random((100, 64)) < 0.3).astype(float)
        judged = proxies.Judged("p", gold + rng.normal(0, 0.3, gold.shape), gold)
        turned.append(turns_over(proxies.describe_samples(judged, 0, 0)))
    assert np.mean(turned) <= 0.08


def test_one_prompt_and_equal_fits_claim_nothing(tmp_path, capsys):
    proxy, gold = rewards(1.0, 3, shape=(1, 40))
    np.savez(tmp_path / "one.npz", proxy=proxy, gold=gold)
    (part,) = study(tmp_path, f"--samples={tmp_path / 'one.npz'}")["samples"]
    assert part["falls"]["se"] is None and part["better"] is None
    shown = capsys.readouterr().out
    assert "no turn is seen up to there" in shown and "not distinguishable" in shown


def test_the_constants_are_those_of_the_law_s_own_fit():
    judged = proxies.Judged("p", *rewards(1.0, 3))
    found = proxies.describe_samples(judged, 0, 0)
    rows = found["curve"][1:]
    kl, gold = (np.array([row[name] for row in rows]) for name in ("kl", "gold"))
    for law in (BEST_OF_N, RL):
        wanted = fit(law, {"kl": kl}, gold, "squares").constants()
        for name, value in wanted.items():
            assert found["laws"][law.name][name]["value"] == pytest.approx(value, rel=1e-5)
            assert found["laws"][law.name][name]["lo"] is None  # no draws were asked for
        drawn = proxies.curve(law, found["laws"][law.name], kl)
        assert np.sqrt(np.mean((drawn - gold) ** 2)) == pytest.approx(
            found["laws"][law.name]["rmse"]
        )


def test_the_intervals_cover_over_prompts():
    """β of 40 studies of the same population, against β of a large one."""
    exact = proxies.describe_samples(proxies.Judged("p", *rewards(1, 3, 99, (3000, 60))), 0, 0)
    wanted = exact["laws"][BEST_OF_N.name]["beta"]["value"]
    inside = []
    for seed in range(40):
        judged = proxies.Judged("p", *rewards(1, 3, seed, (40, 60)))
        beta = proxies.describe_samples(judged, 200, seed)["laws"][BEST_OF_N.name]["beta"]
        inside.append(beta["lo"] <= wanted <= beta["hi"])
    assert 0.75 <= np.mean(inside) <= 1


def test_lines_of_prompts_give_the_same_study(files, tmp_path):
    proxy, gold = rewards(1.2, 2.5, shape=(4, 9))
    rows = zip(proxy.tolist(), gold.tolist(), strict=True)
    lines = [json.dumps({"proxy": p, "gold": g}) for p, g in rows]
    (tmp_path / "a.jsonl").write_text("\n".join(lines) + "\n")
    np.savez(tmp_path / "b.npz", proxy=proxy, gold=gold)
    found = study(tmp_path, f"--samples={tmp_path / 'a.jsonl'}", f"--samples={tmp_path / 'b.npz'}")
    one, other = found["samples"]
    assert one.pop("name") == "a" and other.pop("name") == "b"
    assert one == other


def test_the_figures_have_the_curves_and_the_constants_against_size(files, tmp_path):
    drawing = pytest.importorskip("scaling.report.proxies.proxy_figures")
    found = study(
        tmp_path, f"--samples=<b>={files / 'small.npz'}", f"--samples={files / 'large.npz'}",
        f"--policies=rl={files / 'rl.csv'}",
    )  # fmt: skip
    figures = {figure.name: figure for figure in drawing.figures(found)}
    assert list(figures) == [
        "gold_over_optimisation_best_of_n", "gold_over_optimisation_rl", "proxy_best_of_n",
        "constants_size",
    ]  # fmt: skip
    for figure in figures.values():
        assert figure.chart.to_dict()["$schema"]
    at_most = "√KL of best-of-n (√nats; at most, where answers repeat)"
    drawn = {n: json.dumps(f.chart.to_dict(), ensure_ascii=False) for n, f in figures.items()}
    assert [name for name, chart in drawn.items() if at_most in chart] == [
        "gold_over_optimisation_best_of_n", "proxy_best_of_n",
    ]  # fmt: skip
    page = table(found["samples"], "samples")
    assert "&lt;b&gt;" in page and "<b>" not in page and "turns over" in page


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "samples is not given"),
        (["--samples=none.npz"], "none.npz does not exist"),
        (["--samples=a.npz", "--samples=a=b.npz"], "two files are named a"),
        (["--samples=text.npz"], "is not a .npz file of arrays"),
        (["--samples=array.npz"], "is not a .npz file of arrays"),
        (["--samples=cut.npz"], "is not a .npz file of arrays"),
        (["--samples=two.npz"], "has size=[1 2]; it must be one number above 0"),
        (["--samples=minus.npz"], "has size=-1; it must be one number above 0"),
        (["--samples=gold.npz"], "has no proxy"),
        (["--samples=equal.npz"], "all proxy rewards are equal"),
        (["--samples=few.npz"], "2 samples of each prompt are too few"),
        (["--samples=nan.npz"], "proxy is nan for sample 1 of prompt 2"),
        (["--samples=flat.npz"], "both must be [prompts, samples]"),
        (["--samples=uneven.jsonl"], "line 2 has 2 numbers of proxy, but 3 are needed"),
        (["--samples=wrong.jsonl"], "line 1 is not"),
        (["--policies=few.csv"], "2 policies of different kl are too few"),
        (["--policies=other.csv"], "lacks the columns kl, gold_reward"),
    ],
)
def test_bad_files_are_one_line(tmp_path, monkeypatch, capsys, flags, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.npz").write_text("no arrays")
    np.savez("gold.npz", gold=np.ones((2, 3)))
    with open("array.npz", "wb") as file:
        np.save(file, np.ones((2, 9)))
    for name, size in (("two", [1, 2]), ("minus", -1)):
        np.savez(f"{name}.npz", gold=np.eye(2, 9), proxy=np.eye(2, 9), size=size)
    (tmp_path / "cut.npz").write_bytes((tmp_path / "two.npz").read_bytes()[:-30])
    np.savez("equal.npz", gold=np.ones((2, 9)), proxy=np.ones((2, 9)))
    np.savez("few.npz", gold=np.ones((2, 2)), proxy=np.ones((2, 2)))
    np.savez("nan.npz", gold=np.ones((2, 9)), proxy=np.where(np.eye(2, 9, -1), np.nan, 1))
    np.savez("flat.npz", gold=np.ones(9), proxy=np.ones(9))
    uneven = [{"proxy": [1, 2, 3], "gold": [1, 2, 3]}, {"proxy": [1, 2], "gold": [1, 2]}]
    (tmp_path / "uneven.jsonl").write_text("\n".join(map(json.dumps, uneven)))
    (tmp_path / "wrong.jsonl").write_text('{"proxy": "x", "gold": []}\n')
    (tmp_path / "few.csv").write_text("kl,gold_reward\n1,1\n2,1\n")
    (tmp_path / "other.csv").write_text("a,b\n1,1\n2,1\n")
    assert main(["overoptimisation", *flags]) == 2
    error = capsys.readouterr().err
    assert message in error.replace("--", "") and error.count("\n") == 1, error
