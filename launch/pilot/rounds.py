"""Runs a pilot: rounds of cheap trials until no best is at an edge, then a proposed ladder."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags as absl_flags
from ml_collections import ConfigDict

from data import store
from data.files import to_path
from launch.alive import alive
from launch.config import sweep_file
from launch.config.config_file import base_of, load_config, load_module
from launch.errors import DONE, bad_input, writing
from launch.files import write_json
from launch.pilot import proposal
from launch.pilot.designs import FEWEST_BUDGETS, held_out_budget, numbers
from launch.pilot.ladder import Ladder
from launch.pilot.proposal import Shape
from launch.pilot.summary import summary
from launch.sweep import execution, expand
from launch.sweep.dry_run import dry_run
from launch.sweep.machine import Machine, machine
from scaling.design.pilot_trials import Cell, Pilot, Trials, cells, extensions, read_pilot

ROUNDS = 5  # at most: the first grid, and extensions while the best is at an edge
FIRST_SPAN = 4.0  # the pilot's sizes reach this factor to either side of the first guess
TOKENS_A_PARAMETER = 20  # for the first guess without a sweep (Hoffmann et al. 2022)


@dataclass
class PilotPlan:
    """A pilot: what its flags ask for, and its trials so far."""

    values: absl_flags.FlagValues
    overrides: Mapping[str, str]  # of the base config
    base: ConfigDict
    shapes: list[Shape]  # all that it can choose from
    budgets: list[float]  # FLOPs of the ladder
    held_out: float  # FLOPs of the held-out run
    where: Machine
    trials: list[dict[str, Any]]

    def write(self, path: Path, doc: str, trials: Sequence[Mapping[str, Any]]) -> Path:
        """Writes a sweep file of trials with the base config; returns its path."""
        base = base_of(self.values.config, self.overrides)
        with writing("workdir", path.parent):
            return sweep_file.write(path, doc, *base, trials)

    def sweep(self, folder: Path) -> expand.Plan:
        """The sweep of the pilot's trials; writes its file to `folder`."""
        doc = f"Pilot of {self.values.config}, written by isoflop pilot.  Unmeasured."
        spec = str(self.write(folder / "pilot_trials.json", doc, self.trials))
        return expand.plan(spec, {}, to_path(self.values.workdir) / "trials")

    def rates(self) -> list[float]:
        """The learning rates of the first round, the same at every size."""
        middle = self.base.optimizer.learning_rate
        return [float(f"{middle * r:.3g}") for r in numbers("rates", self.values.rates, 3)]


def make_plan(values: absl_flags.FlagValues, overrides: Mapping[str, str]) -> PilotPlan:
    """The plan with the trials of the first round. Tokenizes the text if it is not yet tokenized.

    Raises ValueError if a flag is out of range, or if the config has no shapes on both sides of the
    first guess.
    """
    where = machine(values.on, values.workers)
    base = load_config(values.config, overrides)
    module, _ = load_module(values.config)
    known = expand.trials_of(module, base, values.config) if hasattr(module, "get_sweep") else []
    vocab_size = store.prepare(base.data).vocab_size
    known_shapes = proposal.sweep_shapes(base, vocab_size, known)
    spent = list(zip(known_shapes, map(budget_of, known), map(held_out_of, known), strict=False))
    fitted = sorted({c for _, c, holdout in spent if c and not holdout})
    if values.budgets:
        budgets = numbers("budgets", values.budgets, FEWEST_BUDGETS)
    elif len(fitted) < FEWEST_BUDGETS:
        raise ValueError(
            f"config={values.config} has {len(fitted)} budgets in flops, and a ladder takes "
            f"{FEWEST_BUDGETS}; give --budgets=1e12,3e12,1e13"
        )
    else:
        budgets = fitted
    largest = max((c for _, c, holdout in spent if c and holdout), default=0.0)
    asked = values.held_out or (largest if largest > budgets[-1] else None)
    held_out = held_out_budget(asked, budgets)
    shapes = proposal.candidates(base, vocab_size, known_shapes)
    plan = PilotPlan(values, overrides, base, shapes, budgets, held_out, where, [])
    guess = first_guess([(shape, c) for shape, c, holdout in spent if c and not holdout])
    for share in numbers("share", values.share):
        if not share <= 1:
            raise ValueError(f"share={share:g} is more than the ladder's smallest budget; use 0.1")
        budget = float(f"{share * budgets[0]:.4g}")
        half = proposal.half_log_span(FIRST_SPAN, 0)
        around = proposal.shapes_around(shapes, guess(budget), half, values.sizes)
        plan.trials += [
            proposal.trial(budget, shape, rate) for shape in around for rate in plan.rates()
        ]
    return plan


def budget_of(trial: Mapping[str, Any]) -> float | None:
    """The FLOPs of a trial, or None if its duration is not in FLOPs."""
    number, _, unit = str(trial.get("train.duration", "")).partition(" ")
    return float(number) if unit == "flops" else None


def held_out_of(trial: Mapping[str, Any]) -> bool:
    """Whether a trial is held out."""
    return bool(trial.get("holdout", False))


def first_guess(spent: Sequence[tuple[Shape, float]]) -> Callable[[float], float]:
    """log N* at a budget before anything is measured: the middle of the sweep's sizes at its
    smallest budget, extended as C^0.5; without a sweep, 20 tokens per parameter.
    """
    if not spent:
        return lambda flops: 0.5 * float(np.log(flops / 6 / TOKENS_A_PARAMETER))
    least = min(c for _, c in spent)
    middle = float(np.mean([np.log(shape.params) for shape, c in spent if c == least]))
    return lambda flops: middle + 0.5 * float(np.log(flops / least))


def print_first_round(plan: PilotPlan) -> int:
    """Prints the table of the first round's trials; returns the exit code."""
    with tempfile.TemporaryDirectory() as folder:
        with bad_input():
            sweep = plan.sweep(Path(folder))
        dry_run(sweep, to_path(plan.values.workdir) / "trials", plan.where)
    return DONE


def run(plan: PilotPlan) -> int:
    """Runs rounds of trials until no best is at an edge, then proposes; returns the exit code."""
    workdir = to_path(plan.values.workdir)
    for number in range(1, ROUNDS + 1):
        code, trials = train(plan, workdir)
        if code != DONE:
            return code
        with bad_input():
            more = further_trials(plan, *extensions(cells(trials)))
        if number == ROUNDS or not more:
            break
        print(f"the best lies at an edge: {len(more)} more trials")
        plan.trials += more
    with bad_input():
        with alive("simulating the ladder"):
            pilot = read_pilot(trials, plan.values.seed)
            ladder, about = propose(plan, pilot)
    path = workdir / "proposed.json"
    about["proposed"] = str(plan.write(path, headline(path, about), ladder.trials()))
    with writing("workdir", workdir):
        write_json(workdir / "pilot.json", about)
    if plan.values.json:
        with writing("json", plan.values.json):
            write_json(to_path(plan.values.json), about)
    print(summary(about))
    return DONE


def train(plan: PilotPlan, workdir: Path) -> tuple[int, Trials | None]:
    """Runs the trials that have not run; returns the sweep's exit code and all trials.

    A sweep keeps finished trials, so a restarted pilot passes through its finished rounds at once.
    """
    with bad_input():
        sweep = plan.sweep(workdir)
    code = execution.run_sweep(sweep, workdir / "trials", plan.where)
    if code != DONE:
        return code, None
    with bad_input():
        finished = execution.summary(sweep, workdir / "trials", code)["trials"]
        rows = [row_of(trial, workdir / "trials" / trial["id"]) for trial in finished]
    return code, Trials(*np.array(rows, float).T)


def row_of(trial: Mapping[str, Any], folder: Path) -> tuple[float, ...]:
    """A finished trial as a row of Trials: FLOPs, parameters, tokens, width, learning rate, loss
    (inf if it diverged). Raises ValueError if its result.json has no loss."""
    loss, keys = trial["eval_loss"], trial["overrides"]
    if trial["status"] == "diverged":
        loss = float("inf")
    elif not isinstance(loss, int | float):
        raise ValueError(
            f"{folder / 'result.json'} has no eval_loss (status {trial['status']!r}); delete it "
            "and run again"
        )
    size = sum(trial["params"].values()), trial["tokens"]
    return budget_of(keys), *size, keys["model.d_model"], keys["optimizer.learning_rate"], loss


def further_trials(
    plan: PilotPlan,
    rates: Sequence[tuple[Cell, float]],
    sizes: Sequence[tuple[float, float]],
) -> list[dict[str, Any]]:
    """The trials of a further round: cells with one more rate each, and sizes (budget, N) with all
    rates of the first round. The nearest size that has not run replaces one that has."""
    by_params = {shape.params: shape for shape in plan.shapes}
    more = [proposal.trial(cell.budget, by_params[int(cell.params)], r) for cell, r in rates]
    tried = {(budget_of(row), row["model.d_model"]) for row in plan.trials}
    for budget, params in sizes:
        left = [shape for shape in plan.shapes if (budget, shape.width) not in tried]
        shape = proposal.nearest_shape(left, params)
        tried.add((budget, shape.width))
        more += [proposal.trial(budget, shape, rate) for rate in plan.rates()]
    return more


def propose(plan: PilotPlan, pilot: Pilot) -> tuple[Ladder, dict[str, Any]]:
    """The ladder, and the content of pilot.json except the path of the proposal."""
    values = plan.values
    ladder = Ladder(
        pilot,
        plan.shapes,
        plan.base.train.flops_convention,
        plan.budgets,
        plan.held_out,
        values.sizes,
        values.span,
        [plan.base.seed + i for i in range(values.seeds)],
    )
    precision = ladder.precision(values.noise, values.seed)
    cost = sum(budget_of(row) for row in plan.trials)
    return ladder, {
        "config": values.config,
        "overrides": dict(plan.overrides),
        "pilot": pilot.to_json() | {"runs": len(plan.trials), "flops": cost},
        **ladder.to_json(),
        "share": cost / sum(budget_of(row) for row in ladder.trials()),
        "precision": precision,
    }


def headline(path: Path, about: Mapping[str, Any]) -> str:
    """The "doc" of the proposed sweep."""
    pilot, widths = about["pilot"], about["precision"][0]["widths"]
    expected = ", ".join(f"{name} {widths[name]['value']:.2g}" for name in ("a", "alpha", "beta"))
    return (
        f"Ladder proposed by isoflop pilot.  isoflop sweep --config={path} --workdir=runs/ladder\n"
        f"Unmeasured.\n\nFrom {pilot['runs']} pilot runs, {about['share']:.1%} of this ladder's "
        f"compute.\nExpected width of the 90 % intervals: {expected}.\n"
    )
