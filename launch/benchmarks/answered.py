"""Answers that `isoflop evaluate --tasks --json` wrote, as tokens of any model.

P prompts, S samples of each, R = P * S
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data.files import to_path
from data.prompted.prompt_encoder import PromptEncoder
from data.tokenizer import Tokenizer
from launch.chat import template
from launch.files import read_json


@dataclass(frozen=True)
class Answers:
    """The answers of a policy to one task, with their scores."""

    path: Path
    run: Path  # of the policy
    prompts: Sequence[str]  # [P]
    texts: Sequence[Sequence[str]]  # [P][S]
    gold_PS: np.ndarray
    most: int  # tokens of an answer; a longer one was cut there
    temperature: float


def read(path: Path, flag: str) -> Answers:
    """The answers in the file that `flag` names. FileNotFoundError or ValueError, in one line, for
    a file that does not hold the answers to one task."""
    remedy = "write it by isoflop evaluate --run=RUN --tasks=TASK --json=FILE"
    try:
        about = read_json(path)
    except ValueError as error:
        raise ValueError(f"{flag}={error}; {remedy}") from None
    if about is None:
        raise FileNotFoundError(f"{flag}={path} does not exist; {remedy}")
    tasks = about.get("tasks") if isinstance(about, dict) else None
    if not isinstance(tasks, list) or len(tasks) != 1:
        count = len(tasks) if isinstance(tasks, list) else "no"
        raise ValueError(f"{flag}={path} has the answers to {count} tasks, not to one; {remedy}")
    try:
        return _of_task(path, about["run"], tasks[0])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{flag}={path} is not the file of isoflop evaluate --tasks ({error}); {remedy}"
        ) from None


def _of_task(path: Path, run: str, task: dict[str, Any]) -> Answers:
    responses = task["responses"]
    texts = [one["responses"] for one in responses]
    scores = [one["scores"] for one in responses]
    if len({len(row) for row in (*texts, *scores)}) != 1:
        raise ValueError("prompts have different numbers of answers")
    gold_PS = np.array(scores, np.float64)
    prompts = [one["prompt"] for one in responses]
    return Answers(
        path, to_path(run), prompts, texts, gold_PS, int(task["tokens"]), float(task["temperature"])
    )


def require_same_prompts(initial: Answers, policy: Answers) -> None:
    """ValueError for a policy that answers other prompts than the initial one, or was sampled at
    another temperature than 1, where its log-probabilities are not those of its samples."""
    if list(initial.prompts) != list(policy.prompts):
        raise ValueError(
            f"policy={policy.path} has answers to other prompts than {initial.path}; give isoflop "
            "evaluate the same --tasks, --prompts and --size"
        )
    if policy.temperature != 1:
        raise ValueError(
            f"policy={policy.path} was sampled at temperature {policy.temperature:g}, whose KL is "
            "not that of the policy; use --temperature=1"
        )


def encoder_of(run: Path, tokenizer: Tokenizer) -> PromptEncoder:
    """What turns a prompt and its answer into tokens for a run, with its template if it has one."""
    chat = template.encoder_of(run, tokenizer) if template.has_template(run) else None
    return PromptEncoder(tokenizer, chat)


def encoded(
    prompts: Sequence[str], texts: Sequence[Sequence[str]], most: int, encoder: PromptEncoder
) -> list[tuple[np.ndarray, int]]:
    """(the tokens of a prompt with its answer, those of the prompt) [R] of answers `texts` [P][S],
    as they were drawn: from the end of the prompt on. An answer has the token that ends it, unless
    it was cut at `most` tokens before."""
    rows = []
    for prompt, drawn in zip(prompts, texts, strict=True):
        ids, _ = encoder.encode(prompt, "")
        for text in drawn:
            answered = np.append(encoder.tokenizer.encode(text), np.int32(encoder.end))
            rows.append((np.concatenate([ids, answered[:most]]), len(ids)))
    return rows


def require_room(rows: Sequence[tuple[np.ndarray, int]], run: Path, context_length: int) -> None:
    """ValueError if a row is longer than the context of the model that reads it."""
    if (longest := max(len(ids) for ids, _ in rows)) > context_length:
        raise ValueError(
            f"run={run} reads {context_length} tokens (model.context_length), and the longest "
            f"answer has {longest} with its prompt; draw answers with fewer --tokens"
        )
