"""Bootstrap intervals and sign-flip tests over units: pairs, or groups that belong together."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
from scipy import stats

from scaling.intervals import finite
from scaling.settings import LEVEL

DRAWS = 2000  # of a bootstrap and of a sampled test
EXACT_UNITS = 14  # up to which all assignments of signs are tried: 2^14


def units(groups: Sequence[Hashable]) -> list[np.ndarray]:
    """The places of each group, in the order in which the groups first occur."""
    places: dict[Hashable, list[int]] = {}
    for place, group in enumerate(groups):
        places.setdefault(group, []).append(place)
    return [np.array(of_group) for of_group in places.values()]


def interval(value: float | None, draws: Sequence[float], n_units: int) -> dict[str, Any]:
    """A value with the expanded percentile interval of its bootstrap draws (Hesterberg 2015,
    section 5.2): the percentiles are moved apart so that few units do not make it too narrow. No
    interval for fewer than two units."""
    known = np.array([x for x in draws if x is not None and np.isfinite(x)])
    low = high = None
    if n_units > 1 and len(known):
        t = stats.t.ppf(0.5 + LEVEL / 2, n_units - 1) * np.sqrt(n_units / (n_units - 1))
        tail = stats.norm.cdf(-t)
        low, high = np.quantile(known, [tail, 1 - tail])
    return {"value": finite(value), "lo": finite(low), "hi": finite(high)}


def bootstrap(
    statistics: Callable[[np.ndarray], dict[str, float | None]],
    groups: Sequence[Hashable],
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """Each statistic of the rows with its interval; whole groups are drawn. `statistics` gets the
    numbers of the rows in use, which may occur several times."""
    rng, parts = np.random.default_rng(seed), units(groups)
    found = statistics(np.arange(len(groups)))
    drawn: dict[str, list] = {name: [] for name in found}
    for _ in range(draws):
        chosen = rng.integers(len(parts), size=len(parts))
        for name, value in statistics(np.concatenate([parts[i] for i in chosen])).items():
            drawn[name].append(value)
    return {name: interval(value, drawn[name], len(parts)) for name, value in found.items()}


def mean_of_differences(
    differences: Sequence[float],
    groups: Sequence[Hashable],
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, Any]:
    """The mean of paired differences with its interval, and the two-sided p-value of a mean of 0.

    Each group counts the same, whatever its number of pairs: its mean is one unit. The interval is
    of a bootstrap over units. The p-value is the share of assignments of signs to the units whose
    mean is at least as far from 0 (Fisher 1935); all of them for up to EXACT_UNITS units, otherwise
    `draws` drawn ones and the one observed. Keys: value, lo, hi, p, units, exact, positive (the
    share of the differences above 0; half of those that are 0).
    """
    x = np.asarray(differences, float)
    unit = np.array([x[places].mean() for places in units(groups)])
    n, rng = len(unit), np.random.default_rng(seed)
    means = unit[rng.integers(n, size=(draws, n))].mean(1)
    exact = n <= EXACT_UNITS
    if exact:
        signs = 1.0 - 2.0 * (np.arange(2**n)[:, None] >> np.arange(n) & 1)
    else:
        signs = np.concatenate([np.ones((1, n)), rng.choice([-1.0, 1.0], size=(draws, n))])
    flipped = np.abs((signs * unit).mean(1))
    p = float(np.mean(flipped >= abs(unit.mean()) * (1 - 1e-12)))
    about = {"p": p, "units": n, "exact": exact}
    about["positive"] = float(((x > 0) + 0.5 * (x == 0)).mean())
    return interval(float(unit.mean()), means, n) | about
