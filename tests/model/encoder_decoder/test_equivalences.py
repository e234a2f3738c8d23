"""Tests equalities between encoder–decoders and inputs, with controls that must differ."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model import families, parameters
from model.encoder_decoder import family
from model.encoder_decoder.config import Config
from tests.model.golden import jit

pytestmark = pytest.mark.usefixtures("compiled_once")
VASWANI = Config(
    vocab_size=31, source_length=11, context_length=8, n_layers=1, decoder_layers=2, d_model=16,
    n_heads=2, head_dim=6, d_ff=24,
)  # fmt: skip
T5 = dataclasses.replace(
    VASWANI, norm="rmsnorm", norm_position="pre", positions="relative", relative_buckets=8,
    relative_distance=6, query_scale=1.0, mlp_bias=False, embedding_scale=False, gated=True,
    activation="gelu_tanh", tie_embeddings=False, embedding_std=1.0,
)  # fmt: skip
both = pytest.mark.parametrize("cfg", [VASWANI, T5], ids=["vaswani", "t5"])
# Two pairs: (tokens of the source, tokens of the target).
LENGTHS = ((6, 3), (5, 4))


@functools.cache
def fresh(cfg):
    """Random parameters, without compiling `init`."""
    draw = np.random.default_rng(0)

    def leaf(path: str, shape: tuple[int, ...]) -> np.ndarray:
        std = 0.2 if path.endswith(("scale", "bias")) else shape[-2] ** -0.5
        noise = std * draw.standard_normal(shape, np.float32)
        return noise + np.float32(path.endswith("scale"))

    found = parameters.flat(family.shapes(cfg))
    return parameters.nested({path: leaf(path, one.shape) for path, one in found.items()})


def forward(params, cfg, batch):
    return family.logits(cfg, family.head(cfg, params), family.hidden(cfg, params, batch))


jitted = jit(forward, static_argnames="cfg")


def logits(cfg, batch):
    """All batches have one shape, so that each config compiles once."""
    return np.asarray(jitted(fresh(cfg), cfg, batch))


def difference(x, y):
    return float(np.abs(np.asarray(x) - np.asarray(y)).max())


def ids(seed: int, length: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 31, length)


def rows(*packed: tuple[int, ...], source: int = 11, target: int = 8) -> dict[str, np.ndarray]:
    """A batch whose rows hold these pairs of LENGTHS, padded."""
    sides = {"source": "source_", "tokens": ""}
    names = [f"{p}{n}" for p in sides.values() for n in ("segments", "positions")]
    widths = {n: source if n.startswith("source") else target for n in (*sides, *names)}
    batch = {name: np.zeros((len(packed), width), np.int32) for name, width in widths.items()}
    for row, pairs in enumerate(packed):
        for side, (name, prefix) in enumerate(sides.items()):
            begin = 0
            for segment, pair in enumerate(pairs, 1):
                size = LENGTHS[pair][side]
                place = row, slice(begin, begin + size)
                batch[name][place] = ids(10 * pair + side, size)
                batch[f"{prefix}segments"][place] = segment
                batch[f"{prefix}positions"][place] = np.arange(size)
                begin += size
    return batch


SEPARATE, PACKED = rows((0,), (1,)), rows((0, 1), ())


@both
def test_packed_is_separate(cfg):
    apart, together = logits(cfg, SEPARATE), logits(cfg, PACKED)
    assert difference(together[0, :3], apart[0, :3]) < 1e-5
    assert difference(together[0, 3:7], apart[1, :4]) < 1e-5
    for side in ("source_segments", "segments"):  # control: one segment sees the other
        merged = PACKED | {side: (PACKED[side] > 0).astype(np.int32)}
        assert difference(logits(cfg, merged)[0, 3:7], apart[1, :4]) > 1e-2


@both
def test_what_is_in_padding_changes_nothing(cfg):
    filled = {k: SEPARATE[k] + 7 * (SEPARATE[s] == 0) for k, s in
              (("source", "source_segments"), ("tokens", "segments"))}  # fmt: skip
    before, after = logits(cfg, SEPARATE), logits(cfg, SEPARATE | filled)
    for row, (_, length) in enumerate(LENGTHS):
        assert difference(before[row, :length], after[row, :length]) < 1e-6
    assert difference(before, after) > 1e-2  # control: the logits of padding


@pytest.mark.slow
@both
def test_more_padding_changes_nothing(cfg):
    longer = np.asarray(jitted(fresh(cfg), cfg, rows((0,), (1,), source=14, target=9)))
    for row, (_, length) in enumerate(LENGTHS):
        assert difference(longer[row, :length], logits(cfg, SEPARATE)[row, :length]) < 1e-6


@both
def test_a_target_sees_all_of_its_source_and_no_later_target(cfg):
    before = logits(cfg, SEPARATE)
    for place in range(6):
        changed = SEPARATE["source"].copy()
        changed[0, place] = (changed[0, place] + 1) % 31
        moved = np.abs(logits(cfg, SEPARATE | {"source": changed}) - before).max(-1)
        assert (moved[0, :3] > 1e-4).all() and moved[1].max() == 0
    changed = SEPARATE["tokens"].copy()
    changed[0, 1] = (changed[0, 1] + 1) % 31
    moved = np.abs(logits(cfg, SEPARATE | {"tokens": changed}) - before).max(-1)
    assert moved[0, 0] == 0 and (moved[0, 1:3] > 1e-4).all()


@pytest.mark.parametrize(
    "cfg", [pytest.param(VASWANI, marks=pytest.mark.slow), T5], ids=["vaswani", "t5"]
)
def test_step_by_step_is_the_whole_forward_pass(cfg):
    """With the same argmax; control: the rows of the cache in another order."""
    params, whole = fresh(cfg), logits(cfg, SEPARATE)
    start = jit(family.start, static_argnames=("cfg", "length"))
    step = jit(family.step, static_argnames="cfg")
    given = {name: SEPARATE[name] for name in ("source", "source_segments")}
    cache = start(cfg, params, given, length=4)
    assert {leaf.shape[0] for leaf in jax.tree.leaves(cache)} == {2}
    found = []
    for t in range(4):
        now, cache = step(cfg, params, cache, jnp.asarray(SEPARATE["tokens"][:, t]))
        found.append(np.asarray(now))
    found = np.stack(found, 1)
    for row, (_, length) in enumerate(LENGTHS):
        assert difference(found[row, :length], whole[row, :length]) < 1e-5
        assert (found[row, :length].argmax(-1) == whole[row, :length].argmax(-1)).all()
    swapped = jax.tree.map(lambda leaf: leaf[::-1], start(cfg, params, given, length=4))
    other, _ = step(cfg, params, swapped, jnp.asarray(SEPARATE["tokens"][:, 0]))
    assert difference(other, whole[:, 0]) > 1e-2


GRADIENTS = [dict(scan_layers=True, remat="full")]
GRADIENTS += [dict(remat=name) for name in ("attention", "projections", "dots", "dots_attention")]


@pytest.mark.slow
@both
@pytest.mark.parametrize("change", GRADIENTS, ids=str)
def test_scanned_and_rematerialised_gradients_are_plain(cfg, change):
    cfg = dataclasses.replace(cfg, dropout=0.1, n_layers=2)
    params = fresh(cfg)

    def loss(params, cfg, key):
        return jnp.square(family.hidden(cfg, params, SEPARATE, key)).sum()

    gradient = jit(jax.grad(loss), static_argnames="cfg")
    plain = gradient(params, cfg, jax.random.key(1))
    other = gradient(params, dataclasses.replace(cfg, **change), jax.random.key(1))
    scale = max(np.abs(leaf).max() for leaf in jax.tree.leaves(plain))
    errors = jax.tree.leaves(jax.tree.map(difference, plain, other))
    assert max(errors) < 1e-5 * scale
    dropped = gradient(params, cfg, jax.random.key(2))  # control: other dropout
    assert max(jax.tree.leaves(jax.tree.map(difference, plain, dropped))) > 1e-3 * scale


def test_the_family_is_that_of_the_table():
    assert families.find("encoder_decoder") is family
    paths = set(parameters.flat(family.shapes(T5)))
    assert "decoder/relative/embedding" in paths and "head/kernel" in paths
    assert not any("bias" in path for path in paths)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (dict(n_heads=3), "model.n_heads=3 does not divide model.d_model=16; use 1, 2, 4, 8, 16"),
        (dict(norm_position="both"), "model.norm_position='both' is unknown; use one of post, pre"),
        (dict(relative_buckets=16), "model.relative_buckets=16 has no effect with model.positions"),
        (dict(positions="relative", relative_buckets=10), "is no multiple of 4.*; use 12"),
        (dict(positions="relative", relative_distance=16), "is not above half.*; use 17 or more"),
        (dict(d_model=15, n_heads=3), "model.d_model=15 is odd"),
    ],
)
def test_bad_keys_are_named(changes, told):
    keys = vars(VASWANI) | dict(head_dim=0) | changes
    with pytest.raises(ValueError, match=told):
        family.derive(keys)


@pytest.mark.parametrize(
    ("sizes", "told"),
    [
        (dict(tensor=4), "model.n_heads=2 is not divisible by mesh.tensor=4; use .*mesh.tensor=2"),
        (dict(sequence=2), "mesh.sequence=2: .* does not shard the tokens of a row"),
    ],
)
def test_meshes_that_do_not_fit_are_named(sizes, told):
    family.check_mesh(VASWANI, dict(data=4, fsdp=2, tensor=2, sequence=1))
    with pytest.raises(ValueError, match=told):
        family.check_mesh(VASWANI, sizes)
