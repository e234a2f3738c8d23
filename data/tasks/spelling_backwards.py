"""Spelling a made-up word backwards.

    reverse tolami:     imalot

`size` is the most letters of a word.
"""

import numpy as np

from data.tasks.exact import score
from data.tasks.words import CONSONANTS, pick, word

__all__ = ["SIZE", "VERSION", "example", "score", "wrong"]
VERSION, SIZE = 1, 6


def example(rng: np.random.Generator, size: int = 0) -> tuple[str, str]:
    """Words have 3 to `size` letters."""
    text = word(rng, int(rng.integers(3, max(size or SIZE, 3) + 1)))
    return f"reverse {text}:", text[::-1]


def wrong(rng: np.random.Generator, prompt: str, answer: str) -> str:
    """The answer with another letter in one place."""
    place = int(rng.integers(len(answer)))
    other = pick(rng, [letter for letter in CONSONANTS if letter != answer[place]])
    return f"{answer[:place]}{other}{answer[place + 1 :]}"
