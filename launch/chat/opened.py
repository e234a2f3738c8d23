"""Opens the model of a run for conversations."""

from dataclasses import dataclass
from pathlib import Path

from launch.chat.engine import Model
from launch.chat.turns import Turns
from launch.converted import end_tokens, is_published
from launch.sampling import draw
from model import families

MOST = 4096  # tokens of a context by default: the cache grows with them


@dataclass(frozen=True)
class Opened:
    """A model with the template of its conversations. `length`: tokens of a context; `published`:
    whether the folder holds Hugging Face weights."""

    name: str
    model: Model
    turns: Turns
    length: int
    published: bool = False


def open_run(run: Path, length: int = 0, template: str = "") -> Opened:
    """The model in a run's folder, or of Hugging Face weights; `length` 0: that of the model, at
    most MOST tokens; `template`: the name of one in place of the run's. ValueError or
    FileNotFoundError, in one line, for a model that cannot continue text in steps."""
    family, cfg, tokenizer = draw.open_run(run)
    if families.is_counted(family):
        raise ValueError(
            f"run={run} holds a model of the family {families.name_of(family)!r}, which is counted "
            f"and has no cache to decode with; use isoflop sample --run={run}"
        )
    reader = draw.reader_of(family)
    if reader.bounded and length > cfg.context_length:
        raise ValueError(
            f"length={length} exceeds model.context_length={cfg.context_length} of run={run}; "
            f"use at most that"
        )
    (params, _), _ = draw.restored(run, family, cfg)
    turns = Turns(run, tokenizer, template)
    stop = frozenset({tokenizer.eod, turns.end, *end_tokens(run)})
    default = min(cfg.context_length, MOST) if reader.bounded else MOST
    name = run.resolve().name.encode("utf-8", "replace").decode()
    model = Model(reader, params, cfg, tokenizer, stop)
    return Opened(name, model, turns, length or default, is_published(run))
