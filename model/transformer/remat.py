"""Rematerialisation policies: which arrays a block stores for its backward pass. The others are
recomputed there.

Arrays that can be stored are named by `checkpoint_name` where they are computed: "input", the
input of the block; "attention", the outputs of the heads; and the output of every Linear, under
the Linear's name. With every policy a block stores its input and the arrays that the policy lists.
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
    # By name, because a policy by primitive would include products under vmap.
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
    """`block(x, *rest)` with a policy. "none" stores everything and returns `block` itself.

    Outside a scan, `prevent_cse` keeps XLA from merging the recomputation with the original.
    """
    if policy == "none":
        return block
    named = lambda x_BTD, *rest: block(checkpoint_name(x_BTD, "input"), *rest)  # noqa: E731
    return jax.checkpoint(named, policy=POLICIES[policy], prevent_cse=not scanned)
