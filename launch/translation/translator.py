"""The model of a run that was trained on pairs, as something that writes the target of a source."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data.kinds import KINDS
from data.tokenizer import Tokenizer
from launch.converted import read_tokenizer
from launch.files import read_config
from launch.restored import family_of, restored
from model import families
from model.generation import beam, joined, sample, stepwise
from model.generation.samplers import Sampler
from model.transformer import family as decoder

AT_ONCE = 32  # sentences of one program
BUCKET = 16  # sources are padded to a multiple of it, so that few programs are compiled


@dataclass(frozen=True)
class Output:
    """One translation. `score` is what beams are ranked by, or the log-probability of a draw."""

    text: str
    tokens: list[int]
    score: float
    ended: bool  # whether the model ended it, not the limit of its length


@dataclass(frozen=True)
class How:
    """Beams, or draws: one of `beams` and `sampler` is used."""

    tokens: int  # of an output, at most; 0: as many as the model was trained on
    beams: int = 0
    length_penalty: float = 0.6
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Translator:
    """A model with its tokenizer. `writer` has its `start` and `step`."""

    run: Path
    writer: Any
    cfg: Any
    params: dict
    tokenizer: Tokenizer
    step: int
    ends: int  # end tokens of a source: 1 of the kind pairs, 0 of joined pairs

    @property
    def room(self) -> int:
        """Tokens of the longest source."""
        length = getattr(self.cfg, "source_length", self.cfg.context_length - 2)
        return length - self.ends

    def encode(self, sources: Sequence[str], truncate: bool) -> list[list[int]]:
        """The tokens of sources. ValueError, with count and number, for sources that are empty or
        too long, unless `truncate` cuts these."""
        found = [self.tokenizer.encode(source.strip()).tolist() for source in sources]
        if empty := [number for number, tokens in enumerate(found, 1) if not tokens]:
            raise ValueError(f"text {empty[0]} of {len(found)} is empty; give it words")
        long = [number for number, tokens in enumerate(found, 1) if len(tokens) > self.room]
        if long and not truncate:
            raise ValueError(
                f"{len(long)} of {len(found)} texts have more than the {self.room} tokens that "
                f"run={self.run} reads; the first is text {long[0]} with {len(found[long[0] - 1])}."
                " Shorten them, or cut them by --truncate"
            )
        return [tokens[: self.room] for tokens in found]

    def longest(self, wanted: int) -> int:
        """Tokens of an output, at most; ValueError for more than the model was trained on."""
        most = self.cfg.context_length
        if not 0 <= wanted <= most:
            raise ValueError(
                f"tokens={wanted} is out of range; model.context_length={most}: use 1 to {most}, "
                f"or 0 for {most}"
            )
        return wanted or most

    def translate(
        self, sources: Sequence[Sequence[int]], how: How, detail: Callable[[str], None]
    ) -> Iterator[list[Output]]:
        """The outputs of each source, best first: as many as there are beams, or one."""
        for first in range(0, len(sources), AT_ONCE):
            detail(f"{first} of {len(sources)}")
            group = sources[first : first + AT_ONCE]
            yield from self._group(group, how, first)[: len(group)]

    def _group(self, sources: Sequence[Sequence[int]], how: How, first: int) -> list[list[Output]]:
        """The outputs of up to AT_ONCE sources, of which `first` is the number of the first."""
        batch, eod = self._batch(sources), self.tokenizer.eod
        limits = [how.tokens] * AT_ONCE
        if not self.ends:  # source and target share the context
            left = [self.cfg.context_length - len(source) - 1 for source in sources]
            left += left[-1:] * (AT_ONCE - len(left))
            limits = [min(how.tokens, one) for one in left]
        about = self.writer, self.cfg, self.params, batch, max(limits)
        if how.beams:
            found = stepwise.search(
                *about, how.beams, eod, length_penalty=how.length_penalty, stop=[eod],
                vocab_size=self.tokenizer.vocab_size, limits=limits,
            )  # fmt: skip
            rows = zip(found.tokens_PWN, found.lengths_PW, found.scores_PW, strict=True)
            return [
                [self._output(*one) for one in zip(*row, strict=True) if one[2] > beam.NEVER / 2]
                for row in rows
            ]
        sampler = Sampler(
            temperature=how.temperature, top_k=how.top_k, top_p=how.top_p, stop=(eod,),
            vocab_size=self.tokenizer.vocab_size,
        )  # fmt: skip
        drawn = stepwise.draw(*about, sampler, eod, how.seed, first=first, limits=limits)
        rows = zip(drawn.tokens_PN, drawn.lengths_P, drawn.logprobs_PN.sum(1), strict=True)
        return [[self._output(*row)] for row in rows]

    def _batch(self, sources: Sequence[Sequence[int]]) -> dict[str, np.ndarray]:
        """Sources as AT_ONCE rows; rows that are left over repeat the last source."""
        longest = max(map(len, sources)) + self.ends
        length = min(-(-longest // BUCKET) * BUCKET, self.room + self.ends)
        shape = AT_ONCE, length
        batch = {"source": np.full(shape, self.tokenizer.eod, np.int32)}
        batch["source_segments"] = np.zeros(shape, np.int32)
        for row in range(AT_ONCE):
            source = sources[min(row, len(sources) - 1)]
            batch["source"][row, : len(source)] = source
            batch["source_segments"][row, : len(source) + self.ends] = 1
        return batch

    def _output(self, tokens_N: np.ndarray, count: int, score: float) -> Output:
        tokens = [int(token) for token in tokens_N[:count]]
        ended = bool(tokens) and tokens[-1] == self.tokenizer.eod
        written = tokens[:-1] if ended else tokens
        return Output(self.tokenizer.decode(written), tokens, float(score), ended)


def open_run(run: Path) -> Translator:
    """The translator in a run's folder, from its newest good checkpoint. ValueError or
    FileNotFoundError, in one line, for a run that translates nothing, with what it can do."""
    family, cfg = family_of(run)
    config = read_config(run) or {}
    kind = config.get("data", {}).get("kind", "text")
    separate = kind == "pairs" and hasattr(family, "start")
    if not separate and not (kind == "joined_pairs" and family is decoder):
        predicts = getattr(KINDS.get(kind), "PREDICTS", f"data of the kind {kind!r}")
        raise ValueError(
            f"run={run} holds a model of the family {families.name_of(family)!r} that predicts "
            f"{predicts}; this verb reads encoder–decoders trained on data.kind=pairs and decoders "
            "trained on data.kind=joined_pairs. isoflop show describes the run"
        )
    tokenizer = read_tokenizer(run, cfg.vocab_size, "run")
    params, step = restored(run, family, cfg)
    if not separate:
        params = sample.prepare(params, cfg)
    writer = family if separate else joined
    return Translator(run, writer, cfg, params, tokenizer, step, int(separate))
