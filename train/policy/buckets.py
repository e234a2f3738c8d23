"""Length buckets: a rollout in groups of prompts of similar length, each as wide as it needs.

P prompts, G groups of Q = P / G, S tokens of the widest prompt, W of a group's
"""

import functools
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from train.parallel.sharding import constrain_rows

WIDTHS = 4  # that a group can have: few, because each is compiled
PROMPT, LENGTH, NUMBER, TOKENS = "prompt", "prompt_length", "number", "tokens"


def widths(longest: int) -> tuple[int, ...]:
    """The widths that a group can have: the quarters of the longest prompt."""
    return tuple(sorted({-(-longest * part // WIDTHS) for part in range(1, WIDTHS + 1)}))


def groups(lengths_P: np.ndarray, count: int, longest: int) -> list[tuple[np.ndarray, int]]:
    """(the prompts, the width W) of each of `count` groups of equal size, the shortest prompts
    first."""
    known = widths(longest)
    order_P = np.argsort(lengths_P, kind="stable").astype(np.int32)
    parts = np.split(order_P, count)
    found = [next(w for w in known if w >= lengths_P[rows_Q].max()) for rows_Q in parts]
    return list(zip(parts, found, strict=True))


@functools.partial(jax.jit, static_argnums=0)
def cut(width: int, prompts: Mapping[str, jax.Array], rows_Q: jax.Array) -> dict[str, jax.Array]:
    """The batch of a group, from prompts [P, ...] that are padded on the left. The field "number"
    has the place of each prompt in the rollout, on which its draws depend."""
    part = {name: x[rows_Q] for name, x in prompts.items()}
    part |= {PROMPT: part[PROMPT][:, -width:], NUMBER: rows_Q}
    return constrain_rows(part)


@functools.partial(jax.jit, static_argnums=0)
def widened(more: int, part: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """The rows of a group without their prompts, with `more` columns of padding after the tokens,
    which makes all groups of one shape."""
    tokens = jnp.pad(part[TOKENS], ((0, 0), (0, more)))
    return {name: x for name, x in part.items() if name != PROMPT} | {TOKENS: tokens}


@jax.jit
def joined(
    parts: Sequence[Mapping[str, jax.Array]], prompts: Mapping[str, jax.Array], order_P: jax.Array
) -> dict[str, jax.Array]:
    """The rows [P * n, ...] of the whole rollout, in the order of the prompts, of groups that
    `widened` has made as wide as the longest. `order` is that of the groups."""
    P, back_P = len(order_P), jnp.argsort(order_P)

    def one(*arrays: jax.Array) -> jax.Array:
        x_Pn = jnp.concatenate(arrays).reshape(P, -1, *arrays[0].shape[1:])
        return x_Pn[back_P].reshape(-1, *arrays[0].shape[1:])

    rows = jax.tree.map(one, *parts)
    n = len(rows[TOKENS]) // P
    return constrain_rows(rows | {PROMPT: jnp.repeat(prompts[PROMPT], n, axis=0)})
