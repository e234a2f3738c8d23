"""Runs whose kernels are quantised: quantised.json beside config.json, codes in the checkpoint."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from launch.files import AGAIN, read_family, read_json
from model.quantised import model
from model.quantised.model import Quantisation
from train.checkpoint import restore_params

FILE = "quantised.json"


def is_quantised(run: Path) -> bool:
    """Whether `isoflop quantise` wrote the run."""
    return (run / FILE).is_file()


def of_file(run: Path) -> Quantisation:
    """How the kernels of a run are stored. ValueError for a damaged quantised.json."""
    about = read_json(run / FILE, AGAIN) or {}
    try:
        return Quantisation(**{key: about[key] for key in Quantisation.__dataclass_fields__})
    except (KeyError, TypeError, ValueError) as error:
        reason = f"it has no key {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"{run / FILE} is damaged ({reason}); quantise the run again") from None


def read(run: Path, say: Callable[[str], None] = print) -> tuple[dict[str, Any], dict]:
    """(parameters with quantised kernels, meta) of a run's newest good checkpoint. ValueError if
    they do not fit its config."""
    how = of_file(run)
    family, cfg = read_family(run, "run")
    arrays, meta = restore_params(run / "checkpoints", say)
    try:
        return model.restored(family, cfg, arrays, how), meta
    except ValueError as error:
        raise ValueError(f"{run / 'checkpoints'}: {error}; quantise the run again") from None
