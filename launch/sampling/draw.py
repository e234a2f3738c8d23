"""Draws samples from the model of a run, alone or with a smaller model that drafts."""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data.tokenizer import Tokenizer
from launch.converted import read_tokenizer
from launch.files import read_model
from launch.sampling.continuation import Continuation
from launch.sampling.terminal import Echo
from model import parameters
from model.generation import sample, speculative
from model.generation.samplers import Sampler
from model.transformer.config import ModelConfig
from model.transformer.decoder import shapes
from train.checkpoint import restore_params

Model = tuple[dict, ModelConfig]


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
) -> tuple[sample.Samples | None, float | None, bool]:
    """Draws a sample for each of `rows`, which receive the tokens, until all have ended or Ctrl-C.

    A `draft` model guesses `ahead` tokens at a time. `top` likeliest tokens are kept at each step.
    `echo` prints the first row while it is drawn, after every `chunk` tokens. Returns the samples
    (None: Ctrl-C came first), the share of drafted tokens that were accepted (None: no draft), and
    whether Ctrl-C ended the drawing.
    """

    def goes_on(drawn: sample.Samples) -> np.ndarray:
        return np.array([not row.stopped for row in rows])

    how = dict(n=len(rows), seed=seed, goes_on=goes_on)
    if draft:
        found = speculative.stream(*model, *draft, prompts, n_tokens, sampler, ahead=ahead, **how)
    else:
        found = sample.stream(*model, prompts, n_tokens, sampler, top=top, chunk=chunk, **how)
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


def open_run(run: Path, flag: str = "run") -> tuple[ModelConfig, Tokenizer]:
    """The model and the tokenizer of a run's folder, which `flag` names in errors. ValueError says
    why a converted run has no tokenizer."""
    cfg = read_model(run, flag)
    return cfg, read_tokenizer(run, cfg.vocab_size, flag)


def restored(run: Path, cfg: ModelConfig) -> tuple[Model, int]:
    """The model of a run's last good checkpoint, and its step. ValueError where the weights are not
    those of `cfg`."""
    params, meta = restore_params(run / "checkpoints", lambda line: print(line, file=sys.stderr))
    try:
        parameters.check(shapes(cfg), params)
    except ValueError as error:
        raise ValueError(
            f"{run / 'checkpoints'}: {error}; put back the config.json that it was trained with"
        ) from None
    return (sample.prepare(params, cfg), cfg), meta["step"]


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
    draft_cfg, draft_tokenizer = open_run(folder, "draft")
    if draft_tokenizer.fingerprint != tokenizer.fingerprint:
        raise ValueError(
            f"draft={folder} has another tokenizer ({draft_tokenizer.name}) than run={run} "
            f"({tokenizer.name}); draft with a run on the same data"
        )
    speculative.check_draft(cfg, draft_cfg, [prompt], n_tokens, ahead)
    return restored(folder, draft_cfg)[0]
