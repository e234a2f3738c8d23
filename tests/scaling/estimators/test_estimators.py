"""Tests of pass@k and best-of-n against every subset of small samples."""

from itertools import combinations

import numpy as np
import pytest

from scaling.estimators import best_of_n, coverage


@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_pass_at_k_is_the_share_of_subsets_with_a_right_sample(n):
    for right in range(n + 1):
        samples = [True] * right + [False] * (n - right)
        for k in range(1, n + 1):
            subsets = [any(subset) for subset in combinations(samples, k)]
            found = coverage.pass_at_k(np.array([n]), np.array([right]), k)
            assert found[0] == pytest.approx(np.mean(subsets), abs=1e-12)
            biased = 1 - (1 - right / n) ** k  # the plug-in estimate, too low where k > 1
            if k > 1 and 0 < right < n:
                assert found[0] - biased > 1e-9


def test_pass_at_k_of_many_samples_does_not_overflow():
    """C(10000, 5000) is above the largest double; with one right sample pass@k is k / n."""
    found = coverage.pass_at_k(np.array([10_000]), np.array([1]), 5000)
    assert found[0] == pytest.approx(0.5)


def test_the_error_is_that_of_the_mean_over_prompts():
    rng, prompts, samples = np.random.default_rng(0), 40, 12
    means, errors, inside = [], [], []
    for seed in range(120):
        p = rng.beta(0.5, 1.0, prompts)
        one = coverage.estimate(np.full(prompts, samples), rng.binomial(samples, p), 4, seed)
        means.append(one["value"])
        errors.append(one["se"])
        # E[1 - (1-p)^4] for p ~ Beta(.5, 1): 1 - B(.5, 5) / B(.5, 1)
        true = 1 - np.prod([(1 + i) / (1.5 + i) for i in range(4)])
        inside.append(one["lo"] <= true <= one["hi"])
    assert np.mean(errors) == pytest.approx(np.std(means), rel=0.15)
    assert 0.82 < np.mean(inside) < 0.95  # 90 % intervals


def test_all_right_and_all_wrong_have_an_interval():
    wrong = coverage.estimate(np.full(20, 4), np.zeros(20, int), 2)
    right = coverage.estimate(np.full(20, 4), np.full(20, 4), 2)
    assert (wrong["value"], wrong["lo"], right["value"], right["hi"]) == (0, 0, 1, 1)
    assert wrong["hi"] == pytest.approx(1 - right["lo"])
    assert (1 - wrong["hi"]) ** 20 == pytest.approx(0.1)  # 20 failures have this probability


@pytest.mark.parametrize(("n", "c", "k"), [(4, 5, 1), (4, -1, 1), (4, 2, 5), (4, 2, 0)])
def test_impossible_counts_are_refused(n, c, k):
    with pytest.raises(ValueError, match=r"must lie between|needs at least"):
        coverage.pass_at_k(np.array([n]), np.array([c]), k)


@pytest.mark.parametrize("ties", [False, True])
def test_best_of_n_is_the_mean_over_all_subsets(ties):
    rng = np.random.default_rng(1)
    proxy = rng.integers(0, 3, (2, 6)).astype(float) if ties else rng.normal(size=(2, 6))
    gold = rng.normal(size=(2, 6))
    found = best_of_n.expected(proxy, gold, np.arange(1, 7))
    for row in range(2):
        for n in range(1, 7):
            chosen = []
            for subset in combinations(range(6), n):
                best = [i for i in subset if proxy[row, i] == proxy[row, list(subset)].max()]
                chosen.append(gold[row, best].mean())
            assert found[row, n - 1] == pytest.approx(np.mean(chosen), abs=1e-12)
    # Without the average over equal proxies the order of the file would decide.
    order = rng.permutation(6)
    again = best_of_n.expected(proxy[:, order], gold[:, order], np.arange(1, 7))
    assert again == pytest.approx(found, abs=1e-12)


def test_the_error_of_best_of_n_is_that_of_means_over_prompts():
    """Against the spread of the mean when prompts are drawn anew; samples of one prompt alone would
    give another error, since prompts differ in difficulty."""
    rng = np.random.default_rng(3)

    def drawn(prompts: int) -> tuple[np.ndarray, np.ndarray]:
        right = rng.random((prompts, 16)) < rng.beta(0.5, 0.5, (prompts, 1))
        return right + rng.normal(size=right.shape), right

    sizes = np.array([1, 4])
    spread = np.std([best_of_n.expected(*drawn(50), sizes).mean(0) for _ in range(400)], axis=0)
    found = best_of_n.estimate(*drawn(2000), sizes)
    errors = np.array([error for _, error in found]) * np.sqrt(2000 / 50)
    assert errors == pytest.approx(spread, rel=0.15)
    assert spread[0] > 1.3 * np.sqrt(0.25 / (50 * 16))  # that of independent samples
    assert found[1][0] > found[0][0] + 0.05
    assert best_of_n.estimate([[1.0, 2.0]], [[0.0, 1.0]], [2]) == [(1.0, None)]
    assert best_of_n.doubled(12).tolist() == [1, 2, 4, 8, 12]
    assert best_of_n.doubled(1).tolist() == [1] and best_of_n.doubled(8).tolist() == [1, 2, 4, 8]


def test_best_of_1000_of_standard_normal_rewards():
    """The expected maximum of n standard normals; the proxy is the gold reward itself."""
    x = np.random.default_rng(2).normal(size=(400, 1000))
    found = best_of_n.expected(x, x, np.array([1, 2, 10, 100]))
    wanted = (0.0, 1 / np.sqrt(np.pi), 1.5388, 2.5076)
    assert np.isfinite(found).all()
    assert found.mean(0) == pytest.approx(wanted, abs=0.01)
    assert best_of_n.weights(1000, np.arange(1, 1001)).sum(0) == pytest.approx(np.ones(1000))


def test_kl_of_best_of_n_is_that_of_the_density_n_u_to_the_n_minus_1():
    assert best_of_n.kl(1) == 0
    u = (np.arange(200_000) + 0.5) / 200_000
    for n in (2, 7, 64):
        log_density = np.log(n) + (n - 1) * np.log(u)
        wanted = (np.exp(log_density) * log_density).mean()
        assert best_of_n.kl(n) == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize(
    ("proxy", "gold", "sizes", "message"),
    [
        ([[1, 2]], [[1, 2, 3]], [1], "both must be"),
        ([[1, np.nan]], [[1, 2]], [1], "proxy is nan for sample 2 of prompt 1"),
        ([[1, 2]], [[np.inf, 2]], [1], "gold is inf for sample 1 of prompt 1"),
        ([[1, 2]], [[1, 2]], [3], "n=3 needs as many samples"),
    ],
)
def test_rewards_that_support_no_estimate_are_refused(proxy, gold, sizes, message):
    with pytest.raises(ValueError, match=message):
        best_of_n.expected(np.array(proxy, float), np.array(gold, float), np.array(sizes))
