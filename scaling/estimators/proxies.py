"""Reward over-optimisation: what a proxy reward gains of the gold reward, and when it turns over.

    P prompts, N samples of each, K sizes n of best-of-n, S bootstrap draws

Gold rewards are measured from their mean under the policy that drew the samples, so the laws go
through 0 at KL = 0. Proxy rewards are measured likewise, in standard deviations over all samples.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from scaling.estimators import best_of_n
from scaling.fits.robust_fit import bootstrap, fit
from scaling.intervals import finite, number
from scaling.laws.law import Law
from scaling.laws.over_optimisation import BEST_OF_N, RL
from scaling.table import Points

FEWEST = 3  # points that a law is fitted to, at least
ROUNDING = 1e-9  # of the largest value: differences below it are no differences
FACTS = ("size", "comparisons")  # of a proxy: its parameters, and the comparisons it learned from


@dataclass(frozen=True)
class Judged:
    """The rewards of N samples of each of P prompts under one proxy and under the gold judge."""

    name: str
    proxy_PN: np.ndarray
    gold_PN: np.ndarray
    size: float | None = None
    comparisons: float | None = None


def describe_samples(judged: Judged, draws: int, seed: int) -> dict[str, Any]:
    """The best-of-n curve of a proxy, both laws fitted to it, and how far it falls after its peak.
    Prompts are the independent units of every interval. `kl` is an upper bound where rewards are
    equal (`best_of_n.kl`). Raises ValueError for rewards that support no curve."""
    prompts, count = np.shape(judged.proxy_PN)[:2] if np.ndim(judged.proxy_PN) == 2 else (0, 0)
    sizes = best_of_n.spaced(max(count, 1))
    gold_PK = best_of_n.expected(judged.proxy_PN, judged.gold_PN, sizes)
    proxy_PK = best_of_n.expected(judged.proxy_PN, judged.proxy_PN, sizes)
    if len(sizes) < FEWEST + 1:
        raise ValueError(
            f"{judged.name}: {count} samples of each prompt are too few for a curve; give at least "
            f"{FEWEST + 1}"
        )
    unit = float(np.std(judged.proxy_PN))
    if not unit:
        raise ValueError(
            f"{judged.name}: all proxy rewards are equal, so best-of-n chooses nothing"
        )
    gold_PK = gold_PK - gold_PK[:, :1]
    proxy_PK = (proxy_PK - proxy_PK[:, :1]) / unit
    gold, gold_se = _mean(gold_PK)
    proxy, proxy_se = _mean(proxy_PK)
    kl = best_of_n.kl(sizes)
    columns = dict(n=sizes, kl=kl, gold=gold, gold_se=gold_se, proxy=proxy, proxy_se=proxy_se)
    equal_P = np.full(prompts, 1 / prompts)
    times_SP = np.random.default_rng(seed).multinomial(prompts, equal_P, size=draws)
    means_SK = times_SP @ gold_PK / prompts
    laws, errors = {}, {}
    for law in (BEST_OF_N, RL):
        laws[law.name], errors[law.name] = _fitted(law, kl[1:], gold[1:], means_SK[:, 1:])
    peak = int(gold.argmax())
    falls, falls_se = _mean(_fall(gold_PK, seed)[:, None])
    return {
        "name": judged.name,
        **{name: getattr(judged, name) for name in FACTS},
        "prompts": int(prompts),
        "samples": int(count),
        "curve": _rows(columns),
        "laws": laws,
        "better": _better(errors) if prompts > 1 else None,
        "peak": {"n": int(sizes[peak]), "kl": float(kl[peak]), "gold": float(gold[peak])},
        "falls": {"value": float(falls[0]), "se": finite(falls_se[0])},
    }


def describe_policies(name: str, points: Points, draws: int, seed: int) -> dict[str, Any]:
    """Both laws fitted to policies of different KL, one a row of `points`, read for the law RL."""
    kl, gold = points.other["kl"], points.response(RL)
    if len(np.unique(kl)) < FEWEST:
        raise ValueError(
            f"{name}: {len(np.unique(kl))} policies of different kl are too few for a law; give at "
            f"least {FEWEST}"
        )
    laws, errors = {}, {}
    rows_SN = np.random.default_rng(seed).integers(len(kl), size=(draws, len(kl)))
    for law in (BEST_OF_N, RL):
        found = fit(law, {"kl": kl}, gold, "squares")
        drawn = bootstrap(found, points.run, draws, seed, "residuals")
        laws[law.name] = _described(law, found.theta, drawn, found.residuals)
        errors[law.name] = np.array([_fitted(law, kl[r], gold[r])[0]["rmse"] for r in rows_SN])
    order = np.argsort(kl)
    columns = dict(kl=kl[order], gold=gold[order])
    return {
        "name": name,
        "policies": len(points),
        "curve": _rows(columns),
        "laws": laws,
        "better": _better(errors),
    }


def curve(law: Law, part: dict[str, Any], kl: np.ndarray) -> np.ndarray:
    """The gold reward that a described law gives at each KL."""
    theta = np.array([part[name]["value"] for name in law.names])
    return law.loss(theta, {"kl": kl})


def _fitted(
    law: Law, kl: np.ndarray, gold: np.ndarray, means_SK: np.ndarray | None = None
) -> tuple[dict[str, Any], np.ndarray]:
    """(a law fitted by least squares, which is linear in its constants, to the curve and to each of
    its draws; the root mean square of the residuals of each draw [S])."""
    means_SK = np.empty((0, len(kl))) if means_SK is None else means_SK
    x = law.log_inputs({"kl": kl})
    slopes_KF = law.function(np.zeros((1, len(law.names))), x)[1][0].T
    inverse_FK = np.linalg.pinv(slopes_KF)
    theta, theta_SF = inverse_FK @ gold, means_SK @ inverse_FK.T
    errors_S = np.sqrt(np.mean((means_SK - theta_SF @ slopes_KF.T) ** 2, axis=1))
    return _described(law, theta, theta_SF, gold - slopes_KF @ theta), errors_S


def _better(errors: dict[str, np.ndarray]) -> str | None:
    """The law of the smaller root mean square, by draws of both; None if the interval of the
    difference holds 0, or without draws."""
    (one, first_S), (other, second_S) = errors.items()
    difference = number(None, first_S - second_S)
    if difference["lo"] is None or difference["lo"] <= 0 <= difference["hi"]:
        return None
    return one if difference["hi"] < 0 else other


def _fall(gold_PK: np.ndarray, seed: int) -> np.ndarray:
    """How far the gold reward of each prompt [P] lies at the end below the peak of the other half
    of the prompts. Of the prompts that chose it, the highest point would lie too high."""
    falls_P = np.zeros(len(gold_PK))
    order = np.random.default_rng(seed).permutation(len(gold_PK))
    halves = np.array_split(order, 2)
    for half, other in zip(halves, halves[::-1], strict=True):
        if len(other):
            peak = gold_PK[other].mean(0).argmax()
            falls_P[half] = gold_PK[half, peak] - gold_PK[half, -1]
    # Where the reward is at its bound, sums differ by the rounding of numbers only.
    return np.where(np.abs(falls_P) > ROUNDING * np.abs(gold_PK).max(), falls_P, 0.0)


def _described(
    law: Law, theta: np.ndarray, draws: np.ndarray, residuals: np.ndarray
) -> dict[str, Any]:
    constants = {
        name: number(float(theta[i]), draws[:, i] if len(draws) else None)
        for i, name in enumerate(law.names)
    }
    return constants | {"law": law.formula, "rmse": float(np.sqrt(np.mean(residuals**2)))}


def _mean(values_PK: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean over prompts [K] and its standard error, nan for one prompt."""
    count = len(values_PK)
    error = values_PK.std(0, ddof=1) / np.sqrt(count) if count > 1 else values_PK[0] * np.nan
    return values_PK.mean(0), error


def _rows(columns: dict[str, Sequence[float]]) -> list[dict[str, float | None]]:
    """Columns as rows for JSON; null where a value is unknown."""
    names, rows = list(columns), zip(*columns.values(), strict=True)
    clean = lambda v: (v.item() if hasattr(v, "item") else v) if np.isfinite(v) else None  # noqa: E731
    return [dict(zip(names, map(clean, row), strict=True)) for row in rows]
