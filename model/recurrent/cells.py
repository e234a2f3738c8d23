"""Recurrent cells: what one time step does to a layer's state. CELLS is their table.

B rows, T time steps, I inputs, M = T*B, H width of the state, X the outputs of the input
projection: all of a cell's gates side by side.

A cell is a function of (multiply, norms, x_BX, state) that returns the new state, a tuple of arrays
[B, H], float32, whose first is the layer's output. x is W x + b of the paper, computed for all time
steps at once. `multiply(name, v)` is v times the kernel of that name, layer-normalised if the model
is, plus what belongs to it: the first columns of x for "recurrent", a bias for others. These are
the only products inside the recurrence.

Flax Linen has the same cells, but they multiply the input inside the loop, one step at a time.
"""

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

State = tuple[jax.Array, ...]
Multiply = Callable[[str, jax.Array], jax.Array]
Norms = Mapping[str, Mapping[str, jax.Array]]

EPSILON = 1e-5  # of layer norm


class Cell(NamedTuple):
    """A cell, and its sizes in units of the width H of the state."""

    step: Callable[[Multiply, Norms, jax.Array, State], State]
    gates: int  # X = gates * H
    states: int  # arrays of the state
    kernels: Mapping[str, int]  # inside the recurrence: name → outputs


def elman(multiply: Multiply, norms: Norms, x_BH: jax.Array, state: State) -> State:
    """h' = tanh(W x + b + U h), Elman 1990."""
    (h_BH,) = state
    return activated("t", multiply("recurrent", h_BH))


def jordan(multiply: Multiply, norms: Norms, x_BH: jax.Array, state: State) -> State:
    """h = tanh(W x + b + U y), y' = tanh(V h + c): the output is fed back, not the hidden layer.

    Jordan 1986, "Serial order", without the recurrence of the state units on themselves. The output
    is the layer's, of width H, which the next layer or the head reads. The distribution over the
    vocabulary is not fed back.
    """
    (y_BH,) = state
    (h_BH,) = activated("t", multiply("recurrent", y_BH))
    return activated("t", multiply("output", h_BH))


def gru(multiply: Multiply, norms: Norms, x_BX: jax.Array, state: State) -> State:
    """r, z = σ(W x + b + U h), n = tanh(W x + b + r (V h + c)), h' = (1 - z) n + z h.

    Cho et al. 2014, eqs. 5–8, in the form of cuDNN and PyTorch: r scales V h, not h. The columns of
    x are in the order r, z, n.
    """
    (h_BH,) = state
    r_BH, z_BH = activated("σσ", multiply("recurrent", h_BH))
    x_BH = x_BX[:, -h_BH.shape[1] :]
    (n_BH,) = activated("t", x_BH + r_BH * multiply("candidate", h_BH))
    return (n_BH + z_BH * (h_BH - n_BH),)


def lstm(multiply: Multiply, norms: Norms, x_BX: jax.Array, state: State) -> State:
    """i, f, o = σ(W x + b + U h), g = tanh(W x + b + U h), c' = f c + i g, h' = o tanh(c').

    Hochreiter & Schmidhuber 1997 with the forget gate of Gers et al. 2000. The columns of x are in
    the order i, f, g, o.
    """
    h_BH, c_BH = state
    i_BH, f_BH, g_BH, o_BH = activated("σσtσ", multiply("recurrent", h_BH))
    c_BH = f_BH * c_BH + i_BH * g_BH
    (seen_BH,) = activated("t", norm(c_BH, norms["cell"]) if "cell" in norms else c_BH)
    return o_BH * seen_BH, c_BH


CELLS = {
    "elman": Cell(elman, 1, 1, {"recurrent": 1}),
    "jordan": Cell(jordan, 1, 1, {"recurrent": 1, "output": 1}),
    "gru": Cell(gru, 3, 1, {"recurrent": 2, "candidate": 1}),
    "lstm": Cell(lstm, 4, 2, {"recurrent": 4}),
}


def norm(x: jax.Array, vectors: Mapping[str, jax.Array]) -> jax.Array:
    """Layer norm over the last axis, with a scale and maybe a bias."""
    x -= x.mean(-1, keepdims=True)
    x *= jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + EPSILON) * vectors["scale"]
    return x + vectors["bias"] if "bias" in vectors else x


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def activated(kinds: str, a_BX: jax.Array) -> tuple[jax.Array, ...]:
    """The equal parts of a, each after tanh ("t") or the logistic function ("σ").

    One tanh serves all, by σ(a) = (1 + tanh(a / 2)) / 2. The barriers keep XLA:CPU from fusing it
    with what reads the parts, which it then does not vectorise: without them the forward gates of
    an LSTM take four times as long. The gradient needs the values only; jax would keep twice as
    much for it.
    """
    return _activated_forward(kinds, a_BX)[0]


def _activated_forward(kinds, a_BX):
    scales = jnp.array([1.0 if kind == "t" else 0.5 for kind in kinds], a_BX.dtype)
    s_X = jnp.repeat(scales, a_BX.shape[-1] // len(kinds))
    y_BX = jax.lax.optimization_barrier(s_X * jnp.tanh(s_X * a_BX) + (1 - s_X))
    parts = tuple(jnp.split(y_BX, len(kinds), axis=-1))
    return parts, parts


def _activated_backward(kinds, parts, grads):
    slopes = [
        (1 - y) * (1 + y) if kind == "t" else (1 - y) * y
        for kind, y in zip(kinds, parts, strict=True)
    ]
    found = tuple(g * slope for g, slope in zip(grads, slopes, strict=True))
    return (jnp.concatenate(jax.lax.optimization_barrier(found), axis=-1),)


activated.defvjp(_activated_forward, _activated_backward)
