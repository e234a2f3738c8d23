"""Tests that speculative decoding keeps the large model's distribution."""

import dataclasses
import functools
import itertools

import jax
import numpy as np
import pytest

from model.generation import speculative
from model.generation.samplers import Sampler
from model.transformer.config import ModelConfig
from model.transformer.decoder import Decoder, shapes

LARGE = ModelConfig(
    vocab_size=7, context_length=40, n_layers=2, d_model=16, n_heads=4, n_kv_heads=2, head_dim=6,
    d_ff=32, init_std=0.35, positions="rotary", window=4, window_pattern="LG", norm="rmsnorm",
)  # fmt: skip
# Its vocabulary differs too: two models with one tokenizer may pad the vocabulary differently.
SMALL = dataclasses.replace(LARGE, n_layers=1, d_model=8, n_heads=2, vocab_size=6, window=3)
TOKENS = 5  # of the tokenizer; the rest of the vocabulary is padding
PROMPTS = [[1, 3, 2, 0, 4, 4, 1], [2]]
GREEDY = Sampler(temperature=0.0, vocab_size=TOKENS)
ROWS, N = 1500, 14  # rows per prompt and new tokens; the same in most tests, to compile less


@pytest.fixture(scope="module")
def models():
    """(params, cfg) of the large model, then of the small one."""
    found = []
    for seed, cfg in enumerate((LARGE, SMALL)):
        rng = np.random.default_rng(seed)
        draw = lambda x: rng.normal(0, 0.5, x.shape).astype(np.float32)  # noqa: B023, E731
        found += [jax.tree.map(draw, shapes(cfg)), cfg]
    return found


def statistic(counts, expected):
    """Chi-squared per degree of freedom, over the outcomes expected more than five times."""
    common = expected > 5
    return ((counts - expected)[common] ** 2 / expected[common]).sum() / (common.sum() - 1)


def test_the_rule_gives_p_whatever_q():
    """The control accepts every drafted token, which gives q instead of p."""
    rng, N, V = np.random.default_rng(0), 20_000, 6
    p_V, q_V = rng.dirichlet(np.ones(V)), rng.dirichlet(np.ones(V))
    draft_B1 = rng.choice(V, (N, 1), p=q_V)
    p_B2V = np.broadcast_to(p_V, (N, 2, V)).astype(np.float32)
    q_B1V = np.broadcast_to(q_V, (N, 1, V)).astype(np.float32)
    keys = jax.random.split(jax.random.key(1), N)
    count, then = map(np.asarray, jax.jit(speculative.accept)(keys, draft_B1, q_B1V, p_B2V))
    first = np.where(count > 0, draft_B1[:, 0], then)
    tally = lambda tokens: np.bincount(tokens, minlength=V)  # noqa: E731
    assert statistic(tally(first), N * p_V) < 3 < statistic(tally(draft_B1[:, 0]), N * p_V)
    # After an accepted draft, the next token is drawn from p.
    passed = then[count > 0]
    assert statistic(tally(passed), len(passed) * p_V) < 3
    assert count.mean() == pytest.approx(np.minimum(p_V, q_V).sum(), abs=0.02)


@functools.partial(jax.jit, static_argnames="cfg")
def _logits(params, cfg, tokens_BT):
    return Decoder(cfg).apply({"params": params}, tokens_BT)


def full(params, cfg, tokens):
    """Logits [B, T, TOKENS] of sequences [B, T], which are padded to one shape."""
    padded = np.zeros((len(tokens), 24), np.int32)
    padded[:, : len(tokens[0])] = tokens
    return np.asarray(_logits(params, cfg, padded), np.float64)[:, : len(tokens[0]), :TOKENS]


def log_softmax(x):
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def joint(params, cfg, prompt, sampler):
    """Probabilities [TOKENS**4] of all continuations by four tokens, from full forward passes."""
    tails = np.array(list(itertools.product(range(TOKENS), repeat=4)))
    tokens = np.concatenate([np.tile(prompt, (len(tails), 1)), tails], axis=1)
    logprobs = log_softmax(full(params, cfg, tokens)[:, len(prompt) - 1 : -1] / sampler.temperature)
    return np.exp(np.take_along_axis(logprobs, tails[..., None], 2)[..., 0].sum(1))


def greedy(params, cfg, prompt, count, penalty=1.0):
    """(tokens, log-probabilities) of greedy sampling with one full forward pass per token."""
    sequence, logprobs = list(prompt), []
    for _ in range(count):
        logits = full(params, cfg, [sequence])[0, -1]
        seen = np.isin(np.arange(TOKENS), sequence)
        punished = np.where(logits < 0, logits * penalty, logits / penalty)
        token = int(np.where(seen, punished, logits).argmax())
        sequence.append(token)
        logprobs.append(log_softmax(logits)[token])
    return sequence[len(prompt) :], logprobs


def drafted(models, tokens, sampler):
    return speculative.sample(*models, PROMPTS, tokens, sampler, n=ROWS, seed=1, ahead=3)


@pytest.mark.slow
def test_samples_have_the_large_models_distribution(models):
    """Tests the counts of all continuations by four tokens; control: the small model's."""
    sampler = Sampler(temperature=1.3, vocab_size=TOKENS)
    drawn, share = drafted(models, 4, sampler)
    index = (drawn.tokens_BN @ TOKENS ** np.arange(4)[::-1]).reshape(2, ROWS)
    counts = np.concatenate([np.bincount(row, minlength=TOKENS**4) for row in index])
    assert counts.sum() == 2 * ROWS and (drawn.lengths_B == 4).all()
    large, small = (
        ROWS * np.concatenate([joint(*model, prompt, sampler) for prompt in PROMPTS])
        for model in (models[:2], models[2:])
    )
    assert statistic(counts, large) < 1.4 < 3 < statistic(counts, small)
    assert 0.1 < share < 0.95


@pytest.mark.slow
def test_greedy_is_that_of_full_forwards_past_the_window(models):
    """Some drafts are rejected, prompts have unequal lengths, and rows advance unevenly."""
    drawn, share = drafted(models, N, GREEDY)
    assert (drawn.lengths_B == N).all() and 0 < share < 1
    for prompt, row in zip(PROMPTS, (0, ROWS), strict=True):
        tokens, logprobs = greedy(*models[:2], prompt, N)
        assert (drawn.tokens_BN[row : row + ROWS] == tokens).all()
        np.testing.assert_allclose(drawn.logprobs_BN[row], logprobs, atol=1e-5)


def test_stop_tokens_and_the_penalty_hold_within_a_draft(models):
    """Control: without the penalty the tokens differ."""
    expected = [greedy(*models[:2], prompt, N, penalty=9.0)[0] for prompt in PROMPTS]
    assert expected != [greedy(*models[:2], prompt, N)[0] for prompt in PROMPTS]
    end = expected[0][5]
    drawn, _ = drafted(models, N, dataclasses.replace(GREEDY, stop=(end,), repetition_penalty=9.0))
    for tokens, row in zip(expected, (0, ROWS), strict=True):
        count = tokens.index(end) + 1 if end in tokens else N
        assert drawn.lengths_B[row] == count
        assert drawn.tokens_BN[row].tolist() == tokens[:count] + [0] * (N - count)
    assert drawn.lengths_B.min() < N


def test_bad_requests(models):
    long = dataclasses.replace(SMALL, context_length=20)
    with pytest.raises(
        ValueError, match=r"the draft's model\.context_length=20 is less than the 27"
    ):
        speculative.sample(*models[:3], long, PROMPTS, 20, GREEDY)
    with pytest.raises(ValueError, match="ahead=0 is out of range; use 1 to 64"):
        speculative.sample(*models, PROMPTS, 20, GREEDY, ahead=0)
