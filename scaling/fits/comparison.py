"""Compares ladders of runs: how much compute one saves at equal loss, with intervals and p-values.

A ladder's frontier is the lowest loss at each compute C. The multiplier at loss ℓ is C(ℓ) of the
first ladder over C(ℓ) of the other: 2 means that the other needs half the compute. Nothing is
extrapolated: only losses count that both frontiers reach within the compute of their runs.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from scaling.fits.isoflop import FEWEST_BUDGETS, isoflop
from scaling.fits.parametric import fit_parametric
from scaling.intervals import number
from scaling.laws.law import log_sum
from scaling.laws.optimal_split import optimal_params
from scaling.settings import DEFAULTS, LEVEL, Settings
from scaling.table import Points, count, fitted_rows, sha256
from scaling.validate import Unsupported, one_measure

MOST = 7  # ladders in one comparison
GRID = 21  # losses at which two ladders are compared
ALPHA = 0.05  # level of the two-sided test, divided by the number of pairs (Bonferroni)
SAME_FLOPS = 1.05  # largest factor between C and 6 N D for the parametric method
NARROW = 2.0  # warn if common losses span less than this factor of compute
CURVE = 400  # points of a frontier's curve; the interpolation error is far below the noise
BEYOND = np.log(10)  # log C by which a curve extends beyond the range, for draws that need it
FLATTEST = 1e-12  # minimum decrease of log-loss between points of a curve
MEASURES = {"loss": "nats per token", "bits_per_byte": "bits per byte"}


@dataclass(frozen=True)
class Ladder:
    """A named set of runs that is compared with others."""

    name: str
    points: Points


@dataclass(frozen=True)
class Frontier:
    """The lowest loss of a ladder as a function of compute: the fit first, then its draws."""

    log_flops: np.ndarray  # [K], increasing, extends beyond the ladder's range
    log_loss: np.ndarray  # [1 + S, K], decreasing
    flops: tuple[float, float]  # the smallest and largest compute of the ladder

    def loss(self, flops: np.ndarray) -> np.ndarray:
        """Losses [1 + S, n] at compute [n]."""
        log_c = np.log(flops)
        return np.exp([np.interp(log_c, self.log_flops, row) for row in self.log_loss])

    def log_compute(self, loss: np.ndarray) -> np.ndarray:
        """log C [1 + S, n] at which each loss is reached; nan if a draw does not reach it."""
        log_loss, log_c = np.log(loss), self.log_flops[::-1]
        rows = [
            np.interp(log_loss, row[::-1], log_c, left=np.nan, right=np.nan)
            for row in self.log_loss
        ]
        return np.array(rows)

    @property
    def reach(self) -> tuple[float, float]:
        """The fit's loss at the largest and at the smallest compute."""
        low, high = self.loss(np.array(self.flops[::-1]))[0]
        return float(low), float(high)


def grid(flops: tuple[float, float]) -> np.ndarray:
    """log C from the smallest to the largest compute, extended by BEYOND on both sides."""
    low, high = np.log(flops)
    return np.linspace(low - BEYOND, high + BEYOND, CURVE)


def span(points: Points) -> tuple[float, float]:
    return float(points.flops.min()), float(points.flops.max())


def parametric_frontier(points: Points, settings: Settings) -> Frontier:
    """The loss along N*(C) of a law that has a split, by default Hoffmann's."""
    points.require(("params", "tokens", "loss"), "comparisons")
    if not settings.fitted_law.split or settings.fitted_law.response != "loss":
        raise Unsupported(f"law={settings.law} has no optimal split of compute; use law=parametric")
    ratio = float(np.median(points.flops / (6 * points.params * points.tokens)))
    if not 1 / SAME_FLOPS < ratio < SAME_FLOPS:
        raise Unsupported(
            f"its FLOPs are {ratio:.3g} times 6·params·tokens; the parametric law needs C = 6 N D"
        )
    parametric = fit_parametric(points, settings)
    theta = np.concatenate([parametric.fitted.theta[None], parametric.draws])
    theta = parametric.law.split_coordinates(theta)[:, None, :]
    log_c = grid(span(points))
    log_n = np.log(optimal_params(theta, np.exp(log_c)))
    log_a, log_b, log_e, alpha, beta = np.moveaxis(theta, -1, 0)
    log_d = log_c - np.log(6) - log_n
    log_loss, _ = log_sum(log_a - alpha * log_n, log_b - beta * log_d, log_e + 0 * log_n)
    return Frontier(log_c, log_loss, span(points))


def isoflop_frontier(points: Points, settings: Settings) -> Frontier:
    """A parabola of log-loss in log C through the iso-FLOP minima, for any count of C.

    Unlike a power law, a parabola has no irreducible loss, which three budgets do not determine.
    """
    isoflop_fit = isoflop(points, settings.draws, settings.seed, settings.window)
    if len(isoflop_fit.accepted) < FEWEST_BUDGETS:
        raise Unsupported(
            isoflop_fit.reason
            or f"{len(isoflop_fit.accepted)} bracketed minima; {FEWEST_BUDGETS} are needed"
        )
    flops = isoflop_fit.array("flops")
    log_c, middle = grid((flops.min(), flops.max())), np.log(flops).mean()
    known = np.concatenate([isoflop_fit.array("log_loss")[None], isoflop_fit.draws["log_loss"]])
    coefficients = known @ np.linalg.pinv(np.vander(np.log(flops) - middle, 3)).T
    curves = coefficients @ np.vander(log_c - middle, 3).T
    return Frontier(log_c, falling(curves), (float(flops.min()), float(flops.max())))


def falling(curves: np.ndarray) -> np.ndarray:
    """Makes curves [S, K] monotonically decreasing: more compute never hurts."""
    slope = FLATTEST * np.arange(curves.shape[1])
    return np.minimum.accumulate(curves + slope, axis=1) - slope


FRONTIERS: dict[str, Callable[[Points, Settings], Frontier]] = {
    "parametric": parametric_frontier,
    "isoflop": isoflop_frontier,
}


def measured_in(points: Points, measure: str) -> Points:
    """The points with their loss in another measure. Raises ValueError if a run lacks it."""
    if measure not in MEASURES:
        raise ValueError(f"measure={measure} is unknown; use one of {', '.join(MEASURES)}")
    if measure == "loss":
        return points
    bits = points.fact("bits_per_byte")
    if not np.isfinite(bits).all():
        raise ValueError(f"measure={measure}: {points.source} does not have it for every run")
    return replace(points, loss=bits, loss_se=points.loss_se * bits / points.loss)


def compare(
    ladders: Sequence[Ladder],
    settings: Settings = DEFAULTS,
    method: str = "auto",
    measure: str = "loss",
) -> dict[str, Any]:
    """Compares the first ladder with each of the others; returns what --json prints. Held-out runs
    are ignored.

    Raises ValueError for too few or too many ladders, or if no method works for all of them.
    """
    if len(ladders) < 2:
        raise ValueError("give two or more ladders: folders of runs, or CSV files of points")
    if len(ladders) > MOST:
        raise ValueError(f"{len(ladders)} ladders are too many; give at most {MOST}")
    if settings.params != "total" or settings.flops != "6nd":
        ladders = [
            replace(x, points=count(x.points, settings.params, settings.flops)) for x in ladders
        ]
    one_measure(
        (row for ladder in ladders for row in ladder.points.facts),
        " and ".join(ladder.name for ladder in ladders),
    )
    kept = [
        replace(x, points=measured_in(x.points.select(~x.points.holdout), measure)) for x in ladders
    ]
    chosen, frontiers, refusals = choose(kept, settings, method)
    base = frontiers[chosen][0]
    pairs = []
    for ladder, front in zip(kept[1:], frontiers[chosen][1:], strict=True):
        pair = {"baseline": kept[0].name, "other": ladder.name}
        pairs.append(pair | multiplier(base, front, len(kept) - 1))
    for name, fronts in frontiers.items():
        for pair, front in zip(pairs, fronts[1:], strict=True):
            if name != chosen:
                other = multiplier(fronts[0], front, len(kept) - 1)
                pair["second_opinion"] = {"method": name} | other["multiplier"]
    covered = common_compute(frontiers[chosen])
    return {
        "method": chosen,
        "measure": measure,
        "unit": MEASURES[measure],
        "common_flops": list(covered) if covered else None,
        "ladders": [
            describe_ladder(x, front) | {"slope": slope(front, covered)}
            for x, front in zip(kept, frontiers[chosen], strict=True)
        ],
        "pairs": pairs,
        "refused": refusals,
        "warnings": comparable(kept, measure) + narrow(pairs),
        "settings": asdict(settings) | {"level": LEVEL, "alpha": ALPHA},
    }


def choose(
    ladders: Sequence[Ladder], settings: Settings, method: str
) -> tuple[str, dict[str, list[Frontier]], dict[str, str]]:
    """The chosen method, the frontiers by each method that works for all ladders, and the reasons
    why other methods do not.
    """
    if method not in ("auto", *FRONTIERS):
        raise ValueError(f"method={method} is unknown; use one of auto, {', '.join(FRONTIERS)}")
    frontiers: dict[str, list[Frontier]] = {}
    refusals: dict[str, str] = {}
    for name, fit_frontier in FRONTIERS.items():
        fronts = []
        for index, ladder in enumerate(ladders):
            try:
                # Each ladder has its own seed, so that draws are independent between ladders.
                kept = fitted_rows(ladder.points, settings.fitted_law)
                fronts.append(fit_frontier(kept, replace(settings, seed=settings.seed + index)))
            except Unsupported as error:
                refusals[name] = f"{ladder.name}: {error}"
                break
        else:
            frontiers[name] = fronts
    wanted = [method] if method != "auto" else list(FRONTIERS)
    chosen = next((name for name in wanted if name in frontiers), None)
    if chosen is None:
        reasons = "; ".join(f"{name} ({refusals[name]})" for name in wanted)
        raise ValueError(f"no method gives a frontier for every ladder: {reasons}")
    return chosen, frontiers, refusals


def common_compute(frontiers: Sequence[Frontier]) -> tuple[float, float] | None:
    """The range of compute that the runs of every ladder cover; None without overlap."""
    low = max(front.flops[0] for front in frontiers)
    high = min(front.flops[1] for front in frontiers)
    return (low, high) if low < high else None


def slope(front: Frontier, flops: tuple[float, float] | None) -> dict[str, Any]:
    """-Δ log L / Δ log C of a frontier between two amounts of compute: the exponent of L ∝ C^-slope
    there, with the irreducible loss left in. The slope of a flat frontier is 0."""
    if flops is None:
        return number(None)
    first, last = np.log(front.loss(np.array(flops))).T
    slopes = (first - last) / np.log(flops[1] / flops[0])
    return number(slopes[0], slopes[1:])


def multiplier(base: Frontier, other: Frontier, pairs: int = 1) -> dict[str, Any]:
    """C of `base` over C of `other` at equal loss: the geometric mean over evenly spaced losses
    that both reach. p is two-sided, from the draws.
    """
    low = max(base.reach[0], other.reach[0])
    high = min(base.reach[1], other.reach[1])
    if not low < high:
        ranges = "against".join(f" {a:.4g} to {b:.4g} " for a, b in (base.reach, other.reach))
        reason = f"their losses do not overlap ({ranges.strip()}); train the worse one longer"
        empty = {"multiplier": number(None), "at": [], "trend": number(None), "p": None}
        return empty | {"significant": None, "reason": reason}
    losses = np.linspace(low, high, GRID)
    log_ratio = base.log_compute(losses) - other.log_compute(losses)
    value, drawn = log_ratio[0], log_ratio[1:]
    drawn = drawn[np.isfinite(drawn).all(axis=1)]
    mean, trend = drawn.mean(axis=1), drawn[:, 0] - drawn[:, -1]
    p = two_sided(mean)
    return {
        "multiplier": number(np.exp(value.mean()), np.exp(mean)),
        "losses": [float(low), float(high)],
        "compute": float(np.exp(np.ptp(base.log_compute(np.array([low, high]))[0]))),
        "at": [
            [float(x), *number(np.exp(v), np.exp(d)).values()]
            for x, v, d in zip(losses, value, drawn.T, strict=True)
        ],
        # Multiplier at the lowest loss over that at the highest; above 1 it grows with compute.
        "trend": number(np.exp(value[0] - value[-1]), np.exp(trend)),
        "p": p,
        "trend_p": two_sided(trend),
        "significant": None if p is None else bool(p < ALPHA / pairs),
    }


def two_sided(draws: np.ndarray) -> float | None:
    """The p-value of the hypothesis that the mean is 0, from draws [S]; at least 2 / (S + 1)."""
    if not len(draws):
        return None
    beyond = min((draws <= 0).sum(), (draws >= 0).sum())
    return float(min(1.0, 2 * (beyond + 1) / (len(draws) + 1)))


def describe_ladder(ladder: Ladder, front: Frontier) -> dict[str, Any]:
    """One ladder's entry in the comparison, with its frontier's band for the figure."""
    flops = np.geomspace(*front.flops, 60)
    losses = front.loss(flops)
    band = [[float(c), *number(v[0], v[1:]).values()] for c, v in zip(flops, losses.T, strict=True)]
    return {
        "name": ladder.name,
        "source": ladder.points.source,
        "n": len(ladder.points),
        "sha256": sha256(ladder.points),
        "datasets": different(ladder.points, "dataset"),
        "flops": list(front.flops),
        "reach": list(front.reach),
        "band": band,
    }


def different(points: Points, fact: str) -> list[str]:
    """The distinct values of a fact among the runs."""
    return sorted({f"{row[fact]}" for row in points.facts if fact in row})


def validated_on(points: Points) -> list[str]:
    """The distinct hashes of what the runs were evaluated on: the held-out corpus, or otherwise the
    dataset, which contains the validation text."""
    hashes = ((row.get("held_out") or row.get("dataset")) for row in points.facts)
    return sorted({digest for digest in hashes if digest})


def comparable(ladders: Sequence[Ladder], measure: str) -> list[dict[str, str]]:
    """Warnings about ladders whose losses may not be comparable."""
    warnings = []
    hashes = [sha256(ladder.points) for ladder in ladders]
    same = [x.name for x, digest in zip(ladders, hashes, strict=True) if hashes.count(digest) > 1]
    if same:
        text = f"{' and '.join(same)} are the same points"
        warnings.append({"code": "same_points", "message": text})
    data = {ladder.name: validated_on(ladder.points) for ladder in ladders}
    known = {name: values for name, values in data.items() if values}
    if any(a != b for a, b in pairwise(known.values())) or any(len(v) > 1 for v in known.values()):
        hashes = ", ".join(
            f"{name}: {' and '.join(v[:10] for v in values)}" for name, values in known.items()
        )
        text = f"LOSSES ARE NOT COMPARABLE: the runs were evaluated on different data ({hashes})"
        warnings.append({"code": "dataset", "message": text})
    if len(known) < len(ladders):
        unknown = ", ".join(name for name in data if name not in known)
        text = (
            f"the dataset hash of {unknown} is unknown: make sure that all ladders use the same "
            "validation text"
        )
        warnings.append({"code": "dataset_unknown", "message": text})
    for fact, why in (
        ("context_length", "a longer context alone lowers the loss"),
        ("vocab_size", "tokens differ in length; compare with --measure=bits_per_byte"),
    ):
        if fact == "vocab_size" and measure == "bits_per_byte":
            continue
        values = {x.name: different(x.points, fact) for x in ladders}
        given = [v for v in values.values() if v]
        if any(a != b for a, b in pairwise(given)):
            each = ", ".join(f"{name}: {'/'.join(v)}" for name, v in values.items() if v)
            warnings.append({"code": fact, "message": f"{fact} differs ({each}): {why}"})
    return warnings


def narrow(pairs: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """Warnings about pairs whose common losses span too little compute to show a trend."""
    return [
        {
            "code": "narrow",
            "message": f"the common losses of {pair['baseline']} and {pair['other']} span only a "
            f"factor {pair['compute']:.2g} of compute",
        }
        for pair in pairs
        if pair.get("compute", NARROW) < NARROW
    ]
