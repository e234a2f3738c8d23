"""Runs a cell over time: a scan whose weight gradients are one matrix product each.

Automatic differentiation of a scan adds a product [H, B] [B, X] to each kernel's gradient at every
time step. Here the backward scan keeps the gradients of the products, and one product over all time
steps and rows follows it.
"""

import functools

import jax
import jax.numpy as jnp

from model.recurrent.cells import Cell, State, Vectors, norm

Kernels = dict[str, jax.Array]  # [H, outputs], in the dtype of the products


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def recurrence(
    cell: Cell,
    unroll: int,
    kernels: Kernels,
    vectors: Vectors,
    x_TBX: jax.Array,
    keep_TB: jax.Array | None,
    state: State,
) -> tuple[jax.Array, State]:
    """(outputs [T, B, H], the last state). Where `keep` is 0, a step begins with a zero state; None
    keeps every state. `unroll` steps are one trip of the compiled loop."""
    return _forward(cell, unroll, kernels, vectors, x_TBX, keep_TB, state)[0]


def advance(
    cell: Cell, product, vectors: Vectors, x_BX: jax.Array, keep_B: jax.Array | None, state: State
) -> State:
    """The state after one step."""

    def multiply(name, v_BH):
        found = product(name, v_BH)
        if name == "recurrent" and "recurrent_norm" in vectors:
            return norm(found, vectors["recurrent_norm"], cell.normed)
        return found

    if keep_B is not None:
        state = tuple(jnp.where(keep_B[:, None] > 0, part_BH, 0) for part_BH in state)
    return cell.step(multiply, vectors, x_BX, state)


def _forward(cell, unroll, kernels, vectors, x_TBX, keep_TB, state):
    def step(before, xs):
        products, inputs = {}, {}

        def product(name, v_BH):
            inputs[name] = v_BH.astype(kernels[name].dtype)
            products[name] = jnp.matmul(
                inputs[name], kernels[name], preferred_element_type=jnp.float32
            )
            return products[name]

        after = advance(cell, product, vectors, *xs, before)
        return after, (after[0], before, products, inputs)

    last, (y_TBH, before, products, inputs) = jax.lax.scan(
        step, state, (x_TBX, keep_TB), unroll=unroll
    )
    return (y_TBH, last), (kernels, vectors, x_TBX, keep_TB, before, products, inputs)


def _backward(cell, unroll, saved, cotangents):
    kernels, vectors, x_TBX, keep_TB, before, products, inputs = saved
    dy_TBH, dlast = cotangents

    def step(carry, xs):
        dstate, dvectors = carry
        dy_BH, x_BX, keep_B, before, products = xs

        def again(x_BX, before, taps, vectors):
            product = lambda name, v_BH: _known(  # noqa: E731
                v_BH, kernels[name], products[name], taps[name]
            )
            return advance(cell, product, vectors, x_BX, keep_B, before)

        taps = jax.tree.map(jnp.zeros_like, products)
        _, pull = jax.vjp(again, x_BX, before, taps, vectors)
        dx_BX, dbefore, dproducts, more = pull((dstate[0] + dy_BH, *dstate[1:]))
        return (dbefore, jax.tree.map(jnp.add, dvectors, more)), (dx_BX, dproducts)

    zeros = jax.tree.map(jnp.zeros_like, vectors)
    (dstate, dvectors), (dx_TBX, dproducts) = jax.lax.scan(
        step,
        (dlast, zeros),
        (dy_TBH, x_TBX, keep_TB, before, products),
        reverse=True,
        unroll=unroll,
    )
    flat = lambda a: a.reshape(-1, a.shape[-1])  # noqa: E731
    dkernels = {
        name: jnp.matmul(
            flat(inputs[name]).T, flat(dproducts[name]).astype(kernel.dtype),
            preferred_element_type=jnp.float32,
        ).astype(kernel.dtype)
        for name, kernel in kernels.items()
    }  # fmt: skip
    dkeep = None if keep_TB is None else jnp.zeros_like(keep_TB)
    return dkernels, dvectors, dx_TBX, dkeep, dstate


recurrence.defvjp(_forward, _backward)


@jax.custom_vjp
def _known(v_BH: jax.Array, kernel: jax.Array, product: jax.Array, tap: jax.Array) -> jax.Array:
    """v U, whose value is known: only its gradient is computed. The gradient of `tap` is that of
    the product."""
    return product


def _known_backward(kernel, g):
    dv_BH = jnp.matmul(g.astype(kernel.dtype), kernel.T, preferred_element_type=jnp.float32)
    return dv_BH, None, None, g


_known.defvjp(
    lambda v_BH, kernel, product, tap: (product, kernel),
    _known_backward,
)
