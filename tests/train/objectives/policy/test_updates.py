"""Tests rollouts and their updates: ratios, groups without variance, micro-batches."""

import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model import classes
from model.generation.samplers import Sampler
from model.transformer import family as decoder
from model.transformer.config import ModelConfig
from train import step as step_module
from train.objectives import OBJECTIVES
from train.objectives.policy import experience, responses
from train.objectives.policy.settings import Config
from train.step import StepConfig, TrainState

MODEL = ModelConfig(
    vocab_size=17, context_length=12, n_layers=1, d_model=16, n_heads=2, n_kv_heads=2, head_dim=8,
    d_ff=32, init_std=0.5, n_classes=1,
)  # fmt: skip
P, S, A, N, n = 4, 5, 3, 6, 4
END = 16
SETTINGS = Config(max_tokens=N, samples=n, rows=P * n, kl_in="loss", kl_estimator="k3", kl=0.1)
SETTINGS = replace(SETTINGS, normalise="sequence", entropy=0.01)
roll_out = jax.jit(step_module.roll_out, static_argnums=0)
gradients = jax.jit(step_module.gradients, static_argnums=2)


def step(objective: str, **changes) -> StepConfig:
    frozen = (("reference", "decoder", replace(MODEL, n_classes=0)),)
    settings = replace(SETTINGS, **changes)
    return StepConfig(MODEL, settings, "decoder", objective, frozen=frozen)


@functools.cache
def state() -> TrainState:
    params, reference = (decoder.init(MODEL, jax.random.key(seed)) for seed in (0, 1))
    reference.pop("classes")
    frozen = {"reference": reference}
    return TrainState(jnp.int32(0), params, (), {}, jnp.uint32(0), frozen)


def data() -> dict:
    rng = np.random.default_rng(0)
    length = np.array([5, 1, 3, 4], np.int32)
    prompt = rng.integers(1, 16, (P, S)).astype(np.int32)
    prompt[np.arange(S) < S - length[:, None]] = END
    answer = np.tile(np.array([3, END, END], np.int32), (P, 1))
    return dict(
        zip(responses.PROMPT, (prompt, length, answer, np.full(P, 2, np.int32)), strict=True)
    )


@functools.cache
def rolled(objective: str) -> tuple[StepConfig, dict]:
    cfg = step(objective)
    rows = roll_out(cfg, state(), data())
    reward = np.random.default_rng(1).random(P * n).astype(np.float32)
    reward[n : 2 * n] = 0.1  # a group without variance
    return cfg, dict(rows) | {"reward": jnp.asarray(reward)}


def test_rows_hold_the_prompt_and_then_the_response():
    _, rows = rolled("grpo")
    rows, given = jax.device_get(rows), data()
    lengths = rows["mask"].sum(1).astype(int)
    assert len(set(lengths)) > 2 and lengths.max() == N  # ragged
    for r in range(P * n):
        p, prompt = given["prompt_length"][r // n], given["prompt"][r // n]
        response = rows["response"][r, : lengths[r]].tolist()
        expected = prompt[S - p :].tolist() + response
        assert rows["tokens"][r].tolist() == expected + [0] * (S + N - len(expected))
        assert END not in response[:-1] and (len(response) == N or response[-1] == END)


def test_sampling_logprobs_are_those_of_training():
    """The decoder with its cache draws from the distribution that the training pass computes."""
    cfg, rows = rolled("grpo")
    sampler = Sampler(stop=(END,))
    given = data()
    prompts = [
        row[S - p :].tolist()
        for row, p in zip(given["prompt"], given["prompt_length"], strict=True)
    ]
    key = step_module._rollout_key(state())
    drawn = sampled(prompts, sampler, key)
    assert np.array_equal(drawn[0], rows["response"])
    np.testing.assert_allclose(drawn[1], rows["logprobs"], atol=1e-5)
    other = roll_out(cfg, state().replace(step=jnp.int32(1)), data())  # control
    assert np.abs(drawn[1] - other["logprobs"]).max() > 0.1


def sampled(prompts, sampler, key):
    """(tokens, log-probabilities) [R, N] by the code of `isoflop sample`."""
    from model.generation import sample, samplers

    prompts_PT, positions_PT, _ = sample.pad(MODEL, prompts, N)
    common = samplers.as_arrays(sampler)
    at = (sample.prepare(state().params, MODEL), MODEL)
    then, first = sample.begin(
        *at, prompts_PT, positions_PT, key, common, n, MODEL.context_length, 0
    )
    _, more = sample.advance(*at, then, common, jnp.int32(N - 1), N - 1, 0)
    both = zip(
        (first.tokens_BN, first.logprobs_BN), (more.tokens_BN, more.logprobs_BN), strict=True
    )
    return [np.concatenate(pair, axis=1) for pair in both]


@pytest.mark.parametrize("objective", ["ppo", "grpo"])
def test_the_ratio_is_one_at_the_first_update(objective):
    _, rows = rolled(objective)
    logp, _ = responses.logprobs(decoder, state().params, MODEL, rows, 1.0)
    ratio = np.exp(logp - rows["logprobs"])
    assert np.abs(ratio - 1).max() < 1e-6
    hotter, _ = responses.logprobs(decoder, state().params, MODEL, rows, 1.1)  # control
    assert np.abs(np.exp(hotter - rows["logprobs"]) - 1).max() > 1e-2


def evaluated(cfg: StepConfig, size: int = P) -> dict:
    """Rows [P, ...] with responses, drawn in evaluation batches of a size."""
    rows = data() | {"counts": np.ones(P, np.float32)}
    batches = {name: x.reshape(-1, size, *x.shape[1:]) for name, x in rows.items()}
    made = step_module.respond(cfg, state().params, state().frozen, batches)
    return {name: np.asarray(x).reshape(P, *x.shape[2:]) for name, x in made.items()}


@pytest.mark.slow
def test_the_size_of_evaluation_batches_changes_no_response():
    whole, halves = (evaluated(step("grpo"), size) for size in (P, P // 2))
    np.testing.assert_array_equal(halves["response"], whole["response"])
    assert len({row.tobytes() for row in whole["response"]}) == P  # control: rows differ


@pytest.mark.slow
def test_an_evaluation_measures_the_kl_at_the_temperature_that_draws():
    cfg = step("grpo", eval_temperature=2.0)
    rows = evaluated(cfg) | {"reward": np.zeros(P, np.float32)}
    found = experience.evaluate(decoder, state().params, state().frozen, cfg, rows)["kl"]
    reference = state().frozen["reference"]
    for temperature, is_equal in ((2.0, True), (1.0, False)):
        logp, of_reference = (
            responses.logprobs(decoder, params, MODEL, rows, temperature)[0]
            for params in (state().params, reference)
        )
        far = np.abs((logp - of_reference).sum(1) - found).max()
        assert (far < 1e-5) == is_equal and (is_equal or far > 1e-2)
    greedy = step("grpo", eval_temperature=0.0)
    sums = experience.evaluate(decoder, state().params, state().frozen, greedy, rows)
    assert "kl" not in sums and "reward" in sums


@functools.cache
def padded() -> dict:
    """Responses in a vocabulary whose tokens from 9 on are padding."""
    return roll_out(step("grpo", vocab_size=9), state(), data())


def test_padding_of_the_vocabulary_is_never_drawn():
    rows = padded()
    assert rows["response"].max() < 9 <= rolled("grpo")[1]["response"].max()


def test_log_probabilities_are_those_of_the_tokens_that_can_be_drawn():
    """With a padded vocabulary the training pass has the distribution that draws, so the ratio is 1
    and the probabilities of the tokens sum to 1; without the mask they do not."""
    rows, given = padded(), data()
    prompts = [
        row[S - p :].tolist()
        for row, p in zip(given["prompt"], given["prompt_length"], strict=True)
    ]
    key = step_module._rollout_key(state())
    drawn = sampled(prompts, Sampler(stop=(END,), vocab_size=9), key)
    assert np.array_equal(drawn[0] * rows["mask"], rows["response"] * rows["mask"])
    np.testing.assert_allclose(drawn[1] * rows["mask"], rows["logprobs"], atol=1e-5)
    every = responses.logprobs(decoder, state().params, MODEL, rows, 1.0)[0]
    assert np.abs(every - rows["logprobs"]).max() > 0.1  # control
    again = responses.logprobs(decoder, state().params, MODEL, rows, 1.0, 9)[0]
    assert np.abs(np.exp(again - rows["logprobs"]) - 1).max() < 1e-6
    x_RND = responses.states(decoder, state().params, MODEL, rows)
    for size, whole in ((9, 1.0), (0, None)):
        scored = [
            responses.scored(
                decoder, state().params, MODEL, x_RND, jnp.full_like(rows["response"], v), 1.0, size
            )
            for v in range(9)
        ]
        p_VRN = np.exp([logp for logp, _ in scored])
        entropy_RN = scored[0][1]
        assert np.isfinite(entropy_RN).all()
        if whole:
            assert np.abs(p_VRN.sum(0) - whole).max() < 1e-6
            np.testing.assert_allclose(-(p_VRN * np.log(p_VRN)).sum(0), entropy_RN, atol=1e-5)
        else:
            assert p_VRN.sum(0).max() < 0.99


def test_the_gradient_of_a_padded_vocabulary_is_finite_and_0_at_the_padding():
    rows = padded()
    x_RND = responses.states(decoder, state().params, MODEL, rows)

    @functools.partial(jax.jit, static_argnums=1)
    @functools.partial(jax.grad)
    def slopes(params, size):
        found = responses.scored(decoder, params, MODEL, x_RND, rows["response"], 1.0, size)
        return sum(x.sum() for x in found)

    masked, every = (slopes(state().params, size)["embed"]["embedding"] for size in (9, 0))
    assert np.isfinite(masked).all() and np.abs(masked[9:]).max() == 0
    assert np.abs(every[9:]).max() > 1e-3 and np.abs(masked[:9]).max() > 1e-3


def updates(cfg: StepConfig, rows: dict) -> dict:
    return OBJECTIVES[cfg.objective].advantages(cfg, rows)


@pytest.mark.parametrize(
    "objective",
    ["ppo", *(pytest.param(o, marks=pytest.mark.slow) for o in ("grpo", "reinforce", "raft"))],
)
def test_micro_batches_give_the_gradient_of_one_batch(objective):
    """Responses have unequal lengths, and one group no variance."""
    cfg, rows = rolled("ppo" if objective == "ppo" else "grpo")
    cfg = replace(cfg, objective=objective, loss=replace(cfg.loss, skip_flat=True))
    batch, key = updates(cfg, rows), jax.random.key(0)
    moved = jax.tree.map(lambda x: x * 1.05, state().params)  # ratios other than 1
    whole, means = gradients(moved, state().frozen, cfg, batch, key)
    assert max(float(jnp.abs(g).max()) for g in jax.tree.leaves(whole)) > 1e-3
    for parts in (2, 4):
        split, others = gradients(
            moved, state().frozen, replace(cfg, accumulation=parts), batch, key
        )
        assert distance(whole, split) < 1e-6
        for name in OBJECTIVES[objective].TRAINED:
            assert float(means[name]) == pytest.approx(float(others[name]), rel=1e-5, abs=1e-6)
    halves = [jax.tree.map(lambda x, h=h: x[h::2], batch) for h in (0, 1)]  # control
    found = [gradients(moved, state().frozen, cfg, half, key)[0] for half in halves]
    if objective in ("ppo", "raft"):  # the others average over responses, of which halves are equal
        assert distance(whole, jax.tree.map(lambda a, b: (a + b) / 2, *found)) > 1e-5
    assert distance(whole, found[0]) > 1e-4


def distance(a, b) -> float:
    return max(
        float(jnp.abs(x - y).max()) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True)
    )


@pytest.mark.parametrize("objective", ["grpo", "reinforce"])
def test_a_group_without_variance_has_no_gradient_and_is_counted(objective):
    cfg, rows = rolled("grpo")
    cfg = replace(cfg, objective=objective, loss=replace(cfg.loss, kl=0.0, entropy=0.0))
    key, batch = jax.random.key(0), updates(cfg, rows)
    flat = jax.tree.map(lambda x: x[n : 2 * n], batch)
    gradient, means = gradients(state().params, state().frozen, cfg, flat, key)
    assert all(not np.asarray(g).any() for g in jax.tree.leaves(gradient))
    assert float(means["flat_groups"]) == 1
    gradient, means = gradients(state().params, state().frozen, cfg, batch, key)  # control
    assert any(np.asarray(g).any() for g in jax.tree.leaves(gradient))
    assert float(means["flat_groups"]) == 0.25


def test_prompts_have_no_gradient_of_their_own_and_padding_none():
    """The loss depends on no token after a response, and its gradient leaves the prompt's targets
    out: only states before response tokens are scored."""
    cfg, rows = rolled("grpo")
    batch = dict(updates(cfg, rows))
    key, ends = jax.random.key(0), (rows["prompt_length"] + rows["mask"].sum(1)).astype(jnp.int32)
    after = jnp.arange(S + N) >= ends[:, None]
    changed = batch | {"tokens": jnp.where(after, 7, batch["tokens"])}
    inside = batch | {"tokens": batch["tokens"].at[:, 0].set(7)}  # control: the prompt is read
    found = [
        gradients(state().params, state().frozen, cfg, of, key)[0]
        for of in (batch, changed, inside)
    ]
    assert distance(found[0], found[1]) < 1e-7
    assert distance(found[0], found[2]) > 1e-3


def test_raft_keeps_the_best_response():
    cfg, rows = rolled("grpo")
    cfg = replace(cfg, objective="raft", loss=replace(cfg.loss, skip_flat=True))
    kept = updates(cfg, rows)
    reward = np.asarray(rows["reward"]).reshape(P, n)
    best = reward.argmax(1) + np.arange(P) * n
    assert np.array_equal(kept["response"], np.asarray(rows["response"])[best])
    np.testing.assert_allclose(kept["best"], reward.max(1))
    np.testing.assert_allclose(kept["reward"], reward.mean(1), rtol=1e-6)
    assert kept["keep"].tolist() == [1, 0, 1, 1]  # the second prompt's rewards are all equal


def test_the_updates_of_a_rollout_see_every_response_once_an_epoch():
    cfg, rows = rolled("ppo")
    cfg = replace(cfg, loss=replace(cfg.loss, epochs=3, minibatches=2))
    batches = step_module.updates_of(cfg, state(), rows)
    assert batches["reward"].shape == (6, P * n // 2)
    whole = sorted(np.asarray(rows["reward"]).tolist())
    epochs = np.asarray(batches["reward"]).reshape(3, -1)
    assert all(sorted(epoch.tolist()) == whole for epoch in epochs)
    assert epochs[0].tolist() != epochs[1].tolist() != epochs[2].tolist()


def test_values_are_of_the_state_before_each_token():
    _, rows = rolled("ppo")
    x = decoder.hidden(MODEL, state().params, {"tokens": rows["tokens"]})
    values = classes.logits(state().params, x)[..., 0]
    r = int(np.argmax(rows["mask"].sum(1)))
    first = int(rows["prompt_length"][r]) - 1
    np.testing.assert_allclose(rows["values"][r], values[r, first : first + N], atol=1e-6)
    assert np.abs(rows["values"][r] - values[r, first + 1 : first + 1 + N]).max() > 1e-2
