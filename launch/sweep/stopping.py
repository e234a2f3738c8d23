"""Early stopping: which trials of a sweep go on at a rung, decided from what their folders hold.

A rung is a number of tokens. A trial trains to its next rung, is evaluated and saved there, and
waits as 'stopped'. The rule lets some of the waiting trials go on to the next rung or to their end.

- successive_halving: once every trial has arrived, the best `keep` of them go on. Jamieson &
  Talwalkar 2016, https://arxiv.org/abs/1502.07943.
- asha: at any time, the best `keep` of those that have arrived. Li et al. 2020, algorithm 2,
  https://arxiv.org/abs/1810.05934.
- median: those whose best loss so far is no worse than the median of the others' best losses.
  Golovin et al. 2017, section 3.2, who take the others' mean losses instead.
"""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from launch.files import AGAIN, ended, read_config, read_json
from train import duration, metrics

UNITS = ("tokens", "%", "steps")  # of rungs
FEWEST = 3  # other trials that a median needs
KEEP = "1/3"  # Li et al. use 1/4; the fewer go on, the more depends on the first rung


def _halving(losses: Mapping[str, float], complete: bool, keep: Fraction) -> set[str]:
    return _best(losses, max(1, math.floor(len(losses) * keep))) if complete else set()


def _asha(losses: Mapping[str, float], complete: bool, keep: Fraction) -> set[str]:
    return _best(losses, max(complete, math.floor(len(losses) * keep)))


def _median(losses: Mapping[str, float], complete: bool, keep: Fraction) -> set[str]:
    def worse(key: str) -> bool:
        others = [loss for other, loss in losses.items() if other != key]
        if len(others) < FEWEST:
            return not complete  # it waits for others
        return losses[key] > statistics.median(others)

    return {key for key, loss in losses.items() if loss < math.inf and not worse(key)}


def _best(losses: Mapping[str, float], count: int) -> set[str]:
    """The `count` lowest losses that are finite; ties go by id."""
    ranked = sorted((loss, key) for key, loss in losses.items() if loss < math.inf)
    return {key for _, key in ranked[:count]}


METHODS: dict[str, Callable[[Mapping[str, float], bool, Fraction], set[str]]] = {
    "successive_halving": _halving,
    "asha": _asha,
    "median": _median,
}
"""name -> (losses of the trials that have arrived at a rung, inf for one that diverged or failed;
whether no other trial will arrive; the share to keep) -> the ids that may go on."""


@dataclass(frozen=True)
class Stopping:
    """What --stop, --rungs and --keep ask for."""

    method: str
    rungs: tuple[str, ...]  # durations, rising
    keep: Fraction

    @property
    def best_so_far(self) -> bool:
        """Whether trials are compared by their best loss up to a rung, not by that at the rung."""
        return self.method == "median"


def stopping(method: str, rungs: str, keep: str) -> Stopping | None:
    """The rule that the flags describe; None without one. ValueError names a wrong flag."""
    if not method:
        for name, value in (("rungs", rungs), ("keep", keep)):
            if value:
                raise ValueError(f"{name}={value} says how trials are stopped; add --stop=asha")
        return None
    if method not in METHODS:
        raise ValueError(f"stop={method} is unknown; use one of {', '.join(METHODS)}")
    if keep and method == "median":
        raise ValueError(f"keep={keep} is not for stop=median, which has no fixed share; drop it")
    try:
        share = Fraction(keep or KEEP)
    except (ValueError, ZeroDivisionError):
        share = Fraction(0)
    if not 0 < share < 1:
        raise ValueError(f"keep={keep} is not a share of the trials between 0 and 1; use 1/3")
    # Each rung is 1/keep times as long as the one before, and so is the whole run.
    usual = [f"{float(100 * share**power):.4g} %" for power in (2, 1)]
    listed = tuple(text.strip() for text in rungs.split(",")) if rungs else tuple(usual)
    for text in listed:
        if duration.parse("rungs", text)[1] not in UNITS:
            raise ValueError(f"rungs={text!r} is in none of {', '.join(UNITS)}; use tokens or %")
    return Stopping(method, listed, share)


@dataclass(frozen=True)
class Position:
    """Where a trial is. Rungs count from 0; the end of the run follows the last one.

    `losses` are those at the rungs that it has passed (nan: not evaluated there). It has been let
    go to the rung `heading` and has passed `arrived` rungs: if `arrived` is above `heading`, it
    waits there. `state` is 'done', or 'lost' if it diverged or failed on its way to `heading`.
    """

    losses: tuple[float, ...] = ()
    arrived: int = 0
    heading: int = 0
    state: str = ""
    begun: bool = False

    def loss(self, rung: int) -> float | None:
        """The loss that counts at a rung: inf if it is lost on the way; None: not there yet."""
        if self.state == "lost" and rung == self.heading:
            return math.inf
        known = rung < min(self.arrived, len(self.losses)) and math.isfinite(self.losses[rung])
        return self.losses[rung] if known else None


def position(home: Path, steps: Sequence[int], best_so_far: bool = False) -> Position:
    """The position of the trial in a folder whose rungs are at `steps`.

    result.json says where it waits, config.json how far it was let go, and metrics.jsonl what it
    measured. ValueError if they are damaged.
    """
    config, result = read_config(home), read_json(home / "result.json", AGAIN) or {}
    rows = metrics.read(home / "metrics.jsonl")
    evaluated = {row["step"]: row["eval_loss"] for row in rows if "eval_loss" in row}
    newest = max((row["step"] for row in rows), default=0)
    passed = [step in evaluated or newest > step for step in steps]
    losses = tuple(
        min((loss for step, loss in evaluated.items() if step <= rung), default=math.nan)
        if best_so_far
        else evaluated.get(rung, math.nan)
        for rung in steps
    )
    status = ended(home)
    if status == "done":
        return Position(losses, len(steps), len(steps), status)
    limit = (config or {}).get("checkpoint", {}).get("stop_at", "")
    let_go = sum(step < duration.steps(limit) for step in steps) if limit else len(steps)
    heading = min(let_go, sum(passed))
    waits = result.get("status") == "stopped"
    arrived = max(heading, sum(step <= result["steps"] for step in steps) if waits else 0)
    return Position(losses, arrived, heading, "lost" if status else "", config is not None)


def let_go(
    rule: Stopping,
    positions: Mapping[str, Position],
    counts: Mapping[str, int],
    more: bool = False,
) -> list[set[str]]:
    """For each rung, the trials that wait there and may go on. `counts` maps each id to the number
    of rungs before its end; `more` says that a search may add trials."""
    found, complete = [], not more
    for rung in range(max(counts.values(), default=0)):
        members = [k for k, n in counts.items() if n > rung and positions[k].heading >= rung]
        losses = {k: loss for k in members if (loss := positions[k].loss(rung)) is not None}
        complete = complete and all(
            positions[k].arrived > rung or positions[k].state == "lost" for k in members
        )
        allowed = METHODS[rule.method](losses, complete, rule.keep)
        waiting = {k for k in members if positions[k].arrived > rung == positions[k].heading}
        found.append(allowed & waiting)
        complete = complete and not found[-1]
    return found


def next_trials(
    rule: Stopping,
    positions: Mapping[str, Position],
    counts: Mapping[str, int],
    more: bool = False,
) -> list[tuple[str, int]]:
    """What may train now: ids, each with the rung to train to. First those that a rung lets go on,
    from the highest; then those that are on their way; then those that have not begun, in the
    order of `counts`."""
    on = [
        (key, rung + 1)
        for rung, keys in reversed(list(enumerate(let_go(rule, positions, counts, more))))
        for key in sorted(keys, key=lambda key: (positions[key].losses[rung], key))
    ]
    way = [
        (key, here.heading)
        for key in counts
        if not (here := positions[key]).state and here.arrived == here.heading
    ]
    way.sort(key=lambda job: (not positions[job[0]].begun, -job[1]))
    return on + way
