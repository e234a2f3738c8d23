"""This file says which trials can be stacked: those that differ in numbers of the training state.

One compiled program serves them all, each with its own numbers and its own batches. No jax here: a
sweep groups its trials with this before anything trains.
"""

import json
from collections.abc import Mapping
from typing import Any

# Keys of a resolved config that are arrays of the state, or data.
TRACED = (
    "seed",
    *(f"optimizer.{key}" for key in ("learning_rate", "b1", "b2", "eps", "weight_decay")),
    *("optimizer.clip_norm", "schedule.warmup", "schedule.decay", "schedule.final"),
)
# Keys that nothing compiled reads, and that need not be the same.
UNREAD = ("name", "holdout", "checkpoint.trunk", "train.max_loss_ratio")


def common(resolved: Mapping[str, Any]) -> dict[str, Any]:
    """What trials must have in common to be stacked: dotted keys of a resolved config, as JSON has
    them. Events too, so that all save at the same steps."""
    flat = {}
    for section, value in json.loads(json.dumps(_plain(resolved))).items():
        nested = value if isinstance(value, Mapping) else {"": value}
        flat |= {f"{section}.{key}".rstrip("."): inner for key, inner in nested.items()}
    return {key: value for key, value in flat.items() if key not in TRACED + UNREAD}


def fills_devices(resolved: Mapping[str, Any]) -> bool:
    """Whether the trial is meant for several devices, and no lane of one."""
    return any(size > 1 for size in resolved["mesh"].values())


def require(first: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    """ValueError naming the first key in which two resolved configs differ and must not."""
    a, b = common(first), common(other)
    for key in sorted(a | b):
        if a.get(key) != b.get(key):
            raise ValueError(
                f"config.{key} is {a.get(key)!r} in one trial and {b.get(key)!r} in another: only "
                f"{', '.join(TRACED)} may differ between stacked trials; train them apart"
            )


def _plain(config: Any) -> Any:
    """A ConfigDict, which is no Mapping, as dicts."""
    return {k: _plain(v) for k, v in config.items()} if hasattr(config, "items") else config
