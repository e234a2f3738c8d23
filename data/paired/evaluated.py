"""The hash of the validation examples that a run uses, where its sizes leave some out or cut them.

Losses of runs on the same data are compared only if it is the same.
"""

import hashlib

import numpy as np


def evaluated(numbers_P: np.ndarray, *lengths_P: np.ndarray) -> str:
    """16 hex digits of the SHA-256 of the examples that evaluations are drawn from: their numbers
    in the split and the lengths that they are cut to."""
    used = np.column_stack([numbers_P, *lengths_P]).astype("<i8")
    return hashlib.sha256(used.tobytes()).hexdigest()[:16]
