"""This file runs a pilot: rounds of a sweep's trials, then the ladder that they propose."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from ml_collections import ConfigDict

from data import store
from launch.errors import DONE, bad_input, writing
from launch.files import read_json, write_json
from launch.flags import load_config, load_module
from launch.pilot import proposal
from launch.pilot.proposal import Shape
from launch.pilot.summary import summary
from launch.verbs import sweep
from launch.verbs.pilot import FEWEST_BUDGETS, beyond, designs, numbers
from scaling.design.pilot_trials import (
    UNCERTAIN,
    Cell,
    Pilot,
    Trials,
    cells,
    extensions,
    read_pilot,
)
from scaling.design.precision import Design, compared

ROUNDS = 5  # of trials: the first grid, and extensions where the best lies at an edge
FIRST_SPAN = 4.0  # of the pilot's own sizes, to either side of the first guess
TOKENS_A_PARAMETER = 20  # of the first guess where no sweep tells (Hoffmann et al. 2022)


@dataclass
class Study:
    """A pilot: what was asked, what there is to choose from, and its trials so far."""

    values: flags.FlagValues
    overrides: Mapping[str, str]
    base: ConfigDict
    shapes: list[Shape]
    budgets: list[float]
    held_out: float
    trials: list[dict[str, Any]]

    @property
    def convention(self) -> str:
        return self.base.train.flops_convention

    def write(self, folder: Path) -> Path:
        """The sweep of the pilot's trials."""
        doc = f"Pilot of {self.values.config}, written by isoflop pilot.  Unmeasured."
        path = folder / "pilot.py"
        return proposal.write_sweep(path, doc, self.values.config, self.overrides, self.trials)

    def rates(self) -> list[float]:
        middle = self.base.optimizer.learning_rate
        return [float(f"{middle * r:.3g}") for r in numbers("rates", self.values.rates, 3)]


def prepared(values: flags.FlagValues, overrides: Mapping[str, str]) -> Study:
    """The study with its first trials. Tokenizes the text if need be, as a sweep does."""
    base = load_config(values.config, overrides)
    module, _ = load_module(values.config)
    known = module.get_sweep(base) if hasattr(module, "get_sweep") else []
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
    held_out = values.held_out or (largest if largest > budgets[-1] else None)
    shapes = proposal.candidates(base, vocab_size, known_shapes)
    study = Study(values, overrides, base, shapes, budgets, beyond(held_out, budgets), [])
    guess = first_guess([(shape, c) for shape, c, holdout in spent if c and not holdout])
    for share in numbers("share", values.share):
        if not share <= 1:
            raise ValueError(f"share={share:g} is more than the ladder's smallest budget; use 0.1")
        budget = float(f"{share * budgets[0]:.4g}")
        half = proposal.half_range(FIRST_SPAN, 0)
        around = proposal.bracketing(shapes, guess(budget), half, values.sizes)
        study.trials += [
            proposal.trial(budget, shape, rate) for shape in around for rate in study.rates()
        ]
    return study


def budget_of(trial: Mapping[str, Any]) -> float | None:
    """The FLOPs of a trial whose duration is given in them."""
    number, _, unit = str(trial.get("train.duration", "")).partition(" ")
    return float(number) if unit == "flops" else None


def held_out_of(trial: Mapping[str, Any]) -> bool:
    return bool(trial.get("holdout", False))


def first_guess(spent: Sequence[tuple[Shape, float]]) -> Callable[[float], float]:
    """log N* at a budget before anything is known: the middle of the sweep's sizes at its smallest
    budget, carried on as C^0.5; else 20 tokens a parameter.
    """
    if not spent:
        return lambda flops: 0.5 * float(np.log(flops / 6 / TOKENS_A_PARAMETER))
    least = min(c for _, c in spent)
    middle = float(np.mean([np.log(shape.params) for shape, c in spent if c == least]))
    return lambda flops: middle + 0.5 * float(np.log(flops / least))


def dry_run(study: Study) -> int:
    """The table of the first round's trials."""
    with tempfile.TemporaryDirectory() as folder:
        path = study.write(Path(folder))
        where = Path(study.values.workdir) / "trials"
        return sweep.main([f"--config={path}", f"--workdir={where}", "--dry_run"])


def run(study: Study) -> int:
    """Rounds of trials until no best lies at an edge, then the proposal."""
    workdir = Path(study.values.workdir)
    for last in (*[False] * (ROUNDS - 1), True):
        code, trials = train(study, workdir)
        if code != DONE:
            return code
        with bad_input():
            more = further(study, *extensions(cells(trials)))
        if last or not more:
            break
        print(f"the best lies at an edge: {len(more)} trials more")
        study.trials += more
    with bad_input():
        found = read_pilot(trials, study.values.seed)
        told = proposed(study, found)
    path = proposal.write_sweep(
        workdir / "proposed.py",
        headline(study, told),
        study.values.config,
        study.overrides,
        told.pop("trials"),
    )
    told["proposed"] = str(path)
    for target in (workdir / "pilot.json", *filter(None, [study.values.json])):
        with writing("json", target):
            write_json(Path(target), told)
    print(summary(told))
    return DONE


def train(study: Study, workdir: Path) -> tuple[int, Trials | None]:
    """Runs the trials that have not run; returns the sweep's exit code and all of them as Trials.

    A sweep keeps what is finished, so a pilot that is started again goes the same way, faster.
    """
    path, record = study.write(workdir), workdir / "trials.json"
    flags_ = [f"--config={path}", f"--workdir={workdir / 'trials'}", f"--json={record}"]
    code = sweep.main([*flags_, "--nofit", f"--workers={study.values.workers}"])
    rows = []
    for told in (read_json(record) or {}).get("trials", ()) if code == DONE else ():
        own, lost = told["overrides"], told["status"] == "diverged"
        rows.append(
            (
                budget_of(own),
                sum(told["params"].values()),
                told["tokens"],
                own["model.d_model"],
                own["optimizer.learning_rate"],
                float("inf") if lost else told["eval_loss"],
            )
        )
    return code, Trials(*np.array(rows, float).T) if rows else None


def further(
    study: Study,
    rates: Sequence[tuple[Cell, float]],
    sizes: Sequence[tuple[float, float]],
) -> list[dict[str, Any]]:
    """The trials that follow from the edges, without those that have run."""
    by_params = {shape.params: shape for shape in study.shapes}
    more = [proposal.trial(cell.budget, by_params[int(cell.params)], r) for cell, r in rates]
    tried = {(budget_of(row), row["model.d_model"]) for row in study.trials}
    for budget, params in sizes:
        left = [shape for shape in study.shapes if (budget, shape.width) not in tried]
        shape = proposal.nearest_to(left, params)
        tried.add((budget, shape.width))
        more += [proposal.trial(budget, shape, rate) for rate in study.rates()]
    return more


def proposed(study: Study, found: Pilot) -> dict[str, Any]:
    """The ladder with its precision, as --json has it; `trials` are the rows of proposed.py."""
    values, last = study.values, study.held_out

    def chosen(budget: float, sizes: int, wider: float = 1.0) -> list[Shape]:
        log_n, sd = found.line.at(budget)
        enough = proposal.enough(proposal.half_range(values.span, sd), values.sizes)
        half = proposal.half_range(wider * values.span, sd)
        return proposal.bracketing(study.shapes, log_n, half, enough + sizes - values.sizes)

    def make(budgets: list[float], sizes: int, wider: float) -> Design:
        rows = [
            (budget, shape.params, shape.tokens(budget, study.convention))
            for budget in budgets
            for shape in chosen(budget, sizes, wider)
        ]
        return Design(
            *np.array(rows).T, held_out=(best.params, best.tokens(last, study.convention))
        )

    best = proposal.nearest_to(study.shapes, float(np.exp(found.line.at(last)[0])))
    wanted = designs(make, study.budgets, values.sizes, values.seeds)
    noise = found.noise if values.noise is None else values.noise
    rows = compared(found.laws, noise, found.dof, wanted, values.seed)
    seeds = [study.base.seed + i for i in range(values.seeds)]
    rungs, trials = [], []
    for budget in study.budgets:
        shapes = chosen(budget, values.sizes)
        rungs.append(rung(budget, shapes, found))
        trials += [
            proposal.trial(budget, shape, found.rule.rate(shape.width), False, seed)
            for shape in shapes
            for seed in seeds
        ]
    trials.append(proposal.trial(last, best, found.rule.rate(best.width), True))
    cost = sum(budget_of(row) for row in study.trials)
    return {
        "config": values.config,
        "overrides": dict(study.overrides),
        "pilot": found.described() | {"runs": len(study.trials), "flops": cost},
        "ladder": rungs,
        "held_out": rung(last, [best], found),
        "share": cost / sum(budget_of(row) for row in trials),
        "precision": rows,
        "trials": trials,
    }


def rung(budget: float, shapes: Sequence[Shape], found: Pilot) -> dict[str, Any]:
    """One budget of the ladder."""
    log_n, sd = found.line.at(budget)
    low, high = (log_n + sign * UNCERTAIN * sd for sign in (-1, 1))
    best = {name: float(np.exp(x)) for name, x in (("value", log_n), ("lo", low), ("hi", high))}
    rows = [
        {"shape": shape.text, "params": shape.params, "rate": found.rule.rate(shape.width)}
        for shape in shapes
    ]
    return {"flops": budget, "params": best, "sizes": rows}


def headline(study: Study, told: Mapping[str, Any]) -> str:
    """The docstring of proposed.py."""
    pilot, widths = told["pilot"], told["precision"][0]["widths"]
    expected = ", ".join(f"{name} {widths[name]['value']:.2g}" for name in ("a", "alpha", "beta"))
    path = Path(study.values.workdir) / "proposed.py"
    return (
        f"Ladder proposed by isoflop pilot.  isoflop sweep --config={path} --workdir=runs/ladder\n"
        f"Unmeasured.\n\nFrom {pilot['runs']} pilot runs, {told['share']:.1%} of this ladder's "
        f"compute.\nExpected width of the 90 % intervals: {expected}.\n"
    )
