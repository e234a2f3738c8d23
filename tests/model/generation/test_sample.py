"""Tests sampling against full forward passes and by the statistics of its draws."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from model.generation.sample import advance, begin, join, prepare, sample, stream
from model.generation.samplers import Sampler
from model.transformer.config import ModelConfig
from model.transformer.decoder import Decoder, shapes

LEARNED = ModelConfig(
    vocab_size=37, context_length=48, n_layers=2, d_model=16, n_heads=4, n_kv_heads=2, head_dim=6,
    d_ff=32, init_std=0.4,
)  # fmt: skip
ROTARY = dataclasses.replace(
    LEARNED, positions="rotary", norm="rmsnorm", gated=True, tie_embeddings=False, n_kv_heads=1
)
# These tests spend most of their time on compilation.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
PROMPT = [5, 1, 20, 36, 0, 7, 7]


def fresh(cfg):
    """Random parameters from numpy, which needs no compilation."""
    rng = np.random.default_rng(1)

    def draw(path, leaf):
        return rng.normal(path[-1].key == "scale", 0.4, leaf.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes(cfg))


@pytest.fixture(
    scope="module",
    params=[LEARNED, pytest.param(ROTARY, marks=pytest.mark.slow)],
    ids=["learned", "rotary"],
)
def model(request):
    return fresh(request.param), request.param


@functools.partial(jit, static_argnames="cfg")
def _logits(params, cfg, tokens_BT):
    return Decoder(cfg).apply({"params": params}, tokens_BT)


def full(params, cfg, tokens):
    """Logits [T, V] of a sequence. Padding follows it, which does not affect them."""
    padded = np.zeros((1, cfg.context_length), np.int32)
    padded[0, : len(tokens)] = tokens
    return np.asarray(_logits(params, cfg, padded)[0, : len(tokens)])


def draw(params, cfg, *, prompts=(PROMPT,), N=12, sampler=Sampler(), n=4, seed=0, top=3):  # noqa: B008
    """`sample` with one shape for most tests, to compile less."""
    return sample(params, cfg, prompts, N, sampler, n=n, seed=seed, top=top)


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


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
    """They come from the model's distribution, not from the one that the sampler changed."""
    drawn = draw(*model, sampler=Sampler(temperature=2.0, top_k=6), seed=4)
    for row, logprobs in zip(drawn.tokens_BN, drawn.logprobs_BN, strict=True):
        every = jax.nn.log_softmax(full(*model, [*PROMPT, *row]))
        expected = [every[len(PROMPT) - 1 + i, token] for i, token in enumerate(row)]
        np.testing.assert_allclose(logprobs, expected, atol=1e-5)


def test_top_k_holds_at_every_step(model):
    """All tokens drawn with top_k=3 are among the three most likely; without it some are not."""

    def all_among_top(sampler):
        drawn = draw(*model, sampler=sampler)
        return (drawn.tokens_BN[..., None] == drawn.top_tokens_BNM).any(-1).all()

    assert all_among_top(Sampler(top_k=3)) and not all_among_top(Sampler())


@pytest.fixture(scope="module")
def learned():
    return fresh(LEARNED), LEARNED


def test_seeds_and_rows(learned):
    """Equal seeds give equal samples, and drawing more tokens does not change the first ones."""
    first = draw(*learned).tokens_BN
    assert (draw(*learned).tokens_BN == first).all()
    assert (draw(*learned, seed=1).tokens_BN != first).any()
    assert len({tuple(row) for row in first}) == 4
    assert (draw(*learned, N=8).tokens_BN == first[:, :8]).all()


def test_draws_have_the_models_distribution_and_changing_it_compiles_nothing(learned):
    """Chi-squared test of 4000 first tokens; the control draws them at another temperature.

    With the same seed, drawing more rows does not change the first four.
    """
    expected = 4000 * softmax(full(*learned, PROMPT)[-1].astype(np.float64))
    compiled = lambda: begin._cache_size() + advance._cache_size()  # noqa: E731
    programs, statistic = [compiled()], {}
    for t in (1.0, 1.3):
        sampler = Sampler(temperature=t, top_k=round(37 * t), top_p=1, stop=(-2,) * round(2 * t))
        drawn = draw(*learned, N=1, n=4000, top=0, sampler=sampler)
        programs.append(compiled())
        same = drawn.tokens_BN[:4] == draw(*learned, seed=round(10 * t - 10)).tokens_BN[:, :1]
        assert same.all() == (t == 1)
        counts, common = np.bincount(drawn.tokens_BN[:, 0], minlength=37), expected > 5
        statistic[t] = ((counts - expected)[common] ** 2 / expected[common]).sum()
    assert statistic[1.0] < 70 < statistic[1.3]  # 36 degrees of freedom: P(> 70) = 6e-4
    assert programs[1:] == [programs[0] + 1] * 2


def test_a_row_ends_with_its_stop_token(learned):
    free = draw(*learned)
    stop = int(free.tokens_BN[0, 4])
    drawn = draw(*learned, sampler=Sampler(stop=(99, stop)))
    for row, whole, length in zip(drawn.tokens_BN, free.tokens_BN, drawn.lengths_B, strict=True):
        at = np.flatnonzero(whole == stop)
        assert length == (at[0] + 1 if at.size else 12)
        assert (row[:length] == whole[:length]).all() and (row[length:] == 0).all()
    assert drawn.lengths_B[0] <= 5 and (free.lengths_B == 12).all()


def test_stream_is_sample_in_pieces_and_the_caller_can_end_rows(learned):
    whole = draw(*learned)
    pieces = list(stream(*learned, [PROMPT], 12, Sampler(), n=4, top=3, chunk=5))
    assert [piece.tokens_BN.shape[1] for piece in pieces] == [1, 5, 5, 1]
    jax.tree.map(np.testing.assert_array_equal, join(pieces, 12), whole)

    ends = lambda drawn: np.array([True, False, True, True])  # noqa: E731
    pieces = list(stream(*learned, [PROMPT], 12, Sampler(), n=4, top=3, chunk=5, goes_on=ends))
    ended = join(pieces, 12)
    assert ended.lengths_B.tolist() == [12, 1, 12, 12]
    assert (ended.tokens_BN[[0, 2, 3]] == whole.tokens_BN[[0, 2, 3]]).all()


def test_prepared_parameters_give_the_same(learned):
    params, cfg = learned
    whole = draw(params, cfg)
    jax.tree.map(np.testing.assert_array_equal, draw(prepare(params, cfg), cfg), whole)


def test_repetition_is_penalised(learned):
    """With a huge penalty, greedy sampling repeats neither prompt tokens nor sampled tokens."""
    repeats = lambda row: len(row) - len(set(row) - set(PROMPT))  # noqa: E731
    free = draw(*learned, sampler=Sampler(temperature=0.0)).tokens_BN[0]
    sampler = Sampler(temperature=0.0, repetition_penalty=1e9)
    assert repeats(free) > 0 == repeats(draw(*learned, sampler=sampler).tokens_BN[0])


def test_tokens_without_meaning_are_not_drawn(learned):
    assert draw(*learned).tokens_BN.max() >= 9
    assert draw(*learned, sampler=Sampler(vocab_size=9)).tokens_BN.max() < 9


@pytest.mark.slow
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
    "prompt has 48 tokens; model.context_length=48": dict(prompts=[[1] * 48]),
    "tokens=42 after a prompt of 7 do not fit model.context_length=48; use 1 to 41": dict(
        n_tokens=42
    ),
    "tokens=0": dict(n_tokens=0),
    "prompt is empty": dict(prompts=[[]]),
    "prompt holds token 37; model.vocab_size=37": dict(prompts=[[1, 37]]),
    "prompt holds token -1": dict(prompts=[[-1, 3]]),
    "temperature=-1.0 is out of range": dict(sampler=Sampler(temperature=-1.0)),
    "temperature=nan": dict(sampler=Sampler(temperature=float("nan"))),
    "top_k=-1": dict(sampler=Sampler(top_k=-1)),
    "top_p=0": dict(sampler=Sampler(top_p=0)),
    "top_p=1.5": dict(sampler=Sampler(top_p=1.5)),
    "min_p=1.5 is out of range": dict(sampler=Sampler(min_p=1.5)),
    "typical=0": dict(sampler=Sampler(typical=0.0)),
    "repetition_penalty=0": dict(sampler=Sampler(repetition_penalty=0.0)),
    "n=0": dict(n=0),
    "top=38 is out of range; use 0 to 37": dict(top=38),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_requests(message):
    request = dict(prompts=[PROMPT], n_tokens=3, sampler=Sampler()) | BAD[message]
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        sample({}, LEARNED, **request)
