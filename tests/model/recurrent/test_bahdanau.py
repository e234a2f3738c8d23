"""Tests additive attention against torch: logits, attention's weights and gradients."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model import families
from model.recurrent import encoder_decoder as model
from model.recurrent.attentive import attend

GOLDEN = np.load(Path(__file__).parents[2] / "golden" / "bahdanau.npz")
TOLERANCE = 1e-5
KEYS = dict(vocab_size=23, source_length=9, context_length=7, d_model=10, d_hidden=12)
KEYS |= dict(d_attention=8, tie_embeddings=False)
CFG = model.derive(families.keys(model) | KEYS)


def gru(cell: str, end: str, kind: str) -> dict:
    """Our layer from torch's GRU: gates r, z, n in columns; r multiplies the bias of n alone."""
    at = lambda name: GOLDEN[f"{kind}/{cell}.{name}{end}"]  # noqa: E731
    inputs, inner, bias, more = (
        at(name) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    width, known = len(bias) // 3, 10  # the embedding's columns; the context's follow
    both = slice(0, 2 * width)
    if kind == "weight":  # torch has two biases of r and z
        bias = np.concatenate([bias[both] + more[both], bias[2 * width :]])
    return {
        "input": {"kernel": inputs[:, :known].T, "bias": bias},
        "recurrent": {"kernel": inner[both].T},
        "candidate": {"kernel": inner[2 * width :].T, "bias": more[2 * width :]},
    }


def ours(kind: str) -> dict:
    """torch's weights or gradients as a tree of our parameters."""
    linear = lambda name: {"kernel": GOLDEN[f"{kind}/{name}.weight"].T}  # noqa: E731
    biased = lambda name: linear(name) | {"bias": GOLDEN[f"{kind}/{name}.bias"]}  # noqa: E731
    return {
        "embed": {"embedding": GOLDEN[f"{kind}/embed.weight"]},
        "encoder": {
            "forward_0": gru("encoder", "_l0", kind),
            "backward_0": gru("encoder", "_l0_reverse", kind),
        },
        "bridge": {"layer_0": biased("bridge")},
        "decoder": {"layer_0": gru("decoder", "", kind)},
        "attention": {
            "query": linear("query"),
            "key": linear("key"),
            "score": {"kernel": GOLDEN[f"{kind}/score.weight"][0]},
            "context": {"kernel": GOLDEN[f"{kind}/decoder.weight_ih"][:, 10:].T},
        },
        "readout": {
            "state": biased("state"),
            "embed": linear("embedded"),
            "context": linear("context"),
        },
        "head": linear("head"),
    }


def batch() -> dict[str, np.ndarray]:
    lengths = GOLDEN["source_lengths"][:, None]
    real = (np.arange(9) < lengths).astype(np.int32)
    return {
        "source": GOLDEN["source"].astype(np.int32),
        "source_segments": real,
        "tokens": GOLDEN["tokens"].astype(np.int32),
        "segments": np.ones((3, 7), np.int32),
    }


def loss(params: dict, batch: dict, cfg=CFG) -> tuple[jax.Array, jax.Array]:
    x_BTR = model.hidden(cfg, params, batch)
    logits_BTV = model.logits(cfg, model.head(cfg, params), x_BTR)
    logp_BTV = jax.nn.log_softmax(logits_BTV)
    nll_BT = -jnp.take_along_axis(logp_BTV, GOLDEN["targets"][..., None], -1)[..., 0]
    return (nll_BT * GOLDEN["real"]).sum() / GOLDEN["real"].sum(), logits_BTV


@pytest.fixture(scope="module")
def found(compiled_once):
    """`loss`, compiled."""
    return jax.jit(loss)


def test_logits_are_torchs(found):
    value, logits_BTV = found(ours("weight"), batch())
    assert np.abs(logits_BTV - GOLDEN["logits"]).max() < TOLERANCE
    assert value == pytest.approx(float(GOLDEN["loss"]), abs=TOLERANCE)


@pytest.mark.slow
def test_gradients_are_torchs():
    expected = ours("gradient")
    gradients, _ = jax.jit(jax.grad(loss, has_aux=True))(ours("weight"), batch())
    # The two biases of r and z are one parameter here, and each has its gradient.
    for path, gradient in jax.tree_util.tree_leaves_with_path(gradients):
        there = expected
        for key in path:
            there = there[key.key]
        assert np.linalg.norm(gradient - there) < 1e-4 * np.linalg.norm(there), path


@pytest.mark.parametrize("flip", ["score", "key", "padding", "bridge"])
def test_a_difference_shows(found, flip):
    params, rows = ours("weight"), batch()
    if flip == "score":
        params["attention"]["score"]["kernel"] = params["attention"]["score"]["kernel"][::-1]
    elif flip == "key":
        params["attention"]["key"]["kernel"] = params["attention"]["key"]["kernel"] * 1.01
    elif flip == "padding":
        rows["source_segments"] = np.ones_like(rows["source_segments"])
    else:
        params["bridge"]["layer_0"]["kernel"] = params["bridge"]["layer_0"]["kernel"].T
    logits_BTV = found(params, rows)[1]
    assert np.abs(logits_BTV - GOLDEN["logits"]).max() > 10 * TOLERANCE


def test_the_weights_of_attention_are_torchs():
    params, rows = ours("weight"), batch()
    encode = jax.jit(model.encode, static_argnums=0)
    source, first = encode(CFG, params, rows, np.ones((3, 1), np.int32))
    query_BA = first["layer_0"][:, 0, :12] @ params["attention"]["query"]["kernel"]
    score_A, ones_B1 = params["attention"]["score"]["kernel"], np.ones((3, 1))
    _, weights_BS = jax.jit(attend)(query_BA, source["memory"], score_A, ones_B1)
    np.testing.assert_allclose(weights_BS, GOLDEN["attention"][:, 0], atol=TOLERANCE)
    assert np.abs(weights_BS - GOLDEN["attention"][:, 1]).max() > 10 * TOLERANCE
