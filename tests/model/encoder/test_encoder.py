"""Tests the encoder: what a token sees, padding and packing, counts, and heads of other weights."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from launch.trial.start import with_own_heads
from model import parameters
from model.encoder import count, family
from tests.model.golden import jit
from train.objectives import masked
from train.step import StepConfig, loss_sums

CFG = family.Config(
    vocab_size=19, context_length=12, n_layers=2, d_model=12, n_heads=3, d_ff=20, pooler=True,
    scan_layers=True,
)  # fmt: skip


@pytest.fixture(scope="module")
def params():
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: family.init(CFG, jax.random.key(0)))
    scale = lambda path: 1.0 if path.endswith("scale") else 0.0  # noqa: E731
    noisy = {  # large weights, so that a wrong mask is seen
        path: np.float32(scale(path) + 0.3 * rng.normal(size=leaf.shape))
        for path, leaf in parameters.flat(shapes).items()
    }
    return parameters.nested(noisy)


@jit
def hidden(params, batch):
    return family.hidden(CFG, params, batch)


def rows(tokens, segments, positions=None):
    batch = {"tokens": np.array(tokens), "segments": np.array(segments)}
    batch["positions"] = np.tile(np.arange(12), (len(tokens), 1))
    return batch if positions is None else batch | {"positions": np.array(positions)}


TOKENS = np.arange(24).reshape(2, 12) % 19


def test_every_token_sees_every_token_of_its_row(params):
    batch = rows(TOKENS, np.ones((2, 12), int))
    before = hidden(params, batch)
    batch["tokens"] = TOKENS.copy()
    batch["tokens"][0, -1] = 7
    change = np.abs(hidden(params, batch) - before).max(-1)
    assert (change[0] > 1e-3).all() and (change[1] == 0).all()


def test_padding_changes_nothing(params):
    segments = np.array([[1] * 7 + [0] * 5] * 2)
    before = hidden(params, rows(TOKENS, segments))
    other = np.where(segments, TOKENS, 3)
    after = hidden(params, rows(other, segments))
    np.testing.assert_array_equal(before[:, :7], after[:, :7])
    seen = hidden(params, rows(other, np.ones_like(segments)))
    assert np.abs(seen[:, :7] - before[:, :7]).max() > 1e-2


def test_packed_texts_have_the_states_that_they_have_alone(params):
    packed = np.concatenate([TOKENS[0, :5], TOKENS[1, :7]])[None].repeat(2, 0)
    segments = [[1] * 5 + [2] * 7] * 2
    positions = [[*range(5), *range(7)]] * 2
    together = hidden(params, rows(packed, segments, positions))[0]
    alone = np.zeros((2, 12), int)
    alone[0, :5], alone[1, :7] = 1, 1
    apart = hidden(params, rows(TOKENS, alone))
    expected = np.concatenate([apart[0, :5], apart[1, :7]])
    np.testing.assert_allclose(together, expected, atol=2e-6)
    mixed = hidden(params, rows(packed, np.ones((2, 12), int), positions))[0]
    assert np.abs(mixed - expected).max() > 1e-2


def test_a_loop_over_layers_is_the_scan(params):
    batch = rows(TOKENS, np.ones((2, 12), int))
    loop = dataclasses.replace(CFG, scan_layers=False)
    np.testing.assert_allclose(
        jit(family.hidden, static_argnums=0)(loop, params, batch), hidden(params, batch), atol=2e-6
    )


def test_parameters_are_those_of_the_model():
    variants = [CFG, family.derive(vars(CFG) | dict(pooler=False, n_classes=3))]
    for cfg in variants:
        shapes = jax.eval_shape(lambda cfg=cfg: family.init(cfg, jax.random.key(0)))
        built = sum(leaf.size for leaf in jax.tree.leaves(shapes))
        assert sum(family.parameters(cfg).values()) == built
    assert not variants[1].masked_head


def test_flops_are_those_of_a_worked_example():
    """D = 8, F = 16, L = 1, T = 10, V = 20, one head.

    Matrices: attention 4 · 64 = 256, MLP 2 · 128 = 256, so N = 512. Attention's products: q·k and
    its values, 2 · 10 · 8 each a token. Head: of 0.15 tokens, transform 64 and vocabulary 160.
    """
    cfg = family.Config(vocab_size=20, context_length=10, n_layers=1, d_model=8, n_heads=1, d_ff=16)
    # 22·8 + 10·8 tables; attention 256 + 32; MLP 256 + 24; norms 3·16; head 64 + 8 + 16 + 20
    total = 176 + 80 + 288 + 280 + 48 + 108
    assert sum(family.parameters(cfg).values()) == total
    assert family.flops(cfg) == {
        "6nd": 6 * total,
        "kaplan": 3 * (2 * 512 + 2 * 80),
        "chinchilla": 3 * (2 * 20 * 8 + 1024 + 4 * 80 + 3 * 10 + 2 * 0.15 * 224),
        "palm": 6 * total + 12 * 80,
    }
    assert count.matmul_flops(cfg) == 6 * (512 + 0.15 * 224) + 12 * 80
    classifier = family.derive(vars(cfg) | dict(pooler=True, n_classes=3))
    assert count.matmul_flops(classifier) == 6 * (512 + (64 + 24) / 10) + 12 * 80


def test_flops_are_those_that_xla_counts():
    """Within 3 %: XLA also counts softmax, norms and biases, and the layers are small."""
    T, K, B = 40, 6, 2  # 6 of 40 tokens are 15 %
    cfg = family.Config(
        vocab_size=2048, context_length=T, n_layers=2, d_model=96, n_heads=2, d_ff=384,
        activation="relu",
    )  # fmt: skip
    batch = dict.fromkeys(("tokens", "segments"), jnp.ones((B, T), jnp.int32))
    batch |= dict.fromkeys(("masked_places", "masked_tokens"), jnp.ones((B, K), jnp.int32))
    step = StepConfig(cfg, masked.Config(), "encoder", "masked")

    def gradient(params, batch):
        return jax.grad(lambda p: loss_sums(p, {}, step, batch, jax.random.key(0))[0])(params)

    shapes = jax.eval_shape(lambda: family.init(cfg, jax.random.key(0)))
    cost = jax.jit(gradient).lower(shapes, batch).compile().cost_analysis()
    ratio = cost["flops"] / (B * T * family.matmul_flops(cfg))
    assert 1 < ratio < 1.03
    without_head = dataclasses.replace(cfg, masked_head=False)
    assert cost["flops"] / (B * T * family.matmul_flops(without_head)) > 1.1


def test_heads_that_other_weights_lack_are_fresh(params, capsys):
    cfg = family.derive(vars(CFG) | dict(n_classes=3))
    shapes = jax.eval_shape(lambda: family.init(cfg, jax.random.key(0)))
    made = with_own_heads(family, cfg, shapes, params, seed=5)
    parameters.check(shapes, made)
    assert "fresh: classes; left out: head, transform, transform_norm" in capsys.readouterr().out
    np.testing.assert_array_equal(made["blocks"]["mlp"]["up"]["kernel"], params["blocks"]["mlp"]["up"]["kernel"])  # fmt: skip  # noqa: E501
    assert 0.01 < made["classes"]["kernel"].std() < 0.03  # init_std is 0.02
    assert not made["classes"]["bias"].any()
    assert with_own_heads(family, CFG, jax.eval_shape(lambda: params), params, 0) is params


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"tensor": 2}, "model.n_heads=3 is not divisible by mesh.tensor=2"),
        ({"sequence": 2}, "does not shard the tokens of a row"),
    ],
)
def test_a_mesh_that_does_not_fit_is_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        family.check_mesh(CFG, sizes)
