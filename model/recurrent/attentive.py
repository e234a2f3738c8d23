"""Recurrent cells that read another sequence: cells made from those of CELLS, for decoders.

A memory is what a decoder reads of the source: `values` [B, S, C], their `keys` [B, S, A] and the
`segments` [B, S] of the source's tokens, all float32.

    Z width of a cell's states side by side, C of a value, A of a key, X of a cell's gates
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from model.recurrent.cells import CELLS, Cell

NEVER = -1e30  # a score of what must not be read


def attend(
    query_BA: jax.Array, memory: Mapping[str, jax.Array], score_A: jax.Array, segment_B1: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """(context [B, C], weights [B, S]) of additive attention: Bahdanau et al. 2015, appendix A.1.2.

        e_j = v · tanh(W s + U h_j),  α = softmax(e),  c = Σ α_j h_j

    `query` is W s and the keys are U h_j. Only source tokens of the same segment are read.
    """
    e_BS = jnp.tanh(query_BA[:, None] + memory["keys"]) @ score_A
    weights_BS = jax.nn.softmax(jnp.where(memory["segments"] == segment_B1, e_BS, NEVER))
    return jnp.einsum("bs,bsc->bc", weights_BS, memory["values"]), weights_BS


def whole(name: str) -> Cell:
    """The cell with its states in one array [B, Z], so that a recurrence returns all of them."""
    cell = CELLS[name]

    def step(multiply, arrays, x_BX, state):
        states = tuple(jnp.split(state[0], cell.states, axis=-1))
        return (jnp.concatenate(cell.step(multiply, arrays, x_BX, states), axis=-1),)

    return cell._replace(step=step, states=1)


def attentive(name: str, width: int) -> Cell:
    """The whole cell with attention: the context is one more input of every gate (Bahdanau et al.
    2015, eq. 5). Its input is [x, segment], its state [states, context]; the first `width` numbers
    of the state make the query, and `arrays` hold memory and score."""
    cell, size = whole(name), CELLS[name].states * width

    def step(multiply, arrays, x_BY, state):
        x_BX, segment_B1 = x_BY[:, :-1], x_BY[:, -1:]
        before_BZ = state[0][:, :size]
        query_BA = multiply("query", before_BZ[:, :width])
        context_BC, _ = attend(query_BA, arrays["memory"], arrays["score"]["kernel"], segment_B1)
        more_BX = multiply("context", context_BC)

        def also(kernel, v_BH):
            """The product with x in it, and the context too."""
            found = multiply(kernel, v_BH)
            return found + more_BX[:, : found.shape[1]] if kernel == "recurrent" else found

        (after_BZ,) = cell.step(also, arrays, x_BX + more_BX, (before_BZ,))
        return (jnp.concatenate([after_BZ, context_BC], axis=-1),)

    return cell._replace(step=step)


def started(cell: Cell, size: int) -> Cell:
    """The cell for packed rows: the last `size` numbers of its input are added to its state before
    the step. They are the first state of a pair at its first token, where the state before has been
    set to zero, and 0 elsewhere."""

    def step(multiply, arrays, x_BY, state):
        return cell.step(multiply, arrays, x_BY[:, :-size], (state[0] + x_BY[:, -size:],))

    return cell._replace(step=step)
