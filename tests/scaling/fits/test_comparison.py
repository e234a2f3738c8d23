"""Tests comparisons of ladders with a known compute multiplier."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from scaling.fits.comparison import (
    Ladder,
    compare,
    isoflop_frontier,
    multiplier,
    parametric_frontier,
    two_sided,
)
from scaling.runs import read_runs
from scaling.settings import Settings
from tests.scaling.ladder import simulate, true_loss, write_runs

QUICK = Settings(draws=100)
FACTS = {"dataset": "0123456789abcdef", "context_length": 128.0}


def ladder(saving, seed, name="", noise=0.004, **design):
    """Runs that reach the loss of the known law with 1/saving of the compute.

    Every token counts `saving` times, so that L(N, D) = L_true(N, saving·D) at any budget.
    """
    points = simulate(noise, seed, held_out=0, **design)
    random = np.random.default_rng(seed)
    loss = true_loss(points.params, points.tokens * saving)
    loss = loss * np.exp(noise * random.standard_normal(len(points)))
    facts = (FACTS,) * len(points)
    return Ladder(name or f"x{saving}", replace(points, loss=loss, facts=facts))


def pair_of(a, b, settings=QUICK, **more):
    return compare([a, b], settings, **more)["pairs"][0]


def rates(saving, repetitions, draws=100, of=parametric_frontier, shifts=(5000, 9000)):
    """Number of pairs whose interval holds the true multiplier, and number of significant pairs."""
    hits = significant = 0
    for seed in range(repetitions):
        settings = Settings(draws=draws, seed=seed)
        base, other = (
            of(ladder(factor, data + seed).points, replace(settings, seed=shift))
            for factor, data, shift in zip((1, saving), (5000, 9000), shifts, strict=True)
        )
        found = multiplier(base, other)
        hits += found["multiplier"]["lo"] <= saving <= found["multiplier"]["hi"]
        significant += found["significant"]
    return hits, significant


def test_half_the_compute_is_a_multiplier_of_two():
    """With a true rate of .9, at least 14 of 20 intervals hold the truth 99 % of the time."""
    hits, significant = rates(2.0, 20)
    assert 14 <= hits and significant == 20


def test_equal_ladders_differ_by_chance_alone():
    """With a true rate of .05, 5 or more of 20 are significant 0.3 % of the time."""
    hits, significant = rates(1.0, 20)
    assert 14 <= hits and significant <= 4


def test_isoflop_intervals_are_honest_with_three_budgets():
    """With a true rate of .9, at least 45 of 60 intervals hold the truth 99 % of the time.

    Consecutive seeds, as `compare` uses them, must be as good as any. Control: with equal seeds the
    draws cancel in the difference, and far too few intervals hold the truth.
    """
    hits, significant = rates(1.0, 60, 200, isoflop_frontier, (0, 1))
    assert 50 <= hits <= 60 and significant <= 8
    shared, _ = rates(1.0, 60, 200, isoflop_frontier, (0, 0))
    assert shared < 40


@pytest.mark.slow
@pytest.mark.parametrize("saving", [1.0, 2.0])
def test_intervals_over_200_pairs(saving):
    """The intervals are conservative: 93 and 95 % of 300 pairs when last measured."""
    hits, significant = rates(saving, 200, draws=400)
    assert 0.88 <= hits / 200 <= 0.985
    assert significant == 200 if saving > 1 else significant / 200 <= 0.08


def test_a_ladder_against_itself():
    a = ladder(1.0, 3, "a")
    found = compare([a, replace(a, name="b")], QUICK)
    pair = found["pairs"][0]
    assert pair["multiplier"]["value"] == pytest.approx(1, abs=1e-12)
    assert pair["multiplier"]["lo"] < 1 < pair["multiplier"]["hi"]
    assert pair["p"] > 0.5 and pair["significant"] is False
    assert [w["code"] for w in found["warnings"]] == ["same_points"]


def test_the_other_way_round_is_the_inverse():
    a, b = ladder(1.0, 3), ladder(1.7, 4)
    there, back = pair_of(a, b), pair_of(b, a)
    product = there["multiplier"]["value"] * back["multiplier"]["value"]
    assert product == pytest.approx(1, rel=1e-9)
    assert there["losses"] == pytest.approx(back["losses"])


@pytest.mark.parametrize("method", ["parametric", "isoflop"])
def test_without_noise_every_method_finds_the_truth(method):
    a, b = (ladder(saving, 3, noise=1e-7) for saving in (1.0, 2.0))
    pair = pair_of(a, b, Settings(draws=0), method=method)
    assert pair["multiplier"]["value"] == pytest.approx(2, rel=0.02)
    assert all(value == pytest.approx(2, rel=0.05) for _, value, _, _ in pair["at"])


def test_a_growing_advantage_is_a_trend():
    a, b = ladder(1.0, 3, noise=1e-3), ladder(1.0, 4, noise=1e-3)
    lower = replace(b, points=replace(b.points, loss=b.points.loss - 0.05))
    pair = pair_of(a, lower, Settings(draws=60))
    assert pair["trend"]["lo"] > 1 and pair["trend_p"] < 0.05
    level = pair_of(a, ladder(2.0, 4, noise=1e-3), Settings(draws=0))
    assert level["trend"]["value"] == pytest.approx(1, abs=0.05)


def test_only_losses_that_both_reach_are_compared():
    a, b = ladder(1.0, 3), ladder(2.0, 4, budgets=(3e12, 1e13, 3e13))
    found = compare([a, b], QUICK)
    low, high = found["pairs"][0]["losses"]
    reaches = [part["reach"] for part in found["ladders"]]
    assert low == max(reach[0] for reach in reaches)
    assert high == min(reach[1] for reach in reaches)


def test_without_common_losses_there_is_no_multiplier():
    found = compare([ladder(1.0, 3), ladder(100.0, 4)], QUICK)
    pair = found["pairs"][0]
    assert "losses do not overlap (" in pair["reason"]
    assert pair["multiplier"]["value"] is None and pair["significant"] is None


def test_the_first_is_compared_with_every_other():
    found = compare([ladder(s, i) for i, s in enumerate((1.0, 1.5, 0.7))], QUICK)
    assert [pair["baseline"] for pair in found["pairs"]] == ["x1.0", "x1.0"]
    values = [pair["multiplier"]["value"] for pair in found["pairs"]]
    assert values == pytest.approx([1.5, 0.7], rel=0.1)


def test_held_out_runs_take_no_part():
    a, b = ladder(1.0, 3), ladder(2.0, 4)
    mask = np.arange(len(b.points)) == 5
    wrong = replace(b.points, loss=np.where(mask, 9.0, b.points.loss), holdout=mask)
    left = replace(b, points=b.points.select(~mask))
    assert pair_of(a, replace(b, points=wrong)) == pair_of(a, left)


def test_bits_per_byte_are_another_measure_of_the_same():
    a, b = ladder(1.0, 3), ladder(2.0, 4)

    def in_bits(x):
        bits = x.points.loss / np.log(2)
        return replace(
            x, points=replace(x.points, facts=tuple(FACTS | {"bits_per_byte": v} for v in bits))
        )

    nats, bits = pair_of(a, b), pair_of(in_bits(a), in_bits(b), measure="bits_per_byte")
    assert bits["multiplier"]["value"] == pytest.approx(nats["multiplier"]["value"], rel=1e-4)
    assert bits["losses"][0] == pytest.approx(nats["losses"][0] / np.log(2), rel=1e-4)
    with pytest.raises(ValueError, match="does not have it for every run"):
        pair_of(a, b, measure="bits_per_byte")


def test_flops_that_are_not_6nd_are_compared_by_minima():
    a, b = (
        replace(x, points=replace(x.points, flops=1.3 * x.points.flops))
        for x in (ladder(1.0, 3), ladder(2.0, 4))
    )
    found = compare([a, b], QUICK)
    assert found["method"] == "isoflop" and "1.3 times 6·params·tokens" in str(found["refused"])
    assert found["pairs"][0]["multiplier"]["value"] == pytest.approx(2, rel=0.1)
    with pytest.raises(ValueError, match="no method gives a frontier for every ladder: parametric"):
        compare([a, b], QUICK, method="parametric")


@pytest.mark.parametrize(
    ("changes", "codes"),
    [
        ({}, []),
        ({"dataset": "fedcba9876543210"}, ["dataset"]),
        ({"dataset": None}, ["dataset_unknown"]),
        ({"context_length": 256.0}, ["context_length"]),
    ],
)
def test_what_forbids_a_comparison_is_said(changes, codes):
    facts = {k: v for k, v in (FACTS | changes).items() if v is not None}
    a, b = ladder(1.0, 3), ladder(2.0, 4)
    other = replace(b, points=replace(b.points, facts=(facts,) * len(b.points)))
    warnings = compare([a, other], QUICK)["warnings"]
    assert [w["code"] for w in warnings] == codes
    assert ("NOT COMPARABLE" in str(warnings)) == (codes == ["dataset"])


@pytest.mark.parametrize(("held_out", "codes"), [("aa", []), ("bb", ["dataset"])])
def test_other_training_data_is_compared_on_the_same_held_out_corpus(held_out, codes):
    def on(one, **facts):
        return replace(one, points=replace(one.points, facts=(FACTS | facts,) * len(one.points)))

    a = on(ladder(1.0, 3), held_out="aa")
    b = on(ladder(2.0, 4), held_out=held_out, dataset="fedcba9876543210")
    assert [w["code"] for w in compare([a, b], QUICK)["warnings"]] == codes


def test_no_draws_no_interval():
    pair = pair_of(ladder(1.0, 3), ladder(2.0, 4), Settings(draws=0))
    assert pair["multiplier"]["lo"] is None and pair["significant"] is None


def test_p_counts_draws_on_the_far_side():
    assert two_sided(np.arange(1, 100)) == pytest.approx(2 / 100)
    assert two_sided(np.array([-1.0, 1.0] * 50)) == 1
    assert two_sided(np.empty(0)) is None


@pytest.mark.parametrize(
    ("many", "more", "message"),
    [
        (1, {}, "two or more ladders"),
        (2, {"method": "eye"}, "method=eye is unknown; use one of auto, parametric"),
        (2, {"measure": "accuracy"}, "measure=accuracy is unknown"),
    ],
)
def test_bad_choices_are_named(many, more, message):
    with pytest.raises(ValueError, match=message):
        compare([ladder(1.0, i) for i in range(many)], QUICK, **more)


def test_the_page_stands_alone_and_carries_the_alarm(tmp_path):
    pytest.importorskip("altair")
    pytest.importorskip("vl_convert")
    from scaling.report.comparison_figures import figures
    from scaling.report.comparison_page import write_page

    folders = [
        write_runs(tmp_path / f"{i}", ladder(s, i).points, dataset=f"{i}" * 16)
        for i, s in enumerate((1.0, 2.0))
    ]
    ladders = [Ladder(f"</script><b>${i}", read_runs(f)) for i, f in enumerate(folders)]
    compared = compare(ladders, Settings(draws=20))
    text = write_page(tmp_path / "out", ladders, compared).read_text()
    markup = re.sub(r"(<script[^>]*>).*?</script>", r"\1", text, flags=re.DOTALL)
    assert not re.findall(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=", markup)
    assert "</script><b>" not in text and "&lt;/script&gt;&lt;b&gt;$0" in text
    assert "LOSSES ARE NOT COMPARABLE" in markup
    for name in ("frontiers", "multiplier"):
        svg = (tmp_path / "out" / "figures" / f"{name}.svg").read_text()
        assert "LOSSES ARE NOT COMPARABLE" in svg
        assert (tmp_path / "out" / "figures" / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
        assert f'id="{name}"' in text
    assert json.loads((tmp_path / "out" / "comparison.json").read_text()) == compared
    unwarned = figures(ladders, compared | {"warnings": []})
    assert not any("NOT COMPARABLE" in figure.chart.to_json() for figure in unwarned)


def test_the_slope_of_a_power_law_is_its_exponent():
    """Without an irreducible loss, L ∝ C^-s along the frontier, with s = αβ / (α + β)."""
    points = simulate(0.0, held_out=0)
    a, b = 0.3, 0.4
    loss = 40 * points.params**-a + 30 * points.tokens**-b
    one = Ladder("power", replace(points, loss=loss, facts=(FACTS,) * len(points)))
    found = compare([one, replace(one, name="again")], Settings(draws=20))
    low, high = found["common_flops"]
    assert (low, high) == pytest.approx((1e12, 1e13))
    for part in found["ladders"]:
        assert part["slope"]["value"] == pytest.approx(a * b / (a + b), rel=0.02)
    # Control: with an irreducible loss the frontier is flatter.
    floor = replace(one, points=replace(one.points, loss=loss + 1.0))
    flat = compare([one, floor], Settings(draws=20))["ladders"][1]["slope"]["value"]
    assert flat < 0.9 * a * b / (a + b)


def test_slopes_are_those_over_the_compute_that_all_cover():
    short = ladder(1.0, 4, "short", budgets=(1e12, 2e12, 4e12))
    found = compare([ladder(1.0, 3, "long"), short], QUICK)
    assert found["common_flops"] == pytest.approx([1e12, 4e12])
    apart = ladder(1.0, 4, "apart", budgets=(2e13, 4e13, 8e13))
    found = compare([ladder(1.0, 3, "long"), apart], QUICK)
    assert found["common_flops"] is None
    assert found["ladders"][0]["slope"] == {"value": None, "lo": None, "hi": None}


def test_losses_of_different_kinds_are_refused():
    def predicting(kind):
        one = ladder(1.0, 3, kind)
        facts = (FACTS | {"predicts": kind},) * len(one.points)
        return replace(one, points=replace(one.points, facts=facts))

    text, masked = predicting("the next token of text"), predicting("masked tokens")
    message = "they predict masked tokens and the next token of text; give each kind a folder"
    with pytest.raises(ValueError, match=message):
        compare([text, masked], QUICK)
    compare([text, replace(text, name="again")], QUICK)
    compare([text, ladder(1.0, 4, "unknown")], QUICK)  # a table may not say


def test_losses_on_different_examples_of_the_same_data_are_refused():
    def on(examples, dataset="0123"):
        one = ladder(1.0, 3, examples)
        facts = (FACTS | {"evaluated": examples, "dataset": dataset},) * len(one.points)
        return replace(one, points=replace(one.points, facts=facts))

    with pytest.raises(ValueError, match=r"leave out or cut different .* data.too_long=refuse"):
        compare([on("all pairs"), on("short pairs")], QUICK)
    compare([on("all pairs"), replace(on("all pairs"), name="again")], QUICK)
    compare([on("all pairs"), ladder(1.0, 4, "unknown")], QUICK)
    compare([on("all pairs"), on("other pairs", dataset="4567")], QUICK)  # is only warned of
