"""Tests logits and gradients against transformers' T5 and torch's nn.Transformer, with controls."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model import parameters
from model.encoder_decoder import family
from model.encoder_decoder.config import Config
from model.encoder_decoder.relative_positions import bucket
from model.huggingface import config_json, weights
from tests.model import golden

pytestmark = pytest.mark.usefixtures("compiled_once")
FOLDER = golden.FOLDER / "encoder_decoder"
TOLERANCE = 1e-5  # logits are about 4; rounding in float32 gives 1e-6
CONTROLS = [
    ("t5", dict(norm_eps=1e-6)),
    ("t5", dict(relative_distance=16)),
    ("t5", dict(query_scale=0.0)),
    ("t5", dict(logit_scale=1.0)),
    ("t5", dict(embedding_scale=True)),
    ("t5_v1_1", dict(activation="gelu")),
    ("t5_v1_1", dict(activation="relu")),
    ("t5_v1_1", dict(gated=False)),
    ("t5_v1_1", dict(norm="layernorm")),
    ("nn_transformer", dict(norm_position="pre")),
    ("nn_transformer", dict(norm_eps=1e-3)),
    ("nn_transformer", dict(embedding_scale=False)),
    ("nn_transformer", dict(attention_bias=False)),
    ("nn_transformer", dict(mlp_bias=False)),
    ("nn_transformer", dict(positions="relative", relative_buckets=4, relative_distance=3)),
]


@functools.cache
def expected(case: str) -> dict[str, np.ndarray]:
    path = FOLDER / case / "expected.npz"
    with np.load(path if path.exists() else FOLDER / f"{case}.npz") as file:
        return dict(file)


def batch(case: str) -> dict[str, np.ndarray]:
    given = expected(case)
    ones = np.ones_like(given["tokens"])
    names = {"source": "source", "source_segments": "seen", "tokens": "tokens"}
    return {ours: given[theirs] for ours, theirs in names.items()} | {"segments": ones}


@functools.cache
def case_of(case: str) -> tuple[Config, dict]:
    return torchs() if case == "nn_transformer" else weights.load(FOLDER / case)


def torchs() -> tuple[Config, dict]:
    """nn.Transformer's weights under our names. Its three projections are one matrix."""
    cfg = Config(
        vocab_size=61, source_length=20, context_length=17, n_layers=1, decoder_layers=2,
        d_model=18, n_heads=3, head_dim=6, d_ff=28, attention_bias=True,
    )  # fmt: skip
    given = {k.removeprefix("weight/"): v for k, v in expected("nn_transformer").items()}
    leaves = {"embed/embedding": given["embed.weight"]}
    attentions = {"attention": "self_attn", "cross": "multihead_attn"}
    for side, count in (("encoder", 1), ("decoder", 2)):
        crosses = side == "decoder"
        norms = ["attention", "cross", "mlp"] if crosses else ["attention", "mlp"]
        found = {f"{ours}_norm": f"norm{n}" for n, ours in enumerate(norms, 1)}
        found |= {"mlp/up": "linear1", "mlp/down": "linear2"}
        for ours, theirs in list(attentions.items())[: 1 + crosses]:
            found |= {f"{ours}/out": f"{theirs}.out_proj", f"{ours}/qkv": theirs}
        for ours, theirs in found.items():
            for leaf in ("weight", "bias"):
                name = (
                    f"{theirs}.{leaf}" if not ours.endswith("qkv") else f"{theirs}.in_proj_{leaf}"
                )
                layers = [given[f"inner.{side}.layers.{n}.{name}"] for n in range(count)]
                stack = np.stack([x.T if x.ndim == 2 else x for x in layers])
                kind = {"weight": "kernel", "bias": "bias"}[leaf]
                kind = "scale" if "norm" in ours and leaf == "weight" else kind
                paths = [ours]
                if ours.endswith("qkv"):
                    paths = [ours.replace("qkv", part) for part in ("query", "key", "value")]
                for path, part in zip(paths, np.split(stack, len(paths), -1), strict=True):
                    leaves[f"{side}/blocks/{path}/{kind}"] = part
    return cfg, parameters.nested(leaves)


def distance(case: str, cfg: Config, params: dict, **changed: np.ndarray) -> float:
    """max |Δ logits|; parameters that `params` lacks are 0 or, of a norm, 1."""
    flat = parameters.flat(params)
    shapes = parameters.flat(family.shapes(cfg))
    fill = {
        path: np.full(leaf.shape, path.endswith("scale"), np.float32)
        for path, leaf in shapes.items()
    }
    used = parameters.nested({path: flat.get(path, fill[path]) for path in shapes})
    with jax.default_matmul_precision("highest"):
        found = jitted(used, cfg, batch(case) | changed)
    return float(np.abs(found - expected(case)["logits"]).max())


def forward(params: dict, cfg: Config, batch: dict) -> jax.Array:
    return family.logits(cfg, family.head(cfg, params), family.hidden(cfg, params, batch))


jitted = golden.jit(forward, static_argnames="cfg")


@pytest.mark.parametrize(
    "case", ["t5", pytest.param("t5_v1_1", marks=pytest.mark.slow), "nn_transformer"]
)
def test_logits_are_the_references(case):
    assert np.abs(expected(case)["logits"]).max() > 1
    assert distance(case, *case_of(case)) < TOLERANCE
    unmasked = np.ones_like(expected(case)["seen"])  # control
    assert distance(case, *case_of(case), source_segments=unmasked) > 10 * TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize(("case", "change"), CONTROLS, ids=str)
def test_a_flipped_switch_is_seen(case, change):
    cfg, params = case_of(case)
    assert distance(case, dataclasses.replace(cfg, **change), params) > 10 * TOLERANCE


def test_gradients_are_those_of_torch(tmp_path):
    """Control: without the mask of padding the gradients are others."""
    cfg, params = case_of("t5")
    arrays, given = expected("t5"), batch("t5")
    wanted = {k.removeprefix("gradient/"): v for k, v in arrays.items() if k.startswith("grad")}

    @golden.jit
    @jax.value_and_grad
    def loss(params, given):
        logprobs = jax.nn.log_softmax(forward(params, cfg, given)[:, :-1])
        return -jnp.take_along_axis(logprobs, given["tokens"][:, 1:, None], axis=-1).mean()

    def error(name: str, given: dict) -> float:
        with jax.default_matmul_precision("highest"):
            value, gradients = loss(params, given)
        weights.save(tmp_path / name, cfg, gradients)  # gives them transformers' names
        found = golden.read_all(tmp_path / name)
        assert set(found) == set(wanted) and all(np.abs(v).max() > 1e-4 for v in wanted.values())
        of_loss = abs(float(value - arrays["loss"]))
        errors = [np.abs(found[k] - v).max() / np.abs(v).max() for k, v in wanted.items()]
        return max(of_loss, *errors)

    assert error("masked", given) < 1e-4
    assert error("bare", given | {"source_segments": np.ones((2, 20), np.int64)}) > 1e-3


@pytest.mark.parametrize(("count", "most"), [(32, 128), (8, 12), (16, 64), (64, 400)])
@pytest.mark.parametrize("both_ways", [True, False])
def test_buckets_are_those_of_transformers(count, most, both_ways):
    with np.load(FOLDER / "buckets.npz") as file:
        distances, wanted = file["distances"], file[f"{count}/{most}/{both_ways}"]
    np.testing.assert_array_equal(bucket(distances, both_ways, count, most), wanted)
    assert (bucket(distances, both_ways, count, most + 1) != wanted).any()


@pytest.mark.parametrize("case", ["t5", "t5_v1_1"])
def test_what_is_loaded_and_saved_is_the_same_bit_by_bit(case, tmp_path):
    cfg, params = weights.load(FOLDER / case)
    weights.save(tmp_path / "saved", cfg, params)
    saved, before = golden.read_all(tmp_path / "saved"), golden.read_all(FOLDER / case)
    assert {k: (v.dtype, v.tobytes()) for k, v in saved.items()} == {
        k: (v.dtype, v.tobytes()) for k, v in before.items()
    }
    again = config_json.read_json(tmp_path / "saved")
    assert again["model_type"] == "t5" and config_json.read(again) == cfg
