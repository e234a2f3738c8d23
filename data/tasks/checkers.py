"""Scores responses by a task or by a function of the user's, named by its import path.

A checker that raises, or returns something other than a finite number from 0 to 1, counts as 0. Its
failures are counted, and the first traceback is shown, so one odd response does not end a run.
"""

import importlib
import math
import sys
import traceback
from collections.abc import Callable, Sequence

import numpy as np

from data import tasks

Score = Callable[[str, str, str], float]
"""(prompt, answer, response) → score from 0 to 1."""


def from_spec(task: str, checker: str = "") -> "Checker":
    """The checker 'package.module:function', or the score of a task if `checker` is empty.
    ValueError if there is no such function."""
    if not checker:
        return Checker(f"task {task}", tasks.find(task).score)
    module, _, name = checker.partition(":")
    try:
        score = getattr(importlib.import_module(module), name) if module and name else None
    except Exception as error:
        raise ValueError(
            f"data.checker={checker!r} cannot be imported ({type(error).__name__}: {error}); use "
            "package.module:function of a module that Python finds from here"
        ) from error
    if not callable(score):
        raise ValueError(f"data.checker={checker!r} is no function; use package.module:function")
    return Checker(checker, score)


class Checker:
    """Scores responses and counts the failures of its function."""

    def __init__(self, name: str, score: Score):
        self.name, self._score = name, score
        self.calls = self.failures = 0
        self.first_traceback = ""

    def __call__(self, prompt: str, answer: str, response: str) -> float:
        """The score of one response; 0 where the function fails."""
        self.calls += 1
        try:
            value = float(self._score(prompt, answer, response))
            if not (math.isfinite(value) and 0 <= value <= 1):
                raise ValueError(f"the checker returned {value}, not a number from 0 to 1")
        except Exception:
            self.failures += 1
            if self.failures == 1:
                self.first_traceback = traceback.format_exc()
                print(
                    f"data.checker={self.name!r} failed; the response counts as 0. Further "
                    f"failures are only counted.\n{self.first_traceback}",
                    file=sys.stderr,
                )
            return 0.0
        return value

    def scores(
        self, prompts: Sequence[str], answers: Sequence[str], responses: Sequence[str]
    ) -> np.ndarray:
        """The scores of R responses, float32 [R]."""
        each = zip(prompts, answers, responses, strict=True)
        return np.array([self(*one) for one in each], np.float32)
