"""Made-up words: syllables of a consonant and a vowel, such as `tolami`."""

from collections.abc import Sequence

import numpy as np

CONSONANTS, VOWELS = "bdfglmnprst", "aeiou"


def pick(rng: np.random.Generator, items: Sequence[str]) -> str:
    """One of the items, each equally often."""
    return items[int(rng.integers(len(items)))]


def word(rng: np.random.Generator, letters: int) -> str:
    """A word with this many letters, which alternate between consonants and vowels."""
    return "".join(pick(rng, (CONSONANTS, VOWELS)[place % 2]) for place in range(letters))
