"""Draws samples from the model of a run, alone or with a smaller model that drafts."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from data.tokenizer import Tokenizer
from launch.converted import read_tokenizer
from launch.files import read_family, read_json, read_model
from launch.sampling.continuation import Continuation
from launch.sampling.terminal import Echo
from model import families, parameters
from model.generation import by_steps, sample, speculative
from model.generation.samplers import Sampler
from model.transformer import family as decoder
from model.transformer.config import ModelConfig
from train.checkpoint import restore_params

Model = tuple[dict, Any]


def draw(
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
    chunk: int,
    echo: Echo | None,
    reader: sample.Reader,
) -> tuple[sample.Samples | None, float | None, bool]:
    """Draws a sample for each of `rows`, which receive the tokens, until all have ended or Ctrl-C.

    A `draft` model guesses `ahead` tokens at a time. `top` likeliest tokens are kept at each step.
    `echo` prints the first row while it is drawn, after every `chunk` tokens. Returns the samples
    (None: Ctrl-C came first), the share of drafted tokens that were accepted (None: no draft), and
    whether Ctrl-C ended the drawing. `reader` reads tokens as the model's family does.
    """

    def goes_on(drawn: sample.Samples) -> np.ndarray:
        return np.array([not row.stopped for row in rows])

    how = dict(n=len(rows), seed=seed, goes_on=goes_on)
    if draft:
        found = speculative.stream(*model, *draft, prompts, n_tokens, sampler, ahead=ahead, **how)
    else:
        how |= dict(top=top, chunk=chunk, reader=reader)
        found = sample.stream(*model, prompts, n_tokens, sampler, **how)
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


def open_run(run: Path, flag: str = "run") -> tuple[families.Family, Any, Tokenizer]:
    """The family of the model in a run's folder, which `flag` names in errors, its Config and its
    tokenizer. ValueError for a model that continues no text, and says why a converted run has no
    tokenizer."""
    family, cfg = read_family(run, flag)
    if family is not decoder and not (hasattr(family, "step") and family.INPUTS == ("tokens",)):
        name = read_json(run / "config.json")["model"]["family"]
        able = [
            known
            for known, other in families.FAMILIES.items()
            if other is decoder or (hasattr(other, "step") and other.INPUTS == ("tokens",))
        ]
        raise ValueError(
            f"{flag}={run} holds a model of the family {name!r}, which continues no text; this "
            f"verb reads {' and '.join(able)}"
        )
    return family, cfg, read_tokenizer(run, cfg.vocab_size, flag)


def reader_of(family: families.Family) -> sample.Reader:
    """How a family reads tokens."""
    return sample.DECODER if family is decoder else by_steps.reader(family)


def restored(run: Path, family: families.Trained, cfg: Any) -> tuple[Model, int]:
    """The model of a run's last good checkpoint, and its step. ValueError where the weights are not
    those of `cfg`."""
    params, meta = restore_params(run / "checkpoints", lambda line: print(line, file=sys.stderr))
    shapes = jax.eval_shape(lambda: family.init(cfg, jax.random.key(0)))
    try:
        parameters.check(shapes, params)
    except ValueError as error:
        raise ValueError(
            f"{run / 'checkpoints'}: {error}; put back the config.json that it was trained with"
        ) from None
    return (reader_of(family).prepare(params, cfg), cfg), meta["step"]


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
    folder = Path(name)
    draft_cfg = read_model(folder, "draft")
    draft_tokenizer = read_tokenizer(folder, draft_cfg.vocab_size, "draft")
    if draft_tokenizer.fingerprint != tokenizer.fingerprint:
        raise ValueError(
            f"draft={folder} has another tokenizer ({draft_tokenizer.name}) than run={run} "
            f"({tokenizer.name}); draft with a run on the same data"
        )
    speculative.check_draft(cfg, draft_cfg, [prompt], n_tokens, ahead)
    return restored(folder, decoder, draft_cfg)[0]
