"""This file checks sampling: processors by their definitions, decoding by the full forward."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.attention import Cache
from model.config import ModelConfig
from model.sample import Sampler, decode, generate, prefill, process, sample, temperature
from model.sample import top_k as keep_top_k
from model.sample import top_p as keep_top_p
from model.transformer import Decoder, init

LEARNED = ModelConfig(
    vocab_size=37, context_length=48, n_layers=2, d_model=16, n_heads=4, n_kv_heads=2, head_dim=6,
    d_ff=32, init_std=0.4,
)  # fmt: skip
ROTARY = dataclasses.replace(
    LEARNED, positions="rotary", norm="rmsnorm", gated=True, tie_embeddings=False, n_kv_heads=1
)
# Compiling is what takes these tests their time.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
PROMPT = [5, 1, 20, 36, 0, 7, 7]


def fresh(cfg):
    return jit(init, static_argnames="cfg")(cfg, jax.random.key(1))


@pytest.fixture(scope="module", params=[LEARNED, ROTARY], ids=["learned", "rotary"])
def model(request):
    return fresh(request.param), request.param


@functools.partial(jit, static_argnames="cfg")
def _logits(params, cfg, tokens_BT):
    return Decoder(cfg).apply({"params": params}, tokens_BT)


def full(params, cfg, tokens):
    """Logits [T, V] of a whole sequence; what follows it can't reach them."""
    padded = np.zeros((1, cfg.context_length), np.int32)
    padded[0, : len(tokens)] = tokens
    return np.asarray(_logits(params, cfg, padded)[0, : len(tokens)])


def draw(params, cfg, *, prompts=(PROMPT,), N=12, sampler=Sampler(), n=4, seed=0, top=3):  # noqa: B008
    """`sample` at one shape for most tests: compiling is what takes their time."""
    return sample(params, cfg, prompts, N, sampler, n=n, seed=seed, top=top)


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


LOGITS = np.random.default_rng(0).normal(0, 3, (40, 23)).astype(np.float32)


@pytest.mark.parametrize("k", [0, 1, 5, 22, 23, 99])
def test_top_k_keeps_the_k_largest(k):
    kept = np.isfinite(keep_top_k(LOGITS, k))
    for row, kept_row in zip(LOGITS, kept, strict=True):
        assert set(np.flatnonzero(kept_row)) == set(np.argsort(-row)[: k or 23])


@pytest.mark.parametrize("p", [1e-6, 0.1, 0.5, 0.9, 0.999])
def test_top_p_keeps_the_fewest_that_reach_p(p):
    kept = np.isfinite(keep_top_p(LOGITS, p))
    for row, kept_row in zip(LOGITS.astype(np.float64), kept, strict=True):
        order, probability = np.argsort(-row), softmax(row)
        count = next(n for n in range(1, 24) if probability[order[:n]].sum() >= p)
        assert set(np.flatnonzero(kept_row)) == set(order[:count])


def test_what_is_kept_keeps_its_logits():
    for kept in (keep_top_k(LOGITS, 4), keep_top_p(LOGITS, 0.7)):
        kept = np.asarray(kept)
        assert (kept[np.isfinite(kept)] == LOGITS[np.isfinite(kept)]).all()
        assert np.isneginf(kept).any()


def test_top_p_1_and_top_k_0_change_nothing():
    assert (keep_top_p(LOGITS, 1.0) == LOGITS).all() and (keep_top_k(LOGITS, 0) == LOGITS).all()
    assert (process(jnp.asarray(LOGITS), Sampler()) == LOGITS).all()


def test_temperature_divides_and_0_leaves_the_largest():
    np.testing.assert_allclose(temperature(LOGITS, 2.5), LOGITS / 2.5, rtol=1e-6)
    cold = np.asarray(temperature(LOGITS, 0.0))
    assert (np.isfinite(cold).sum(1) == 1).all() and (cold.argmax(1) == LOGITS.argmax(1)).all()


def test_processors_follow_one_another():
    """Temperature first: it changes how many tokens top-p keeps."""
    sampler = Sampler(temperature=3.0, top_k=9, top_p=0.6)
    kept = keep_top_p(keep_top_k(LOGITS / 3, 9), 0.6)
    np.testing.assert_allclose(process(jnp.asarray(LOGITS), sampler), kept, rtol=1e-6)
    other = keep_top_p(keep_top_k(LOGITS, 9), 0.6) / 3
    assert (np.isfinite(kept) != np.isfinite(other)).any()


def decoded(params, cfg, tokens, after, spoil=lambda caches: caches):
    """Logits of tokens[after - 1:] by prefill and decoding one at a time."""
    prompt = np.zeros((1, after + 3), np.int32)  # with padding
    prompt[0, :after] = tokens[:after]
    jitted = jit(decode, static_argnames="cfg")
    logits, caches = jit(prefill, static_argnames=("cfg", "slots"))(
        params, cfg, prompt, np.array([after]), len(tokens) + 3
    )
    rows = [logits[0]]
    for position in range(after, len(tokens)):
        token, at = np.array([tokens[position]]), np.array([position])
        logits, caches = jitted(params, cfg, token, at, spoil(caches))
        rows.append(logits[0])
    return np.stack(rows)


def test_cached_decoding_is_the_full_forward(model):
    tokens = np.random.default_rng(3).integers(0, 37, 30)
    expected = full(*model, tokens)[10:]
    np.testing.assert_allclose(decoded(*model, tokens, 11), expected, atol=1e-5)


def test_cached_decoding_control(model):
    """One stale cache slot must show."""

    def spoil(caches: list[Cache]):
        return [c.replace(v_BKSC=c.v_BKSC.at[:, :, 2].set(0)) for c in caches]

    tokens = np.random.default_rng(3).integers(0, 37, 30)
    expected = full(*model, tokens)[10:]
    assert np.abs(decoded(*model, tokens, 11, spoil) - expected).max() > 1e-3


def test_greedy_follows_the_full_forward(model):
    drawn = draw(*model, sampler=Sampler(temperature=0.0))
    sequence = [*PROMPT, *drawn.tokens_BN[0]]
    logprobs = np.asarray(jax.nn.log_softmax(full(*model, sequence)))[len(PROMPT) - 1 : -1]
    best = np.argsort(-logprobs)[:, :3]
    expected = np.take_along_axis(logprobs, best, 1)
    for row in range(4):
        assert (drawn.tokens_BN[row] == best[:, 0]).all()
        assert (drawn.top_tokens_BNM[row] == best).all()
        np.testing.assert_allclose(drawn.top_logprobs_BNM[row], expected, atol=1e-5)
        np.testing.assert_allclose(drawn.logprobs_BN[row], expected[:, 0], atol=1e-5)


def test_log_probabilities_are_the_models_own(model):
    """Whatever was done to the distribution, the tokens score as in one forward pass."""
    drawn = draw(*model, sampler=Sampler(temperature=2.0, top_k=6), seed=4)
    for row, logprobs in zip(drawn.tokens_BN, drawn.logprobs_BN, strict=True):
        every = jax.nn.log_softmax(full(*model, [*PROMPT, *row]))
        expected = [every[len(PROMPT) - 1 + i, token] for i, token in enumerate(row)]
        np.testing.assert_allclose(logprobs, expected, atol=1e-5)


def test_top_k_holds_at_every_step(model):
    """Tokens drawn with top_k=3 are among the three most likely; without, some are not."""

    def all_among_top(sampler):
        drawn = draw(*model, sampler=sampler)
        return (drawn.tokens_BN[..., None] == drawn.top_tokens_BNM).any(-1).all()

    assert all_among_top(Sampler(top_k=3)) and not all_among_top(Sampler())


@pytest.fixture(scope="module")
def learned():
    return fresh(LEARNED), LEARNED


def test_seeds_and_rows(learned):
    """Equal seeds, equal samples; rows and tokens that are added move none that were there."""
    first = draw(*learned).tokens_BN
    assert (draw(*learned).tokens_BN == first).all()
    assert (draw(*learned, seed=1).tokens_BN != first).any()
    assert len({tuple(row) for row in first}) == 4
    assert (draw(*learned, n=2, N=8).tokens_BN == first[:2, :8]).all()


def test_draws_have_the_models_distribution_and_changing_it_compiles_nothing(learned):
    """Chi-squared of 4000 first tokens; the control draws them at another temperature."""
    expected = 4000 * softmax(full(*learned, PROMPT)[-1].astype(np.float64))
    programs, statistic = [generate._cache_size()], {}
    for t in (1.0, 1.3):
        sampler = Sampler(t, top_k=round(37 * t), top_p=1, stop=-round(t))
        drawn = draw(*learned, N=1, n=4000, top=0, sampler=sampler)
        programs.append(generate._cache_size())
        counts, common = np.bincount(drawn.tokens_BN[:, 0], minlength=37), expected > 5
        statistic[t] = ((counts - expected)[common] ** 2 / expected[common]).sum()
    assert statistic[1.0] < 70 < statistic[1.3]  # 36 degrees of freedom: P(> 70) = 6e-4
    assert programs[1:] == [programs[0] + 1] * 2


def test_a_row_ends_with_its_stop_token(learned):
    free = draw(*learned)
    stop = int(free.tokens_BN[0, 4])
    drawn = draw(*learned, sampler=Sampler(stop=stop))
    for row, whole, length in zip(drawn.tokens_BN, free.tokens_BN, drawn.lengths_B, strict=True):
        at = np.flatnonzero(whole == stop)
        assert length == (at[0] + 1 if at.size else 12)
        assert (row[:length] == whole[:length]).all() and (row[length:] == 0).all()
    assert drawn.lengths_B[0] <= 5 and (free.lengths_B == 12).all()


def test_tokens_without_meaning_are_not_drawn(learned):
    assert draw(*learned).tokens_BN.max() >= 9
    assert draw(*learned, sampler=Sampler(vocab_size=9)).tokens_BN.max() < 9


def test_prompts_of_unequal_length_are_as_if_alone(learned):
    prompts = [PROMPT, [3], list(range(32))]
    greedy = Sampler(temperature=0.0)
    together = draw(*learned, prompts=prompts, sampler=greedy)
    for i, prompt in enumerate(prompts):
        alone = draw(*learned, prompts=[prompt], sampler=greedy)
        rows = slice(4 * i, 4 * i + 4)
        assert (together.tokens_BN[rows] == alone.tokens_BN).all()
        np.testing.assert_allclose(together.logprobs_BN[rows], alone.logprobs_BN, atol=1e-5)


BAD = {
    "prompt has 48 tokens and model.context_length=48": dict(prompts=[[1] * 48]),
    "tokens=42 and a prompt of 7 in model.context_length=48; use 1 to 41": dict(n_tokens=42),
    "tokens=0": dict(n_tokens=0),
    "prompt is empty": dict(prompts=[[]]),
    "prompt holds token 37; model.vocab_size=37": dict(prompts=[[1, 37]]),
    "prompt holds token -1": dict(prompts=[[-1, 3]]),
    "temperature=-1.0 is out of range": dict(sampler=Sampler(temperature=-1.0)),
    "temperature=nan": dict(sampler=Sampler(temperature=float("nan"))),
    "top_k=-1": dict(sampler=Sampler(top_k=-1)),
    "top_p=0": dict(sampler=Sampler(top_p=0)),
    "top_p=1.5": dict(sampler=Sampler(top_p=1.5)),
    "n=0": dict(n=0),
    "top=38 is out of range; use 0 to 37": dict(top=38),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_requests(message):
    request = dict(prompts=[PROMPT], n_tokens=3, sampler=Sampler()) | BAD[message]
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        sample({}, LEARNED, **request)
