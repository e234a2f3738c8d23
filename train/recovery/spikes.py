"""Spikes of the loss: how the step leaves out an update, and how a run goes on without some data.

A step has a spike if one of its metrics is not finite, or if its loss is above
`train.max_loss_ratio` times the median of the losses before it. `train.on_spike` says what follows.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from train import objectives
from train.watch import FEWEST, MEDIAN_OF

# train.on_spike -> what a spike does.
POLICIES = {
    "stop": "the run ends as diverged",
    "skip": "the update of that step is left out",
    "rewind": "the run goes back to the last checkpoint before it and leaves out the data of the "
    "step and of the one before it",
}
RATIO = "max_loss_ratio"
"""The entry of a state's `hyper` with the ratio of the policy "skip"."""

Range = tuple[int, int]
"""Steps of the data: the first, and the one after the last."""


def no_losses() -> dict[str, jax.Array]:
    """The losses that a run compares with, before its first step."""
    return {"losses": jnp.full(MEDIAN_OF, jnp.nan)}


def guarded(before: Any, after: Any, metrics: Mapping[str, jax.Array]) -> tuple[Any, jax.Array]:
    """(the TrainState to go on with, whether the update was skipped) from the states before and
    after an update. The step is counted either way. Pure; depends on no chunk."""
    losses, loss = before.spikes["losses"], metrics["loss"]
    median = jnp.where(jnp.isfinite(losses).sum() >= FEWEST, jnp.nanmedian(losses), jnp.inf)
    finite = jnp.all(jnp.stack([jnp.isfinite(value) for value in metrics.values()]))
    good = finite & ~(loss > before.hyper[RATIO] * median)
    newest = jnp.roll(losses, -1).at[-1].set(loss)
    pick = lambda new, old: jax.tree.map(lambda a, b: jnp.where(good, a, b), new, old)  # noqa: E731
    kept = {
        name: pick(getattr(after, name), getattr(before, name))
        for name in ("params", "opt_state", "carry")
    }
    return after.replace(**kept, spikes={"losses": pick(newest, losses)}), ~good


def max_loss_ratio(config: Any) -> float | None:
    """The ratio to the median loss above which a resolved config has a spike; None for an objective
    whose loss has no floor."""
    floor = objectives.find(config.objective.name).METRICS["loss"].floor
    return config.train.max_loss_ratio if floor == 0 else None


class Spikes:
    """The spikes of a run that did not end it, and the data that it leaves out because of them.

    A resumed run knows those of its checkpoint. It meets later ones again, at the same steps, so
    that a run that is killed at any moment ends with the same bits.
    """

    def __init__(self, config: Any, meta: Mapping[str, Any]):
        """`meta` is what a checkpoint keeps; {} for a new run."""
        self.policy = config.train.get("on_spike", "stop")
        self.most = config.train.get("max_spikes", 0)
        self.noted: list[dict[str, Any]] = list(meta.get("noted", ()))
        self.left_out = tuple(tuple(pair) for pair in meta.get("left_out", ()))
        self.pending: dict[str, Any] = {}  # the one to go back from

    def meta(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"noted": self.noted, "left_out": self.left_out}

    def result(self) -> dict[str, Any]:
        """The entries of result.json: none under the policy "stop"."""
        return {} if self.policy == "stop" else {"spikes": self.noted}

    def skipped(
        self, metrics: Mapping[str, list[float]], skipped: Sequence[float], step: int
    ) -> tuple[dict[str, list[float]], list[str]]:
        """(the metrics of the steps of a chunk that were not skipped, a line on each other). The
        chunk begins after `step` steps."""
        lines, kept = [], []
        for number, is_skipped in enumerate(skipped):
            if not is_skipped:
                kept.append(number)
                continue
            values = {name: metrics[name][number] for name in ("loss", "grad_norm")}
            fault = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
            self.noted.append({"step": step + number, "fault": fault, "skipped": True})
            lines.append(f"{fault} at step {step + number}; its update is skipped (train.on_spike)")
        return {name: [values[i] for i in kept] for name, values in metrics.items()}, lines

    def too_many_skipped(self) -> str | None:
        """The fault of a run that has skipped more steps than it may."""
        if self.policy != "skip" or len(self.noted) <= self.most:
            return None
        return f"{len(self.noted)} steps were skipped, more than train.max_spikes={self.most}"

    @property
    def goes_back(self) -> bool:
        """Whether the run may go back because of one more spike."""
        return self.policy == "rewind" and len(self.noted) < self.most

    def found(self, fault: str, step: int, now: int) -> None:
        """Notes a spike at `step` of a run at step `now`. If both are equal, the evaluation there
        shows it, and the data of `step` were not read yet."""
        self.pending = {"step": step, "fault": fault, "read": step < now}

    def unavoidable(self, step: int) -> bool:
        """Whether a run that is back at `step` would meet the pending spike again, because it has
        read all the data that would be left out."""
        first, end = self._without(step)
        return first >= end

    def _without(self, step: int) -> Range:
        spike = self.pending
        return max(step, spike["step"] - 1), spike["step"] + spike["read"]

    def rewound(self, step: int) -> str:
        """Leaves out the data of the pending spike and of the step before it, as far as the run,
        which is back at `step`, has not read them. Returns a line for the user."""
        first, end = self._without(step)
        spike, self.pending = self.pending, {}
        del spike["read"]
        self.left_out = without(self.left_out, first, end)
        self.noted.append(spike | {"back_to": step, "left_out": [first, end]})
        data = f"steps {first} to {end - 1}" if end - 1 > first else f"step {first}"
        return (
            f"{spike['fault']} at step {spike['step']}; back to step {step}, without the data of "
            f"{data}"
        )


def data_step(step: int, left_out: Sequence[Range]) -> tuple[int, float]:
    """(the step of the data that training step `step` reads, how many steps follow from there
    without a gap), where the ranges `left_out` of the data are not read."""
    for first, end in left_out:
        if step < first:
            return step, first - step
        step += end - first
    return step, float("inf")


def without(left_out: Sequence[Range], first: int, end: int) -> tuple[Range, ...]:
    """The ranges of data left out, once the data of the training steps from `first` to before `end`
    are left out too."""
    if first >= end:
        return tuple(left_out)
    begin, last = data_step(first, left_out)[0], data_step(end - 1, left_out)[0] + 1
    apart = [r for r in left_out if r[1] < begin or r[0] > last]
    joined = [r for r in left_out if r not in apart]
    begin = min([begin, *(r[0] for r in joined)])
    last = max([last, *(r[1] for r in joined)])
    return tuple(sorted([*apart, (begin, last)]))
