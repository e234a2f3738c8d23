"""Examples of a task as a pure function of (split, seed, number).

A hash of the prompt decides whether it is for validation, so the prompts of the two splits are
disjoint, whatever the seed.
"""

import numpy as np

from data.build import digest_of, is_validation
from data.tasks import Task

REPEATED = 100  # draws without a new prompt, after which a task counts as exhausted
TRIES = 10_000  # draws before a split counts as empty


def in_validation(prompt: str, share: float) -> bool:
    """Whether a prompt is held out, for this share of the prompts."""
    return is_validation(digest_of(prompt.encode()), share)


def draw(
    task: Task, size: int, validation: float, split: str, seed: int, number: int
) -> tuple[str, str, np.random.Generator]:
    """(prompt, answer, the generator for further draws) of one example of a split. ValueError if
    the task has no prompt in the split, or nearly none."""
    held_out = split == "validation"
    rng = np.random.default_rng((held_out, seed, number))
    for _ in range(TRIES):
        prompt, answer = task.example(rng, size)
        if in_validation(prompt, validation) == held_out:
            return prompt, answer, rng
    raise ValueError(
        f"data.validation={validation} leaves no prompts in the split {split!r}; use another share"
    )


def different(
    task: Task, size: int, validation: float, split: str, seed: int, count: int
) -> list[tuple[str, str]]:
    """Up to `count` examples of a split with different prompts: fewer if the task has fewer."""
    found: dict[str, str] = {}
    number = last = 0  # of the newest prompt
    while len(found) < count and number - last <= len(found) + REPEATED:
        prompt, answer, _ = draw(task, size, validation, split, seed, number)
        number += 1
        if prompt not in found:
            found[prompt], last = answer, number
    return list(found.items())
