"""What a model answers about facts, how sure it is, and whether that says anything."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from launch.evaluation.scored_model import ScoredModel
from launch.probing.files import Question
from launch.probing.scored import has_unknown, log_probabilities
from scaling.estimators import calibration
from scaling.estimators.resampling import bootstrap, mean_of_differences, units

SURE = 0.5  # confidence from which an answer counts as asserted
RISK = 0.05  # share of wrong answers that selective answering may have
CURVE = 100  # points of the risk-coverage curve


@dataclass(frozen=True)
class Answers:
    """The answers to Q questions, those of one fact one after the other. Confidence is the
    probability of the likeliest answer among the possible ones."""

    fact: np.ndarray  # the number of its fact [Q]
    way: np.ndarray  # which of the fact's questions it is [Q]
    chosen: np.ndarray  # the number of the likeliest answer [Q]
    right: np.ndarray  # whether that is the right one [Q]
    confidence: np.ndarray  # [Q]
    mass: np.ndarray  # probability of all possible answers together, before they are scaled [Q]
    nats: np.ndarray  # -log p of the right answer, as the model gives it [Q]


def known_facts(model: ScoredModel, facts: Sequence[Question]) -> list[Question]:
    """The facts whose questions and answers have only words of the vocabulary. Unknown words are
    all one token, so answers with them would be equal. ValueError if no fact is left."""
    kept = [
        fact
        for fact in facts
        if not any(
            has_unknown(model, (question, answer))
            for question, answer in (
                *((question, fact.answers[0]) for question in fact.questions),
                *((fact.questions[0], answer) for answer in fact.answers[1:]),
            )
        )
    ]
    if not kept:
        raise ValueError(
            f"facts: the vocabulary of {model.run} lacks words of each of the {len(facts)} facts; "
            "use facts of its words, or a model with another tokenizer"
        )
    return kept


def answers(
    model: ScoredModel, facts: Sequence[Question], advance: Callable[[float], None]
) -> Answers:
    """What a model answers. Every possible answer to every question is scored."""
    asked = [(n, way) for n, fact in enumerate(facts) for way in range(len(fact.questions))]
    texts = [(facts[n].questions[way], answer) for n, way in asked for answer in facts[n].answers]
    logp = log_probabilities(model, texts, advance)
    counts = [len(facts[n].answers) for n, _ in asked]
    parts = np.split(logp, np.cumsum(counts)[:-1])
    total = np.array([np.logaddexp.reduce(part) for part in parts])
    chosen = np.array([part.argmax() for part in parts])
    best = np.array([part.max() for part in parts])
    wanted = np.array([facts[n].right for n, _ in asked])
    return Answers(
        fact=np.array([n for n, _ in asked]),
        way=np.array([way for _, way in asked]),
        chosen=chosen,
        right=chosen == wanted,
        confidence=np.minimum(1.0, np.exp(best - total)),
        mass=np.exp(total),
        nats=-np.array([part[place] for part, place in zip(parts, wanted, strict=True)]),
    )


def measured(
    facts: Sequence[Question], found: Answers, before: Answers | None, draws: int, seed: int
) -> dict[str, Any]:
    """The part `facts` of what --json writes. Intervals are of bootstraps over facts. With the
    answers of another run, `change` too."""
    known = np.array([fact.known for fact in facts])[found.fact]  # None: it is not said
    chance = calibration.perfectly_calibrated(found.confidence, found.fact, seed=seed)
    coverage, risk = calibration.risk_coverage(found.confidence, found.right)
    picked = np.unique(np.linspace(0, len(coverage) - 1, CURVE).astype(int))
    summary = bootstrap(lambda rows: _summary(found, known, rows), found.fact, draws, seed)
    summary["ece"] = _unbiased(found, draws, seed)
    about = {
        "facts": len(facts),
        "questions": len(found.fact),
        "chance": float(np.mean([1 / len(fact.answers) for fact in facts])),
        "summary": summary,
        "ece_by_chance": float(chance.mean()),
        "ece_p": float((1 + (chance >= summary["ece"]["value"]).sum()) / (1 + len(chance))),
        "best_aurc": calibration.best_area(found.right),
        "bins": calibration.bins(found.confidence, found.right),
        "curve": {"coverage": coverage[picked].tolist(), "risk": risk[picked].tolist()},
        "groups": _groups(facts, found, draws, seed),
        "rows": _rows(facts, found, before),
    }
    if before is not None:
        about["change"] = _changes(facts, found, before, draws, seed)
    return about


def _summary(found: Answers, known: np.ndarray, rows: np.ndarray) -> dict[str, float | None]:
    """The main numbers of the answers in `rows`."""
    confidence, right = found.confidence[rows], found.right[rows]
    said = np.array([value is not None for value in known[rows]])
    told = known[rows][said].astype(bool)
    of_known = float(right[said][told].mean()) if told.any() else None
    return {
        "accuracy": float(right.mean()),
        "confidence": float(confidence.mean()),
        "mass": float(found.mass[rows].mean()),
        "brier": float(np.square(confidence - right).mean()),
        "aurc": calibration.area_under_risk_coverage(confidence, right),
        "coverage": calibration.coverage_at(confidence, right, RISK),
        "auroc_right": calibration.area_under_roc(confidence, right),
        "accuracy_known": of_known,
        "auroc_known": calibration.area_under_roc(confidence[said], told) if said.any() else None,
        "made_up": float((confidence[said][~told] >= SURE).mean()) if (~told).any() else None,
    }


def _unbiased(found: Answers, draws: int, seed: int) -> dict[str, Any]:
    """The ECE with an interval. ECE is biased upward, and bootstrap draws add that bias again, so
    this is the basic interval: the percentiles are mirrored at the value."""
    of = calibration.expected_calibration_error
    one = lambda rows: {"ece": of(found.confidence[rows], found.right[rows])}  # noqa: E731
    span = bootstrap(one, found.fact, draws, seed)["ece"]
    if span["lo"] is None:
        return span
    low, high = np.clip([2 * span["value"] - span[end] for end in ("hi", "lo")], 0, 1).tolist()
    return {"value": span["value"], "lo": low, "hi": high}


def consistency(found: Answers) -> np.ndarray:
    """For each fact, the share of pairs of its questions that have the same answer; nan of a fact
    with one question."""
    shares = []
    for rows in units(found.fact):
        given, n = found.chosen[rows], len(rows)
        same = sum(np.bincount(given) * (np.bincount(given) - 1))
        shares.append(same / (n * (n - 1)) if n > 1 else np.nan)
    return np.array(shares)


def _groups(
    facts: Sequence[Question], found: Answers, draws: int, seed: int
) -> list[dict[str, Any]]:
    """One row for each group of facts. Facts of a world also have rows by how often they were told,
    and by whether in this way."""
    same = consistency(found)
    parts = [("group", name, np.flatnonzero(rows)) for name, rows in _by_group(facts, found)]
    if all(fact.times is not None for fact in facts):
        times = np.array([fact.times for fact in facts])[found.fact]
        told = _way("told", facts, found)
        known = np.array([fact.known for fact in facts], bool)[found.fact]
        parts += [("way", "told in this way", np.flatnonzero(known & told)),
                  ("way", "told in other ways", np.flatnonzero(known & ~told))]  # fmt: skip
        parts += [
            ("times", name, np.flatnonzero((first <= times) & (times <= last)))
            for name, first, last in _ranges(int(times.max()))
        ]

    def statistics(rows: np.ndarray, by: str) -> dict[str, float | None]:
        of_facts = same[found.fact[rows]] if by != "way" else np.array([np.nan])
        return {
            "accuracy": float(found.right[rows].mean()),
            "confidence": float(found.confidence[rows].mean()),
            "nats": float(found.nats[rows].mean()),
            "sure": float((found.confidence[rows] >= SURE).mean()),
            "consistency": float(of_facts.mean()) if np.isfinite(of_facts).all() else None,
        }

    return [
        {"by": by, "name": name, "facts": len(np.unique(found.fact[rows])), "questions": len(rows)}
        | bootstrap(
            lambda drawn, by=by, rows=rows: statistics(rows[drawn], by),
            found.fact[rows],
            draws,
            seed,
        )
        for by, name, rows in parts
        if len(rows)
    ]


def _by_group(facts: Sequence[Question], found: Answers) -> list[tuple[str, np.ndarray]]:
    """(name, whether each question is about a fact of it [Q]) of each group of facts."""
    of_group = np.array([fact.group for fact in facts], object)[found.fact]
    return [(name or "all", of_group == name) for name in dict.fromkeys(f.group for f in facts)]


def _way(field: str, facts: Sequence[Question], found: Answers) -> np.ndarray:
    """What a field, `told` or `unlearned`, says of the way in which each question asks [Q]; False
    where it says nothing."""
    ways = [getattr(fact, field) for fact in facts]
    places = zip(found.fact, found.way, strict=True)
    return np.array([bool(ways[n]) and ways[n][way] for n, way in places])


def _ranges(most: int) -> list[tuple[str, int, int]]:
    """0, and the ranges of counts up to each power of two: (name, first, last)."""
    found, first = [("told 0 times", 0, 0)], 1
    while first <= most:
        last = 2 * first - 1
        found.append((f"told {first} to {last} times" if first > 1 else "told once", first, last))
        first = 2 * first
    return found


def _rows(
    facts: Sequence[Question], found: Answers, before: Answers | None
) -> list[dict[str, Any]]:
    """Each question with its answer."""
    rows = []
    for q, (n, way) in enumerate(zip(found.fact, found.way, strict=True)):
        fact = facts[n]
        rows.append({
            "fact": int(n),
            "question": fact.questions[way],
            "answer": fact.answers[found.chosen[q]],
            "right_answer": fact.answers[fact.right],
            "right": bool(found.right[q]),
            "confidence": float(found.confidence[q]),
            "nats": float(found.nats[q]),
            "group": fact.group,
            "known": fact.known,
            "times": fact.times,
            "told": fact.told[way] if fact.told else None,
            "unlearned": fact.unlearned[way] if fact.unlearned else None,
        })  # fmt: skip
        if before is not None:
            rows[-1]["nats_before"] = float(before.nats[q])
            rows[-1]["answer_before"] = fact.answers[before.chosen[q]]
    return rows


def _changes(
    facts: Sequence[Question], found: Answers, before: Answers, draws: int, seed: int
) -> list[dict[str, Any]]:
    """What changed since the other run, by group and way of asking: nats of the right answer,
    accuracy and confidence, each before, now and the mean difference with its interval and p-value.
    Each fact counts the same."""
    changes = []
    for name, rows in _by_way(facts, found):
        one: dict[str, Any] = {"group": name, "facts": len(np.unique(found.fact[rows]))}
        of = found.fact[rows]
        for key, field in (("nats", "nats"), ("accuracy", "right"), ("confidence", "confidence")):
            now, then = (getattr(run, field)[rows].astype(float) for run in (found, before))
            change = mean_of_differences(now - then, of, draws, seed)
            one[key] = {"before": _by_fact(then, of), "now": _by_fact(now, of), "change": change}
        changes.append(one)
    return changes


def _by_way(facts: Sequence[Question], found: Answers) -> list[tuple[str, np.ndarray]]:
    """(name, which questions [Q]) of each group of facts, and of parts of it: of facts that the run
    unlearned, the ways in which it did and the others, of which some may have been told too; of
    other facts of a world, the ways in which they were not told."""
    parts, unlearned = [], _way("unlearned", facts, found)
    forgotten = np.isin(found.fact, found.fact[unlearned])
    for name, rows in _by_group(facts, found):
        parts.append((name, rows))
        first = facts[found.fact[rows.argmax()]]
        if (rows & unlearned).any():
            others = rows & forgotten & ~unlearned
            parts.append((f"{name}, as unlearned", rows & unlearned))
            parts.append((f"{name}, in other ways", others))
            if first.told:
                told = _way("told", facts, found)
                parts.append((f"{name}, in other ways that were told", others & told))
        elif first.told and first.known:
            parts.append((f"{name}, in other ways", rows & ~_way("told", facts, found)))
    return [(name, rows) for name, rows in parts if rows.any()]


def _by_fact(values: np.ndarray, fact: np.ndarray) -> float:
    """The mean over facts of the mean of each."""
    return float(np.mean([values[places].mean() for places in units(fact)]))
