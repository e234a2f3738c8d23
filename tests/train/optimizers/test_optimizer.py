"""Tests optimisers, weight decay rules, clipping and schedules."""

import jax.numpy as jnp
import numpy as np
import pytest

from model.transformer.family import MATRICES
from train.optimizers import optimizer, schedule

H = dict(b1=0.9, b2=0.95, eps=1e-8, weight_decay=0.1)
PARAMS = {
    "blocks": {
        "mlp": {"up": {"kernel": jnp.full((2, 3, 4), 0.5), "bias": jnp.ones((2, 4))}},
    },
    "embed": {"embedding": jnp.ones((5, 3))},
}


def gradient(scale: float) -> dict:
    rng = np.random.default_rng(1)
    draw = lambda shape: jnp.asarray(rng.normal(size=shape) * scale, jnp.float32)  # noqa: E731
    return {
        "blocks": {"mlp": {"up": {"kernel": draw((2, 3, 4)), "bias": draw((2, 4))}}},
        "embed": {"embedding": draw((5, 3))},
    }


def directions(name: str, grads: list[dict], **changes) -> dict:
    build = optimizer.build(name, H | changes, matrices=MATRICES)
    state = build.init(PARAMS)
    for g in grads:
        out, state = build.update(g, state, PARAMS)
    return out


def test_adamw_is_algorithm_2_of_loshchilov_and_hutter():
    g1, g2 = gradient(1.0), gradient(0.3)
    out = directions("adamw", [g1, g2])["blocks"]["mlp"]["up"]
    for leaf, decay in (("kernel", 0.1), ("bias", 0.0)):
        a, b = (np.asarray(g["blocks"]["mlp"]["up"][leaf], np.float64) for g in (g1, g2))
        m, v = 0.9 * 0.1 * a + 0.1 * b, 0.95 * 0.05 * a**2 + 0.05 * b**2
        m, v = m / (1 - 0.9**2), v / (1 - 0.95**2)
        expected = m / (np.sqrt(v) + 1e-8) + decay * np.asarray(PARAMS["blocks"]["mlp"]["up"][leaf])
        np.testing.assert_allclose(out[leaf], expected, rtol=2e-5)


def test_lion_is_a_sign_plus_decay():
    out = directions("lion", [gradient(1.0)])["blocks"]["mlp"]["up"]
    g = gradient(1.0)["blocks"]["mlp"]["up"]
    np.testing.assert_allclose(out["kernel"], np.sign(g["kernel"]) + 0.05, rtol=1e-6)
    np.testing.assert_allclose(out["bias"], np.sign(g["bias"]), rtol=1e-6)


def test_muon_orthogonalises_each_layer_and_leaves_the_rest_to_adam():
    out = directions("muon", [gradient(1.0)], weight_decay=0.0)
    kernel = np.asarray(out["blocks"]["mlp"]["up"]["kernel"])
    for layer in kernel:  # singular values of an orthogonalised matrix are similar
        values = np.linalg.svd(layer, compute_uv=False)
        assert values.max() / values.min() < 2.0
    raw = np.asarray(gradient(1.0)["blocks"]["mlp"]["up"]["kernel"])
    assert np.linalg.cond(raw[0]) > 2.0  # control: those of the gradient are not
    # Adam with Nesterov momentum (Dozat 2016): its first step is (1 + b1 / (1 + b1)) sign(g).
    table = gradient(1.0)["embed"]["embedding"]
    nadam = (1 + 0.9 / 1.9) * np.sign(table)
    np.testing.assert_allclose(out["embed"]["embedding"], nadam, rtol=1e-5)
    assert np.sum(kernel * raw) > 0  # downhill, after the step's minus sign


@pytest.mark.parametrize("name", optimizer.OPTIMIZERS)
def test_every_optimizer_descends_and_decays_matrices_alone(name):
    plain = directions(name, [gradient(1.0)], weight_decay=0.0)
    decayed = directions(name, [gradient(1.0)], weight_decay=0.1)
    kernel, bias = (
        [d["blocks"]["mlp"]["up"][leaf] for d in (plain, decayed)] for leaf in ("kernel", "bias")
    )
    np.testing.assert_allclose(kernel[1] - kernel[0], 0.05, atol=1e-6)
    np.testing.assert_array_equal(bias[0], bias[1])
    grads = gradient(1.0)
    assert float((plain["embed"]["embedding"] * grads["embed"]["embedding"]).sum()) > 0


def test_a_parameter_without_a_rule_is_an_error():
    strange = {"blocks": {"mlp": {"gadget": jnp.ones(3)}}}
    with pytest.raises(ValueError, match=r"blocks/mlp/gadget.*DECAY_RULES"):
        optimizer.build("adamw", H).update(
            strange, optimizer.build("sgd", H).init(strange), strange
        )


def test_muon_takes_the_matrices_from_the_family_and_passes_none_over():
    strange = {"cell": {"recurrent": {"kernel": jnp.ones((3, 4))}}}
    build = optimizer.build("muon", H, matrices=MATRICES)
    with pytest.raises(ValueError, match=r"cell/recurrent/kernel.*MATRICES"):
        build.init(strange)
    rules = ((r"^cell/.*kernel$", (0, 1)), *MATRICES)
    build = optimizer.build("muon", H | {"weight_decay": 0.0}, matrices=rules)
    out, _ = build.update(strange, build.init(strange), strange)
    adam = optimizer.build("adamw", H | {"weight_decay": 0.0})
    other, _ = adam.update(strange, adam.init(strange), strange)
    gap = np.abs(np.subtract(*(x["cell"]["recurrent"]["kernel"] for x in (out, other))))
    assert gap.max() > 0.1  # control: Adam gives another update
    with pytest.raises(ValueError, match=r"needs a model.family that states its MATRICES"):
        optimizer.build("muon", H)


def test_clip_keeps_direction_and_limits_norm():
    grads = gradient(10.0)
    clipped, norm = optimizer.clip(grads, jnp.float32(1.0))
    assert float(norm) > 1
    _, after = optimizer.clip(clipped, jnp.float32(jnp.inf))
    assert float(after) == pytest.approx(1.0, rel=1e-5)
    untouched, _ = optimizer.clip(grads, jnp.float32(jnp.inf))
    np.testing.assert_array_equal(untouched["embed"]["embedding"], grads["embed"]["embedding"])


# Fractions of the peak after steps 1, 10 (end of warmup), 55, 90 and 100 (the last).
TABLE = {
    "constant": (0.1, 1.0, 1.0, 1.0, 1.0),
    "linear": (0.1, 1.0, 0.55, 0.2, 0.1),
    "cosine": (0.1, 1.0, 0.55, 0.1271376, 0.1),
    "inverse_sqrt": (0.1, 1.0, 0.4264014, 0.3333333, 0.3162278),
    "wsd": (0.1, 1.0, 1.0, 0.55, 0.1),
}


@pytest.mark.parametrize("name", schedule.SCHEDULES)
def test_schedules_at_their_corners(name):
    h = {k: jnp.float32(v) for k, v in dict(learning_rate=2.0, warmup=10, decay=20).items()}
    h |= {"total": jnp.float32(100), "final": jnp.float32(0.1)}
    rates = [schedule.learning_rate(name, jnp.int32(s - 1), h) for s in (1, 10, 55, 90, 100)]
    np.testing.assert_allclose(np.asarray(rates) / 2.0, TABLE[name], rtol=1e-5)


def test_schedules_without_warmup_start_at_the_peak():
    h = {k: jnp.float32(v) for k, v in dict(learning_rate=1.0, warmup=0, decay=2).items()}
    h |= {"total": jnp.float32(10), "final": jnp.float32(0.0)}
    assert float(schedule.learning_rate("wsd", jnp.int32(0), h)) == 1.0
    assert float(schedule.learning_rate("wsd", jnp.int32(9), h)) == 0.0
