"""Tests that samples of a counted model follow its distribution, the sampler and the seed."""

import itertools

import numpy as np
import pytest

from model.counted import ngram
from model.generation import from_counts, sample
from model.generation.samplers import Sampler

V, END = 6, 5
CFG = ngram.Config(V, context_length=40, order=2)
TEXT = np.array([0, 1, 2, 0, 1, 3, 0, 2, 1, END, 0, 1, 2, 4, 0, 1, END] * 3)


@pytest.fixture(scope="module")
def model():
    return ngram.fit(CFG, [TEXT])


def drawn(model, prompts, n_tokens, sampler=None, **how) -> sample.Samples:
    sampler = sampler or Sampler(stop=(END,))
    return sample.join(
        from_counts.stream(ngram, model, CFG, prompts, n_tokens, sampler, **how), n_tokens
    )


def test_frequencies_are_the_distribution(model):
    """The first token after 1, in 4,000 samples: within 4 standard errors of its probability."""
    found = drawn(model, [[0, 1]], 1, n=4000, seed=3)
    few = drawn(model, [[0, 1]], 1, n=2, seed=3)  # more rows change no other row
    assert np.array_equal(few.tokens_BN, found.tokens_BN[:2])
    share_V = np.bincount(found.tokens_BN[:, 0], minlength=V) / 4000
    p_V = ngram.distribution(model, np.array([0, 1]))
    error_V = np.sqrt(p_V * (1 - p_V) / 4000)
    assert (np.abs(share_V - p_V) < 4 * error_V).all()
    other_V = ngram.distribution(model, np.array([1, 0]))  # control
    assert (np.abs(share_V - other_V) > 4 * error_V).any()


def test_log_probabilities_are_those_of_the_text(model):
    found = drawn(model, [[0], [2, 1]], 12, seed=1, top=2)
    for row, prompt in enumerate([[0], [2, 1]]):
        tokens = found.tokens_BN[row, : found.lengths_B[row]]
        nats = ngram.nats(model, np.array([*prompt, *tokens]))[len(prompt) :]
        assert found.logprobs_BN[row, : len(tokens)] == pytest.approx(-nats, abs=1e-5)
        assert (tokens[:-1] != END).all() and (tokens[-1] == END or len(tokens) == 12)
    p_V = ngram.distribution(model, np.array([0]))
    assert found.top_tokens_BNM[0, 0].tolist() == np.argsort(-p_V, kind="stable")[:2].tolist()


def test_greedy_takes_the_likeliest_token(model):
    greedy = drawn(model, [[0]], 5, Sampler(temperature=0.0), n=2).tokens_BN[0]
    text = [0]
    for _ in range(5):
        text.append(int(ngram.distribution(model, np.array(text)).argmax()))
    assert greedy.tolist() == text[1:]
    assert drawn(model, [[0]], 5, Sampler(top_k=1), n=2).tokens_BN[1].tolist() == text[1:]


def test_the_seed_and_the_row_decide(model):
    one = drawn(model, [[0]], 9, n=2, seed=1).tokens_BN
    assert np.array_equal(one, drawn(model, [[0]], 9, n=2, seed=1).tokens_BN)
    assert not np.array_equal(one[0], one[1])
    assert not np.array_equal(one, drawn(model, [[0]], 9, n=2, seed=2).tokens_BN)


def test_rows_stop_where_the_caller_says(model):
    calls = itertools.count()
    found = drawn(
        model, [[0]], 30, Sampler(), n=2, seed=1,
        goes_on=lambda piece: np.array([next(calls) < 4, True]),
    )  # fmt: skip
    assert found.lengths_B.tolist() == [5, 30]


def test_no_text_is_too_long(model):
    """Counts know only the last tokens: the Config's context does not bound what is drawn."""
    assert drawn(model, [[0]], 40).tokens_BN.shape[1] == 40
