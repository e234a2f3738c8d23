"""Best-of-n: the reward of the sample that a proxy ranks first among n, for all n, without bias.

P prompts, N samples of each, n of them at a time
"""

import numpy as np
from scipy.special import gammaln


def kl(n: np.ndarray) -> np.ndarray:
    """log n - (n - 1) / n: the KL divergence, in nats, of best-of-n from the policy that draws the
    samples, if no two of them have the same reward. Stiennon et al. 2020, appendix G.3."""
    n = np.asarray(n, float)
    return np.log(n) - (n - 1) / n


def weights(count: int, sizes: np.ndarray) -> np.ndarray:
    """The probability [N, len(sizes)] that the sample of each rank, the lowest first, is the best
    of n drawn without replacement from N: C(rank - 1, n - 1) / C(N, n)."""
    rank, n = np.arange(1, count + 1)[:, None], np.asarray(sizes)[None, :]
    log_choose = lambda a, b: gammaln(a + 1) - gammaln(b + 1) - gammaln(a - b + 1)  # noqa: E731
    possible = rank >= n
    ways = log_choose(rank - 1, np.where(possible, n - 1, 0)) - log_choose(count, n)
    return np.where(possible, np.exp(ways), 0.0)


def expected(proxy_PN: np.ndarray, reward_PN: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """The mean reward [P, len(sizes)] of the sample with the highest proxy among n, over all
    subsets of n of the N samples: Nakano et al. 2021, appendix I; used by Gao et al. 2022.

    Samples of equal proxy are equally likely to be chosen. Raises ValueError for shapes that
    differ, for values that are not finite, and for an n outside 1 to N.
    """
    proxy_PN, reward_PN = np.asarray(proxy_PN, float), np.asarray(reward_PN, float)
    if proxy_PN.shape != reward_PN.shape or proxy_PN.ndim != 2 or not proxy_PN.size:
        raise ValueError(
            f"proxy has the shape {proxy_PN.shape} and gold {reward_PN.shape}; both must be "
            "[prompts, samples]"
        )
    for name, values in (("proxy", proxy_PN), ("gold", reward_PN)):
        if not np.isfinite(values).all():
            row, column = np.argwhere(~np.isfinite(values))[0]
            raise ValueError(
                f"{name} is {values[row, column]} for sample {column + 1} of prompt {row + 1}; "
                "rewards must be finite numbers"
            )
    count = proxy_PN.shape[1]
    if not (1 <= np.min(sizes) and np.max(sizes) <= count):
        raise ValueError(
            f"n={np.max(sizes)} needs as many samples of each prompt; use 1 to {count}"
        )
    order = np.argsort(proxy_PN, axis=1, kind="stable")
    ranked_PN = np.take_along_axis(reward_PN, order, axis=1)
    proxies_PN = np.take_along_axis(proxy_PN, order, axis=1)
    for row in np.flatnonzero((np.diff(proxies_PN, axis=1) == 0).any(axis=1)):
        _, group = np.unique(proxies_PN[row], return_inverse=True)
        ranked_PN[row] = (np.bincount(group, ranked_PN[row]) / np.bincount(group))[group]
    return ranked_PN @ weights(count, sizes)


def spaced(count: int, most: int = 40) -> np.ndarray:
    """At most `most` sizes from 1 to `count`, evenly spaced in log n, both ends included."""
    return np.unique(np.round(np.geomspace(1, count, most)).astype(int))


def doubled(count: int) -> np.ndarray:
    """The sizes 1, 2, 4, … up to `count`, and `count` itself."""
    powers = 2 ** np.arange(int(count).bit_length())
    return np.unique(np.append(powers, count))


def estimate(
    proxy_PN: np.ndarray, reward_PN: np.ndarray, sizes: np.ndarray
) -> list[tuple[float, float | None]]:
    """(the mean over prompts of `expected`, its standard error) of each size. Prompts are the
    independent units; one prompt has no error. Raises what `expected` raises."""
    values_PK = expected(proxy_PN, reward_PN, sizes)
    count, means = len(values_PK), values_PK.mean(0).tolist()
    if count == 1:
        return [(mean, None) for mean in means]
    errors = values_PK.std(0, ddof=1) / np.sqrt(count)
    return list(zip(means, errors.tolist(), strict=True))
