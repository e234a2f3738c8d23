"""Sweeps without files, whose losses a test chooses."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from scaling.ranking.configurations import Configuration, Key, configurations, varied
from scaling.ranking.trials import Sweep, Trial, varied_keys


def sweep(trials: Iterable[tuple[Mapping[str, Any], float | None]], **about: Any) -> Sweep:
    """Finished trials of (settings, loss); a loss of None is a trial that diverged. `about` goes
    into every result."""
    made = []
    for number, (settings, loss) in enumerate(trials):
        metrics = {"loss": {"value": loss, "se": 0.02, "unit": "nats/token", "better": "lower"}}
        status = "diverged" if loss is None else "done"
        result = {"status": status, "metrics": metrics} | about
        made.append(Trial(f"t{number}", Path(f"t{number}"), status, {"seed": 0} | settings, result))
    return Sweep("s", Path("s"), tuple(made), varied_keys([trial.settings for trial in made]))


def compared(
    trials: Iterable[tuple[Mapping[str, Any], float]],
) -> tuple[list[Configuration], list[Key]]:
    """The configurations of such trials, and their keys."""
    made = sweep(trials)
    keys = varied(made)
    return configurations(made, keys, "loss")[0], keys
