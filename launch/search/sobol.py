"""Sobol's sequence, scrambled (Owen 1998), by scipy: fills the space more evenly than chance."""

import math
from collections.abc import Sequence

import numpy as np

from configs.space import Overrides, Search
from launch.search import design
from launch.search.asked import Asked

SEQUENTIAL = False
ENDS = False


def ask(search: Search, asked: Sequence[Asked]) -> list[Overrides]:
    """The points after those that were asked for; more trials add points at the end."""
    from scipy.stats import qmc

    n, d = design.wanted(search, asked), design.dimensions(search.axes)
    if not d:
        return design.rest(search, [dict(search.axes)] * n, asked)
    sequence = qmc.Sobol(d, seed=np.random.default_rng(search.seed))
    points_PK = sequence.random_base2(math.ceil(math.log2(n)))[:n]
    return design.rest(search, design.trials_at(search.axes, points_PK), asked)
