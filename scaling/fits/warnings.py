"""Warnings about known pitfalls of scaling-law fits, each with its threshold and source."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from scaling.intervals import FAR, extrapolation
from scaling.laws import LAWS
from scaling.laws.law import Law
from scaling.table import Points, head_params, same_inputs

HOFFMANN = "Hoffmann et al. 2022, arXiv:2203.15556"
PEARCE = "Pearce & Song 2024, arXiv:2406.12907"
PORIAN = "Porian et al. 2024, arXiv:2406.19146"
MUENNIGHOFF = "Muennighoff et al. 2023, arXiv:2305.16264"
BESIROGLU = "Besiroglu et al. 2024, arXiv:2404.10102"
KAPLAN = "Kaplan et al. 2020, arXiv:2001.08361"
MCCANDLISH = "McCandlish et al. 2018, arXiv:1812.06162, as fitted by " + KAPLAN + ", eq. 1.4"
# B_crit = CRITICAL_TOKENS L^(-1/CRITICAL_EXPONENT) in BPE tokens and nats per token of WebText2,
# which has 96 GB and 22.9e9 tokens (Kaplan et al. 2020, sections 2.3 and 5.1).
CRITICAL_TOKENS, CRITICAL_EXPONENT = 2e8, 0.21
BYTES_PER_TOKEN = 96 / 22.9

NOT_MATRICES = ("embedding", "position", "norm", "head")  # no matrix products except the logits
DEFAULT_FACTS = {"family": "decoder", "objective": "next_token"}  # of runs without these facts

Parts = dict[str, Any]  # of law.json
Finding = tuple[str, float] | None  # message and value; None if the check passes


def largest(values: np.ndarray) -> float:
    """The largest finite value; 0 if no value is finite."""
    return float(np.max(values[np.isfinite(values)], initial=0.0))


def fitted_law(parts: Parts) -> Law:
    """The law that the settings select."""
    return LAWS[parts["settings"]["law"]]


def long_warmup(points: Points, parts: Parts) -> Finding:
    """A warmup of more than a tenth of a run raises the loss, mostly of small budgets."""
    share = points.fact("warmup_steps") / points.fact("steps")
    worst = largest(share)
    runs = int((share > 0.1).sum())
    return (
        (f"warmup takes up to {worst:.0%} of a run ({runs} runs above 10 %)", worst)
        if runs
        else None
    )


def warmup_beyond_params(points: Points, parts: Parts) -> Finding:
    """A warmup of more tokens than the model has parameters is too long for that model."""
    ratio = points.fact("warmup_steps") * points.fact("batch") / points.params
    worst = largest(ratio)
    return (f"warmup lasts up to {worst:.3g} tokens per parameter", worst) if worst > 1 else None


def schedule_beyond_end(points: Points, parts: Parts) -> Finding:
    """A schedule that ends before or after the run increases the loss."""
    ratio = points.fact("total_steps") / points.fact("steps")
    off = np.abs(np.log(ratio))
    worst = largest(off)
    text = f"schedules end up to {np.expm1(worst):.0%} away from the end of their runs"
    return (text, float(np.expm1(worst))) if worst > np.log(1.05) else None


def heavy_logits(points: Points, parts: Parts) -> Finding:
    """If the head takes much compute, the exponents depend on whether it is counted."""
    if not {"embedding", "head"} & points.components.keys():
        return None
    head = head_params(points.components)
    matrices = (v for name, v in points.components.items() if name not in NOT_MATRICES)
    body = sum(matrices, start=np.zeros(len(points)))
    share = head / np.maximum(head + body, 1)
    worst = float(share.max())
    text = f"the logits take up to {worst:.0%} of a model's FLOPs: see the table of conventions"
    return (text, worst) if worst > 0.1 else None


def collinear(points: Points, parts: Parts) -> Finding:
    """If D is proportional to N, a law's terms in N and in D are indistinguishable."""
    kept = points.select(~points.holdout)
    if not {"params", "tokens"} <= set(fitted_law(parts).inputs):
        return None
    if len(kept) < 3 or np.ptp(kept.params) == 0 or np.ptp(kept.tokens) == 0:
        return None
    r = float(np.corrcoef(np.log(kept.params), np.log(kept.tokens))[0, 1])
    condition = parts["parametric"].get("condition") or np.nan
    text = f"N and D are collinear (correlation {r:.3f}, condition number {condition:.2g})"
    return (text + ": the constants of N and of D are indistinguishable", r) if r > 0.98 else None


def few_budgets(points: Points, parts: Parts) -> Finding:
    """The exponent of N*(C) needs at least three budgets with at least four sizes each."""
    reason, minima = parts["isoflop"].get("reason"), parts["isoflop"]["minima"]
    if not reason:
        return None
    known = sum(m["params"]["value"] is not None for m in minima)
    return f"no iso-FLOP exponents: {reason.split(';')[0]}", float(known)


def unbracketed_minima(points: Points, parts: Parts) -> Finding:
    """Budgets whose lowest loss is at the edge of the grid, or which have too few sizes."""
    edges = [m for m in parts["isoflop"]["minima"] if m.get("reason") and m["sizes"] >= 3]
    if not edges or parts["isoflop"].get("reason"):
        return None
    reasons = "; ".join(f"C = {m['flops']:.2g}: {m['reason']}" for m in edges[:3])
    return f"{len(edges)} budgets left out: {reasons}", float(len(edges))


def uneven_budgets(points: Points, parts: Parts) -> Finding:
    """If the compute of runs in a budget varies with size, their parabola is tilted."""
    kept = points.select(~points.holdout)
    row_of = {name: i for i, name in enumerate(kept.run)}
    spreads = []
    for m in parts["isoflop"]["minima"]:
        c = kept.flops[[row_of[name] for name in m["runs"]]]
        spreads.append(float(c.max() / c.min() - 1))
    worst = max(spreads, default=0.0)
    return (
        (f"the runs of one budget differ by up to {worst:.0%} in compute", worst)
        if worst > 0.03
        else None
    )


def repeated_data(points: Points, parts: Parts) -> Finding:
    """Repeated tokens reduce the loss less than new ones."""
    epochs = points.fact("epochs_of_data")
    worst = largest(epochs)
    runs = int((epochs > 1.001).sum())
    return (f"{runs} runs repeat their data, up to {worst:.2g} epochs", worst) if runs else None


def critical_batch(points: Points) -> np.ndarray:
    """The estimated critical batch size at every run's final loss, in tokens of the run.

    If bits per byte are known, they convert the run's tokens to those of the published fit.
    Otherwise the two are assumed to be the same.
    """
    bits = points.fact("bits_per_byte")
    known = np.isfinite(bits) & (bits > 0)
    bytes_per_token = np.where(known, points.loss / np.where(known, bits * np.log(2), 1), 1.0)
    scale = np.where(known, BYTES_PER_TOKEN / bytes_per_token, 1.0)
    return CRITICAL_TOKENS * (points.loss * scale) ** (-1 / CRITICAL_EXPONENT) * scale


def large_batch(points: Points, parts: Parts) -> Finding:
    """Above the critical batch size, more tokens per step hardly help, so D is overstated."""
    ratio = points.fact("batch") / critical_batch(points)
    worst = largest(ratio)
    runs = int((ratio > 1).sum())
    text = (
        f"the batch is up to {worst:.2g} times the estimated critical batch ({runs} runs above it)"
    )
    return (text, worst) if runs else None


def learning_rate_at_edge(points: Points, parts: Parts) -> Finding:
    """If the best learning rate is at the edge of its grid, a better one may be beyond it."""
    law = fitted_law(parts)
    known = points.select(np.isfinite(points.fact("learning_rate")))
    rates, values = known.fact("learning_rate"), known.response(law)
    edges = []
    for rows in same_inputs(known, law):
        tried = np.unique(rates[rows])
        best = rates[rows][law.best(values[rows])]
        if len(tried) >= 3 and best in (tried[0], tried[-1]):
            edges.append((best, "lowest" if best == tried[0] else "highest"))
    if not edges:
        return None
    best, side = edges[0]
    text = f"the best learning rate is the {side} tried ({best:.3g})"
    return f"{text} at {len(edges)} sizes: extend the grid", float(len(edges))


def worse_than_guessing(points: Points, parts: Parts) -> Finding:
    """A loss above that of uniform guessing is in bits, or the run failed."""
    vocab = points.fact("vocab_size")
    ratio = points.loss / np.log(vocab)
    worse = int((ratio > 1.02).sum())
    text = f"{worse} runs are worse than uniform guessing, ln(vocab_size): is the loss in bits?"
    return (text, largest(ratio)) if worse else None


def without_floor(points: Points, parts: Parts) -> Finding:
    """A law without an irreducible loss extrapolates to 0."""
    part = parts["parametric"]
    if part.get("name") is None or part["floor"] or part["response"] != "loss":
        return None
    return f"{part['law']} has no irreducible loss: extrapolated, it falls to 0", 0.0


def decayed_midpoints(points: Points, parts: Parts) -> Finding:
    """In the middle of a decaying schedule, the loss is above that of a run that ended there."""
    part = parts["envelope"]
    if not part["decaying_runs"] or part["a"]["value"] is None:
        return None
    names = ", ".join(part["schedules"])
    text = f"approach 1 reads losses in the middle of {part['decaying_runs']} runs whose learning "
    text += f"rate had not decayed yet ({names})"
    if part["excess"] is not None:
        text += (
            f"; they differ by {part['excess']:+.1%} from runs that ended there "
            f"({part['pairs']} pairs)"
        )
    return text, part["excess"] or 0.0


def biased_grid(points: Points, parts: Parts) -> Finding:
    """Parabolas through wide or off-centre grids of sizes miss the minimum even without noise."""
    part = parts["isoflop"].get("grid_bias")
    if part is None:
        return None
    worst = largest(np.abs(np.array([v for v in part["params"] if v is not None], float)))
    slope = abs(part["a"] or 0.0)
    text = f"the grid (its sizes and uneven compute) biases N* by up to {worst:.0%} and a by "
    text += f"{part['a'] or 0:+.3f}; narrow it around the minima, or use interpolation=akima"
    return (text, worst) if worst > 0.1 or slope > 0.02 else None


def noisy_evaluation(points: Points, parts: Parts) -> Finding:
    """The standard error of the evaluation should be small against the differences in loss."""
    errors = points.loss_se / points.loss
    error = float(np.median(errors[np.isfinite(errors)])) if np.isfinite(errors).any() else np.nan
    depths = []
    for m in parts["isoflop"]["minima"]:
        if m["parabola"]:
            losses = [loss for _, loss in m["parabola"]]
            depths.append(float(np.log(max(losses) / min(losses))))
    if not depths or not np.isfinite(error):
        return None
    ratio = error / float(np.median(depths))
    text = f"the evaluation's standard error is {ratio:.0%} of the depth of the parabolas"
    return (text, ratio) if ratio > 0.3 else None


def far_extrapolation(points: Points, parts: Parts) -> Finding:
    """Beyond ten times the fitted compute, intervals from the fit alone are too narrow."""
    if not points.holdout.any() or points.holdout.all():
        return None
    reach = extrapolation(points.select(~points.holdout), float(points.flops[points.holdout].max()))
    text = f"the held-out run has {reach:.3g} times the compute of the largest fitted run"
    return (text, reach) if reach > FAR else None


def no_floor(points: Points, parts: Parts) -> Finding:
    """The irreducible loss is poorly determined, or its interval reaches 0."""
    part = parts["parametric"]
    name = part.get("floor")
    if name is None or part[name]["lo"] is None:
        return None
    e = part[name]
    lowest = float(points.response(fitted_law(parts)).min())
    wide = (e["hi"] - e["lo"]) / lowest
    text = f"the irreducible {part['response']} is poorly determined: {name} in "
    text += f"[{e['lo']:.3g}, {e['hi']:.3g}]"
    return (text, wide) if wide > 0.5 or e["lo"] < 0.01 * lowest else None


def frontier_floor(points: Points, parts: Parts) -> Finding:
    """A few minima over a narrow range of compute do not determine the frontier's E."""
    e = parts["frontier"]["E"]
    if e["value"] is None or e["lo"] is None:
        return None
    wide = (e["hi"] - e["lo"]) / float(points.loss.min())
    text = f"the frontier's irreducible loss is poorly determined: E in [{e['lo']:.3g}, "
    text += f"{e['hi']:.3g}]; so are K and gamma; add budgets over a wider range"
    return (text, wide) if wide > 0.5 or e["lo"] == 0 else None


def hard_fit(points: Points, parts: Parts) -> Finding:
    """If few starts reach the best minimum, a better one may exist."""
    starts, reached = parts["parametric"].get("starts"), parts["parametric"].get("reached")
    if not starts or reached >= 3:
        return None
    return f"only {reached} of {starts} starts reached the best fit", float(reached)


def spent_freedom(points: Points, parts: Parts) -> Finding:
    """A law with as many constants as points always fits."""
    n, minima, part = parts["points"]["n"], parts["isoflop"]["minima"], parts["parametric"]
    known = sum(m["loss"]["value"] is not None for m in minima)
    texts = []
    if part.get("objective") is not None and n < 10:
        free = len(part["coordinates"]) - len(part["fixed"])
        texts.append(f"{n} runs for the {free} constants of {part['law']}")
    if known == 3 and parts["frontier"]["E"]["value"] is not None:
        texts.append("3 minima for the 3 constants of the frontier: it fits them exactly")
    return ("; ".join(texts), float(n)) if texts else None


def untuned_runs(points: Points, parts: Parts) -> Finding:
    """A law describes tuned models, so runs with a suboptimal learning rate are not fitted."""
    n = parts["points"]["untuned"]
    text = f"{n} runs are not fitted: others of their size and length had a better learning rate"
    return (text, float(n)) if n else None


def skipped_runs(points: Points, parts: Parts) -> Finding:
    """Failed runs are not missing at random."""
    total = sum(points.left_out.values())
    counts = ", ".join(f"{n} {name}" for name, n in points.left_out.items())
    return (f"left out: {counts}", float(total)) if total else None


def mixed_runs(points: Points, parts: Parts) -> Finding:
    """Runs of different families or objectives follow different laws."""
    findings = []
    for fact, plural in (("family", "families"), ("objective", "objectives")):
        if any(fact in row for row in points.facts):
            runs = Counter(row.get(fact, DEFAULT_FACTS[fact]) for row in points.facts)
            if len(runs) > 1:
                each = ", ".join(f"{name} ({n} runs)" for name, n in sorted(runs.items()))
                findings.append((f"{len(runs)} {plural} are fitted as one: {each}", len(runs)))
    texts = "; ".join(text for text, _ in findings)
    return (texts, float(max(n for _, n in findings))) if findings else None


# code -> (check, threshold in words, source)
CHECKS: dict[str, tuple[Callable[[Points, Parts], Finding], str, str]] = {
    "warmup_share": (long_warmup, "warmup > 10 % of the tokens", PORIAN),
    "warmup_params": (warmup_beyond_params, "warmup tokens > N", PORIAN),
    "schedule_end": (
        schedule_beyond_end,
        "schedule off the run's end by > 5 %",
        HOFFMANN + ", fig. A1",
    ),
    "logits": (heavy_logits, "logits > 10 % of the FLOPs", PEARCE),
    "collinear": (collinear, "correlation of log N and log D > 0.98", BESIROGLU),
    "few_budgets": (few_budgets, "< 3 bracketed budgets or < 4 sizes per budget", HOFFMANN),
    "edge": (
        unbracketed_minima,
        "a budget of < 4 sizes, or whose lowest loss is at the smallest or largest",
        HOFFMANN,
    ),
    "uneven_budgets": (uneven_budgets, "compute within a budget differs by > 3 %", HOFFMANN),
    "epochs": (repeated_data, "more than one epoch", MUENNIGHOFF),
    "evaluation_noise": (noisy_evaluation, "standard error > 30 % of the parabola's depth", PORIAN),
    "extrapolation": (far_extrapolation, "> 10 times the largest fitted compute", BESIROGLU),
    "floor": (no_floor, "E's interval reaches 0 or is wider than half the lowest loss", BESIROGLU),
    "frontier_floor": (
        frontier_floor,
        "the interval of the frontier's E reaches 0 or is wider than half the lowest loss",
        BESIROGLU,
    ),
    "starts": (hard_fit, "< 3 starts at the best minimum", BESIROGLU),
    "freedom": (spent_freedom, "< 10 runs, or exactly 3 minima", BESIROGLU),
    "critical_batch": (large_batch, "batch > 2e8 L^(-1/0.21) tokens", MCCANDLISH),
    "learning_rate_edge": (
        learning_rate_at_edge,
        "best of >= 3 learning rates at one size is the first or the last",
        PORIAN,
    ),
    "guessing": (worse_than_guessing, "loss > 1.02 ln(vocab_size)", "a uniform guess"),
    "no_floor_law": (without_floor, "the fitted law has no E", HOFFMANN + ", appendix D.3"),
    "envelope_schedule": (
        decayed_midpoints,
        "curves of runs whose schedule depends on their length",
        HOFFMANN + ", section 3.1 and fig. A1",
    ),
    "grid_bias": (
        biased_grid,
        "N* off by > 10 % or a by > 0.02 on the fitted law itself, without noise",
        "this table, simulated",
    ),
    "untuned": (untuned_runs, "learning rates differ within one size and length", PORIAN),
    "mixed": (mixed_runs, "runs differ in family or objective", "this table"),
    "left_out": (skipped_runs, "any run that is not done, or was dropped", "this table"),
}


def warnings(points: Points, parts: Parts) -> list[dict[str, Any]]:
    """All warnings that apply to the points and to the other parts of law.json, in the order of
    CHECKS. Each has the keys code, message, value, threshold and source.
    """
    entries = []
    for code, (check, threshold, source) in CHECKS.items():
        finding = check(points, parts)
        if finding:
            message, value = finding
            entry = {"code": code, "message": message, "value": value}
            entries.append(entry | {"threshold": threshold, "source": source})
    return entries
