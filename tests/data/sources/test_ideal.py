"""Tests of the ideal learner against brute force, a simulation, and the fits of scaling/."""

import csv
import itertools
import math
from collections import defaultdict

import numpy as np
import pytest

from data.sources.ideal import UNLIMITED, excess_losses, ideal_loss, word_classes
from data.sources.synthetic import Language, entropy
from scaling.csv_file import read_csv
from scaling.fits.robust_fit import fit

ISSUED = Language()
UNEQUAL = Language(letters=(0.5, 0.3, 0.2), p=0.4, n_values=6, noise=0.05)


@pytest.mark.parametrize(("n_values", "noise"), [(2, 0.2), (3, 0.3), (5, 0.05)])
def test_loss_after_sightings_is_that_of_all_sequences(n_values, noise):
    offsets = Language(n_values=n_values, noise=noise).offsets
    shifted = np.array([np.roll(offsets, h) for h in range(n_values)])  # P(value | h)

    def total_entropy(n):
        sequences = np.array(list(itertools.product(range(n_values), repeat=n)), int)
        return entropy(shifted[:, sequences].prod(-1).mean(0))

    brute = [total_entropy(n + 1) - total_entropy(n) - entropy(offsets) for n in range(5)]
    assert np.allclose(excess_losses(n_values, noise)[:5], brute, rtol=0, atol=1e-12)
    assert not np.allclose(excess_losses(n_values, noise + 0.01)[:5], brute, rtol=0, atol=1e-3)


def test_without_noise_one_sighting_tells_all():
    assert excess_losses(16, 0.0).tolist() == [math.log(16), 0.0]
    assert excess_losses(16, 1e-7)[1] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("language", [ISSUED, UNEQUAL])
def test_classes_are_the_words(language):
    frequency, words = word_classes(language)
    assert (np.diff(frequency) <= 0).all()
    assert frequency @ words == pytest.approx(1, abs=2e-10)
    listed = sorted(
        (
            language.p * np.prod([(1 - language.p) * language.letters[i] for i in word])
            for length in range(9)
            for word in itertools.product(range(len(language.letters)), repeat=length)
        ),
        reverse=True,
    )
    assert np.allclose(np.repeat(frequency, words.clip(0, 100).astype(int))[:100], listed[:100])


def test_keeping_all_words_up_to_a_length_is_a_power_law():
    n = (4.0 ** np.arange(1, 20) - 1) / 3
    price = ISSUED.p * (math.log(16) - entropy(ISSUED.offsets))
    law = ISSUED.entropy + price * (3 * n + 1) ** -ISSUED.alpha_n
    assert np.allclose(ideal_loss(ISSUED, n, UNLIMITED), law, rtol=0, atol=1e-9)


def simulated(language, n_kept, n_tokens, sample):
    """Simulates a learner that reads `n_tokens` tokens; returns its loss on another text."""
    frequency = {
        word: np.prod([(1 - language.p) * language.letters[i] for i in word])
        for length in range(7)
        for word in itertools.product(range(len(language.letters)), repeat=length)
    }
    kept = set(sorted(frequency, key=lambda word: -frequency[word])[:n_kept])
    m, counts = len(language.letters), defaultdict(lambda: np.zeros(language.n_values))
    shifted = np.array([np.roll(language.offsets, h) for h in range(language.n_values)])

    def words(tokens):
        word = []
        for token in tokens.tolist():
            if token < m:
                word.append(token)
            else:
                yield tuple(word), token - m
                word = []

    for word, value in words(next(language.stream(n_tokens, sample, chunk=n_tokens))):
        if word in kept:
            counts[word][value] += 1
    predicted = defaultdict(lambda: np.full(language.n_values, 1 / language.n_values))
    for word, value_counts in counts.items():
        likelihood = np.exp(np.log(shifted) @ value_counts)
        predicted[word] = likelihood @ shifted / likelihood.sum()
    n = 20_000
    text = next(language.stream(n, sample + 1000, chunk=n))
    lost = -np.log([predicted[word][value] for word, value in words(text)])
    oracle = language.log_probabilities(text)[text >= m] - math.log(language.p)
    return language.entropy + (lost.sum() + oracle.sum()) / n


@pytest.mark.parametrize(
    ("language", "n_kept", "n_tokens"), [(ISSUED, 21, 300), (ISSUED, 300, 2000), (UNEQUAL, 50, 400)]
)
def test_loss_is_that_of_a_simulated_learner(language, n_kept, n_tokens):
    runs = np.array([simulated(language, n_kept, n_tokens, sample) for sample in range(12)])
    se = runs.std(ddof=1) / math.sqrt(len(runs))
    assert se < 0.01
    assert abs(runs.mean() - ideal_loss(language, n_kept, n_tokens)) < 3.5 * se
    assert abs(runs.mean() - ideal_loss(language, n_kept, 2 * n_tokens)) > 3.5 * se
    assert abs(runs.mean() - ideal_loss(language, n_kept // 4, n_tokens)) > 3.5 * se


def test_loss_falls_to_the_entropy_and_the_larger_lack_hides_the_smaller():
    n, d = np.meshgrid(np.geomspace(1, 1e9, 10), np.geomspace(1, 1e12, 10), indexing="ij")
    loss = ideal_loss(ISSUED, n, d)
    assert (np.diff(loss, axis=0) <= 1e-12).all() and (np.diff(loss, axis=1) <= 1e-12).all()
    of_n, of_d = ideal_loss(ISSUED, n, UNLIMITED), ideal_loss(ISSUED, UNLIMITED, d)
    assert (loss >= np.maximum(of_n, of_d) - 1e-9).all()
    assert (loss <= of_n + of_d - ISSUED.entropy + 1e-9).all()
    assert ideal_loss(ISSUED, UNLIMITED, UNLIMITED) == pytest.approx(ISSUED.entropy, abs=1e-6)


@pytest.mark.parametrize("language", [ISSUED, UNEQUAL])
@pytest.mark.parametrize(
    ("law", "n", "d", "exponent"),
    [
        ("params_only", np.geomspace(1e3, 1e9, 24), np.full(24, UNLIMITED), "alpha_n"),
        ("tokens_only", np.full(24, UNLIMITED), np.geomspace(1e4, 1e12, 24), "alpha_d"),
    ],
)
def test_fits_of_one_column_find_the_floor_and_the_exponent(language, law, n, d, exponent):
    found = fit(law, {"params": n, "tokens": d}, ideal_loss(language, n, d)).constants()
    assert abs(found["E"] - language.entropy) < 0.005
    assert abs(found["gamma"] - getattr(language, exponent)) < 0.02


def test_parametric_fit_of_a_table_finds_them_where_one_lack_is_small(tmp_path):
    # A ladder of sizes with practically unlimited text, and one of texts with unlimited size.
    n = np.concatenate([np.geomspace(1e3, 1e9, 16), np.full(16, 1e20)])
    d = np.concatenate([np.full(16, 1e20), np.geomspace(1e4, 1e12, 16)])
    path = tmp_path / "points.csv"
    with open(path, "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("params", "tokens", "loss"))
        rows.writerows(zip(n, d, ideal_loss(ISSUED, n, d), strict=True))
    points = read_csv(path)
    found = fit("parametric", points.columns(), points.loss).constants()
    assert abs(found["E"] - ISSUED.entropy) < 0.005
    assert abs(found["alpha"] - ISSUED.alpha_n) < 0.02
    assert abs(found["beta"] - ISSUED.alpha_d) < 0.02


def test_on_a_full_grid_kaplans_form_is_right_and_the_additive_one_is_not():
    n, d = (a.ravel() for a in np.meshgrid(np.geomspace(1e3, 1e8, 8), np.geomspace(1e5, 1e11, 8)))
    columns, loss = {"params": n, "tokens": d}, ideal_loss(ISSUED, n, d)
    kaplan = fit("kaplan_joint", columns, loss - ISSUED.entropy).constants()
    assert abs(kaplan["alpha_N"] - ISSUED.alpha_n) < 0.02
    assert abs(kaplan["alpha_D"] - ISSUED.alpha_d) < 0.02
    additive = fit("parametric", columns, loss).constants()
    assert additive["alpha"] - ISSUED.alpha_n > 0.1 and additive["beta"] - ISSUED.alpha_d > 0.05


def test_best_learners_of_a_budget_follow_the_frontier():
    flops = np.geomspace(1e12, 1e20, 13)
    sizes = np.geomspace(1e2, 1e9, 141)
    loss = ideal_loss(ISSUED, sizes, flops[:, None] / 6 / sizes)
    found = fit("frontier", {"flops": flops}, loss.min(1)).constants()
    total = ISSUED.alpha_n + ISSUED.alpha_d
    assert abs(found["E"] - ISSUED.entropy) < 0.005
    assert abs(found["gamma"] - ISSUED.alpha_n * ISSUED.alpha_d / total) < 0.02
    slope = np.polyfit(np.log(flops), np.log(sizes[loss.argmin(1)]), 1)[0]
    assert abs(slope - ISSUED.alpha_d / total) < 0.02


def test_what_cannot_be_summed_is_refused():
    with pytest.raises(ValueError, match=r"noise=0.4 with S=16 takes more than \d+ occurrences"):
        ideal_loss(Language(noise=0.4), 100, 100)
    many = Language(letters=tuple(np.arange(1, 27) / 351))
    with pytest.raises(ValueError, match="letters: these 26 make words of more than 400000"):
        ideal_loss(many, 100, 100)
