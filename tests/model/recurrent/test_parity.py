"""Tests recurrent networks against PyTorch, and the Jordan network against numpy."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.recurrent import language_model as recurrent

GOLDEN = np.load(Path(__file__).parents[2] / "golden" / "recurrent.npz")
H = 7


def case(cell: str, layers: int) -> dict[str, np.ndarray]:
    prefix = f"{cell}/{layers}/"
    return {k.removeprefix(prefix): v for k, v in GOLDEN.items() if k.startswith(prefix)}


def config(cell: str, layers: int, vocab: int, width: int) -> recurrent.Config:
    return recurrent.Config(vocab, 8, cell, layers, width, H, tie_embeddings=False)


def ours(cell: str, of: dict, layers: int, prefix: str = "") -> dict:
    """Arrays with torch's names as our parameters. The inputs are the rows of the embedding.

    torch adds two biases to each gate, of which only a GRU's candidate needs the second; it is
    added inside, to the product that r scales.
    """
    params = {"embed": {"embedding": of[prefix + "x"].reshape(-1, of["x"].shape[-1])}}
    for layer in range(layers):
        names = (
            f"{prefix}{name}_l{layer}" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        w, u, b, c = (of[name] for name in names)
        if cell == "gru":
            inside = np.arange(3 * H) >= 2 * H
            found = {
                "input": {"kernel": w.T, "bias": b + np.where(inside, 0, c)},
                "recurrent": {"kernel": u.T[:, : 2 * H]},
                "candidate": {"kernel": u.T[:, 2 * H :], "bias": c[inside]},
            }
        else:
            found = {"input": {"kernel": w.T, "bias": b + c}, "recurrent": {"kernel": u.T}}
        params[f"layer_{layer}"] = jax.tree.map(jnp.asarray, found)
    return params


@functools.partial(jax.jit, static_argnums=0)
def network(cfg: recurrent.Config, params: dict, weight: jax.Array) -> tuple:
    """(gradients, (outputs [B, T, H], the carry))."""
    B, T, _ = weight.shape
    batch = {"tokens": jnp.arange(B * T).reshape(B, T)}

    def loss(params):
        found = recurrent.hidden_from(cfg, params, batch, recurrent.initial_carry(cfg, B))
        return (found[0] * weight).sum(), found

    return jax.grad(loss, has_aux=True)(params)


def run(cell: str, of: dict, layers: int) -> tuple:
    B, T, D = of["x"].shape
    return network(config(cell, layers, B * T, D), ours(cell, of, layers), of["weight"])


SLOW = pytest.mark.slow
CASES = [("elman", 2), ("gru", 2), ("lstm", 2)]
CASES += [pytest.param(cell, 1, marks=SLOW) for cell in ("elman", "gru", "lstm")]


@pytest.mark.parametrize(("cell", "layers"), CASES)
def test_equals_pytorch(cell, layers):
    of = case(cell, layers)
    grads, (x_BTH, carry) = run(cell, of, layers)
    assert np.abs(x_BTH - of["outputs"]).max() < 1e-5
    for number, state in enumerate(zip(*carry.values(), strict=True)):
        assert np.abs(np.stack(state) - of[f"last/{number}"]).max() < 1e-5
    # torch's two biases have the same gradient, which is that of our one.
    once = lambda a: a * (cell == "gru") * (np.arange(len(a)) >= 2 * H)  # noqa: E731
    wanted = {name: once(a) if "bias_hh" in name else a for name, a in of.items()}
    assert distance(grads, ours(cell, wanted, layers, "gradient/")) < 1e-4
    # Negative control: without the second bias.
    control = {name: 0 * a if name.startswith("bias_hh") else a for name, a in of.items()}
    grads, (x_BTH, _) = run(cell, control, layers)
    assert np.abs(x_BTH - of["outputs"]).max() > 1e-2
    assert distance(grads, ours(cell, wanted, layers, "gradient/")) > 1e-2


def distance(found: dict, expected: dict) -> float:
    """The largest difference of any array, relative to its largest value."""
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    return max(float(jnp.abs(a - b).max() / jnp.abs(b).max()) for a, b in pairs)


def jordan(x_BTD: np.ndarray, layer: dict, feeds_back: str = "output") -> np.ndarray:
    """The outputs [B, T, H] of one Jordan layer, one row and time step at a time."""
    W, b = layer["input"]["kernel"], layer["input"]["bias"]
    U, V, c = layer["recurrent"]["kernel"], layer["output"]["kernel"], layer["output"]["bias"]
    found = np.zeros((*x_BTD.shape[:2], len(U)))
    for row, x_TD in enumerate(x_BTD):
        back = np.zeros(len(U))
        for time, x_D in enumerate(x_TD):
            h = np.tanh(x_D @ W + b + back @ U)
            y = found[row, time] = np.tanh(h @ V + c)
            back = y if feeds_back == "output" else h
    return found


def test_jordan_equals_numpy():
    rng = np.random.default_rng(0)
    B, T, D = 3, 8, 5
    cfg = config("jordan", 1, B * T, D)
    shapes = jax.eval_shape(lambda: recurrent.init(cfg, jax.random.key(0)))
    params = jax.tree.map(lambda leaf: 0.8 * rng.normal(size=leaf.shape).astype("f"), shapes)
    x_BTD = params["embed"]["embedding"].reshape(B, T, D)
    x_BTH = recurrent.hidden(cfg, params, {"tokens": jnp.arange(B * T).reshape(B, T)})
    assert np.abs(x_BTH - jordan(x_BTD, params["layer_0"])).max() < 1e-5
    # Negative control: an Elman network with the same output layer.
    assert np.abs(x_BTH - jordan(x_BTD, params["layer_0"], "hidden")).max() > 1e-2
