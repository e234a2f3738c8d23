"""Draws samples from the model of a run, alone or with a smaller model that drafts."""

import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data.files import to_path
from data.tokenizer import Tokenizer
from launch.converted import read_tokenizer
from launch.files import instead, read_model
from launch.restored import family_of
from launch.restored import restored as restored_model
from launch.sampling.continuation import Continuation
from launch.sampling.terminal import Echo
from model import families
from model.families import FAMILIES, Family
from model.generation import from_counts, sample, speculative
from model.generation.samplers import Sampler
from model.transformer import family as decoder
from model.transformer.config import ModelConfig

Model = tuple[Any, Any]
"""(parameters or counts, the family's Config)."""

Stream = Callable[..., Iterator[sample.Samples]]
"""(*model, prompts, n_tokens, sampler, n=, seed=, top=, goes_on=) -> pieces of the samples."""


def continues_text(family: Family) -> bool:
    """Whether models of the family give the distribution of the next token, one at a time."""
    by_step = hasattr(family, "step") and family.INPUTS == ("tokens",)
    return family is decoder or by_step or hasattr(family, "distribution")


def is_bounded(family: Family) -> bool:
    """Whether a model reads at most `context_length` tokens. Counts know only the last tokens, and
    a state goes on for ever."""
    return not families.is_counted(family) and reader_of(family).bounded


def reader_of(family: Family) -> sample.Reader:
    """How a trained family reads tokens."""
    return families.reader(family)


def stream_of(family: Family, chunk: int) -> Stream:
    """How tokens are drawn from a family; a trained one draws `chunk` tokens between two looks at
    the text."""
    if families.is_counted(family):
        return functools.partial(from_counts.stream, family)
    return functools.partial(sample.stream, chunk=chunk, reader=reader_of(family))


def draw(
    stream: Stream,
    model: Model,
    draft: Model | None,
    prompts: list[list[int]],
    n_tokens: int,
    sampler: Sampler,
    rows: Sequence[Continuation],
    *,
    seed: int,
    ahead: int,
    top: int,
    echo: Echo | None,
) -> tuple[sample.Samples | None, float | None, bool]:
    """Draws a sample for each of `rows`, which receive the tokens, until all have ended or Ctrl-C.

    A `draft` model guesses `ahead` tokens at a time. `top` likeliest tokens are kept at each step.
    `echo` prints the first row while it is drawn, after each piece. Returns the samples (None:
    Ctrl-C came first), the share of drafted tokens that were accepted (None: no draft), and whether
    Ctrl-C ended the drawing.
    """

    def goes_on(drawn: sample.Samples) -> np.ndarray:
        return np.array([not row.stopped for row in rows])

    how = dict(n=len(rows), seed=seed, goes_on=goes_on)
    if draft:
        found = speculative.stream(*model, *draft, prompts, n_tokens, sampler, ahead=ahead, **how)
    else:
        found = stream(*model, prompts, n_tokens, sampler, top=top, **how)
    pieces, interrupted = [], False
    try:
        for piece in found:
            pieces.append(piece)
            drawn = piece.samples if draft else piece
            counts = zip(rows, drawn.tokens_BN, drawn.lengths_B, strict=True)
            for row, tokens, count in counts:
                row.add(tokens[:count])
            if echo:
                echo.more(rows[0])
    except KeyboardInterrupt:
        interrupted = True
    if echo:
        ended = rows[0].stopped or (bool(rows[0].tokens) and rows[0].tokens[-1] in sampler.stop)
        echo.end(rows[0], ended and not interrupted)
    if not pieces:
        return None, None, interrupted
    accepted = speculative.acceptance(pieces) if draft else None
    parts = [piece.samples for piece in pieces] if draft else pieces
    return sample.join(parts, n_tokens), accepted, interrupted


def open_run(run: Path) -> tuple[Family, Any, Tokenizer]:
    """The family, its Config and the tokenizer of a run's folder, or of Hugging Face weights.
    ValueError for a model that continues no text, and says why a folder has no tokenizer."""
    family, cfg = family_of(run, published=True)
    if not continues_text(family):
        able = ", ".join(name for name, other in FAMILIES.items() if continues_text(other))
        raise ValueError(
            f"run={run} holds a model of the family {families.name_of(family)!r}, which continues "
            f"no text; those of {able} do{instead(family, cfg, run)}"
        )
    if other := instead(family, cfg, run):
        raise ValueError(f"run={run} was not trained to continue text{other}")
    return family, cfg, read_tokenizer(run, cfg.vocab_size, "run")


def restored(run: Path, family: Family, cfg: Any) -> tuple[Model, int]:
    """The model of a run's last good checkpoint, and its step. ValueError where the weights are not
    those of `cfg`."""
    fitted, step = restored_model(run, family, cfg)
    if not families.is_counted(family):
        fitted = reader_of(family).prepare(fitted, cfg)
    return (fitted, cfg), step


def open_draft(
    name: str,
    run: Path,
    cfg: ModelConfig,
    tokenizer: Tokenizer,
    prompt: list[int],
    n_tokens: int,
    ahead: int,
) -> Model:
    """The model that drafts for `run`, from the folder `name`; ValueError where it cannot."""
    folder = to_path(name)
    draft_cfg = read_model(folder, "draft")
    draft_tokenizer = read_tokenizer(folder, draft_cfg.vocab_size, "draft")
    if draft_tokenizer.fingerprint != tokenizer.fingerprint:
        raise ValueError(
            f"draft={folder} has another tokenizer ({draft_tokenizer.name}) than run={run} "
            f"({tokenizer.name}); draft with a run on the same data"
        )
    speculative.check_draft(cfg, draft_cfg, [prompt], n_tokens, ahead)
    return restored(folder, decoder, draft_cfg)[0]
