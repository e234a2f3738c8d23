"""Tasks whose answers a rule can check: seeded generators of prompts, each with its score.

A task is a module with the functions of `Task`. The prompt of every task ends where the answer
begins, so a model without a chat template can continue it.
"""

from typing import Protocol

import numpy as np

from data.tasks import (
    addition_reversed,
    letter_counting,
    sorting,
    spelling_backwards,
    style,
)


class Task(Protocol):
    """The interface of a module in TASKS. All draws come from `rng`, so equal states give equal
    examples on every machine."""

    VERSION: int  # of the draws; part of a dataset's hash
    SIZE: int  # the default of `size`: digits, numbers or letters, as the module says

    def example(self, rng: np.random.Generator, size: int = 0) -> tuple[str, str]:
        """(prompt, a right answer). `size=0` means SIZE."""

    def score(self, prompt: str, answer: str, response: str) -> float:
        """How good a response to the prompt is, from 0 to 1 (right). White space around it does not
        count. It never raises, whatever the response is."""

    def wrong(self, rng: np.random.Generator, prompt: str, answer: str) -> str:
        """A plausible answer whose score is below 1."""


TASKS: dict[str, Task] = {
    "addition_reversed": addition_reversed,
    "sorting": sorting,
    "spelling_backwards": spelling_backwards,
    "letter_counting": letter_counting,
    "style": style,
}


def find(name: str, key: str = "data.task") -> Task:
    """The task of this name; ValueError names `key` and lists the known names."""
    if name not in TASKS:
        raise ValueError(f"{key}={name!r} is unknown; use one of {', '.join(TASKS)}")
    return TASKS[name]
