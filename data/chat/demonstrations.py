"""Made-up conversations and preferences from a task of which a known share is wrong.

A corpus is 'task:NAME[:examples=2000][:seed=0][:size=0]'. A conversation is a prompt of the task
with its answer; a preference has the right answer chosen and a wrong one rejected. Where
data.wrong_share says so, the answer is a wrong one, or the two are exchanged.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import floor

import numpy as np

from data import tasks
from data.chat.chat_files import Conversation, Preference
from data.tasks import Task

SCHEME, VERSION = "task", 1
KEYS = {"examples": 1, "seed": 0, "size": 0}  # with their least values


@dataclass(frozen=True)
class Demonstrations:
    """The examples of a spec."""

    spec: str
    name: str
    task: Task
    examples: int = 2000
    seed: int = 0
    size: int = 0

    def identity(self, wrong_share: float) -> list:
        about = [self.name, self.task.VERSION, self.size or self.task.SIZE]
        return [VERSION, *about, self.examples, self.seed, wrong_share]

    def conversations(self, wrong_share: float) -> Iterator[Conversation]:
        for where, prompt, right, wrong, bad in self._drawn(wrong_share):
            yield Conversation(where, [_user(prompt), _assistant(wrong if bad else right)])

    def preferences(self, wrong_share: float) -> Iterator[Preference]:
        for where, prompt, right, wrong, bad in self._drawn(wrong_share):
            pair = [[_assistant(wrong)], [_assistant(right)]]
            yield Preference(where, [_user(prompt)], *(pair if bad else pair[::-1]), 0.0)

    def _drawn(self, wrong_share: float) -> Iterator[tuple[str, str, str, str, bool]]:
        """(where, prompt, right answer, wrong answer, whether it is of the wrong share) of each.
        Of the first n examples, floor(n * wrong_share) are."""
        for number in range(self.examples):
            rng = np.random.default_rng((self.seed, number))
            prompt, right = self.task.example(rng, self.size)
            wrong = self.task.wrong(rng, prompt, right)
            bad = floor((number + 1) * wrong_share) > floor(number * wrong_share)
            yield f"{self.spec} example {number}", prompt, right, wrong, bad


def is_task(spec: str) -> bool:
    """Whether a corpus is a task."""
    return spec.partition(":")[0] == SCHEME


def parse(spec: str) -> Demonstrations:
    """The examples of a spec; ValueError for an unknown task or key, and for a bad value."""
    name, *parts = spec.split(":")[1:] or [""]
    given = {}
    for part in parts:
        key, _, text = part.partition("=")
        if key not in KEYS or not text.isdecimal() or int(text) < KEYS[key]:
            known = ", ".join(f"{key} (from {least})" for key, least in KEYS.items())
            raise ValueError(f"data.corpora={spec!r}: {part!r} is not KEY=NUMBER; keys: {known}")
        given[key] = int(text)
    if name not in tasks.TASKS:
        raise ValueError(
            f"data.corpora={spec!r} names no task; use {SCHEME}:NAME with one of "
            f"{', '.join(tasks.TASKS)}"
        )
    return Demonstrations(spec, name, tasks.TASKS[name], **given)


def _user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def _assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}
