"""Handwritten digits as captioned images: the 1,797 of scikit-learn, 8 × 8 grey pixels.

They are the test set of Alpaydin & Kaynak 1998 (UCI, "Optical Recognition of Handwritten Digits").
A caption is the name of the digit, "seven". The seed chooses those that are held out.
"""

from collections.abc import Iterator

import numpy as np

from data.sources.drawn.written import Item

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
EACH = 5  # one digit in 5 is held out
BRIGHTEST = 16  # of a pixel in scikit-learn's data


def items(count: int, seed: int) -> Iterator[Item]:
    """The first `count` digits of a shuffled order; 0: all. ValueError without scikit-learn, and
    for a larger count than its total."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise ValueError(
            "--of=digits needs the package scikit-learn; pip install 'isoflop[images]'"
        ) from None
    found = load_digits()
    total = len(found.target)
    if count > total:
        raise ValueError(f"--count={count} is above the {total} digits of the set; use 0 for all")
    order = np.random.default_rng([seed]).permutation(total)[: count or total]
    for number, place in enumerate(order):
        pixels = np.round(found.images[place] * (255 / BRIGHTEST)).astype(np.uint8)
        held_out = number * EACH < len(order)
        yield Item(pixels[:, :, None], NAMES[found.target[place]], held_out)
