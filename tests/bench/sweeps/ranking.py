"""Simulates sweeps whose truth is known and counts what a ranking says of them.

    python -m tests.bench.sweeps.ranking [--sweeps=200]

Half of the sweeps hold noise alone: "false claims" is the share of these in which anything is
claimed, that a configuration is worse than the best or that a key matters. The others have a best
learning rate, which shifts with the width, and an effect of the width: the share whose confidence
set holds the true best, the mean size of that set, the share in which both keys are said to matter,
the share of fitted rates whose 90 % interval holds the true optimum, and of those without one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from absl import app, flags
from rich.console import Console
from rich.table import Table

from configs import space
from scaling.ranking.best_set import BestSet
from scaling.ranking.configurations import Configuration, Key, configurations, varied
from scaling.ranking.fitted_rates import fitted_rates
from scaling.ranking.ranking import LEVEL, compare
from scaling.ranking.trials import Sweep, Trial, varied_keys

SWEEPS = flags.DEFINE_integer("sweeps", 200, "Simulated sweeps of each design.")

RATE, WIDTH = "optimizer.learning_rate", "model.d_model"
RATES = [0.005, 0.01, 0.02, 0.04, 0.08]
SPREAD, SHARED = 0.01, 0.01  # nats: standard deviations of a trial, and of a seed in all trials
BEND, SLOPE = 0.03, 0.05  # nats per (factor of two of the rate)², per factor of two of the width


@dataclass(frozen=True)
class Design:
    """Trials of a sweep, drawn anew for each simulation; `lean` is the cubic part of the loss over
    the rate as a share of the quadratic one; `uneven` the standard deviation of the logarithm of
    the configurations' spreads."""

    name: str
    trials: Callable[[int], list[dict]]
    lean: float = 0.0
    uneven: float = 0.0


def grid(rates: int, widths: int, seeds: int) -> Callable[[int], list[dict]]:
    axes = {RATE: RATES[:rates], WIDTH: [32 * 2**i for i in range(widths)]}
    return lambda draw: space.seeds(space.grid(axes), seeds)


def random_search(trials: int, seeds: int) -> Callable[[int], list[dict]]:
    """Over seven keys, of which the rate and the width matter."""
    rest = {f"optimizer.{name}": space.uniform(0, 1) for name in ("b1", "b2", "weight_decay")}
    rest |= {"optimizer.schedule.warmup": space.log_uniform(10, 1000)}
    rest |= {"model.norm": space.choice(["pre", "post"])}
    axes = {
        RATE: space.log_uniform(RATES[0], RATES[-1]),
        WIDTH: space.choice([32, 64, 128]),
        **rest,
    }
    return lambda draw: space.seeds(space.sample(axes, trials, draw), seeds)


DESIGNS = (
    Design("grid 4 rates x 2 widths, 2 seeds", grid(4, 2, 2)),
    Design("grid 4 rates x 2 widths, 3 seeds", grid(4, 2, 3)),
    Design("grid 5 rates x 3 widths, 3 seeds", grid(5, 3, 3)),
    Design("the same, losses that lean", grid(5, 3, 3), lean=0.12),
    Design("the same, unequal spreads", grid(5, 3, 3), uneven=0.3),
    Design("grid 5 rates x 3 widths, 1 seed", grid(5, 3, 1)),
    Design("random, 7 keys, 30 trials, 1 seed", random_search(30, 1)),
    Design("random, 7 keys, 20 trials, 2 seeds", random_search(20, 2)),
)


def simulate(design: Design, draw: int, planted: bool) -> tuple[Sweep, dict[str, float], dict]:
    """A finished sweep, the true loss of each configuration by its trial of seed 0, and the true
    best rate at each width."""
    random = np.random.default_rng([*design.name.encode(), draw, planted])
    overrides = design.trials(draw)
    middle = np.log2(RATES[:4]).mean()
    optimum = {w: middle + random.uniform(-0.7, 0.7) for w in sorted({o[WIDTH] for o in overrides})}
    shift, spreads = random.normal(size=10) * SHARED, {}
    trials, truth = [], {}
    for number, one in enumerate(overrides):
        seed = one.get("seed", 0)
        same = str({key: value for key, value in one.items() if key != "seed"})
        off = np.log2(one[RATE]) - optimum[one[WIDTH]]
        rise = BEND * (off**2 + design.lean * off**3) - SLOPE * np.log2(one[WIDTH] / 32)
        truth[same] = rise if planted else 0.0
        spread = spreads.setdefault(same, SPREAD * np.exp(design.uneven * random.normal()))
        loss = 3.0 + truth[same] + shift[seed] + spread * random.normal()
        result = {"status": "done", "metrics": {"loss": {"value": loss, "se": 0.02}}}
        trials.append(Trial(f"t{number}", Path(f"t{number}"), "done", {"seed": 0} | one, result))
    sweep = Sweep("simulated", Path("simulated"), tuple(trials), varied_keys(overrides))
    return sweep, truth, optimum


def claims(sweep: Sweep) -> tuple[list[Configuration], BestSet, set[str], list[Key]]:
    """The configurations of a sweep, what they are said to be, the keys that are said to matter."""
    keys = varied(sweep)
    found, _ = configurations(sweep, keys, "loss")
    compared, _, marginal = compare(found, keys, LEVEL, 1.0)
    matter = {row["key"] for row in marginal if row["p"] is not None and row["p"] < 1 - LEVEL}
    return found, compared, matter, keys


def figures(design: Design, sweeps: int) -> dict[str, float]:
    """The shares of a design; nan where it claims nothing of the kind."""
    false, holds, sizes, found_both, covered, unbounded = [], [], [], [], [], []
    for draw in range(sweeps):
        _, compared, matter, _ = claims(simulate(design, draw, planted=False)[0])
        false.append(False in compared.member or bool(matter))
        sweep, truth, optimum = simulate(design, draw, planted=True)
        found, compared, matter, keys = claims(sweep)
        best = min(range(len(found)), key=lambda i: truth[str(dict(found[i].values))])
        if compared.best is not None:
            holds.append(compared.member[best])
            sizes.append(compared.member.count(True))
        found_both.append({RATE, WIDTH} <= matter)
        for fitted in fitted_rates(found, keys, 1.0):
            ends = fitted["lo"], fitted["hi"]
            unbounded.append(None in ends)
            if None not in ends:
                covered.append(ends[0] <= 2 ** optimum[fitted["at"][WIDTH]] <= ends[1])
    shares = {"false claims": false, "set holds best": holds, "size of set": sizes}
    shares |= {"both keys found": found_both, "optima covered": covered, "no interval": unbounded}
    return {name: float(np.mean(v)) if v else float("nan") for name, v in shares.items()}


def main(_: list[str]) -> None:
    table = Table(box=None)
    for index, design in enumerate(DESIGNS):
        shares = figures(design, SWEEPS.value)
        if not index:
            for title in ("design", *shares):
                table.add_column(title, justify="right" if title in shares else "left")
        texts = [f"{v:.1f}" if name == "size of set" else f"{v:.1%}" for name, v in shares.items()]
        table.add_row(
            design.name, *(text.replace("nan%", "—").replace("nan", "—") for text in texts)
        )
    Console(width=130).print(table)


if __name__ == "__main__":
    app.run(main)
