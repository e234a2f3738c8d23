"""Ladders of runs compared: how much compute one saves at equal loss, and how surely.

Each ladder's frontier is the lowest loss that compute C buys. Where two frontiers have losses in
common, the multiplier at loss ℓ is C(ℓ) of the first ladder over C(ℓ) of the other: 2
says that the other needs half the compute. Nothing is extrapolated: only losses count that both
frontiers reach within the compute of their own runs.
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
from scaling.validate import Unsupported

MOST = 7  # ladders of one comparison
GRID = 21  # losses at which two ladders are compared
ALPHA = 0.05  # of the two-sided test, shared among the pairs (Bonferroni)
SAME_FLOPS = 1.05  # C / 6 N D up to which the parametric law's C = 6 N D is the table's C
NARROW = 2.0  # an overlap of less compute than this says little about any other compute
CURVE = 400  # points of a frontier's curve: interpolation errs by far less than the noise
BEYOND = np.log(10)  # how far, in log C, a curve goes on for the draws that need it
FLATTEST = 1e-12  # fall of log-loss from one point of a curve to the next
MEASURES = {"loss": "nats per token", "bits_per_byte": "bits per byte"}


@dataclass(frozen=True)
class Ladder:
    """Runs that belong together, under the name that they are compared by."""

    name: str
    points: Points


@dataclass(frozen=True)
class Frontier:
    """The lowest loss of a ladder against compute: the fit first, then its draws."""

    log_flops: np.ndarray  # [K], rising, somewhat beyond the ladder's own range
    log_loss: np.ndarray  # [1 + S, K], falling
    flops: tuple[float, float]  # the least and the most compute of the ladder

    def loss(self, flops: np.ndarray) -> np.ndarray:
        """Losses [1 + S, n]."""
        log_c = np.log(flops)
        return np.exp([np.interp(log_c, self.log_flops, row) for row in self.log_loss])

    def log_compute(self, loss: np.ndarray) -> np.ndarray:
        """log C [1 + S, n] that reaches each loss; nan where a draw does not."""
        log_loss, log_c = np.log(loss), self.log_flops[::-1]
        rows = [
            np.interp(log_loss, row[::-1], log_c, left=np.nan, right=np.nan)
            for row in self.log_loss
        ]
        return np.array(rows)

    @property
    def reach(self) -> tuple[float, float]:
        """The fit's loss at the most and at the least compute."""
        low, high = self.loss(np.array(self.flops[::-1]))[0]
        return float(low), float(high)


def grid(flops: tuple[float, float]) -> np.ndarray:
    """log C from the least to the most compute, and beyond: a draw may reach a loss later."""
    low, high = np.log(flops)
    return np.linspace(low - BEYOND, high + BEYOND, CURVE)


def span(points: Points) -> tuple[float, float]:
    return float(points.flops.min()), float(points.flops.max())


def parametric_frontier(points: Points, settings: Settings) -> Frontier:
    """The loss along N*(C) of a law that has one, by default Hoffmann's."""
    points.require(("params", "tokens", "loss"), "comparisons")
    if not settings.fitted_law.split or settings.fitted_law.response != "loss":
        raise Unsupported(f"law={settings.law} has no optimal split of compute; use law=parametric")
    ratio = float(np.median(points.flops / (6 * points.params * points.tokens)))
    if not 1 / SAME_FLOPS < ratio < SAME_FLOPS:
        raise Unsupported(
            f"its FLOPs are {ratio:.3g} times 6·params·tokens, and the parametric law's are not"
        )
    found = fit_parametric(points, settings)
    theta = np.concatenate([found.fitted.theta[None], found.draws])
    theta = found.law.split_coordinates(theta)[:, None, :]
    log_c = grid(span(points))
    log_n = np.log(optimal_params(theta, np.exp(log_c)))
    log_a, log_b, log_e, alpha, beta = np.moveaxis(theta, -1, 0)
    log_d = log_c - np.log(6) - log_n
    log_loss, _ = log_sum(log_a - alpha * log_n, log_b - beta * log_d, log_e + 0 * log_n)
    return Frontier(log_c, log_loss, span(points))


def isoflop_frontier(points: Points, settings: Settings) -> Frontier:
    """A parabola of log-loss in log C through the iso-FLOP minima, whatever C counts.

    Between the minima it needs no irreducible loss, which three budgets do not determine.
    """
    found = isoflop(points, settings.draws, settings.seed, settings.window)
    if len(found.accepted) < FEWEST_BUDGETS:
        raise Unsupported(
            found.reason
            or f"{len(found.accepted)} bracketed minima, and {FEWEST_BUDGETS} are needed"
        )
    flops = found.array("flops")
    log_c, middle = grid((flops.min(), flops.max())), np.log(flops).mean()
    known = np.concatenate([found.array("log_loss")[None], found.draws["log_loss"]])
    bends = known @ np.linalg.pinv(np.vander(np.log(flops) - middle, 3)).T
    curves = bends @ np.vander(log_c - middle, 3).T
    return Frontier(log_c, falling(curves), (float(flops.min()), float(flops.max())))


def falling(curves: np.ndarray) -> np.ndarray:
    """Curves [S, K] made to fall all along: more compute need not be used."""
    slope = FLATTEST * np.arange(curves.shape[1])
    return np.minimum.accumulate(curves + slope, axis=1) - slope


FRONTIERS: dict[str, Callable[[Points, Settings], Frontier]] = {
    "parametric": parametric_frontier,
    "isoflop": isoflop_frontier,
}


def measured_in(points: Points, measure: str) -> Points:
    """The points with their loss in another measure. ValueError where a run lacks it."""
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
    """The first ladder against every other, as --json has it. Held-out runs take no part.

    ValueError where too few or too many ladders are given, or no method can carry all of them.
    """
    if len(ladders) < 2:
        raise ValueError("give two or more ladders: folders of runs, or CSV files of points")
    if len(ladders) > MOST:
        raise ValueError(f"{len(ladders)} ladders: at most {MOST} have colours of their own")
    if settings.params != "total" or settings.flops != "6nd":
        ladders = [
            replace(x, points=count(x.points, settings.params, settings.flops)) for x in ladders
        ]
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
    return {
        "method": chosen,
        "measure": measure,
        "unit": MEASURES[measure],
        "ladders": [described(x, front) for x, front in zip(kept, frontiers[chosen], strict=True)],
        "pairs": pairs,
        "refused": refusals,
        "warnings": comparable(kept, measure) + narrow(pairs),
        "settings": asdict(settings) | {"level": LEVEL, "alpha": ALPHA},
    }


def choose(
    ladders: Sequence[Ladder], settings: Settings, method: str
) -> tuple[str, dict[str, list[Frontier]], dict[str, str]]:
    """The method to compare by, every method's frontiers that all ladders have, and why not all."""
    if method not in ("auto", *FRONTIERS):
        raise ValueError(f"method={method} is unknown; use one of auto, {', '.join(FRONTIERS)}")
    found: dict[str, list[Frontier]] = {}
    refusals: dict[str, str] = {}
    for name, of in FRONTIERS.items():
        fronts = []
        for index, ladder in enumerate(ladders):
            try:
                # Ladders are independent, and so must be their draws.
                kept = fitted_rows(ladder.points, settings.fitted_law)
                fronts.append(of(kept, replace(settings, seed=settings.seed + index)))
            except Unsupported as error:
                refusals[name] = f"{ladder.name}: {error}"
                break
        else:
            found[name] = fronts
    wanted = [method] if method != "auto" else list(FRONTIERS)
    chosen = next((name for name in wanted if name in found), None)
    if chosen is None:
        reasons = "; ".join(f"{name} ({refusals[name]})" for name in wanted)
        raise ValueError(f"no frontier that all ladders have: {reasons}")
    return chosen, found, refusals


def multiplier(base: Frontier, other: Frontier, pairs: int = 1) -> dict[str, Any]:
    """C of `base` over C of `other` at equal loss, averaged over the losses that both reach.

    The average is of logarithms, over losses evenly spaced. p is two-sided, from the draws.
    """
    low = max(base.reach[0], other.reach[0])
    high = min(base.reach[1], other.reach[1])
    if not low < high:
        ranges = "against".join(f" {a:.4g} to {b:.4g} " for a, b in (base.reach, other.reach))
        reason = f"their losses do not overlap ({ranges.strip()}); give the worse one more compute"
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
        # At the lowest loss over at the highest: above 1, the advantage grows with compute.
        "trend": number(np.exp(value[0] - value[-1]), np.exp(trend)),
        "p": p,
        "trend_p": two_sided(trend),
        "significant": None if p is None else bool(p < ALPHA / pairs),
    }


def two_sided(draws: np.ndarray) -> float | None:
    """The p-value of the hypothesis that the draws' quantity is 0; never below 2 / (S + 1)."""
    if not len(draws):
        return None
    beyond = min((draws <= 0).sum(), (draws >= 0).sum())
    return float(min(1.0, 2 * (beyond + 1) / (len(draws) + 1)))


def described(ladder: Ladder, front: Frontier) -> dict[str, Any]:
    """One ladder's part of the comparison, with its frontier's band for the figure."""
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
    """The values of a fact among the runs, each once."""
    return sorted({f"{row[fact]}" for row in points.facts if fact in row})


def comparable(ladders: Sequence[Ladder], measure: str) -> list[dict[str, str]]:
    """Why the losses of these ladders may not mean the same."""
    found = []
    hashes = [sha256(ladder.points) for ladder in ladders]
    twins = [x.name for x, own in zip(ladders, hashes, strict=True) if hashes.count(own) > 1]
    if twins:
        text = f"{' and '.join(twins)} are the very same points"
        found.append({"code": "same_points", "message": text})
    data = {ladder.name: different(ladder.points, "dataset") for ladder in ladders}
    known = {name: values for name, values in data.items() if values}
    if any(a != b for a, b in pairwise(known.values())) or any(len(v) > 1 for v in known.values()):
        hashes = ", ".join(
            f"{name}: {' and '.join(v[:10] for v in values)}" for name, values in known.items()
        )
        text = f"LOSSES ARE NOT COMPARABLE: the runs were evaluated on different data ({hashes})"
        found.append({"code": "dataset", "message": text})
    if len(known) < len(ladders):
        unknown = ", ".join(name for name in data if name not in known)
        text = f"no dataset hash is known of {unknown}: make sure that the validation text is one"
        found.append({"code": "dataset_unknown", "message": text})
    for fact, why in (
        ("context_length", "longer contexts alone lower the loss"),
        ("vocab_size", "a token is another amount of text; compare by --measure=bits_per_byte"),
    ):
        if fact == "vocab_size" and measure == "bits_per_byte":
            continue
        values = {x.name: different(x.points, fact) for x in ladders}
        given = [v for v in values.values() if v]
        if any(a != b for a, b in pairwise(given)):
            each = ", ".join(f"{name}: {'/'.join(v)}" for name, v in values.items() if v)
            found.append({"code": fact, "message": f"{fact} differs ({each}): {why}"})
    return found


def narrow(pairs: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """Pairs whose common losses span too little compute to show a trend."""
    return [
        {
            "code": "narrow",
            "message": f"{pair['baseline']} and {pair['other']} have losses in common over a "
            f"factor {pair['compute']:.2g} of compute alone",
        }
        for pair in pairs
        if pair.get("compute", NARROW) < NARROW
    ]
