"""Tests the n-gram model against its formula in plain Python."""

import collections
import math

import numpy as np
import pytest

from model.counted import ngram

VOCAB, ORDER = 7, 3


def walk(seed: int, length: int) -> np.ndarray:
    """A random text whose next token usually follows from the last two."""
    random = np.random.default_rng(seed)
    text = list(random.integers(0, VOCAB - 1, 2))
    while len(text) < length:
        usual = (3 * text[-1] + text[-2] ** 2) % (VOCAB - 1)
        text.append(usual if random.random() < 0.7 else int(random.integers(0, VOCAB - 1)))
    return np.array(text)


TEXTS = [walk(0, 300), walk(1, 200)]


def fitted(texts, vocab, order=5) -> ngram.NGram:
    return ngram.fit(ngram.Config(vocab, order=order), texts)


@pytest.fixture(scope="module")
def model():
    return fitted(TEXTS, VOCAB, ORDER)


def formula(texts, vocab, order, changes=None):
    """p(token, context) of Chen & Goodman 1998, section 3, from dictionaries of tuples."""
    grams = collections.Counter(
        tuple(text[i : i + n]) for text in texts for n in range(1, order + 1)
        for i in range(len(text) - n + 1)
    )  # fmt: skip
    count = dict.fromkeys(grams, 0) | {g: c for g, c in grams.items() if len(g) == order}
    for gram in grams:
        if len(gram) > 1:
            count[gram[1:]] += 1
    discount = {}
    for n in range(1, order + 1):
        n1, n2, n3, n4 = (
            sum(c == k for g, c in count.items() if len(g) == n) for k in (1, 2, 3, 4)
        )
        y = n1 / (n1 + 2 * n2) if n1 else 0.5
        discount[n] = [0, y, y, y]
        if n1 and n2 and n3:
            found = [1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3]
            if all(0 < d <= k for k, d in enumerate(found, 1)):
                discount[n] = [0, *found]
    discount |= changes or {}

    def p(token, context):
        n = len(context) + 1
        lower = p(token, context[1:]) if context else 1 / vocab
        follow = {w: count.get((*context, w), 0) for w in range(vocab)}
        if not sum(follow.values()):
            return lower
        d = lambda c: discount[n][min(c, 3)]  # noqa: E731
        back_off = sum(d(c) for c in follow.values())
        return (follow[token] - d(follow[token]) + back_off * lower) / sum(follow.values())

    return p


def worst(model, p) -> float:
    """The largest difference of log-probabilities on unseen text."""
    text = walk(2, 60)
    context = lambda i: tuple(text[max(0, i - ORDER + 1) : i])  # noqa: E731
    wanted = [-math.log(p(text[i], context(i))) for i in range(len(text))]
    return float(np.abs(model.nats(text) - wanted).max())


def test_it_is_the_formula(model):
    assert worst(model, formula(TEXTS, VOCAB, ORDER)) < 1e-12
    one_discount = formula(TEXTS, VOCAB, ORDER, {ORDER: [0, 0.6, 0.6, 0.6]})
    assert worst(model, one_discount) > 1e-3
    assert (
        worst(model, formula([np.concatenate(TEXTS)], VOCAB, ORDER)) > 1e-4
    )  # control: n-grams across texts


@pytest.mark.parametrize("context", [[], [1], [1, 2], [5, 5], [6, 6], [0, 6], [3, 1, 4]])
def test_probabilities_sum_to_one(model, context):
    """After contexts that occur, do not occur, and (with token 6) cannot occur in the texts."""
    rows = np.array([[*context, token] for token in range(VOCAB)])
    probabilities = np.exp(-model.nats(rows)[:, -1])
    assert probabilities.sum() == pytest.approx(1, abs=1e-12) and probabilities.min() > 0


def test_only_the_last_tokens_count(model):
    near, far = walk(3, 40), walk(3, 40)
    far[-1 - ORDER] += 1
    assert model.nats(near)[-1] == model.nats(far)[-1]
    far[-ORDER] += 1
    assert model.nats(near)[-1] != model.nats(far)[-1]


def test_rows_are_independent(model):
    text = walk(4, 40)
    assert np.array_equal(model.nats(np.stack([text, text[::-1]]))[0], model.nats(text))


def test_a_longer_context_helps_where_the_text_has_one():
    """The text follows a trigram model, whose true loss is known."""
    text, unseen = walk(5, 20_000), walk(6, 20_000)
    loss = [fitted([text], VOCAB, order).nats(unseen).mean() for order in (1, 2, 3)]
    chance = 0.3 / (VOCAB - 1)
    true = -(0.7 + chance) * math.log(0.7 + chance) - 5 * chance * math.log(chance)
    assert min(loss[:2]) > 1.5 * loss[2] and loss[2] == pytest.approx(true, rel=0.02)


@pytest.mark.parametrize("text", [[3], [1, 1], [0, 1, 2, 3, 4, 5, 6], [2] * 50])
def test_texts_with_no_discounts_of_their_own(text):
    """Texts too short or too regular to estimate discounts still give every token probability."""
    model = fitted([np.array(text)], VOCAB, ORDER)
    rows = np.array([[2, 2, token] for token in range(VOCAB)])
    probabilities = np.exp(-model.nats(rows)[:, -1])
    assert probabilities.sum() == pytest.approx(1, abs=1e-12) and probabilities.min() > 0


def test_a_text_of_many_tokens_needs_no_table_of_the_vocabulary():
    text = np.tile(np.random.default_rng(0).integers(0, 200_000, 1500), 2)
    model = fitted([text], 200_000, 5)
    assert model.nats(text)[5:].mean() < 1 and model.nats(text[::-1]).mean() > 7


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fitted(TEXTS, VOCAB, 0), "order=0 must be at least 1"),
        (lambda: fitted([np.array([], int)], VOCAB), "needs text"),
        (
            lambda: fitted(TEXTS, VOCAB).nats(np.array([VOCAB])),
            "outside the model's vocab_size",
        ),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
