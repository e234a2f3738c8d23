"""Hooks: how activations leave a Transformer, and how they are changed on their way.

A module passes an activation through `hooked` under a name, which returns it unchanged and adds
nothing to the compiled program, unless the caller of `apply` asks for more:

    mutable=["intermediates"]     the activations come back as variables of that collection
    {"params": …, "edits": …}     an activation x becomes keep * x + add, where `edits` has
                                  {"keep": …, "add": …} under its name

Names, with the shapes of `Decoder`, which stacks those of its blocks along a leading layer axis:

    embedded                     [B, T, D]        the residual stream before the first block
    blocks/residual              [L, B, T, D]     and after each block
    blocks/attention/scores      [L, B, H, T, S]  scaled products of queries and keys, float32,
                                                  with softcap and bias, without the mask
    blocks/attention/weights     [L, B, H, T, S]  their softmax over the keys that a query sees
    blocks/attention/heads       [L, B, T, H, C]  outputs of the heads, which `out` reads
    blocks/mlp/neurons           [L, B, T, F]     what `down` reads

Only `attention=xla` has scores and weights, which are read and not edited. A decoder with caches
has no hooks in its blocks.
"""

from typing import Any

import flax.linen as nn
import jax

ACTIVATIONS = "intermediates"  # flax never makes this collection mutable in `init`
EDITS = "edits"


def watched(module: nn.Module) -> bool:
    """Whether the caller asks for activations."""
    return module.is_mutable_collection(ACTIVATIONS)


def kept(module: nn.Module, name: str, x: Any) -> None:
    """Gives an activation, or a tree of them, to the caller. Only where `watched`."""
    module.put_variable(ACTIVATIONS, name, x)


def hooked(module: nn.Module, name: str, x: jax.Array) -> jax.Array:
    """x, changed by its edit, if any, and returned to a caller that asks for activations."""
    if module.has_variable(EDITS, name):
        edit = module.get_variable(EDITS, name)
        x = (edit["keep"] * x + edit["add"]).astype(x.dtype)
    if watched(module):
        kept(module, name, x)
    return x
