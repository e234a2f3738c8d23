"""Answers to the tasks of `data/tasks` and of files, scored by their checkers: pass@k.

P prompts, S samples of each
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from data import tasks
from data.files import to_path
from data.prompted import prompt_sources
from data.tasks import exact
from data.tasks.checkers import Checker, from_spec
from launch.benchmarks import best
from launch.benchmarks.answerer import Answerer
from launch.benchmarks.reward_model import RewardModel
from scaling.estimators import coverage

PROMPTS = 100  # of a generated task, by default
ROOM = 1.5  # tokens of an answer, at most, as a multiple of the longest right one
LEAST = 16  # tokens of an answer, at least


@dataclass(frozen=True)
class How:
    """How answers are drawn; 0 prompts and 0 tokens stand for the defaults."""

    samples: int
    ks: tuple[int, ...]
    prompts: int = 0
    tokens: int = 0
    size: int = 0  # of generated examples; 0: the task's
    temperature: float = 1.0
    seed: int = 0
    validation: float = 0.1  # share of the prompts that were held out of training


@dataclass(frozen=True)
class Questions:
    """Prompts with their right answers, and what scores a response."""

    name: str
    examples: Sequence[tuple[str, str]]
    checker: Checker


def questions(name: str, checker: str, how: How) -> Questions:
    """The prompts of a task of TASKS, held out of training, or of a .jsonl file, in its order.
    ValueError or FileNotFoundError, in one line."""
    try:
        return _questions(name, checker, how)
    except ValueError as error:
        raise ValueError(str(error).replace("data.checker=", "checker=")) from error


def _questions(name: str, checker: str, how: How) -> Questions:
    if to_path(name).suffix == ".jsonl":
        examples = list(dict(prompt_sources.examples((name,), "tasks")).items())
        if not examples:
            raise ValueError(f"tasks={name} has no prompts; give it a line for each")
        score = from_spec("", checker) if checker else Checker("exact answers", exact.score)
        return Questions(name, examples[: how.prompts or None], score)
    task = tasks.find(name, "tasks")
    source = prompt_sources.Generated(name, task, how.size, how.validation)
    examples = source.fixed("validation", how.prompts or PROMPTS)
    return Questions(name, examples, from_spec(name, checker))


def evaluate(
    answerer: Answerer,
    asked: Questions,
    how: How,
    advance: Callable[[float], None],
    judge: RewardModel | None = None,
) -> dict[str, Any]:
    """What `isoflop evaluate --json` writes of one task; with `judge` also of best-of-n. `advance`
    receives the share done; with `judge` the answers are its first half."""
    encoded = [answerer.encoder.encode(*example) for example in asked.examples]
    n_tokens = tokens_of(answerer, asked.name, encoded, how.tokens)
    if judge:
        best.require_room(judge, max(len(ids) for ids, _ in encoded), n_tokens, asked.name)
    done = 0

    def count(prompts: int) -> None:
        nonlocal done
        done += prompts
        advance(done / len(encoded) / (2 if judge else 1))

    prompts = [ids.tolist() for ids, _ in encoded]
    texts = answerer.answers(prompts, n_tokens, how.samples, how.temperature, how.seed, count)
    scores_PS = np.array(
        [
            [asked.checker(prompt, answer, text) for text in drawn]
            for (prompt, answer), drawn in zip(asked.examples, texts, strict=True)
        ]
    )
    right_P = (scores_PS == 1).sum(1)
    samples_P = np.full(len(right_P), how.samples)
    means_P = scores_PS.mean(1)
    error = means_P.std(ddof=1) / np.sqrt(len(means_P)) if len(means_P) > 1 else None
    about = {
        "task": asked.name,
        "prompts": len(prompts),
        "samples": how.samples,
        "tokens": n_tokens,
        "temperature": how.temperature,
        "template": bool(answerer.encoder.chat),
        "pass_at_k": [coverage.estimate(samples_P, right_P, k, how.seed) for k in how.ks],
        "score": float(means_P.mean()),
        "score_se": None if error is None else float(error),
        "solved": int((right_P > 0).sum()),
        "checker_failures": asked.checker.failures,
        "checker_traceback": asked.checker.first_traceback,
        "responses": [
            {"prompt": p, "answer": a, "responses": drawn, "scores": row.tolist()}
            for (p, a), drawn, row in zip(asked.examples, texts, scores_PS, strict=True)
        ],
    }
    if judge:
        asked_of = [prompt for prompt, _ in asked.examples]
        judged = lambda share: advance((1 + share) / 2)  # noqa: E731
        chosen = best.picked(judge, asked_of, texts, scores_PS, n_tokens, how.seed, judged)
        rewards = chosen.pop("rewards")
        for one, row in zip(about["responses"], rewards, strict=True):
            one["rewards"] = row
        about |= chosen
    return about


def tokens_of(answerer: Answerer, name: str, encoded: Sequence[Any], tokens: int) -> int:
    """The most tokens of an answer: `tokens`, or enough for the longest right answer and half as
    many more. ValueError if they do not fit the context."""
    longest = max(len(prompt) for prompt, _ in encoded)
    needed = max(len(answer) for _, answer in encoded)
    room = answerer.most - longest
    if (tokens and tokens > room) or needed > room:
        raise ValueError(
            f"tasks={name} has prompts of {longest} tokens and answers of {needed}, and the model "
            f"reads {answerer.most} (model.context_length); use "
            + ("fewer --tokens" if needed <= room else "a smaller --size or another task")
        )
    return int(tokens or min(room, max(LEAST, round(ROOM * needed))))
