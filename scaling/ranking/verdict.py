"""What a ranking says in one sentence: the best configuration, and how sure that is."""

from typing import Any

from scaling.ranking.best_set import MOST_SEEDS, POWER, BestSet
from scaling.ranking.trials import short_names
from scaling.report.number_text import brief, nats

EXTREME = {"lower": "lowest", "higher": "highest"}
HOW = {"paired": "t tests paired by seed", "Welch": "Welch's t tests"}


def verdict(ranking: dict[str, Any], compared: BestSet) -> str:
    """The sentence; `ranking` needs its configurations, metric and level."""
    rows = ranking["configurations"]
    if not rows:
        return "no finished trial to rank"
    if compared.best is None:
        return _one_seed(rows, ranking)
    best = rows[compared.best]
    count, inside = len(rows), compared.member.count(True)
    told = count - compared.member.count(None)
    opening = f"{described(best, ranking)}, over {len(best['seeds'])} seeds"
    if told == 1:
        return f"{opening}: the only configuration with several seeds"
    sure = f"{HOW[compared.test]}, Holm, {ranking['level']:.0%}"
    if inside == 1:
        text = f"best: {opening}; the other {told - 1} are worse ({sure})"
    elif inside == told:
        extreme = EXTREME[ranking["better"]]
        text = f"none can be distinguished from the best ({sure}); {extreme} so far: {opening}"
    else:
        text = f"best, or within noise of it: {opening}; {inside} of {told} cannot be distinguished"
        text += f" ({sure})"
    if inside > 1:
        text += f"; {_more(compared.more_seeds)}"
    if told < count:
        text += f"; {count - told} with one seed are not compared"
    return text


def described(row: dict[str, Any], ranking: dict[str, Any]) -> str:
    """'learning_rate 0.02, d_model 64: loss 1.6290 ± 0.0030 (seed spread)'."""
    names = short_names(list(row["values"]))
    where = ", ".join(f"{names[key]} {brief(value)}" for key, value in row["values"].items())
    spread = "" if row["spread"] is None else f" ± {nats(row['spread'])} (seed spread)"
    return f"{where or row['trials'][0]}: {ranking['metric']} {nats(row['mean'])}{spread}"


def _one_seed(rows: list[dict[str, Any]], ranking: dict[str, Any]) -> str:
    return (
        f"{EXTREME[ranking['better']]}: {described(rows[0], ranking)}, but with one seed each the "
        "spread between seeds is unknown, so none can be called best; train 3 seeds (isoflop sweep "
        "--seeds=3)"
    )


def _more(seeds: int | None) -> str:
    """How many more seeds would decide between the best and the nearest other."""
    if seeds is None:
        return f"even {MOST_SEEDS} more seeds would hardly separate the first two"
    each = f"{seeds} more seed{'s' * (seeds > 1)} each"
    return (
        f"about {each} would separate the first two, if they differ as measured (power {POWER:.0%})"
    )
