"""Runs a cell over time: a scan in which each kernel's gradient is one matrix product.

Automatic differentiation of a scan adds a product [H, B] [B, outputs] to each kernel's gradient at
every time step. Here the backward scan only returns the gradients of the products, and one product
over all time steps and rows follows it.
"""

import functools

import jax
import jax.numpy as jnp

from model.recurrent.cells import Cell, Norms, State, norm

Arrays = dict[str, jax.Array]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def recurrence(
    cell: Cell,
    unroll: int,
    kernels: Arrays,
    norms: Norms,
    x_TBX: jax.Array,
    added: Arrays,
    keep_TB: jax.Array | None,
    state: State,
) -> tuple[jax.Array, State]:
    """(outputs [T, B, H], the last state).

    `kernels` are [H, outputs], in the dtype of the products. `added` are [T, B, outputs]: what is
    added to each product; the first columns of x are added to the product "recurrent". `norms` are
    of the products that are normalised before that, and of the cell. Where `keep` is 0, a step
    begins with a zero state; None keeps every state. `unroll` steps are one trip of the compiled
    loop.
    """
    moving = norms, x_TBX, added, _zeros(kernels, norms, x_TBX), keep_TB, state
    return _scan(cell, unroll, kernels, *moving)[0]


def _zeros(kernels: Arrays, norms: Norms, x_TBX: jax.Array) -> Arrays:
    """Zeros [T, B, outputs] for the kernels whose products are normalised."""
    normed = [name for name in kernels if name in norms]
    return {name: jnp.zeros((*x_TBX.shape[:2], kernels[name].shape[1])) for name in normed}


def _scan(cell, unroll, kernels, norms, x_TBX, added, zeros, keep_TB, state):
    """((outputs, the last state), what each kernel is multiplied with [T, B, H])."""
    # Otherwise every trip of the backward loop transposes them.
    transposed = {name: jax.lax.optimization_barrier(kernel.T) for name, kernel in kernels.items()}

    def step(state, xs):
        x_BX, added, zeros, keep_B = xs
        inputs, plus = {}, {"recurrent": x_BX[:, : kernels["recurrent"].shape[1]]} | added

        def multiply(name, v_BH):
            inputs[name] = v_BH.astype(kernels[name].dtype)
            sides = inputs[name], kernels[name], transposed[name]
            if name in norms:
                return plus[name] + norm(affine(zeros[name], *sides), norms[name])
            return affine(plus[name], *sides)

        if keep_B is not None:
            state = tuple(jnp.where(keep_B[:, None], part_BH, 0) for part_BH in state)
        state = cell.step(multiply, norms, x_BX, state)
        return state, (state[0], inputs)

    last, (y_TBH, inputs) = jax.lax.scan(step, state, (x_TBX, added, zeros, keep_TB), unroll=unroll)
    return (y_TBH, last), inputs


def _forward(cell, unroll, kernels, norms, x_TBX, added, keep_TB, state):
    zeros = _zeros(kernels, norms, x_TBX)

    def moving(norms, x_TBX, added, zeros, state):
        return _scan(cell, unroll, kernels, norms, x_TBX, added, zeros, keep_TB, state)

    found, pull, inputs = jax.vjp(moving, norms, x_TBX, added, zeros, state, has_aux=True)
    return found, (pull, inputs, kernels)


def _backward(cell, unroll, saved, cotangents):
    pull, inputs, kernels = saved
    dnorms, dx_TBX, dadded, dzeros, dstate = pull(cotangents)
    dproducts = {"recurrent": dx_TBX} | dadded | dzeros

    def gradient(name, kernel):
        flat = lambda a: a.reshape(-1, a.shape[-1])  # noqa: E731
        dproduct_MO = flat(dproducts[name][..., : kernel.shape[1]]).astype(kernel.dtype)
        found = jnp.matmul(flat(inputs[name]).T, dproduct_MO, preferred_element_type=jnp.float32)
        return found.astype(kernel.dtype)

    dkernels = {name: gradient(name, kernel) for name, kernel in kernels.items()}
    return dkernels, dnorms, dx_TBX, dadded, None, dstate


recurrence.defvjp(_forward, _backward)


@jax.custom_vjp
def affine(plus: jax.Array, v_BH: jax.Array, kernel: jax.Array, transposed: jax.Array) -> jax.Array:
    """plus + v U, float32. The gradient of `plus` is that of the product; U is given none."""
    return plus + jnp.matmul(v_BH, kernel, preferred_element_type=jnp.float32)


def _affine_forward(plus, v_BH, kernel, transposed):
    return affine(plus, v_BH, kernel, transposed), transposed


def _affine_backward(transposed, g):
    dv_BH = jnp.matmul(g.astype(transposed.dtype), transposed, preferred_element_type=jnp.float32)
    return g, dv_BH.astype(transposed.dtype), None, None


affine.defvjp(_affine_forward, _affine_backward)
