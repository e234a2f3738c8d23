"""This file checks speculative decoding: the large model's distribution, whatever drafts."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model import sample as plain
from model import speculative
from model.config import ModelConfig
from model.samplers import Sampler
from model.transformer import Decoder, init

LARGE = ModelConfig(
    vocab_size=7, context_length=40, n_layers=2, d_model=16, n_heads=4, n_kv_heads=2, head_dim=6,
    d_ff=32, init_std=0.35, positions="rotary", window=4, window_pattern="LG", norm="rmsnorm",
)  # fmt: skip
# Another vocabulary too: two models of one tokenizer may have padded it differently.
SMALL = dataclasses.replace(LARGE, n_layers=1, d_model=8, n_heads=2, vocab_size=6, window=3)
TOKENS = 5  # that have a meaning
PROMPTS = [[1, 3, 2, 0, 4, 4, 1], [2]]
GREEDY = Sampler(temperature=0.0, vocab_size=TOKENS)


@pytest.fixture(scope="module", autouse=True)
def quick_compilation():
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def models():
    """(params, cfg) of the large model, then of the small one."""
    found = []
    for seed, cfg in enumerate((LARGE, SMALL)):
        shapes = jax.eval_shape(lambda key: init(cfg, key), jax.random.key(0))  # noqa: B023
        rng = np.random.default_rng(seed)
        draw = lambda x: rng.normal(0, 0.5, x.shape).astype(np.float32)  # noqa: B023, E731
        found += [jax.tree.map(draw, shapes), cfg]
    return found


def statistic(counts, expected):
    """Chi-squared over its degrees of freedom, of what is expected five times at least."""
    common = expected > 5
    return ((counts - expected)[common] ** 2 / expected[common]).sum() / (common.sum() - 1)


def test_the_rule_gives_p_whatever_q():
    """The control keeps every drafted token, which gives q."""
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
    # After a draft that passed, a token of p itself.
    passed = then[count > 0]
    assert statistic(tally(passed), len(passed) * p_V) < 3
    assert count.mean() == pytest.approx(np.minimum(p_V, q_V).sum(), abs=0.02)


def joint(params, cfg, prompt, sampler, length):
    """The probability of every continuation [TOKENS**length], by full forward passes."""
    tails = np.array(list(itertools.product(range(TOKENS), repeat=length)), np.int32)
    tokens = np.concatenate([np.tile(prompt, (len(tails), 1)), tails], axis=1).astype(np.int32)
    logits = jax.jit(lambda p, t: Decoder(cfg).apply({"params": p}, t))(params, tokens)
    logits = logits[:, len(prompt) - 1 : -1, :TOKENS] / sampler.temperature
    logprobs = np.asarray(jax.nn.log_softmax(jnp.asarray(logits)), np.float64)
    return np.exp(np.take_along_axis(logprobs, tails[..., None], 2)[..., 0].sum(1))


def test_samples_have_the_large_models_distribution(models):
    """All continuations of four tokens; the control is the small model's own distribution."""
    sampler, n = Sampler(temperature=1.3, vocab_size=TOKENS), 6000
    prompt = PROMPTS[0]
    drawn, share = speculative.sample(*models, [prompt], 4, sampler, n=n, seed=1, ahead=2)
    counts = np.bincount(drawn.tokens_BN @ TOKENS ** np.arange(4)[::-1], minlength=TOKENS**4)
    assert counts.sum() == n and (drawn.lengths_B == 4).all()
    large, small = (joint(*m, prompt, sampler, 4) for m in (models[:2], models[2:]))
    assert statistic(counts, n * large) < 1.4 < 3 < statistic(counts, n * small)
    assert 0.1 < share < 0.95


def test_greedy_is_plain_greedy_past_the_window(models):
    """With rejections in between, prompts of unequal length, rows that run ahead of others."""
    expected = plain.sample(*models[:2], PROMPTS, 20, GREEDY)
    drawn, share = speculative.sample(*models, PROMPTS, 20, GREEDY, ahead=3)
    assert (drawn.tokens_BN == expected.tokens_BN).all() and (drawn.lengths_B == 20).all()
    np.testing.assert_allclose(drawn.logprobs_BN, expected.logprobs_BN, atol=1e-5)
    assert 0 < share < 1


def test_stop_tokens_and_the_penalty_hold_within_a_draft(models):
    free = plain.sample(*models[:2], PROMPTS, 20, GREEDY)
    stop = dataclasses.replace(GREEDY, stop=(int(free.tokens_BN[0, 5]),), repetition_penalty=1.5)
    expected = plain.sample(*models[:2], PROMPTS, 20, stop)
    drawn, _ = speculative.sample(*models, PROMPTS, 20, stop, ahead=3)
    assert (drawn.tokens_BN == expected.tokens_BN).all()
    assert (drawn.lengths_B == expected.lengths_B).all() and drawn.lengths_B.min() < 20


def test_bad_requests(models):
    long = dataclasses.replace(SMALL, context_length=20)
    with pytest.raises(
        ValueError, match=r"the draft's model\.context_length=20 is less than the 27"
    ):
        speculative.sample(*models[:3], long, PROMPTS, 20, GREEDY)
    with pytest.raises(ValueError, match="ahead=0 is out of range; use 1 to 64"):
        speculative.sample(*models, PROMPTS, 20, GREEDY, ahead=0)
