"""Tests of adapters on a decoder: merged equals unmerged, rules, counts, refusals."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model import families, parameters
from model.adapters import lora
from model.adapters.adapted import Adapted, Adapter, adapter_of
from model.transformer import family as decoder
from model.transformer.config import ModelConfig
from train.optimizers import optimizer
from train.parallel.precision import ROUNDED_RULES
from train.rules import lookup

CFG = ModelConfig(50, 8, 2, 64, 2, 1, 32, 64, positions="rotary", gated=True, norm="rmsnorm")
TOKENS = {"tokens": np.random.default_rng(0).integers(0, 50, (2, 8))}
LORA = Adapter("lora", rank=3, alpha=6.0)


@functools.cache
def model() -> dict:
    return jax.tree.map(np.asarray, decoder.init(CFG, jax.random.key(0)))


def trained(adapted: Adapted, cfg=CFG) -> tuple[dict, dict]:
    """(adapters that are no longer at their start, the base)."""
    tree, base = adapted.split(cfg, model(), seed=1)
    rng = np.random.default_rng(2)
    move = lambda x: x + 0.1 * rng.standard_normal(x.shape).astype(np.float32)  # noqa: E731
    return jax.tree.map(move, tree), base


@functools.partial(jax.jit, static_argnums=0)
def logits(cfg, params):
    x_BTD = decoder.hidden(cfg, params, TOKENS)
    return decoder.logits(cfg, decoder.head(cfg, params), x_BTD)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"rslora": True, "dora": True, "targets": "query|down"},
        pytest.param({"base_dtype": "nf4", "dora": True}, marks=pytest.mark.slow),
        pytest.param({"base_dtype": "int8"}, marks=pytest.mark.slow),
    ],
    ids=lambda changes: "-".join(changes) or "plain",
)
def test_merged_equals_unmerged(changes):
    adapted = Adapted(decoder, dataclasses.replace(LORA, **changes))
    tree, base = trained(adapted)
    merged = logits(CFG, adapted.merged(model(), tree))
    unmerged = logits(CFG, adapted.whole(base, adapted.scaled(tree)))
    np.testing.assert_allclose(unmerged, merged, atol=1e-6)
    # Without alpha / rank it is another function.
    assert np.abs(logits(CFG, adapted.whole(base, tree)) - merged).max() > 1e-5


def test_a_fresh_adapter_changes_nothing():
    for dora in (False, True):
        adapted = Adapted(decoder, dataclasses.replace(LORA, dora=dora))
        tree, base = adapted.split(CFG, model(), seed=1)
        fresh = logits(CFG, adapted.whole(base, adapted.scaled(tree)))
        np.testing.assert_allclose(fresh, logits(CFG, model()), atol=1e-6)


def test_scanned_layers_equal_a_loop():
    adapted = Adapted(decoder, dataclasses.replace(LORA, base_dtype="nf4"))
    tree, base = trained(adapted)
    whole = adapted.whole(base, adapted.scaled(tree))
    scanned = dataclasses.replace(CFG, scan_layers=True, remat="full")
    np.testing.assert_allclose(logits(scanned, whole), logits(CFG, whole), atol=1e-6)


def test_dropout_is_on_the_inputs_of_the_adapters_alone():
    adapted = Adapted(decoder, dataclasses.replace(LORA, dropout=0.5))
    tree, base = trained(adapted)
    still = logits(CFG, adapted.whole(base, adapted.scaled(tree)))
    keys = jax.random.split(jax.random.key(3), 2)
    one, other = (logits(CFG, adapted.whole(base, adapted.scaled(tree), key)) for key in keys)
    assert np.abs(one - other).max() > 1e-3 < np.abs(one - still).max()
    zeros = jax.tree.map(np.zeros_like, tree)  # the base has no dropout
    plain = logits(CFG, adapted.whole(base, zeros, keys[0]))
    np.testing.assert_allclose(plain, logits(CFG, model()), atol=1e-6)
    x = lora.dropped(jnp.ones((200, 200)), keys[0], jnp.float32(0.25))
    assert set(np.unique(x)) == {0, np.float32(1 / 0.75)} and abs(x.mean() - 1) < 0.02


@pytest.mark.slow
def test_gradients_of_a_quantised_base_are_those_of_its_dense_matrix():
    adapted = Adapted(decoder, dataclasses.replace(LORA, base_dtype="nf4"))
    tree, base = trained(adapted)
    dense = jax.tree.map(
        lambda x: x.dense(jnp.float32) if hasattr(x, "dense") else x,
        base,
        is_leaf=lambda x: hasattr(x, "dense"),
    )

    @jax.jit
    def gradient(tree, base):
        loss = lambda tree: jnp.square(logits(CFG, adapted.whole(base, adapted.scaled(tree)))).sum()  # noqa: E731
        return jax.grad(loss)(tree)

    one, two = gradient(tree, base), gradient(tree, dense)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), one, two)
    assert all(np.abs(leaf).max() > 1e-3 for leaf in jax.tree.leaves(one))


@pytest.mark.parametrize("n_classes", [0, 3])
@pytest.mark.parametrize("base_dtype", ["", "nf4", "int8"])
def test_shapes_and_counts_are_those_of_the_arrays(base_dtype, n_classes):
    cfg = dataclasses.replace(CFG, n_classes=n_classes, dtype="bfloat16")
    adapted = Adapted(decoder, dataclasses.replace(LORA, base_dtype=base_dtype, dora=True))
    params = jax.tree.map(np.asarray, decoder.init(cfg, jax.random.key(0)))
    made, stated = adapted.split(cfg, params, 0), adapted.split_shapes(cfg)
    same = jax.tree.map(lambda a, b: (a.shape, a.dtype) == (b.shape, b.dtype), made, stated)
    assert all(jax.tree.leaves(same))
    assert adapted.trained_parameters(cfg) == sum(x.size for x in jax.tree.leaves(made[0]))
    assert ("classes" in made[0]) == bool(n_classes) and "classes" not in made[1]
    sizes = sum(x.size for x in jax.tree.leaves(decoder.shapes(cfg)))
    heads = 65 * n_classes
    counts = adapted.parameters(cfg)
    assert sum(counts.values()) == sizes + heads + counts["adapter"]


@pytest.mark.parametrize("name", [n for n, f in families.FAMILIES.items() if hasattr(f, "LINEARS")])
def test_every_rule_table_accepts_every_adapter_of_every_family(name):
    family = families.FAMILIES[name]
    keys = families.keys(family) | dict(vocab_size=20, d_model=64, context_length=8)
    cfg = family.derive(keys)
    for base_dtype in ("nf4", "int8"):
        adapted = Adapted(family, Adapter("lora", dora=True, base_dtype=base_dtype))
        tree, base = adapted.split_shapes(cfg)
        for path, leaf in parameters.flat(tree).items():
            for rules in (optimizer.DECAY_RULES, ROUNDED_RULES, adapted.MATRICES):
                lookup(rules, path, "RULES")
            assert lookup(adapted.update_scales(cfg, "adamw"), path, "RULES") == (1, 1, 1)
            assert len(lookup(adapted.PARAMETER_AXES, path, "RULES")) == leaf.ndim
        for path, leaf in jax.tree_util.tree_leaves_with_path(base):
            path = jax.tree_util.keystr(path, simple=True, separator="/")
            assert len(lookup(adapted.PARAMETER_AXES, path, "RULES")) == leaf.ndim
    with pytest.raises(ValueError, match="matches no rule"):
        lookup(optimizer.DECAY_RULES, "blocks/mlp/up/lora_c", "DECAY_RULES")


def test_flops_leave_out_the_gradients_of_frozen_weights():
    adapted, n = Adapted(decoder, LORA), sum(decoder.parameters(CFG).values())
    added = adapted.parameters(CFG)["adapter"]
    assert adapted.flops(CFG)["6nd"] == 4 * n + 6 * added
    attention = decoder.flops(CFG)["palm"] - 6 * n
    assert adapted.flops(CFG)["palm"] == 4 * n + 6 * added + attention
    for name, whole in decoder.flops(CFG).items():
        assert decoder.weight_flops(CFG)[name] <= whole / 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rank": 65}, "adapter.rank=65 is above the dimensions 64 × 32 of .*; use 32 or less"),
        ({"targets": "nothing"}, "adapter.targets='nothing' matches no kernel; use a regex"),
        ({"targets": "("}, "adapter.targets='\\(' is no regex"),
        ({"base_dtype": "fp4"}, "adapter.base_dtype='fp4' is unknown; use int8, nf4"),
        ({"name": "ia3"}, "adapter.name='ia3' is unknown; use lora"),
        ({"name": ""}, "adapter.rank=3, but adapter.name='' trains no adapter"),
    ],
)
def test_bad_adapters_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Adapted(decoder, dataclasses.replace(LORA, **changes)).check(CFG)


def test_nf4_refuses_widths_that_blocks_do_not_divide():
    cfg = dataclasses.replace(CFG, d_ff=96)
    adapted = Adapted(decoder, dataclasses.replace(LORA, base_dtype="nf4"))
    with pytest.raises(ValueError, match="blocks of 64 inputs, which do not divide the 96 of"):
        adapted.check(cfg)


def test_families_without_such_linears_are_refused():
    family = families.FAMILIES["recurrent"]
    cfg = family.derive(families.keys(family) | {"vocab_size": 20})
    with pytest.raises(ValueError, match=r"cannot change a model.family='recurrent'; use decoder"):
        Adapted(family, LORA).check(cfg)


def test_the_keys_of_the_section_are_those_of_the_adapter():
    from configs import base

    assert base.defaults(base.adapter()) == vars(Adapter())
    assert adapter_of({}) is None and adapter_of({"adapter": base.defaults(base.adapter())}) is None
