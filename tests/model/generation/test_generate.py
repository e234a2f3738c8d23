"""Tests greedy and beam search against transformers' `generate` (tests/golden/hf)."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest

from model.generation import beam
from model.generation.sample import prefill, sample
from model.generation.samplers import Sampler
from model.huggingface import weights

FOLDER = Path(__file__).parents[2] / "golden" / "hf"
NEW_TOKENS, BEAMS = 24, 4
QUICK = ("gemma2",)  # windows, grouped keys, softcaps; all cases in `make test-all`
CASES = [
    pytest.param(path.name, marks=[] if path.name in QUICK else [pytest.mark.slow])
    for path in sorted(FOLDER.iterdir())
]


def load(case):
    """(params, cfg, arrays) of a golden case; computes in float32 whatever the stored dtype."""
    cfg, params = weights.load(FOLDER / case)
    with np.load(FOLDER / case / "expected.npz") as file:
        return params, dataclasses.replace(cfg, dtype="float32"), dict(file)


def unpadded(arrays, name):
    rows = zip(arrays[name], arrays[f"{name.removesuffix('s')}_mask"], strict=True)
    return [row[mask > 0].tolist() for row, mask in rows]


@pytest.mark.parametrize("case", CASES)
def test_greedy_is_that_of_generate(case):
    """Log-probabilities too, because a different model can have the same most likely tokens."""
    params, cfg, arrays = load(case)
    drawn = sample(params, cfg, unpadded(arrays, "prompts"), NEW_TOKENS, Sampler(temperature=0.0))
    assert (drawn.tokens_BN == arrays["greedy"]).all()
    np.testing.assert_allclose(drawn.logprobs_BN, arrays["greedy_logprobs"], atol=5e-5)


@pytest.mark.slow
def test_longrope_generated_past_the_original_context():
    """transformers changes all factors once the context is longer than the original one.

    isoflop chooses them by the context length of each call, so three calls do the same. Control:
    one call.
    """
    params, cfg, arrays = load("phi3_longrope")
    (prompt,), original = unpadded(arrays, "crossing_prompts"), cfg.rope_original_context
    greedy, logprobs = arrays["crossing_greedy"][0], arrays["crossing_greedy_logprobs"][0]
    at = original - len(prompt)  # the token drawn after exactly `original` others

    def drawn(done, count):
        found = sample(params, cfg, [[*prompt, *done]], count, Sampler(temperature=0.0))
        return found.tokens_BN[0].tolist(), found.logprobs_BN[0].tolist()

    tokens, nats = drawn([], at)
    row_1T = np.array([[*prompt, *tokens]], np.int32)
    last_1V, _ = jax.jit(prefill, static_argnames=("cfg", "length"))(
        params, cfg, row_1T, np.arange(original, dtype=np.int32)[None], original
    )
    tokens.append(int(last_1V.argmax()))
    nats.append(float(jax.nn.log_softmax(last_1V).max()))
    more = drawn(tokens, NEW_TOKENS - len(tokens))
    assert [*tokens, *more[0]] == greedy.tolist()
    np.testing.assert_allclose([*nats, *more[1]], logprobs, atol=5e-5)
    assert drawn([], NEW_TOKENS)[0] != greedy.tolist()


@pytest.mark.parametrize("case", ["gpt2", pytest.param("llama", marks=pytest.mark.slow)])
def test_beams_are_those_of_generate(case):
    params, cfg, arrays = load(case)
    prompts = unpadded(arrays, "beam_prompts")
    found = beam.search(params, cfg, prompts, NEW_TOKENS, BEAMS)
    assert (found.tokens_PWN == arrays["beam_tokens"]).all()
    np.testing.assert_allclose(found.scores_PW, arrays["beam_scores"], atol=1e-5)

    # With an end token. The number of candidates is the same, so nothing compiles again.
    found = beam.search(params, cfg, prompts, NEW_TOKENS, BEAMS, stop=[int(arrays["beam_eos"])])
    places = np.arange(NEW_TOKENS) < found.lengths_PW[..., None]
    expected = np.where(places, arrays["beam_with_eos_tokens"], 0)
    assert (found.tokens_PWN == expected).all() and found.lengths_PW.min() < NEW_TOKENS
    np.testing.assert_allclose(found.scores_PW, arrays["beam_with_eos_scores"], atol=1e-5)

    other = beam.search(
        params, cfg, prompts, NEW_TOKENS, BEAMS, stop=[int(arrays["beam_eos"])], length_penalty=0.0
    )
    assert (other.tokens_PWN != found.tokens_PWN).any()


def test_too_many_beams_are_refused():
    params, cfg, arrays = load("gpt2")
    with pytest.raises(ValueError, match="beams=49 is out of range; use 1 to 48"):
        beam.search(params, cfg, unpadded(arrays, "prompts"), 3, 49)


@pytest.mark.slow
def test_one_beam_is_greedy():
    params, cfg, arrays = load("gpt2")
    found = beam.search(params, cfg, unpadded(arrays, "prompts"), NEW_TOKENS, 1)
    assert (found.tokens_PWN[:, 0] == arrays["greedy"]).all()


@pytest.mark.slow
def test_early_stopping_takes_the_first_that_end():
    """Early stopping cannot find better scores."""
    params, cfg, arrays = load("llama")
    prompts, stop = unpadded(arrays, "beam_prompts"), [int(arrays["beam_eos"])]
    patient = beam.search(params, cfg, prompts, NEW_TOKENS, BEAMS, stop=stop)
    hasty = beam.search(params, cfg, prompts, NEW_TOKENS, BEAMS, stop=stop, early_stopping=True)
    assert (hasty.scores_PW <= patient.scores_PW + 1e-6).all()
    assert hasty.lengths_PW.sum() < patient.lengths_PW.sum()
