"""Tests recurrent encoder–decoders: packed = separate, step by step = at once, counts."""

import jax
import numpy as np
import pytest

from model import families
from model.recurrent import encoder_decoder as model
from model.recurrent import sizes

S, T, V = 12, 10, 17
# Tokens of (source, target) of two pairs in each of two rows.
LENGTHS = (((6, 5), (5, 4)), ((4, 6), (7, 3)))
KEYS = dict(families.keys(model), vocab_size=V, source_length=S, context_length=T, unroll=2)
SHAPES = {
    "attention": dict(d_model=8, d_hidden=6, d_attention=5),
    "every": dict(context="every", cell="lstm", directions="backward", d_model=8, d_hidden=6),
    "initial": dict(context="initial", cell="lstm", directions="forward", d_model=8, n_layers=2),
    "deep": dict(d_model=8, d_hidden=6, cell="lstm", n_layers=2, directions="forward"),
    "elman": dict(
        context="every", cell="elman", directions="both", d_model=8, tie_embeddings=False
    ),
}


def config(**changes) -> model.Config:
    return model.derive(KEYS | changes)


@pytest.fixture(scope="module")
def batches() -> tuple[dict, dict, list[tuple[int, slice]]]:
    """(rows of two pairs, rows of one, where each pair of the second lies in the first)."""
    rng = np.random.default_rng(0)
    shapes = {"source": S, "source_segments": S, "tokens": T, "segments": T, "positions": T}
    packed = {name: np.zeros((2, size), np.int32) for name, size in shapes.items()}
    separate = {name: np.zeros((4, size), np.int32) for name, size in shapes.items()}
    places = []
    for row, pairs in enumerate(LENGTHS):
        first = np.zeros(2, int)
        for number, lengths in enumerate(pairs, start=1):
            here = [slice(a, a + n) for a, n in zip(first, lengths, strict=True)]
            first += lengths
            alone = len(places)
            for name, segments, at in zip(
                ("source", "tokens"), ("source_segments", "segments"), here, strict=True
            ):
                values = rng.integers(V, size=at.stop - at.start)
                packed[name][row, at], packed[segments][row, at] = values, number
                separate[name][alone, : len(values)] = values
                separate[segments][alone, : len(values)] = 1
            packed["positions"][row, here[1]] = range(lengths[1])
            places.append((row, here[1]))
    del separate["positions"]
    return packed, separate, places


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_packed_pairs_are_separate_and_steps_are_the_whole(compiled_once, batches, shape):
    cfg = config(**SHAPES[shape])
    params = model.init(cfg, jax.random.key(1))
    packed, separate, places = batches
    hidden = jax.jit(model.hidden, static_argnums=0)
    one_BTR, rows_BTR = hidden(cfg, params, separate), hidden(cfg, params, packed)
    for number, (row, at) in enumerate(places):
        count = at.stop - at.start
        np.testing.assert_allclose(rows_BTR[row, at], one_BTR[number, :count], atol=1e-6)
    # Where all is one segment, a pair sees the other.
    merged = packed | {n: (packed[n] > 0).astype(np.int32) for n in ("segments", "source_segments")}
    changed = np.abs(hidden(cfg, params, merged)[0, 5:9] - one_BTR[1, :4]).max()
    assert changed > 1e-4

    def steps(params, batch):
        cache = model.start(cfg, params, batch, T)
        move = lambda cache, tokens_B: model.step(cfg, params, cache, tokens_B)[::-1]  # noqa: E731
        return jax.lax.scan(move, cache, batch["tokens"].T)[1].swapaxes(0, 1)

    found_BTV = jax.jit(steps)(params, separate)
    whole_BTV = model.logits(cfg, model.head(cfg, params), one_BTR)
    for number, (_, at) in enumerate(places):
        count = at.stop - at.start
        np.testing.assert_allclose(found_BTV[number, :count], whole_BTV[number, :count], atol=1e-5)


def test_padding_changes_nothing_and_the_source_everything(compiled_once, batches):
    cfg = config(**SHAPES["attention"])
    params = model.init(cfg, jax.random.key(1))
    _, separate, _ = batches
    hidden = jax.jit(model.hidden, static_argnums=0)
    before = hidden(cfg, params, separate)
    padded = dict(separate, source=np.where(separate["source_segments"], separate["source"], 3))
    np.testing.assert_array_equal(hidden(cfg, params, padded)[0, :5], before[0, :5])
    other = dict(separate, source=(separate["source"] + 1) % V)
    assert np.abs(hidden(cfg, params, other)[0, :5] - before[0, :5]).min() > 0


@pytest.mark.parametrize("shape", SHAPES)
def test_parameters_are_counted_and_have_axes(shape):
    cfg = config(**SHAPES[shape])
    made = jax.eval_shape(lambda: model.init(cfg, jax.random.key(0)))
    leaves = jax.tree_util.tree_leaves_with_path(made)
    components: dict[str, int] = dict.fromkeys(model.parameters(cfg), 0)
    for path, leaf in leaves:
        name = "/".join(key.key for key in path)
        folder = name.split("/")[0]
        components[{"embed": "embedding"}.get(folder, folder)] += leaf.size
    assert components == model.parameters(cfg)


def test_flops_of_a_hand_worked_example():
    """GRU, H 6, D 8, A 5, both directions, attention, V 17, S 12, T 10.

    A source token: 2 directions × (8 × 18 + 6 × 18) + the key 12 × 5 = 564.
    A target token: 8 × 18 + 6 × 18 of the cell, 6 × 5 of the query, 12 × 18 of the context's gates,
    16 × (6 + 8 + 12) of the readout = 914. A row: the bridge 36. The head 8 × 17 = 136.
    Attention: 12 × (5 + 12) = 204. Embeddings as products: 136 × (1 + 12 / 10) = 299.2.
    """
    cfg = config(**SHAPES["attention"])
    used = 914 + 564 * 12 / 10 + 36 / 10
    expected = {"kaplan": 6 * used, "palm": 6 * (used + 136 + 204)}
    expected["chinchilla"] = expected["palm"] + 6 * 299.2
    expected["6nd"] = 6 * sum(model.parameters(cfg).values())
    assert model.flops(cfg) == pytest.approx(expected)


def test_flops_are_those_that_xla_counts(batches):
    """Within 10 % of XLA's count of a forward pass, which also counts gates and softmax; without
    attention's products, the count would be 30 % lower."""
    cfg = config(d_model=64, d_hidden=64, vocab_size=64, source_length=2, context_length=2)
    batch = {name: np.ones((4, 2), np.int32) for name in model.INPUTS}

    def forward(params, batch):
        x_BTR = model.hidden(cfg, params, batch)
        return model.logits(cfg, model.head(cfg, params), x_BTR)

    params = jax.eval_shape(lambda: model.init(cfg, jax.random.key(0)))
    counted = jax.jit(forward).lower(params, batch).compile().cost_analysis()["flops"]
    ours = model.matmul_flops(cfg) / 3 * 4 * 2
    assert ours == pytest.approx(counted, rel=0.1)
    without = ours - 2 * sizes.matrices(cfg)["source"] * 4 * 2
    assert without != pytest.approx(counted, rel=0.2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"context": "none"}, "model.context='none' is unknown; use one of initial, every, attent"),
        (
            {"context": "initial", "d_hidden": 6},
            "needs model.d_hidden=6 to equal model.d_model=128",
        ),
        (
            {"directions": "left"},
            "model.directions='left' is unknown; use one of forward, backward",
        ),
        ({"source_length": 0}, "model.source_length=0 must be at least 1"),
    ],
)
def test_bad_keys_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        config(**changes)


def test_time_is_not_split_over_devices():
    told = r"mesh.sequence=2: .*does not shard the tokens of a row; use mesh.sequence=1"
    with pytest.raises(ValueError, match=told):
        model.check_mesh(config(), {"sequence": 2})
