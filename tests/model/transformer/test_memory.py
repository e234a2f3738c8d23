"""Tests that scanned layers and recomputation save memory and do not change the results."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.transformer.config import CHOICES, ModelConfig
from model.transformer.decoder import Decoder, init
from model.transformer.remat import POLICIES

# Five layers with a pattern of two: a scan over two groups, plus one layer.
CFG = ModelConfig(
    vocab_size=31, context_length=12, n_layers=5, d_model=16, n_heads=4, n_kv_heads=2, head_dim=6,
    d_ff=24, init_std=0.4, dropout=0.2, gated=True, norm="rmsnorm", positions="rotary", window=4,
    window_pattern="LG", attention_softcap=20.0,
)  # fmt: skip
TOKENS = np.random.default_rng(0).integers(0, 31, (2, 12))
# In decreasing order of device memory.
MEMORY = ("none", "dots_attention", "dots", "projections", "attention", "full", "offload")
# These tests spend most of their time on compilation.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def loss(params, cfg, key):
    logits_BTV = Decoder(cfg, train=True).apply({"params": params}, TOKENS, rngs={"dropout": key})
    return jnp.square(jax.nn.log_softmax(logits_BTV)).mean()


@functools.partial(jit, static_argnums=1)
def loss_and_gradients(params, cfg, seed=0):
    return jax.value_and_grad(loss)(params, cfg, jax.random.key(seed))


@functools.cache
def fresh():
    return jit(functools.partial(init, CFG))(jax.random.key(0))


@functools.cache
def plain():
    return loss_and_gradients(fresh(), CFG)


def difference(a, b):
    """The largest difference of two trees, relative to the largest value of each leaf."""
    a, b = jax.device_get((a, b))
    each = jax.tree.map(lambda x, y: np.abs(x - y).max() / np.abs(x).max(), a, b)
    return float(max(jax.tree.leaves(each)))


@functools.cache
def kept(cfg):
    """(device, host) bytes kept for the backward pass."""
    backward = lambda params: jax.vjp(lambda p: loss(p, cfg, jax.random.key(0)), params)[1]  # noqa: E731
    found = {id(v): v.aval for v in jax.make_jaxpr(backward)(fresh()).jaxpr.outvars}.values()
    host = [a.memory_space == jax.memory.Space.Host for a in found]
    sizes = [a.size * a.dtype.itemsize for a in found]
    on_host = sum(n for n, yes in zip(sizes, host, strict=True) if yes)
    return sum(sizes) - on_host, on_host


FORMS = [(scan, remat) for scan in (False, True) for remat in MEMORY][1:]
CONTROLLED = (True, "full")  # covers a scan, a layer outside it, and recomputation


@pytest.mark.slow
@pytest.mark.parametrize(("scan", "remat"), FORMS)
def test_no_form_changes_a_number(scan, remat):
    """Loss and gradients stay the same, with dropout too."""
    cfg = dataclasses.replace(CFG, scan_layers=scan, remat=remat)
    assert difference(plain(), loss_and_gradients(fresh(), cfg)) < 2e-6
    if (scan, remat) == CONTROLLED:  # controls: other layers, another dropout
        turned = fresh() | {
            "blocks": jax.tree.map(lambda x: x[::-1], jax.device_get(fresh()["blocks"]))
        }
        assert difference(plain()[0], loss_and_gradients(turned, cfg)[0]) > 1e-3
        assert difference(plain()[0], loss_and_gradients(fresh(), cfg, seed=1)[0]) > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("scan", [False, True], ids=["loop", "scan"])
def test_each_policy_keeps_less_than_the_one_before(scan):
    every = [kept(dataclasses.replace(CFG, scan_layers=scan, remat=name)) for name in MEMORY]
    device, host = zip(*every, strict=True)
    assert all(more > less for more, less in itertools.pairwise(device)), device
    assert [n > 0 for n in host] == [name == "offload" for name in MEMORY]
    assert set(MEMORY) == set(CHOICES["remat"]) == {"none", *POLICIES}


def test_a_policy_keeps_what_it_names():
    """Each of 5 layers and 24 tokens has 24 numbers in its heads and 12 each in keys and values.

    The lower bound is 5 % smaller, because keeping some values makes others unnecessary.
    """
    size = {name: kept(dataclasses.replace(CFG, remat=name)) for name in MEMORY}
    assert size["attention"][0] - size["full"][0] >= 5 * 24 * 24 * 4
    assert size["projections"][0] - size["full"][0] >= 0.95 * 5 * 24 * (24 + 12 + 12) * 4
    # The block's input of 16 numbers is offloaded too, and no longer on the device.
    assert size["offload"][1] == 5 * 24 * (16 + 24 + 12 + 12) * 4
    assert size["offload"][0] <= size["full"][0] - 5 * 24 * 16 * 4


def primitives(cfg):
    text = str(jax.make_jaxpr(lambda params: loss(params, cfg, jax.random.key(0)))(fresh()))
    return text.count("scan["), text.count("dot_general")


def test_a_scan_traces_each_layer_of_the_pattern_once():
    """Layers outside the scan are traced too: 2 + 1 of 5 layers, or 1 of 5 equal layers."""
    alike = dataclasses.replace(CFG, window=0, window_pattern="L")
    loops, layers = primitives(alike)
    scanned = lambda cfg: primitives(dataclasses.replace(cfg, scan_layers=True))  # noqa: E731
    one = (layers - 1) // 5
    assert loops == 0 and layers == 5 * one + 1
    assert scanned(alike) == (1, one + 1)
    assert scanned(CFG) == (1, 3 * one + 1)
    # A pattern longer than the model leaves nothing to scan over.
    assert scanned(dataclasses.replace(CFG, window_pattern="LLLLLG"))[1] == 5 * one + 1


@pytest.mark.parametrize("pattern, beside", [("LG", 1), ("LLLLLG", 5)])
def test_what_is_not_scanned_is_kept_from_being_merged_with_its_recomputation(pattern, beside):
    cfg = dataclasses.replace(CFG, scan_layers=True, remat="full", window_pattern=pattern)
    text = str(jax.make_jaxpr(lambda params: loss(params, cfg, jax.random.key(0)))(fresh()))
    assert text.count("prevent_cse=True") == beside
    assert text.count("prevent_cse=False") == (len(pattern) if beside == 1 else 0)
