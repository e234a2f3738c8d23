"""Latin hypercube (McKay et al. 1979), by scipy: one trial in each of n equal parts of a range."""

from collections.abc import Sequence

import numpy as np

from configs.space import Overrides, Search
from launch.search import design
from launch.search.asked import Asked

SEQUENTIAL = False
ENDS = False


def ask(search: Search, asked: Sequence[Asked]) -> list[Overrides]:
    """The points of a hypercube of `trials` that were not asked for yet. ValueError without a
    number of trials."""
    from scipy.stats import qmc

    if not search.trials:
        raise ValueError(
            "search.trials is not given, and latin_hypercube divides each range into as many parts "
            "as there are trials; add --trials=32"
        )
    d = design.dimensions(search.axes)
    if not d:
        return design.rest(search, [dict(search.axes)] * search.trials, asked)
    points_PK = qmc.LatinHypercube(d, seed=np.random.default_rng(search.seed)).random(search.trials)
    return design.rest(search, design.trials_at(search.axes, points_PK), asked)
