"""Opens the model of a run for a verb that reads texts."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.tokenizer import Tokenizer
from launch.converted import read_tokenizer
from launch.files import instead
from launch.restored import family_of, restored
from model import families


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
    family, cfg = family_of(run)
    if not hasattr(family, member):
        raise ValueError(
            f"run={run} holds a model of the family {families.name_of(family)!r}, which {what}"
            f"{instead(family, cfg, run)}"
        )
    tokenizer = read_tokenizer(run, cfg.vocab_size, "run")
    params, step = restored(run, family, cfg)
    return Opened(family, cfg, params, tokenizer, step)
