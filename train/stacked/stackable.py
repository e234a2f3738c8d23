"""Decides which trials can be stacked: those that differ only in numbers of the training state.

One compiled program serves all of them, each with its own numbers and batches. A sweep uses this
module to group its trials before it trains.
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
# Other keys that may differ, because the compiled program does not read them.
UNREAD = ("name", "holdout", "checkpoint.trunk", "train.max_loss_ratio", "train.max_spikes")


def common(resolved: Any) -> dict[str, Any]:
    """What stacked trials must have in common: the dotted keys of a resolved config with their JSON
    values. These include the events, so that all trials save at the same steps."""
    return {k: v for k, v in flatten(resolved).items() if k not in TRACED + UNREAD}


def trains_alone(resolved: Mapping[str, Any]) -> bool:
    """Whether a trial cannot be stacked: it uses several devices, is counted, starts from given
    weights, keeps its moments on the host, stops early, goes back at a spike, reads frozen
    parameters, or makes its batches from its parameters."""
    objective = objectives.OBJECTIVES[resolved["objective"]["name"]]
    return (
        any(size > 1 for size in resolved["mesh"].values())
        or families.is_counted(families.FAMILIES[resolved["model"]["family"]])
        or bool(resolved["train"]["init_from"] or resolved["checkpoint"]["stop_at"])
        or resolved["optimizer"].get("offload", False)
        or resolved["train"].get("on_spike") == "rewind"
        or hasattr(objective, "FROZEN")
        or hasattr(objective, "rollout")
    )


def require(first: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    """ValueError naming the first key in which two resolved configs differ but must not."""
    a, b = common(first), common(other)
    for key in sorted(a | b):
        if a.get(key) != b.get(key):
            raise ValueError(
                f"config.{key} is {a.get(key)!r} in one trial and {b.get(key)!r} in another: only "
                f"{', '.join(TRACED)} may differ between stacked trials; train them separately"
            )
