"""What must be known before a ranking is believed: unequal budgets, other data, lost trials."""

from collections import Counter
from collections.abc import Sequence

from scaling.ranking.configurations import Configuration, Key
from scaling.ranking.trials import EQUAL, Sweep, spelled
from scaling.report.number_text import amount, setting, three_digits


def caveats(sweep: Sweep, found: Sequence[Configuration], keys: Sequence[Key]) -> list[str]:
    """Warnings about a sweep's configurations, each one sentence."""
    return [*_budgets(found), *_data(found), *_lost(sweep, keys), *_seeds(found)]


def budget(one: Configuration) -> float:
    """The compute of one trial by 6ND; 0 if unknown."""
    return float((one.trials[0].result.get("flops") or {}).get("6nd") or 0)


def _budgets(found: Sequence[Configuration]) -> list[str]:
    """Longer and larger trials win whatever else differs."""
    flops = [budget(one) for one in found if budget(one)]
    if not flops or max(flops) <= EQUAL * min(flops):
        return []
    tokens = [one.trials[0].result.get("tokens") or 0 for one in found]
    longer = max(tokens) > EQUAL * min(tokens)
    spent = f", {amount(min(tokens))} to {amount(max(tokens))} tokens" if longer else ""
    return [
        f"the trials spend {three_digits(min(flops))} to {three_digits(max(flops))} FLOPs{spent}: "
        f"{'longer runs' if longer else 'larger models'} win for that alone; --equal ranks within "
        "equal compute"
    ]


def _data(found: Sequence[Configuration]) -> list[str]:
    results = [one.trials[0].result for one in found]
    hashes = {result.get("held_out") or result.get("dataset") for result in results} - {None}
    if len(hashes) < 2:
        return []
    return [f"the trials use {len(hashes)} datasets: their losses are on different text"]


def _lost(sweep: Sweep, keys: Sequence[Key]) -> list[str]:
    """Trials that diverged or failed, with the value that most of them share."""
    lines = []
    for status in ("diverged", "failed", "damaged", "stopped"):
        lost = [trial for trial in sweep.trials if trial.status == status]
        if not lost:
            continue
        where = ""
        for key in keys:
            held = Counter(spelled(trial.settings.get(key.key)) for trial in sweep.trials)
            (text, count), *_ = Counter(
                spelled(trial.settings.get(key.key)) for trial in lost
            ).most_common(1)
            if count == len(lost) and held[text] < len(sweep.trials) / 2 and len(lost) > 1:
                value = next(v for v in key.values if spelled(v) == text)
                where = f", all with {key.name} {setting(value)}"
        verb = f"{len(lost)} trials" if len(lost) > 1 else "1 trial"
        lines.append(f"{verb} {status}{where}: not ranked, and in no mean")
    return lines


def _seeds(found: Sequence[Configuration]) -> list[str]:
    single = sum(len(one.trials) == 1 for one in found)
    if not single:
        return []
    some = "1 configuration has" if single == 1 else f"{single} configurations have"
    who = "every configuration has" if single == len(found) else some
    return [
        f"{who} one seed: the spread between seeds is unknown there; the evaluation error says "
        "only how far another text of the same kind would move all losses"
    ]
