"""Tests that every attention backend gives the outputs and gradients of the xla backend."""

import contextlib
import functools
import pathlib
from dataclasses import replace

import flax.linen as nn
import jax
import numpy as np
import pytest

from model.kernels import backends, masks, splash
from model.kernels.backends import AttentionSpec
from model.transformer.attention import attention_spec, dot_product_attention
from model.transformer.config import ModelConfig
from model.transformer.decoder import Decoder, init

B, T, H, K, C = 2, 256, 4, 2, 16
# These tests spend most of their time on compilation.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
SPECS = {
    "causal": AttentionSpec(0.25, C),
    "window": AttentionSpec(0.25, C, window=100),
    "softcap": AttentionSpec(0.25, C, softcap=5.0),
}
# Controls: specs that differ in what the case tests, so their outputs must differ.
CONTROLS = {
    "causal": AttentionSpec(0.2, C),
    "window": AttentionSpec(0.25, C, window=101),
    "softcap": AttentionSpec(0.25, C),
}


@functools.cache
def arrays(packed: bool, T: int = T) -> tuple:
    """Queries, keys, values, positions, segments and output gradients."""
    rng = np.random.default_rng(0)
    q, k, v, w = (3 * rng.normal(size=(B, T, n, C)).astype(np.float32) for n in (H, K, K, H))
    positions = np.broadcast_to(np.arange(T), (B, T))
    if not packed:
        return q, k, v, positions, None, w
    segments = (np.arange(T) >= np.array([[90], [130]])).astype(np.int32)
    start = np.where(segments, np.array([[90], [130]]), 0)
    return q, k, v, positions - start, segments, w


def xla(q_BTHC, k_BTKC, v_BTKC, positions_BT, segments_BT, spec: AttentionSpec) -> jax.Array:
    mask_BTS = masks.causal(positions_BT, positions_BT)
    if spec.window:
        mask_BTS &= masks.within(positions_BT, positions_BT, spec.window)
    if segments_BT is not None:
        mask_BTS &= masks.same_segment(segments_BT, segments_BT)
    return dot_product_attention(q_BTHC, k_BTKC, v_BTKC, mask_BTS, spec.scale, spec.softcap)


@functools.cache
def computed(backend: str, spec: AttentionSpec, packed: bool) -> list[np.ndarray]:
    """The output and its gradients with respect to queries, keys and values."""
    q, k, v, positions, segments, w = arrays(packed)
    attend = xla if backend == "xla" else backends.KERNELS[backend]

    def run(q, k, v):
        out, back = jax.vjp(lambda *qkv: attend(*qkv, positions, segments, spec), q, k, v)
        return out, *back(w)

    return [np.asarray(x) for x in jit(run)(q, k, v)]


def distance(found: list[np.ndarray], expected: list[np.ndarray]) -> float:
    pairs = zip(found, expected, strict=True)
    return max(np.linalg.norm(x - y) / np.linalg.norm(y) for x, y in pairs)


CASES = [
    (backend, case, packed)
    for backend in backends.KERNELS
    for case, packed in (("causal", False), ("window", True), ("softcap", True))
    if (backend, case) != ("cudnn", "softcap")  # refused
]


@pytest.mark.parametrize("backend, case, packed", CASES)
def test_outputs_and_gradients_are_those_of_xla(backend, case, packed):
    found = computed(backend, SPECS[case], packed)
    assert distance(found, computed("xla", SPECS[case], packed)) < 1e-5
    other = computed("xla", CONTROLS[case], packed)  # control
    assert distance(found, other) > 1e-3
    unpacked = computed("xla", SPECS[case], False)
    assert not packed or distance(found, unpacked) > 1e-3


def config(**changes) -> ModelConfig:
    return ModelConfig(64, 128, 1, 32, 4, 2, 8, 64, **{"positions": "rotary"} | changes)


@contextlib.contextmanager
def mesh_of(kind: str, **sizes: int):
    """An abstract mesh of devices that need not exist."""
    device = jax.sharding.AbstractDevice(kind, 1, platform={"TPU v5e": "tpu"}.get(kind, kind))
    mesh = jax.sharding.AbstractMesh(tuple(sizes.values()), tuple(sizes), abstract_device=device)
    rules = [("seq", ("sequence",)), ("heads", ("tensor",))]
    with jax.sharding.use_abstract_mesh(mesh), nn.logical_axis_rules(rules):
        yield


def choose(cfg: ModelConfig, length: int) -> str:
    return backends.choose(cfg.attention, attention_spec(cfg), length)


def test_auto_goes_by_the_devices_of_the_mesh_and_by_what_the_model_asks_for():
    assert choose(config(), 128) == "xla"
    with mesh_of("TPU v5e", sequence=1):
        assert choose(config(), 128) == "splash"
        assert choose(config(), 100) == "xla"
        assert choose(config(positions="alibi"), 128) == "xla"
        both_ways = replace(attention_spec(config()), causal=False)  # as in an encoder
        assert backends.choose("auto", both_ways, 128) == "xla"
    with mesh_of("gpu", sequence=1):
        assert choose(config(dtype="bfloat16"), 128) == "cudnn"
        assert choose(config(), 128) == "xla"
        softcap = config(dtype="bfloat16", attention_softcap=5.0)
        assert choose(softcap, 128) == "xla"
    with mesh_of("TPU v5e", sequence=4):
        assert choose(config(), 1024) == "splash"
        assert choose(config(), 128) == "ring"
        assert choose(config(positions="alibi"), 128) == "xla"


@pytest.mark.parametrize("devices", [2, 3, 4])
def test_devices_that_share_a_row_compute_as_much_of_it_each(devices):
    spread = splash.Spread("sequence", devices)
    length = 1024 * devices
    order = np.arange(length).reshape(2 * devices, -1)[spread.halves().ravel()].ravel()
    assert sorted(order) == list(range(length))
    seen = (order.reshape(devices, -1) + 1).sum(1)  # the query at position p sees p + 1 keys
    assert len(set(seen)) == 1
    unspread = (np.arange(length).reshape(devices, -1) + 1).sum(1)  # control
    assert len(set(unspread)) == devices


@pytest.mark.parametrize("window", [0, 1, 5, 8, 9, 100])
def test_blocks_are_seen_wholly_partly_or_not_at_all(window):
    order = np.concatenate([np.arange(8, 16), np.arange(32, 40)])
    queries, keys = np.concatenate([order, np.arange(16, 48)])[:, None], np.arange(48)
    dense = (queries >= keys) & ((queries - keys < window) | (window == 0))
    mask = splash.CausalWindowMask(queries.ravel(), window)
    for i, j in np.ndindex(6, 12):
        block = slice(8 * i, 8 * i + 8), slice(4 * j, 4 * j + 4)
        found, expected = mask[block], dense[block]
        assert (found.any(), found.all()) == (expected.any(), expected.all())
        if found.any() and not found.all():
            np.testing.assert_array_equal(found, expected)


def test_backends_that_cannot_are_refused_in_one_line():
    for changes, length, message in (
        (
            {"attention": "splash"},
            100,
            "'splash' cannot run: 100 tokens are not a multiple of 128 ",
        ),
        (
            {"attention": "ring", "positions": "alibi"},
            128,
            "'ring' cannot run: model.positions adds",
        ),
        (
            {"attention": "cudnn", "attention_softcap": 2.0},
            128,
            "'cudnn' cannot run: .*=2.0 is not sup",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            choose(config(**changes), length)
    with pytest.raises(ValueError, match=r"model.attention='flash' is unknown; use one of auto, x"):
        config(attention="flash")


def test_a_model_computes_the_same_with_another_backend():
    tokens_BT = np.random.default_rng(0).integers(0, 64, (2, 128))
    cfg = config(window=40, window_pattern="LG", attention_softcap=3.0, attention="xla")
    params = jit(lambda: init(replace(cfg, attention="splash"), jax.random.key(0)))()

    def logits(cfg: ModelConfig) -> np.ndarray:
        return np.asarray(jit(Decoder(cfg).apply)({"params": params}, tokens_BT))

    expected = logits(cfg)
    assert distance([logits(replace(cfg, attention="ring"))], [expected]) < 1e-5
    wider = replace(cfg, attention="ring", window=41)  # control
    assert distance([logits(wider)], [expected]) > 1e-5


def test_kernels_know_no_model_family():
    for file in pathlib.Path(backends.__file__).parent.glob("*.py"):
        assert "model.transformer" not in file.read_text(), file
