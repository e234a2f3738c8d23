"""Counting a letter in a made-up word.

    count a in balama:      3

`size` is the most letters of a word, at most 17, so that the count is one digit.
"""

import numpy as np

from data.tasks.exact import score
from data.tasks.words import pick, word

__all__ = ["SIZE", "VERSION", "example", "score", "wrong"]
VERSION, SIZE = 1, 8
LONGEST = 17


def example(rng: np.random.Generator, size: int = 0) -> tuple[str, str]:
    """Words have 3 to `size` letters; the letter that is counted is in the word."""
    longest = min(max(size or SIZE, 3), LONGEST)
    text = word(rng, int(rng.integers(3, longest + 1)))
    letter = pick(rng, text)
    return f"count {letter} in {text}:", str(text.count(letter))


def wrong(rng: np.random.Generator, prompt: str, answer: str) -> str:
    """One more or, above 1, one less."""
    count = int(answer)
    return str(count + (1 if count == 1 or rng.random() < 0.5 else -1))
