"""Which trials can be stacked: those that differ in numbers of the training state alone.

One compiled program serves them all, each with its own numbers and its own batches. A sweep groups
its trials with this before anything trains.
"""

from collections.abc import Mapping
from typing import Any

from model import families
from train import objectives
from train.flatten import flatten

# Keys of a resolved config that are arrays of the state, or data.
TRACED = (
    "seed",
    *(f"optimizer.{key}" for key in ("learning_rate", "b1", "b2", "eps", "weight_decay")),
    *("optimizer.clip_norm", "schedule.warmup", "schedule.decay", "schedule.final"),
)
# Keys that may differ: the compiled program does not read them.
UNREAD = ("name", "holdout", "checkpoint.trunk", "train.max_loss_ratio")


def common(resolved: Any) -> dict[str, Any]:
    """What trials must have in common to be stacked: dotted keys of a resolved config, as JSON has
    them. Events too, so that all save at the same steps."""
    return {k: v for k, v in flatten(resolved).items() if k not in TRACED + UNREAD}


def trains_alone(resolved: Mapping[str, Any]) -> bool:
    """Whether a trial cannot be a lane beside others: it fills several devices, is counted, starts
    from weights or reads frozen ones, or makes its batches from its parameters."""
    objective = objectives.OBJECTIVES[resolved["objective"]["name"]]
    return (
        any(size > 1 for size in resolved["mesh"].values())
        or families.is_counted(families.FAMILIES[resolved["model"]["family"]])
        or bool(resolved["train"]["init_from"])
        or hasattr(objective, "FROZEN")
        or hasattr(objective, "rollout")
    )


def require(first: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    """ValueError naming the first key in which two resolved configs differ and must not."""
    a, b = common(first), common(other)
    for key in sorted(a | b):
        if a.get(key) != b.get(key):
            raise ValueError(
                f"config.{key} is {a.get(key)!r} in one trial and {b.get(key)!r} in another: only "
                f"{', '.join(TRACED)} may differ between stacked trials; train them apart"
            )
