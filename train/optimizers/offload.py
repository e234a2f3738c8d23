"""Keeps an optimiser's moments in the memory of the host between updates.

They are copied to the device for each update and back after it. Sharding is as before: each host
keeps the moments of its own devices.
"""

from collections.abc import Iterable
from typing import Any

import jax
import optax

HOST = "pinned_host"
"""The kind of memory, as JAX names it: of the host, and open to the device."""


HOST_SPACE, DEVICE_SPACE = jax.memory.Space.Host, jax.memory.Space.Device


def offloaded(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """`inner`, with the arrays of its state in the host's memory between updates."""

    def init(params):
        return moved(inner.init(params), HOST_SPACE)

    def update(grads, state, params):
        directions, state = inner.update(grads, moved(state, DEVICE_SPACE), params)
        return directions, moved(state, HOST_SPACE)

    return optax.GradientTransformation(init, update)


def moved(state: Any, space: jax.memory.Space) -> Any:
    """An optimiser's state with its arrays in a memory space; scalars stay on the device."""
    return jax.tree.map(lambda x: jax.device_put(x, space) if is_moved(x) else x, state)


def is_moved(leaf: Any) -> bool:
    """Whether an array of an optimiser's state is kept on the host; not a counter."""
    return leaf.ndim > 0


def require(devices: Iterable[jax.Device]) -> None:
    """ValueError for a device without such memory."""
    for device in devices:
        kinds = sorted(memory.kind for memory in device.addressable_memories())
        if HOST not in kinds:
            raise ValueError(
                f"optimizer.offload=True needs memory of the kind {HOST!r}, and the platform "
                f"{device.platform!r} has {', '.join(kinds)}; use optimizer.offload=False"
            )
