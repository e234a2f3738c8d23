"""A search in the folder of a sweep: asks for trials, and reads what came of them."""

import contextlib
import fcntl
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs import space
from configs.space import Overrides, Search
from data.atomic import lock
from launch.config import config_file
from launch.errors import writing
from launch.files import AGAIN, read_json, write_json
from launch.search import budget
from launch.search.asked import Asked
from launch.sweep import expand
from launch.sweep.expand import Plan, Planned, Planner
from launch.sweep.search import FIXED, SEARCHES, described, read
from train.flatten import difference, flatten

MOST_IN_VAIN = 50  # configurations in a row that no model can have, or that were there before
COMPLETE = "complete"  # all trials were asked for
ENDED = ("done", "diverged")  # statuses that are final


@dataclass(frozen=True)
class Round:
    """A configuration that was asked for with its trials, one for each seed; none, and the reason,
    where it is not valid."""

    overrides: Overrides
    trials: tuple[Planned, ...]
    problem: str = ""


class Asker:
    """A search in a folder: what it has asked for, what came of it, and what it asks for next."""

    def __init__(
        self, search: Search, planner: Planner, workdir: Path, seeds: int = 1, rate: float = 1e10
    ):
        """Reads what the folder's sweep.json has of the search. `rate`: model FLOP/s of a worker,
        until trials tell. ValueError if the folder holds another search, or a key of an axis is
        unknown."""
        self.search, self.planner, self.workdir, self.seeds = search, planner, workdir, seeds
        self.method, self.budget = SEARCHES[search.method], budget.parse(search.budget)
        self.lazy = self.method.SEQUENTIAL or self.budget is not None
        self.rounds: list[Round] = []
        self.ended = ""  # why it asks for no more
        self._rate = rate
        self._results: dict[str, dict] = {}
        self._ahead: list[Overrides] = []
        example = {k: axis.at(0.0) if callable(axis) else axis for k, axis in search.axes.items()}
        config = planner.base.copy_and_resolve_references()
        try:
            config_file.apply_overrides(config.lock(), example)
        except ValueError as error:
            raise ValueError(f"search.axes: {error}") from error
        self._granted: dict[str, float] = {}  # parts of their length that trials may train
        self._read()

    @property
    def repeated(self) -> int:
        """How many trials were asked for again."""
        return sum(len(found.trials) for found in self.rounds) - len(self.planned)

    @property
    def planned(self) -> list[Planned]:
        """All trials that were asked for, each once."""
        return list({p.id: p for found in self.rounds for p in found.trials}.values())

    @property
    def pending(self) -> list[Planned]:
        """The trials that are not in the plan of the sweep, since they are asked for while it
        runs."""
        return self.planned if self.lazy else []

    def next(self) -> list[Planned]:
        """The trials of the next configuration, one for each seed; [] when the search has ended.

        A configuration that is not valid, or that was there before, is passed over; after
        MOST_IN_VAIN of them the search ends. ValueError if no configuration is valid.
        """
        vain = 0
        while overrides := self._propose():
            found, known = self._round(overrides), {planned.id for planned in self.planned}
            fresh = [planned for planned in found.trials if planned.id not in known]
            if fresh and not self._affordable(fresh):
                self._ahead.insert(0, overrides)
                return []
            self.rounds.append(found)
            if fresh:
                return fresh
            vain += 1
            if vain == MOST_IN_VAIN:
                self.ended = f"the last {vain} configurations bring no new trial"
                break
        if not self.planned and self.rounds:
            last = self.rounds[-1]
            raise ValueError(
                f"search.axes: none of the first {len(self.rounds)} configurations is valid, the "
                f"last {last.overrides}: {last.problem}; give the axes other values"
            )
        self.ended = self.ended or COMPLETE
        return []

    def ask(self) -> list[Planned]:
        """`next`, written to sweep.json. Other processes that run the same search wait meanwhile
        and count these trials as theirs do."""
        with self._alone():
            trials = self.next()
            self._write()
        return trials

    def record(self, plan: Plan) -> None:
        """Writes the plan, the search and all that it asked for to sweep.json. What `expand.record`
        raises."""
        with writing("workdir", self.workdir):
            self.workdir.mkdir(parents=True, exist_ok=True)
        with self._alone():
            expand.record(plan, self.workdir)
            self._write()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Keeps other processes from asking, and knows what they have asked for."""
        with writing("workdir", self.workdir), open(self.workdir / "search.lock", "a") as file:
            lock(file, fcntl.LOCK_EX)
            self._read()
            yield

    def _write(self) -> None:
        content = expand.recorded(self.workdir)
        asked = [
            {"overrides": found.overrides, "trials": [planned.id for planned in found.trials]}
            | ({"problem": found.problem} if found.problem else {})
            for found in self.rounds
        ]
        content["search"] = described(self.search) | {"asked": asked}
        for planned in self.planned:
            content["trials"][planned.id] = {
                "overrides": planned.overrides,
                "holdout": planned.holdout,
            }
        write_json(self.workdir / "sweep.json", content)

    def spent(self) -> float:
        """What the trials cost so far, in the unit of the budget; those that have not ended count
        as a whole."""
        rate, total = self._measured_rate(), 0.0
        for planned in self.planned:
            result = self._result(planned)
            part = self._granted.get(planned.id, 1.0)
            if result and result["status"] == "stopped":
                trained = result["steps"] / planned.about["steps"]
                part = max(self._granted.get(planned.id, 0.0), trained)
            ended = result and result["status"] in ENDED and "seconds" in result
            whole = self.budget.cost(planned, rate)
            total += self.budget.spent(planned, result) if ended else part * whole
        return total

    def grant(self, planned: Planned, part: float) -> bool:
        """Whether the budget has room to train a trial of the search up to a part of its length,
        which is then counted as spent."""
        if not self.budget or planned.id not in {p.id for p in self.planned}:
            return True
        before = dict(self._granted)
        self._granted[planned.id] = part
        if self.spent() <= self.budget.limit:
            return True
        self._granted = before
        return False

    def summary(self) -> str:
        """One line: how many configurations were asked for, why no more, what is left."""
        count, limit = len(self.rounds), self.search.trials
        line = f"search by {self.search.method}: {count}{f' of {limit}' if limit else ''} trials"
        if problems := sum(bool(found.problem) for found in self.rounds):
            line += f", {problems} of them not valid"
        if self.seeds > 1:
            line += f", each with {self.seeds} seeds"
        if self.budget:
            spent, number = self.spent(), self.budget.number
            left = max(0.0, self.budget.limit - spent)
            whole = self.budget.text(self.budget.limit)
            line += f"; {number(spent)} of {whole} spent, {number(left)} left"
        return line if self.ended in ("", COMPLETE) else f"{line}; {self.ended}"

    def to_come(self) -> int:
        """About how many more trials it will ask for, if they cost what the others do; 0 where
        nothing tells."""
        limits = []
        if self.search.trials:
            limits.append(self.search.trials - len(self.rounds))
        if self.budget and (spent := self.spent()):
            limits.append(int((self.budget.limit / spent - 1) * len(self.rounds) + 1e-9))
        return 0 if self.ended else max(0, min(limits, default=0)) * self.seeds

    def outlook(self) -> str:
        """One line on a search that has not begun: what it will ask for, and what that may cost."""
        line = f"search by {self.search.method}: {len(self.rounds)}"
        line += f" of {self.search.trials} trials" if self.search.trials else " trials"
        if self.method.SEQUENTIAL:
            line += f" are listed, about {self.to_come() // self.seeds} more depend on results"
        if self.budget:
            spent, limit = self.budget.number(self.spent()), self.budget.text(self.budget.limit)
            line += f"; those listed cost {spent} of {limit}"
        return line

    def _propose(self) -> Overrides | None:
        if not self._ahead:
            self._ahead = self.method.ask(self.search, [*map(self.came_of, self.rounds)])
        return self._ahead.pop(0) if self._ahead else None

    def _round(self, overrides: Overrides) -> Round:
        """A configuration with its trials."""
        each = space.seeds([overrides], self.seeds, self.planner.base.seed)
        try:
            return Round(overrides, tuple(map(self.planner.planned, each)))
        except ValueError as error:
            return Round(overrides, (), str(error))

    def _affordable(self, trials: Sequence[Planned]) -> bool:
        """Whether the budget has room for trials; where it has not, the search has ended."""
        if not self.budget:
            return True
        rate = self._measured_rate()
        needed = sum(self.budget.cost(planned, rate) for planned in trials)
        if self.spent() + needed <= self.budget.limit:
            return True
        if not self.rounds:
            raise ValueError(
                f"search.budget={self.search.budget!r} is below the {self.budget.text(needed)} of "
                "the first trial; raise --budget, or shorten train.duration"
            )
        self.ended = f"the next trial needs {self.budget.number(needed)}"
        return False

    def _measured_rate(self) -> float:
        return expand.measured_flops(self._results.values()) or self._rate

    def _result(self, planned: Planned) -> dict | None:
        """The result of a trial that has ended; None of another."""
        if planned.id not in self._results:
            found = read_json(self.workdir / planned.id / "result.json", AGAIN)
            if found is None or found.get("status") == "failed":  # a failed one may be tried again
                return found
            if found["status"] not in ENDED:  # a stopped one may go on
                return found
            self._results[planned.id] = found
        return self._results[planned.id]

    def came_of(self, found: Round) -> Asked:
        """What is known of a configuration: one of its seeds that went wrong decides."""
        if found.problem:
            return Asked(found.overrides, "invalid")
        results = [self._result(planned) for planned in found.trials]
        if None in results:
            return Asked(found.overrides)
        statuses = {result["status"] for result in results}
        for status in ("failed", "diverged"):
            if status in statuses:
                return Asked(found.overrides, status)
        losses = [result["eval_loss"] for result in results]
        tokens = [result["tokens"] for result in results]
        status = "stopped" if "stopped" in statuses else "done"
        return Asked(found.overrides, status, sum(losses) / len(losses), min(tokens))

    def _read(self) -> None:
        """Takes over what sweep.json has asked for beyond what is known here."""
        there = expand.recorded(self.workdir).get("search")
        if there is None:
            return
        asked = there.pop("asked", [])
        there, now = flatten({"search": there}), flatten({"search": described(self.search)})
        fixed = {key for key in {*there, *now} if key.split(".")[1] in FIXED}
        if differs := difference(*({k: d[k] for k in fixed & {*d}} for d in (there, now))):
            raise ValueError(
                f"--workdir={self.workdir} holds another search: "
                f"{differs.removeprefix('config.')}; use another folder"
            )
        new = asked[len(self.rounds) :]
        self._ahead = [] if new else self._ahead
        self.rounds += [self._round(entry["overrides"]) for entry in new]


def plan(
    spec: str,
    overrides: Mapping[str, str],
    workdir: Path,
    seeds: int,
    given: Mapping[str, Any],
    rate: float,
) -> tuple[Plan, Asker | None]:
    """The trials of a config file that are known before the first starts, and who asks for the
    others: `expand.plan`, for a config that may have a `get_search` as well.

    `given` are the keys of the search that the command line sets. ValueError in one line for what
    `search.read` and `Asker` refuse.
    """
    base = config_file.load_config(spec, overrides)
    module, _ = config_file.load_module(spec)
    search = read(module, base, spec, given)
    if search is None:
        if there := expand.recorded(workdir).get("search"):
            raise ValueError(
                f"--workdir={workdir} holds a search by {there.get('method')}, and config={spec} "
                "has no get_search; use another folder"
            )
        return expand.plan(spec, overrides, workdir, seeds), None
    planner = Planner(base, workdir)
    fixed = expand.trials_of(module, base, spec) if hasattr(module, "get_sweep") else []
    variations = space.seeds(fixed, seeds, base.seed)
    trials = planner.all(variations, spec)
    duplicates = len(variations) - len(trials)
    asker = Asker(search, planner, workdir, seeds, rate)
    if not asker.lazy:
        while asker.next():
            pass
        every = {planned.id: planned for planned in (*trials, *asker.planned)}
        duplicates += len(trials) + len(asker.planned) - len(every) + asker.repeated
        trials = list(every.values())
    planner.print_notes()
    return Plan(spec, base, expand.in_stages(trials), duplicates), asker
