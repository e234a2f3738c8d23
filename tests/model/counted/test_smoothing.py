"""Tests the smoothings of n-grams against nltk and against their formulas in plain Python."""

import collections
import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest

from model.counted import ngram
from model.counted.smoothing import SMOOTHINGS
from tests.model.counted.test_ngram import ORDER, TEXTS, VOCAB, walk

GOLDEN = np.load(Path(__file__).parents[2] / "golden" / "ngrams.npz")
V = 13  # 12 tokens and the unknown one
CONTEXTS = [[token for token in row if token >= 0] for row in GOLDEN["contexts"]]
# What nltk has -> the same in our keys.
NLTK = {
    "add_k": dict(smoothing="add_k", k=float(GOLDEN["k"])),
    "laplace": dict(smoothing="add_k"),
    "witten_bell": dict(smoothing="witten_bell"),
    "absolute": dict(smoothing="absolute", discount=float(GOLDEN["discount"])),
    "kneser_ney": dict(smoothing="kneser_ney", discount=float(GOLDEN["discount"])),
}


def with_nltk_s_unigrams(model: ngram.NGram, smoothing: str) -> ngram.NGram:
    """The model whose unigrams are relative frequencies, which back off to nothing. nltk ends its
    recursion so, and unknown tokens have the probability 0; ours ends at 1 / V."""
    how = SMOOTHINGS[smoothing]
    _, count, _ = next(ngram.count_ngrams([GOLDEN["text"]], V, 3, how.continuations))
    first = model.levels[0]
    level = ngram.Level(first.keys, count / count.sum(), np.zeros(1))
    return dataclasses.replace(model, levels=(level, *model.levels[1:]))


def apart(model: ngram.NGram, name: str) -> float:
    """The largest difference from nltk's probabilities."""
    rows = zip(CONTEXTS, GOLDEN[name], strict=True)
    return max(np.abs(model.distribution(context) - row).max() for context, row in rows)


@pytest.mark.parametrize("name", NLTK)
def test_probabilities_are_nltk_s(name):
    model = ngram.fit(ngram.Config(V, order=3, **NLTK[name]), [GOLDEN["text"]])
    same = model
    if model.interpolated:
        same = with_nltk_s_unigrams(model, NLTK[name]["smoothing"])
        assert apart(model, name) > 1e-3  # control: our own unigrams
    assert apart(same, name) < 1e-9
    assert min(apart(same, other) for other in NLTK if other != name) > 1e-3  # controls


def formula(name: str, texts, k: float, d: float):
    """p(token, context) of one smoothing, from dictionaries of tuples."""
    grams = collections.Counter(
        tuple(text[i : i + n]) for text in texts for n in range(1, ORDER + 1)
        for i in range(len(text) - n + 1)
    )  # fmt: skip
    if name == "kneser_ney":
        whole = grams
        grams = collections.Counter({g: c for g, c in whole.items() if len(g) == ORDER})
        grams.update(g[1:] for g in whole if len(g) > 1)

    def p(token, context):
        context = tuple(context)
        follow = [grams[(*context, w)] for w in range(VOCAB)]
        total, types, c = sum(follow), sum(n > 0 for n in follow), follow[token]
        if name == "add_k":
            return (c + k) / (total + k * VOCAB)
        lower = p(token, context[1:]) if context else 1 / VOCAB
        if not total:
            return lower
        if name == "witten_bell":
            return (c + types * lower) / (total + types)
        return (max(c - d, 0) + d * types * lower) / total

    return p


@pytest.mark.parametrize("name", ["add_k", "witten_bell", "absolute", "kneser_ney"])
def test_each_is_its_formula(name):
    """On two texts, whose beginnings have shorter contexts, and with 1 / V below the unigrams."""
    keys = {"k": 0.4} if name == "add_k" else {"discount": 0.6} if name != "witten_bell" else {}
    model = ngram.fit(ngram.Config(VOCAB, order=ORDER, smoothing=name, **keys), TEXTS)
    text = walk(2, 60)
    apart = {}
    for other in ("add_k", "witten_bell", "absolute", "kneser_ney"):
        p = formula(other, TEXTS, 0.4, 0.6)
        wanted = [p(text[i], text[max(0, i - ORDER + 1) : i]) for i in range(len(text))]
        apart[other] = np.abs(model.nats(text) + np.log(wanted)).max()
    assert apart.pop(name) < 1e-12 and min(apart.values()) > 1e-2


@pytest.mark.parametrize("name", SMOOTHINGS)
def test_the_distribution_is_that_of_the_nats_and_sums_to_one(name):
    """After contexts that occur, do not occur, and (with token 6) cannot occur in the texts."""
    model = ngram.fit(ngram.Config(VOCAB, order=ORDER, smoothing=name), TEXTS)
    file = io.BytesIO()
    ngram.save(model, file)
    file.seek(0)
    again = ngram.load(file)
    for context in ([], [1], [1, 2], [5, 5], [6, 6], [0, 6], [3, 1, 4], walk(3, 9).tolist()):
        p_V = ngram.distribution(again, np.array(context, int))
        rows = np.array([[*context, token] for token in range(VOCAB)])
        assert np.array_equal(-np.log(p_V), model.nats(rows)[:, -1])
        assert p_V.sum() == pytest.approx(1, abs=1e-12) and p_V.min() > 0


def test_the_discounts_of_absolute_discounting_are_estimated():
    """n1 / (n1 + 2 n2): of the unigrams below, 2 occur once and 1 twice."""
    text = [0, 0, 0, 1, 1, 2, 3]
    model = ngram.fit(ngram.Config(5, order=1, smoothing="absolute"), [np.array(text)])
    d = 2 / (2 + 2 * 1)
    wanted = [(c - d) / 7 + d * 4 / 7 / 5 for c in (3, 2, 1, 1)] + [d * 4 / 7 / 5]
    assert ngram.distribution(model, np.array([], int)) == pytest.approx(wanted, abs=1e-15)


def test_a_model_saved_before_there_were_smoothings_is_read():
    model = ngram.fit(ngram.Config(VOCAB, order=ORDER), TEXTS)
    file = io.BytesIO()
    ngram.save(model, file)
    file.seek(0)
    arrays = {name: array for name, array in np.load(file).items() if name != "interpolated"}
    older = io.BytesIO()
    np.savez(older, **arrays)
    older.seek(0)
    text = walk(4, 50)
    assert np.array_equal(ngram.load(older).nats(text), model.nats(text))


def test_the_numbers_of_the_default_stay():
    """As the version before the other smoothings computed it, to the last bit."""
    model = ngram.fit(ngram.Config(VOCAB, order=ORDER), TEXTS)
    assert float(model.nats(walk(2, 60)).sum()).hex() == "0x1.f92ca5457ff2ap+5"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (dict(smoothing="good_turing"), "model.smoothing='good_turing' is unknown; use one of mod"),
        (dict(k=0.5), "model.k=0.5 has no effect with model.smoothing='modified_kneser_ney'; it"),
        (dict(smoothing="add_k", k=0.0), "model.k=0.0 must be above 0"),
        (dict(smoothing="absolute", discount=1.0), "model.discount=1.0 must be .*below 1"),
        (dict(smoothing="witten_bell", discount=0.5), "needs absolute or kneser_ney"),
    ],
)
def test_bad_keys_are_named(keys, message):
    with pytest.raises(ValueError, match=message):
        ngram.Config(VOCAB, **keys)
