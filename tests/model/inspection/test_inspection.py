"""Tests of ablations, induction scores and the logit lens on tiny models."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model import families
from model.inspection import ablation, attention, induction, readings
from model.recurrent import language_model as recurrent
from model.transformer import family as decoder
from model.transformer.config import ModelConfig

CFG = ModelConfig(
    vocab_size=31, context_length=24, n_layers=2, d_model=16, n_heads=4, n_kv_heads=2, head_dim=6,
    d_ff=24, init_std=0.4, positions="rotary",
)  # fmt: skip
SCANNED = dataclasses.replace(CFG, scan_layers=True)
TOKENS = np.random.default_rng(0).integers(0, 31, 12)
FIRST = 2  # place of the first token that is scored


@functools.cache
def params() -> dict:
    """Fresh, but with biases, which an ablation must leave alone."""
    found = jax.jit(decoder.init, static_argnums=0)(CFG, jax.random.key(0))
    key = jax.random.key(1)
    return jax.tree.map(lambda x: x + 0.1 * jax.random.normal(key, x.shape), found)


@functools.partial(jax.jit, static_argnums=(0, 1))
def log_p(name, cfg, params, tokens_BT) -> jax.Array:
    model = families.FAMILIES[name]
    x_BTD = model.hidden(cfg, params, {"tokens": tokens_BT})
    return jax.nn.log_softmax(model.logits(cfg, model.head(cfg, params), x_BTD))


def loss(params) -> float:
    logp_TV = log_p("decoder", CFG, params, TOKENS[None])[0]
    return -float(logp_TV[np.arange(11), TOKENS[1:]][FIRST - 1 :].mean())


def without(name: str, kernel: str, layer: int, rows: slice) -> dict:
    """The parameters with rows of one kernel set to 0: nothing reads what they multiply."""
    blocks = params()["blocks"]
    part = blocks[name][kernel]
    changed = part | {"kernel": part["kernel"].at[layer, rows].set(0)}
    return params() | {"blocks": blocks | {name: blocks[name] | {kernel: changed}}}


@pytest.mark.slow
@pytest.mark.parametrize("cfg", [CFG, SCANNED])
def test_zero_ablations_are_models_without_the_rows_that_read_the_unit(cfg, monkeypatch):
    monkeypatch.setattr(ablation, "NUMBERS", 3 * 12 * 300)  # a few at a time, and a last part
    heads = np.array([[0, 1], [1, 3], [1, 0], [0, 2]])
    told = []
    found = ablation.losses(
        cfg, params(), TOKENS, FIRST, "heads", heads, np.zeros((4, 6)), told.append
    )
    wanted = [
        loss(without("attention", "out", layer, slice(6 * head, 6 * head + 6)))
        for layer, head in heads
    ]
    assert found == pytest.approx(wanted, abs=1e-5) and len(told) > 1 and told[-1] == 4
    neurons = np.array([[0, 5], [1, 23]])
    found = ablation.losses(cfg, params(), TOKENS, FIRST, "neurons", neurons, np.zeros(2))
    wanted = [loss(without("mlp", "down", layer, slice(unit, unit + 1))) for layer, unit in neurons]
    assert found == pytest.approx(wanted, abs=1e-5)
    assert np.abs(found - loss(params())).min() > 1e-4  # control: they have an effect


@pytest.mark.slow
def test_a_mean_ablation_of_what_is_constant_changes_nothing():
    """A head whose queries and keys are 0 sees the running mean of its values; one whose values are
    equal everywhere writes the same at every place."""
    blocks = params()["blocks"]
    value = jax.tree.map(jnp.zeros_like, blocks["attention"]["value"])
    value["bias"] = value["bias"] + 0.7
    same = params() | {"blocks": blocks | {"attention": blocks["attention"] | {"value": value}}}
    _, means_LHC = attention.seen(CFG, same, TOKENS)
    assert np.asarray(means_LHC) == pytest.approx(0.7)
    heads = np.array(list(np.ndindex(2, 4)))
    losses = functools.partial(ablation.losses, CFG, same, TOKENS, FIRST, "heads", heads)
    assert losses(means_LHC.reshape(8, 6)) == pytest.approx(loss(same), abs=1e-5)
    assert np.abs(losses(np.zeros((8, 6))) - loss(same)).min() > 1e-3  # control


@jax.jit
def of_embedding(params) -> jax.Array:
    """The loss if the blocks write nothing but the biases behind heads and neurons."""
    blocks = params["blocks"]
    x_1TD = params["embed"]["embedding"][TOKENS][None]
    x_1TD += (blocks["attention"]["out"]["bias"] + blocks["mlp"]["down"]["bias"]).sum(0)
    without = {"params": params | {"blocks": ()}}
    x_1TD = decoder.Decoder(CFG).apply(without, x_1TD, method="normed")
    logp_TV = jax.nn.log_softmax(decoder.logits(CFG, decoder.head(CFG, params), x_1TD)[0])
    return -logp_TV[np.arange(11), TOKENS[1:]][FIRST - 1 :].mean()


@pytest.mark.slow
def test_without_everything_the_embedding_alone_predicts():
    nothing = np.zeros((2, 1, 1, 1, 1))
    changes = ablation.edits("heads", nothing, nothing)["blocks"]
    changes |= ablation.edits("neurons", nothing[..., 0], nothing[..., 0])["blocks"]
    run = jax.jit(ablation.loss, static_argnums=(0, 3))
    found = float(run(CFG, params(), TOKENS, FIRST, {"blocks": changes}))
    assert found == pytest.approx(float(of_embedding(params())), abs=1e-5)
    assert abs(found - loss(params())) > 1e-2  # control


@pytest.mark.slow
def test_estimates_are_the_first_order_of_the_exact_change():
    """Where an activation is scaled by 1 - e, the loss changes by e times the estimate."""
    zero_LF, mean_LF, activation_LF = ablation.estimates(CFG, FIRST, params(), TOKENS)
    e, base, none = 1e-2, loss(params()), jnp.zeros((2, 1, 1, 24))
    run = jax.jit(ablation.loss, static_argnums=(0, 3))

    def slope(keep, add) -> float:
        changed = run(CFG, params(), TOKENS, FIRST, ablation.edits("neurons", keep, add))
        return (float(changed) - base) / e

    for layer, unit in ((0, 3), (1, 7)):
        keep = jnp.ones((2, 1, 1, 24)).at[layer, 0, 0, unit].set(1 - e)
        assert slope(keep, none) == pytest.approx(float(zero_LF[layer, unit]), abs=3e-3)
        mean = none.at[layer, 0, 0, unit].set(e * activation_LF[layer, unit])
        assert slope(keep, mean) == pytest.approx(float(mean_LF[layer, unit]), abs=3e-3)
    assert np.abs(zero_LF).max() > 0.03  # control: the tolerance is not above all of them


def test_a_perfect_induction_pattern_scores_one():
    n, start = 5, 2
    rng = np.random.default_rng(0)
    tokens = induction.repeated(rng, np.arange(10, 30), (1, 2), n, 3)
    assert tokens.shape == (3, 12) and (tokens[:, :2] == [1, 2]).all()
    assert (tokens[:, 2:7] == tokens[:, 7:]).all()
    assert all(len(set(row[2:7])) == n for row in tokens) and len({*map(tuple, tokens)}) == 3
    weights = np.zeros((3, 3, 12, 12))
    for row in range(3):
        for query in range(12):
            earlier = [key for key in range(query) if tokens[row, key] == tokens[row, query]]
            weights[row, 0, query, earlier[-1] + 1 if earlier else 0] = 1  # what followed it
            weights[row, 1, query, max(query - 1, 0)] = 1
            weights[row, 2, query, : query + 1] = 1 / (query + 1)
    found = induction.prefix_matching(weights, start, n)
    assert np.asarray(found[:, 0]) == pytest.approx(1) and not found[:, 1].any()
    assert np.asarray(found[:, 2]) == pytest.approx(np.mean([1 / t for t in range(8, 13)]))
    previous = np.asarray(induction.previous_token(weights))
    assert previous[:, 1] == pytest.approx(1) and (previous[:, 0] < 0.2).all()


@pytest.mark.slow
def test_the_losses_of_the_halves_are_those_of_the_model():
    n, tokens = 5, induction.repeated(np.random.default_rng(0), np.arange(31), (0,), 5, 2)
    _, _, halves = induction.measured(CFG, 1, n, params(), tokens)
    logp = np.asarray(log_p("decoder", CFG, params(), tokens))
    for row in range(2):
        for half, begin in enumerate((1, 1 + n)):
            targets = np.arange(begin + 1, begin + n)  # not the first token of the half
            wanted = -logp[row, targets - 1, tokens[row, targets]]
            np.testing.assert_allclose(halves[row, half], wanted, atol=1e-5)


def test_readings_of_known_distributions():
    p = np.array([[0.5, 0.25, 0.25, 0.0], [0.1, 0.2, 0.3, 0.4]])
    with np.errstate(divide="ignore"):
        found = readings.read(jnp.log(p), np.array([2, 0]), 2)
    assert np.asarray(found.nats_T) == pytest.approx(-np.log([0.25, 0.1]))
    entropy = [1.5 * np.log(2), -(p[1] * np.log(p[1])).sum()]
    assert np.asarray(found.entropy_T) == pytest.approx(entropy)
    assert found.rank_T.tolist() == [2, 4]
    assert found.top_TK[1].tolist() == [3, 2]
    assert np.exp(found.logp_TK[1]) == pytest.approx([0.4, 0.3])


GRU = recurrent.Config(
    vocab_size=31, context_length=24, cell="gru", n_layers=2, d_model=8, d_hidden=8, init="uniform"
)


@pytest.mark.parametrize("name", ["decoder", pytest.param("recurrent", marks=pytest.mark.slow)])
def test_the_lens_ends_with_the_model_s_own_distribution(name):
    model, cfg = families.FAMILIES[name], {"decoder": CFG, "recurrent": GRU}[name]
    own = params() if name == "decoder" else model.init(cfg, jax.random.key(0))
    targets = np.append(TOKENS[1:], 0)
    found = readings.of_layers(name, cfg, 3, own, TOKENS, targets)
    states = 3 if name == "decoder" else 2
    assert found.nats_T.shape == (states, 12) and found.top_TK.shape == (states, 12, 3)
    direct = readings.read(log_p(name, cfg, own, TOKENS[None])[0], targets, 3)
    for one, other in zip(found, direct, strict=True):
        np.testing.assert_allclose(one[-1], other, atol=1e-5)
    assert np.abs(found.nats_T[-1] - found.nats_T[-2]).max() > 1e-2
