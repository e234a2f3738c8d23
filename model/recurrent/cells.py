"""Recurrent cells: what one time step does to a layer's state. CELLS is their table.

B rows, T time steps, I inputs, H width of the state, G = its gates, X = G*H (gates side by side).

A cell is a function of (multiply, vectors, x_BX, state) that returns the new state, a tuple of
arrays [B, H], float32, whose first is the layer's output. x is the input's product with the bias,
of which all time steps are computed at once. `multiply(name, v)` is the product of v with the
cell's kernel of that name, layer-normalised if the model is: the only products inside the
recurrence. `vectors` are the cell's biases and norms.

Flax Linen has the same cells, but they multiply the input inside the loop, one step at a time.
"""

from collections.abc import Callable, Mapping
from itertools import accumulate
from typing import NamedTuple

import jax
import jax.numpy as jnp

State = tuple[jax.Array, ...]
Multiply = Callable[[str, jax.Array], jax.Array]
Vectors = Mapping[str, Mapping[str, jax.Array]]
Step = Callable[[Multiply, Vectors, jax.Array, State], State]

EPSILON = 1e-5  # of layer norm


class Cell(NamedTuple):
    """A cell and the sizes of its parameters, in units of the width H of the state."""

    step: Step
    gates: int  # X = gates * H
    states: int  # arrays of the state
    kernels: Mapping[str, int]  # inside the recurrence: name → outputs / H
    biases: Mapping[str, int]  # inside the recurrence: kernel → size / H
    normed: tuple[int, ...]  # parts of X that layer norm normalises one by one, / H


def elman(multiply: Multiply, vectors: Vectors, x_BH: jax.Array, state: State) -> State:
    """h' = tanh(W x + b + U h), Elman 1990."""
    (h_BH,) = state
    return (jnp.tanh(x_BH + multiply("recurrent", h_BH)),)


def jordan(multiply: Multiply, vectors: Vectors, x_BH: jax.Array, state: State) -> State:
    """h = tanh(W x + b + U y), y' = tanh(V h + c): the output is fed back, not the hidden layer.

    Jordan 1986, "Serial order", without the recurrence of the state units on themselves. The output
    is the layer's, of width H, which the next layer or the head reads. The distribution over the
    vocabulary is not fed back.
    """
    (y_BH,) = state
    h_BH = jnp.tanh(x_BH + multiply("recurrent", y_BH))
    return (jnp.tanh(multiply("output", h_BH) + vectors["output"]["bias"]),)


def gru(multiply: Multiply, vectors: Vectors, x_BX: jax.Array, state: State) -> State:
    """r, z = σ(W x + b + U h); n = tanh(W x + b + r (U h + c)); h' = (1 - z) n + z h.

    Cho et al. 2014, eqs. 5–8, in the form of cuDNN and PyTorch: r scales U h, not h.
    """
    (h_BH,) = state
    xr_BH, xz_BH, xn_BH = jnp.split(x_BX, 3, axis=-1)
    r_BH, z_BH, n_BH = jnp.split(multiply("recurrent", h_BH), 3, axis=-1)
    reset_BH, update_BH = jax.nn.sigmoid(xr_BH + r_BH), jax.nn.sigmoid(xz_BH + z_BH)
    new_BH = jnp.tanh(xn_BH + reset_BH * (n_BH + vectors["recurrent"]["bias"]))
    return (new_BH + update_BH * (h_BH - new_BH),)


def lstm(multiply: Multiply, vectors: Vectors, x_BX: jax.Array, state: State) -> State:
    """i, f, o = σ(W x + b + U h), g = tanh(W x + b + U h); c' = f c + i g; h' = o tanh(c').

    Hochreiter & Schmidhuber 1997 with the forget gate of Gers et al. 2000; gates in the order i, f,
    g, o.
    """
    h_BH, c_BH = state
    i_BH, f_BH, g_BH, o_BH = jnp.split(x_BX + multiply("recurrent", h_BH), 4, axis=-1)
    c_BH = jax.nn.sigmoid(f_BH) * c_BH + jax.nn.sigmoid(i_BH) * jnp.tanh(g_BH)
    seen_BH = norm(c_BH, vectors["cell_norm"]) if "cell_norm" in vectors else c_BH
    return jax.nn.sigmoid(o_BH) * jnp.tanh(seen_BH), c_BH


def norm(
    x: jax.Array, vectors: Mapping[str, jax.Array], parts: tuple[int, ...] = (1,)
) -> jax.Array:
    """Layer norm over the last axis, or over parts of it of these relative sizes one by one, with a
    scale and maybe a bias. Ba et al. 2016, eqs. 20–25."""
    unit, ends = x.shape[-1] // sum(parts), list(accumulate(parts))[:-1]

    def normed(part):
        part -= part.mean(-1, keepdims=True)
        return part * jax.lax.rsqrt(jnp.square(part).mean(-1, keepdims=True) + EPSILON)

    pieces = [normed(part) for part in jnp.split(x, [unit * end for end in ends], axis=-1)]
    scaled = jnp.concatenate(pieces, axis=-1) * vectors["scale"]
    return scaled + vectors["bias"] if "bias" in vectors else scaled


CELLS = {
    "elman": Cell(elman, 1, 1, {"recurrent": 1}, {}, (1,)),
    "jordan": Cell(jordan, 1, 1, {"recurrent": 1, "output": 1}, {"output": 1}, (1,)),
    "gru": Cell(gru, 3, 1, {"recurrent": 3}, {"recurrent": 1}, (2, 1)),
    "lstm": Cell(lstm, 4, 2, {"recurrent": 4}, {}, (4,)),
}
