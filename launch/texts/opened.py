"""Opens the model of a run for a verb that reads texts."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from data.tokenizer import Tokenizer
from launch.config import imports
from launch.converted import read_tokenizer
from launch.files import instead, read_family, read_json
from model import families, parameters
from train.checkpoint import restore_params


@dataclass(frozen=True)
class Opened:
    """A trained model with its tokenizer. `step` is that of its newest good checkpoint."""

    family: families.Trained
    cfg: Any
    params: dict
    tokenizer: Tokenizer
    step: int


def open_run(run: Path, member: str, what: str) -> Opened:
    """The model in a run's folder, whose family has `member`, which does `what`. ValueError or
    FileNotFoundError, in one line, for any other run."""
    try:
        family, cfg = read_family(run, "run")
    except ValueError as error:
        raise ValueError(f"{error}{imports.remedy(run)}") from None
    if not hasattr(family, member):
        name = (read_json(run / "config.json") or {})["model"].get("family", "decoder")
        raise ValueError(
            f"run={run} holds a model of the family {name!r}, which {what}"
            f"{instead(family, cfg, run)}"
        )
    tokenizer = read_tokenizer(run, cfg.vocab_size, "run")
    params, meta = restore_params(run / "checkpoints", lambda line: print(line, file=sys.stderr))
    try:
        parameters.check(jax.eval_shape(lambda: family.init(cfg, jax.random.key(0))), params)
    except ValueError as error:
        raise ValueError(
            f"{run / 'checkpoints'}: {error}; put back the config.json that it was trained with"
        ) from None
    return Opened(family, cfg, jax.device_put(params), tokenizer, meta["step"])
