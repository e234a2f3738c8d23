"""Compiles jitted functions for the shapes that come, and measures how long that takes."""

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np


class Programs:
    """The programs of a run, each compiled at its first call. `seconds` is the time that
    compilation has taken so far."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._known: dict[tuple, Callable] = {}

    def __call__(self, function: Any, static: tuple, *arrays: Any) -> Any:
        """function(*static, *arrays) of a jitted function whose first arguments are static."""
        leaves, tree = jax.tree.flatten(arrays)
        key = function, static, tree, tuple(np.shape(leaf) for leaf in leaves)
        if key not in self._known:
            jax.block_until_ready(arrays)  # or their making would count as compilation
            begun = time.perf_counter()
            self._known[key] = function.lower(*static, *arrays).compile()
            self.seconds += time.perf_counter() - begun
        return self._known[key](*arrays)
