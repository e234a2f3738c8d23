"""Adding two numbers, with the sum written from its last digit on.

    128+367=        594                 128 + 367 = 495

The reversed order puts each carry before the digit that needs it, so small Transformers learn it
(Lee et al. 2023, arXiv:2307.03381). `size` is the most digits of a summand.
"""

import numpy as np

from data.tasks.exact import score

__all__ = ["SIZE", "VERSION", "example", "score", "wrong"]
VERSION, SIZE = 1, 3


def example(rng: np.random.Generator, size: int = 0) -> tuple[str, str]:
    """Summands have 1 to `size` digits, each length equally often."""
    one, other = (int(rng.integers(10 ** int(rng.integers(1, (size or SIZE) + 1)))) for _ in "ab")
    return f"{one}+{other}=", str(one + other)[::-1]


def wrong(rng: np.random.Generator, prompt: str, answer: str) -> str:
    """The answer with one digit changed."""
    place, change = int(rng.integers(len(answer))), int(rng.integers(1, 10))
    digit = (int(answer[place]) + change) % 10
    return f"{answer[:place]}{digit}{answer[place + 1 :]}"
