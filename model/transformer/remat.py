"""This file says what a block keeps for its backward pass, and what is computed there again.

What can be kept has a name, given by `checkpoint_name` where it is made: "input", the block's own;
"attention", the heads' outputs; and the output of every Linear, which has the Linear's name. With
every policy a block keeps its input and nothing else but what is listed here.
"""

from collections.abc import Callable

import jax
from jax.ad_checkpoint import checkpoint_name

PROJECTIONS = ("query", "key", "value")
DOTS = (*PROJECTIONS, "out", "gate", "up", "down")
POLICIES = {
    "full": jax.checkpoint_policies.nothing_saveable,
    "attention": jax.checkpoint_policies.save_only_these_names("attention"),
    "projections": jax.checkpoint_policies.save_only_these_names(*PROJECTIONS),
    # By name rather than by primitive, so that products under vmap are among them.
    "dots": jax.checkpoint_policies.save_only_these_names(*DOTS),
    "dots_attention": jax.checkpoint_policies.save_only_these_names(*DOTS, "attention"),
    "offload": jax.checkpoint_policies.save_and_offload_only_these_names(
        names_which_can_be_saved=[],
        names_which_can_be_offloaded=["input", *PROJECTIONS],
        offload_src="device",
        offload_dst="pinned_host",
    ),
}


def rematerialised(block: Callable, policy: str, scanned: bool) -> Callable:
    """`block(x, *rest)` with the gradient's memory and recomputation of a policy; "none": as it is.

    A scan's body cannot be merged with its own recomputation, which elsewhere must be prevented.
    """
    if policy == "none":
        return block
    named = lambda x_BTD, *rest: block(checkpoint_name(x_BTD, "input"), *rest)  # noqa: E731
    return jax.checkpoint(named, policy=POLICIES[policy], prevent_cse=not scanned)
