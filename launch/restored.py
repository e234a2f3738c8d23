"""The model in a run's folder: its family, and what its newest good checkpoint holds. Verbs that
draw from language models also open a folder of Hugging Face weights."""

import sys
from pathlib import Path
from typing import Any

import jax

from launch.config import imports
from launch.converted import is_published
from launch.files import read_family
from launch.quantising import quantised
from launch.trial.start import here, model_section, of_run
from model import families, parameters
from model.huggingface import weights
from train.checkpoint import Damaged, finished, newest_read, opened
from train.counting import MODEL


def family_of(run: Path, published: bool = False) -> tuple[families.Family, Any]:
    """The family of a run, and its Config; with `published` also those of Hugging Face weights.
    ValueError or FileNotFoundError, in one line; it says so if a file that the run imported would
    help."""
    if published and is_published(run):
        return families.read(model_section(run, "run"))
    try:
        return read_family(run, "run")
    except ValueError as error:
        raise ValueError(f"{error}{imports.remedy(run)}") from None


def restored(run: Path, family: families.Family, cfg: Any) -> tuple[Any, int]:
    """(the parameters, on the device, or the counts of a run's newest good checkpoint, its step).
    Hugging Face weights are at step 0. ValueError where the parameters are not those of `cfg`."""
    if is_published(run):
        return jax.device_put(weights.load(here(run))[1]), 0
    if families.is_counted(family):
        return restored_counts(run, family)
    if quantised.is_quantised(run):  # its codes, as matrices are multiplied from them
        params, meta = quantised.read(run, _say)
        return jax.device_put(params), meta["step"]
    params, meta = of_run(run, _say)
    try:
        parameters.check(jax.eval_shape(lambda: family.init(cfg, jax.random.key(0))), params)
    except ValueError as error:
        raise ValueError(
            f"{run / 'checkpoints'}: {error}; put back the config.json that it was trained with"
        ) from None
    return jax.device_put(params), meta["step"]


def restored_counts(run: Path, family: families.Counted) -> tuple[Any, int]:
    """(the counts of a run's newest good checkpoint, its step)."""
    paths = finished(run / "checkpoints")
    if not paths:
        raise FileNotFoundError(f"{run / 'checkpoints'} holds no model; train the run first")

    def load(path: Path) -> Any:
        with opened(path) as folder, open(folder / MODEL, "rb") as file:
            return family.load(file)

    read = newest_read(paths, load, _say)
    if read is None:
        raise Damaged(f"every checkpoint in {run / 'checkpoints'} is damaged; train the run again")
    return read[1], int(read[0].name)


def _say(line: str) -> None:
    print(line, file=sys.stderr)
