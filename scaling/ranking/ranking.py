"""Ranks the configurations of a sweep: which is best, how sure that is, and what each key does."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from scaling.intervals import finite
from scaling.ranking import importance as fanova
from scaling.ranking.best_set import BestSet, best_set
from scaling.ranking.caveats import caveats
from scaling.ranking.configurations import Configuration, Key, configurations, varied
from scaling.ranking.confounding import confounding
from scaling.ranking.fitted_rates import fitted_rates
from scaling.ranking.marginal_effects import AdditiveModel, additive_model, effects
from scaling.ranking.trials import Sweep
from scaling.ranking.verdict import verdict
from scaling.validate import one_measure

LEVEL = 0.95


def rank(sweep: Sweep, metric: str = "loss", level: float = LEVEL) -> dict[str, Any]:
    """The ranking of a sweep's finished trials by an evaluation metric, for JSON: None where
    something is unknown. ValueError if no finished trial has the metric, or if the trials predict
    different things.

        sweep, source, metric, unit, better ("lower" | "higher"), level
        status          {"done": 12, "diverged": 1, …}: trials of the sweep
        keys            varied keys: key, name, scale ("log" | "linear" | "category"), values
        configurations  best first, trials that share all but the seed as one: rank, values {key:
                        value}, trials, seeds, metric_values, mean, spread (standard deviation over
                        seeds), se (of the mean, over seeds), eval_se (of one trial, from the finite
                        evaluation set, which all trials share), params, tokens, flops (6ND),
                        seconds, p (adjusted, against the best), among_best (true | false | None:
                        unknown)
        not_ranked      trial, reason
        best            verdict (a sentence), among_best (a count), more_seeds, test ("Welch" |
                        "paired" | None)
        effects         one for each key: key, importance {value, lo, hi: share of variance},
                        method, marginal [{value, mean, lo, hi, n}], p (adjusted), note
        interactions    pairs of keys, strongest first: keys, importance
        optima          learning rates at each setting of the other keys: key, at, value, lo, hi,
                        loss, inside (the grid), reason, level
        confounding     keys, text: pairs of keys whose effects are mixed up
        warnings        sentences
    """
    keys = varied(sweep)
    one_measure((trial.result for trial in sweep.trials), f"runs={sweep.folder}")
    found, left_out = configurations(sweep, keys, metric)
    unit, better = _measure(sweep, metric)
    sign = -1.0 if better == "higher" else 1.0
    found.sort(key=lambda one: sign * one.mean)
    compared, model, marginal = compare(found, keys, level, sign)
    shares, interactions, why = fanova.importance(found, keys, level)
    ranking = {
        "sweep": sweep.name,
        "source": str(sweep.folder),
        "metric": metric,
        "unit": unit,
        "better": better,
        "level": level,
        "status": dict(Counter(trial.status for trial in sweep.trials)),
        "keys": [vars(key) | {"values": list(key.values)} for key in keys],
        "configurations": _rows(found, compared),
        "not_ranked": left_out,
        "best": {},
        "effects": _effects(marginal, keys, shares),
        "interactions": interactions,
        "optima": fitted_rates(found, keys, sign),
        "confounding": confounding(model, sign) if model else [],
        "warnings": caveats(sweep, found, keys) + ([why] if why and keys else []),
    }
    ranking["best"] = {
        "verdict": verdict(ranking, compared),
        "among_best": compared.member.count(True),
        "more_seeds": compared.more_seeds,
        "test": compared.test,
    }
    return ranking


def compare(
    found: Sequence[Configuration], keys: Sequence[Key], level: float, sign: float
) -> tuple[BestSet, AdditiveModel | None, list[dict[str, Any]]]:
    """The claims of a ranking: which configurations are worse than the best, and which keys matter.
    Any false one among all has probability 1 - `level` at most, because the p-values of each of
    the two families are doubled (Bonferroni).
    """
    model = additive_model(found, keys)
    marginal = effects(model, level, families=2) if model else []
    return best_set(found, level, sign, families=2), model, marginal


def _measure(sweep: Sweep, metric: str) -> tuple[str, str]:
    """The unit of a metric and whether lower or higher is better, as the results say."""
    for trial in sweep.trials:
        measured = (trial.result.get("metrics") or {}).get(metric)
        if isinstance(measured, dict):
            return str(measured.get("unit", "")), str(measured.get("better", "lower"))
    return "nats/token" if metric == "loss" else "", "lower"


def _rows(found: Sequence[Configuration], compared: BestSet) -> list[dict[str, Any]]:
    """The configurations as rows of a table, in their order."""
    rows = []
    for i, one in enumerate(found):
        spread = float(one.measured.std(ddof=1)) if len(one.trials) > 1 else None
        results = [trial.result for trial in one.trials]
        rows.append(
            {
                "rank": i + 1,
                "values": dict(one.values),
                "trials": [trial.id for trial in one.trials],
                "seeds": list(one.seeds),
                "metric_values": one.measured.tolist(),
                "mean": one.mean,
                "spread": spread,
                "se": None if spread is None else spread / len(one.trials) ** 0.5,
                "eval_se": finite(one.errors.mean()),
                "params": one.trials[0].params or None,
                "tokens": results[0].get("tokens"),
                "flops": (results[0].get("flops") or {}).get("6nd"),
                "seconds": finite(sum(r.get("seconds") or np.nan for r in results) / len(results)),
                "p": finite(compared.p[i]),
                "among_best": compared.member[i],
            }
        )
    return rows


def _effects(
    marginal: Sequence[dict[str, Any]], keys: Sequence[Key], shares: dict[str, Any]
) -> list[dict[str, Any]]:
    """What each key does, in the order of the keys; keys that group no trials have no means."""
    known = {row["key"]: row for row in marginal}
    nothing = {"marginal": [], "p": None, "note": "too few configurations share a value"}
    return [
        {"key": key.key, "importance": shares.get(key.key), "method": fanova.METHOD}
        | known.get(key.key, nothing)
        for key in keys
    ]
