"""Placement groups: the hosts of a trial that spans several are reserved together or not at all."""

import contextlib
import secrets
from dataclasses import replace
from typing import Any


def reserve(reservation: Any) -> tuple[list[Any], Any]:
    """(the reservations of all hosts, which name the group, the group). Ray grants it when all are
    free. It outlives the driver, as its workers do."""
    from ray.util import placement_group

    name, members = secrets.token_hex(8), [reservation, *reservation.peers]
    group = placement_group(
        [{"CPU": one.demand["num_cpus"]} | one.demand["resources"] for one in members],
        strategy="STRICT_SPREAD",
        name=name,
        lifetime="detached",
        bundle_label_selector=[{"ray.io/node-id": one.node} for one in members],
    )
    return [replace(one, group=name) for one in members], group


def strategy(reservation: Any, group: Any, index: int) -> Any:
    """What ties a worker to its machine."""
    from ray.util import scheduling_strategies as strategies

    if group is None:
        return strategies.NodeAffinitySchedulingStrategy(reservation.node, soft=False)
    return strategies.PlacementGroupSchedulingStrategy(group, index)


def remove(name: str) -> None:
    """Gives back what a group reserved, if it is still there."""
    from ray.util import get_placement_group, remove_placement_group

    with contextlib.suppress(ValueError):
        remove_placement_group(get_placement_group(name))
