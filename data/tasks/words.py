"""Made-up words: syllables of a consonant and a vowel, such as `tolami`."""

import numpy as np

CONSONANTS, VOWELS = "bdfglmnprst", "aeiou"


def word(rng: np.random.Generator, letters: int) -> str:
    """A word with this many letters, which alternate between consonants and vowels."""
    both = (CONSONANTS, VOWELS)
    return "".join(str(rng.choice(list(both[place % 2]))) for place in range(letters))
