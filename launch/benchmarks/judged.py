"""The rewards of answers by reward models, and how far policies are from the one they began from.

P prompts, S samples of each, R = P * S
"""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data.atomic import write_atomic
from launch.benchmarks import answered
from launch.benchmarks.answered import Answers
from launch.benchmarks.reward_model import open_reward_model
from launch.evaluation import scored_model
from launch.evaluation.scored_model import ScoredModel
from launch.files import read_json

AT_ONCE = 64  # rows of a forward pass for log-probabilities


@dataclass(frozen=True)
class Proxy:
    """The rewards that a reward model gives to answers."""

    proxy_PS: np.ndarray
    size: int  # parameters
    comparisons: int | None  # pairs that it was trained on; None if its run does not say


def by_reward_model(answers: Answers, run: Path, advance: Callable[[float], None]) -> Proxy:
    """The rewards by the model of a run. ValueError or FileNotFoundError, in one line, for a run
    that is no reward model, or whose context is too short."""
    judge = open_reward_model(run)
    return Proxy(judge.rewards(answers, advance), judge.size, comparisons_of(run))


def comparisons_of(run: Path) -> int | None:
    """The different pairs that a run was trained on; None without a result that says so."""
    result, config = read_json(run / "result.json"), read_json(run / "config.json") or {}
    epochs = (result or {}).get("epochs_of_data")
    batch_size = config.get("train", {}).get("batch_size")
    if not epochs or not batch_size:
        return None
    seen = result["steps"] * batch_size
    return round(seen / max(epochs, 1.0))


def write_npz(path: Path, answers: Answers, found: Proxy) -> None:
    """Writes the file that `isoflop overoptimisation --samples` reads."""
    facts = {"size": found.size, "comparisons": found.comparisons}
    known = {name: value for name, value in facts.items() if value is not None}
    content = io.BytesIO()
    np.savez(content, proxy=found.proxy_PS, gold=answers.gold_PS, **known)
    write_atomic(path, content.getvalue())


def line(answers: Answers, found: Proxy) -> str:
    """What is printed of a reward model: its correlation with the gold reward over all answers."""
    proxy_R, gold_R = found.proxy_PS.ravel(), answers.gold_PS.ravel()
    flat = not proxy_R.std() or not gold_R.std()
    related = "constant" if flat else f"correlation {np.corrcoef(proxy_R, gold_R)[0, 1]:.3f}"
    pairs = "" if found.comparisons is None else f", {found.comparisons:,} comparisons"
    return f"{found.size:,} parameters{pairs}; {related} with the gold reward"


def policy_rows(
    initial: Answers, policies: Sequence[tuple[str, Answers]]
) -> list[dict[str, str | float]]:
    """A row for each policy: its KL from the initial policy and its gold reward above it, with
    standard errors over prompts. ValueError or FileNotFoundError for runs that score no text."""
    before = scored_model.open_model(initial.run, any_objective=True)
    base_P, found = initial.gold_PS.mean(1), []
    for name, policy in policies:
        model = scored_model.open_model(policy.run, any_objective=True)
        texts = answered.encoded(policy, answered.encoder_of(policy.run, model.tokenizer))
        ratio_R = log_probabilities(model, texts) - log_probabilities(before, texts)
        kl_P = ratio_R.reshape(policy.gold_PS.shape).mean(1)
        gains_P = policy.gold_PS.mean(1) - base_P
        row: dict[str, str | float] = {"run": name}
        for column, values_P in (("kl", kl_P), ("gold_reward", gains_P)):
            count = len(values_P)
            error = values_P.std(ddof=1) / np.sqrt(count) if count > 1 else np.nan
            row |= {column: float(values_P.mean()), f"{column}_se": float(error)}
        found.append(row)
    return found


def log_probabilities(model: ScoredModel, texts: Sequence[tuple[np.ndarray, int]]) -> np.ndarray:
    """log p of each answer given its prompt [R], in nats. ValueError for a counted model."""
    if model.counted:
        raise ValueError(f"run={model.run} is counted, not trained; its KL is not measured")
    answered.require_room(texts, model.run, model.cfg.context_length + 1)
    length = max(len(ids) for ids, _ in texts) - 1
    sums = []
    for first in range(0, len(texts), AT_ONCE):
        part = texts[first : first + AT_ONCE]
        tokens_BT = np.full((AT_ONCE, length + 1), model.tokenizer.eod, np.int32)
        weights_BT = np.zeros((AT_ONCE, length))
        for row, (ids, prompt) in enumerate(part):
            tokens_BT[row, : len(ids)] = ids
            weights_BT[row, prompt - 1 : len(ids) - 1] = 1
        nats_BT = model.nats(tokens_BT[:, :-1], tokens_BT[:, 1:])
        sums.append(-(nats_BT * weights_BT).sum(1)[: len(part)])
    return np.concatenate(sums)


def write_csv(path: Path, found: Sequence[dict[str, Any]]) -> None:
    """Writes the file that `isoflop overoptimisation --policies` reads."""
    content = io.StringIO()
    writer = csv.DictWriter(content, list(found[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)
    write_atomic(path, content.getvalue().encode())
