"""What a model makes of paired texts: differences of log-probability."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from launch.evaluation.scored_model import ScoredModel
from launch.probing.files import Pair
from launch.probing.scored import Text, has_unknown, log_probabilities
from scaling.estimators.resampling import mean_of_differences, units


def texts(pair: Pair) -> list[tuple[Text, int]]:
    """What is scored of a pair, with the sign that it counts with."""
    if not pair.continuation:
        return [(("", pair.first), 1), (("", pair.second), -1)]
    found = [((pair.first, pair.continuation), 1), ((pair.second, pair.continuation), -1)]
    if pair.against:
        found += [((pair.first, pair.against), -1), ((pair.second, pair.against), 1)]
    return found


def differences(
    model: ScoredModel, pairs: Sequence[Pair], advance: Callable[[float], None]
) -> np.ndarray:
    """The difference of each pair [N] in nats; nan where the vocabulary lacks a part of it."""
    asked = [texts(pair) for pair in pairs]
    known = [not any(has_unknown(model, text) for text, _ in one) for one in asked]
    scored = [one for one, whole in zip(asked, known, strict=True) if whole]
    if not scored:
        raise ValueError(
            f"pairs: the vocabulary of {model.run} lacks words of each of the {len(pairs)} pairs; "
            "use pairs of its words, or a model with another tokenizer"
        )
    values = iter(log_probabilities(model, [t for one in scored for t, _ in one], advance))
    return np.array([
        sum(sign * next(values) for _, sign in one) if whole else np.nan
        for one, whole in zip(asked, known, strict=True)
    ])  # fmt: skip


def measured(
    pairs: Sequence[Pair], now: np.ndarray, before: np.ndarray | None, draws: int, seed: int
) -> dict[str, Any]:
    """The part `pairs` of what --json writes: each pair, the mean of each group and of all. With
    the differences of another run, `before` and `change` too, of the pairs that both scored."""
    used = np.isfinite(now) if before is None else np.isfinite(now) & np.isfinite(before)
    rows = [
        {**vars(pair), "difference": float(now[n])}
        | ({} if before is None else {"before": float(before[n])})
        for n, pair in enumerate(pairs)
        if used[n]
    ]
    groups = [row["group"] for row in rows]
    mean = lambda values: mean_of_differences(values, groups, draws, seed)  # noqa: E731
    about = {
        "left_out": int((~used).sum()),
        "mean": mean(now[used]),
        "groups": [
            {"group": groups[of[0]], "pairs": len(of), "mean": float(now[used][of].mean())}
            for of in units(groups)
        ],
        "rows": rows,
    }
    if before is not None:
        about["before"] = mean(before[used])
        about["change"] = mean(now[used] - before[used])
    return about
