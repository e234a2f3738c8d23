"""Draws answers to prompts from the model of a run: with its chat template, or as running text."""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data.chat.encoding import ChatEncoder, template_of
from data.prompted.prompt_encoder import PromptEncoder
from data.tokenizer import Tokenizer
from launch.chat import template
from launch.converted import end_tokens
from launch.sampling import draw
from launch.sampling.continuation import Continuation
from model.families import Family
from model.generation import sample
from model.generation.samplers import Sampler

AT_ONCE = 256  # rows that are drawn side by side
LOOK = 16  # tokens between two looks at the text, for stop strings
NONE = "none"  # the value of --template for running text


@dataclass(frozen=True)
class Answerer:
    """A model with what turns prompts into tokens and tokens into answers. An answer ends at its
    end token, or before one of the stop strings."""

    run: Path
    family: Family
    tokenizer: Tokenizer
    model: draw.Model
    step: int
    encoder: PromptEncoder
    stops: tuple[str, ...]

    @property
    def most(self) -> float:
        """The tokens of a prompt with its answer, at most."""
        bounded = draw.is_bounded(self.family)
        return self.model[1].context_length if bounded else float("inf")

    def answers(
        self,
        prompts: Sequence[Sequence[int]],
        n_tokens: int,
        samples: int,
        temperature: float,
        seed: int,
        advance: Callable[[int], None] = lambda count: None,
        stops: Sequence[str] | None = None,
    ) -> list[list[str]]:
        """`samples` answers of up to `n_tokens` tokens to each prompt, which is a list of tokens.
        Calls `advance(prompts)` when some are answered. `stops` replaces the stop strings. Raises
        what `sample.check` raises."""
        stop = {self.tokenizer.eod, self.encoder.end, *end_tokens(self.run)}
        size = self.tokenizer.vocab_size
        sampler = Sampler(temperature, vocab_size=size, stop=tuple(sorted(stop)))
        stops, found = self.stops if stops is None else stops, []
        together = max(1, min(len(prompts), AT_ONCE // samples))
        for first in range(0, len(prompts), together):
            part = list(prompts[first : first + together])
            # The last batch is filled up, so that it needs no program of its own.
            filled = part + [part[0]] * (together - len(part))
            rows = [
                Continuation(self.tokenizer, prompt, stops)
                for prompt in filled
                for _ in range(samples)
            ]
            # No two batches or tasks draw the same random numbers.
            draws = zlib.crc32(f"{seed} {first} {prompts}".encode()) >> 1
            self._fill(rows, filled, n_tokens, sampler, samples, draws)
            texts = [row.text for row in rows]
            found += [texts[i * samples : (i + 1) * samples] for i in range(len(part))]
            advance(len(part))
        return found

    def _fill(
        self,
        rows: Sequence[Continuation],
        prompts: Sequence[Sequence[int]],
        n_tokens: int,
        sampler: Sampler,
        samples: int,
        seed: int,
    ) -> None:
        """Draws the tokens of each row, which belong to the prompts in order."""

        def goes_on(drawn: sample.Samples) -> np.ndarray:
            return np.array([not row.stopped for row in rows])

        stream = draw.stream_of(self.family, LOOK)
        how = dict(n=samples, seed=seed, goes_on=goes_on)
        for piece in stream(*self.model, prompts, n_tokens, sampler, **how):
            for row, tokens, count in zip(rows, piece.tokens_BN, piece.lengths_B, strict=True):
                row.add(tokens[:count])


def open_answerer(run: Path, named: str = "", stops: Sequence[str] = ()) -> Answerer:
    """The model of a run's folder. `named` is a chat template to use instead of the run's own, or
    NONE. Without a template the answer ends at the end of its line, unless `stops` says otherwise.
    ValueError or FileNotFoundError, in one line, for a run that continues no text."""
    family, cfg, tokenizer = draw.open_run(run)
    encoder = PromptEncoder(tokenizer, _chat(run, tokenizer, named))
    model, step = draw.restored(run, family, cfg)
    stops = tuple(stops) or (() if encoder.chat else ("\n",))
    return Answerer(run, family, tokenizer, model, step, encoder, stops)


def _chat(run: Path, tokenizer: Tokenizer, named: str) -> Any:
    """The encoder of conversations of a run; None if it has no template or NONE is asked for."""
    if named == NONE:
        return None
    if named:
        return ChatEncoder(tokenizer, template_of(template.source_of(named, "template"), named))
    return template.encoder_of(run, tokenizer) if template.has_template(run) else None
