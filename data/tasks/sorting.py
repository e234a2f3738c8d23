"""Sorting numbers.

    sort 52 7 31:   7 31 52

`size` is the most numbers of a prompt; each is below 100.
"""

import numpy as np

from data.tasks.exact import score

__all__ = ["SIZE", "VERSION", "example", "score", "wrong"]
VERSION, SIZE = 1, 4
BELOW = 100  # no number is larger


def example(rng: np.random.Generator, size: int = 0) -> tuple[str, str]:
    """2 to `size` different numbers."""
    count = int(rng.integers(2, max(size or SIZE, 2) + 1))
    numbers = [int(number) for number in rng.choice(BELOW, count, replace=False)]
    return f"sort {_spaced(numbers)}:", _spaced(sorted(numbers))


def wrong(rng: np.random.Generator, prompt: str, answer: str) -> str:
    """The answer with two neighbours exchanged."""
    numbers = answer.split()
    place = int(rng.integers(len(numbers) - 1))
    numbers[place], numbers[place + 1] = numbers[place + 1], numbers[place]
    return _spaced(numbers)


def _spaced(numbers: list) -> str:
    return " ".join(map(str, numbers))
