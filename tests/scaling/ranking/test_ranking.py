"""Tests of a ranking as a whole: its contract, what it leaves out, what simulations say of it."""

import json
from dataclasses import replace

import pytest

from scaling.ranking.ranking import rank
from scaling.ranking.trials import equal_budgets
from tests.bench.sweeps import ranking as simulation
from tests.scaling.ranking.simulated import sweep

RATE = "optimizer.learning_rate"


def rated(*losses, seeds=1, **about):
    rows = [
        ({RATE: 0.01 * 2**i, "seed": seed}, None if loss is None else loss + 0.001 * seed)
        for i, loss in enumerate(losses)
        for seed in range(seeds)
    ]
    return sweep(rows, **about)


def test_trials_that_share_all_but_the_seed_are_one_row():
    about = {"params": {"mlp": 7}, "tokens": 50, "flops": {"6nd": 2100.0}, "seconds": 3.0}
    ranking = rank(rated(2.2, 2.1, 2.4, seeds=2, **about))
    first, *_ = rows = ranking["configurations"]
    assert [row["rank"] for row in rows] == [1, 2, 3] and len(rows) == 3
    assert first["values"] == {RATE: 0.02} and first["seeds"] == [0, 1]
    assert first["trials"] == ["t2", "t3"] and first["metric_values"] == [2.1, 2.101]
    assert first["mean"] == pytest.approx(2.1005) and first["spread"] == pytest.approx(
        0.001 / 2**0.5
    )
    assert first["se"] == pytest.approx(0.0005) and first["eval_se"] == pytest.approx(0.02)
    sizes = {name: first[name] for name in ("params", "tokens", "flops", "seconds")}
    assert sizes == {"params": 7, "tokens": 50, "flops": 2100.0, "seconds": 3.0}
    assert ranking["keys"] == [
        {"key": RATE, "name": "learning_rate", "scale": "log", "values": [0.01, 0.02, 0.04]}
    ]
    assert (ranking["unit"], ranking["better"], ranking["level"]) == ("nats/token", "lower", 0.95)
    assert ranking["best"]["test"] == "paired"
    assert json.loads(json.dumps(ranking, allow_nan=False)) == ranking


def test_what_is_not_ranked_says_why():
    whole = rated(2.2, None, float("nan"), 2.4, 2.5)
    trials = list(whole.trials)
    trials[3] = replace(trials[3], settings=trials[3].settings | {"holdout": True})
    trials[4] = replace(trials[4], status="unfinished", result={})
    ranking = rank(replace(whole, trials=tuple(trials)))
    reasons = {entry["trial"]: entry["reason"] for entry in ranking["not_ranked"]}
    assert reasons == {
        "t1": "diverged",
        "t2": "no finite value of the metric",
        "t3": "held out",
        "t4": "unfinished",
    }
    assert ranking["status"] == {"done": 3, "diverged": 1, "unfinished": 1}
    assert any("1 trial diverged" in text for text in ranking["warnings"])
    assert [row["trials"] for row in ranking["configurations"]] == [["t0"]]


def test_diverged_trials_name_the_value_that_they_share():
    rows = [({RATE: rate, "model.d_model": width}, None if rate == 0.08 else 2.0 + rate)
            for rate in (0.01, 0.02, 0.08) for width in (32, 64)]  # fmt: skip
    assert any(
        "2 trials diverged, all with learning_rate 0.08" in text
        for text in rank(sweep(rows))["warnings"]
    )


def test_one_seed_claims_no_best():
    ranking = rank(rated(2.2, 2.1, 2.4))
    assert ranking["best"]["among_best"] == 0 and ranking["best"]["more_seeds"] is None
    assert "the spread between seeds is unknown" in ranking["best"]["verdict"]
    assert {row["among_best"] for row in ranking["configurations"]} == {None}
    assert any("every configuration has one seed" in text for text in ranking["warnings"])


def test_a_clear_best_and_one_within_noise():
    clear = rank(rated(2.2, 2.1, 2.4, seeds=3))["best"]
    assert clear["verdict"].startswith(
        "best: learning_rate 0.02: loss 2.1010 ± 0.0010 (seed spread)"
    )
    assert clear["more_seeds"] == 0 and clear["among_best"] == 1
    noisy = [(({RATE: rate, "seed": s}), 2.0 + ((7 * s + 3 * i) % 5) / 50)
             for i, rate in enumerate((0.01, 0.02)) for s in range(3)]  # fmt: skip
    noise = rank(sweep(noisy))["best"]
    assert noise["verdict"].startswith("none can be distinguished from the best")
    assert noise["among_best"] == 2
    assert "more seeds" in noise["verdict"]


def test_an_unknown_metric_names_the_nearest():
    with pytest.raises(ValueError, match="metric=los is in no result of s; did you mean loss"):
        rank(rated(2.2, 2.1), "los")
    assert rank(rated(None, None))["best"]["verdict"] == "no finished trial to rank"


def test_longer_trials_are_said_to_win_and_ranked_apart_if_asked():
    whole = sweep(({RATE: rate, "train.tokens": n}, 2.0 - n) for rate in (1, 2) for n in (1, 2))
    trials = []
    for number, trial in enumerate(whole.trials):
        tokens = trial.settings["train.tokens"]
        flops = 1e9 * tokens * (1 + 0.01 * number)  # steps are whole numbers
        trials.append(replace(trial, result=trial.result | {"flops": {"6nd": flops}}))
    whole = replace(whole, trials=tuple(trials))
    assert any("win for that alone; --equal" in text for text in rank(whole)["warnings"])
    parts = equal_budgets(whole)
    assert [part.name for part in parts] == ["s-1e9-flops", "s-2e9-flops"]
    for part in parts:
        assert part.varied == (RATE,) and len(part.trials) == 2
        assert not any("--equal" in text for text in rank(part)["warnings"])


def test_simulated_sweeps_make_few_false_claims_and_find_what_is_planted():
    """`python -m tests.bench.sweeps.ranking` does this for more designs and sweeps."""
    shares = simulation.figures(simulation.DESIGNS[0], 60)
    assert shares["false claims"] <= 0.1  # 5 % and its sampling error
    assert shares["set holds best"] >= 0.95 and shares["size of set"] < 5
    assert shares["both keys found"] > 0.9 and shares["no interval"] < 0.05
    assert 0.85 <= shares["optima covered"] <= 0.97
