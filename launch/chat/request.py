"""A request to continue a prompt, and the pieces of text that it gets while tokens are drawn."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from data.tokenizer import Tokenizer
from launch.sampling.continuation import AROUND, Continuation
from model.generation.samplers import Sampler

END, LENGTH, CANCELLED, FAILED = "stop", "length", "cancelled", "failed"
"""Why a request ended: it is complete, it has all its tokens, nobody wants it, it cannot go on."""


class Token(NamedTuple):
    """A token that was drawn; log-probabilities in nats, the model's own."""

    id: int
    logprob: float
    top: tuple[tuple[int, float], ...]  # the most likely tokens with theirs, most likely first


class Piece(NamedTuple):
    """Text that has become certain, with its tokens; `end` is set on the last piece."""

    text: str
    tokens: tuple[Token, ...]
    end: str | None = None
    error: str = ""  # why, if `end` is FAILED


@dataclass(eq=False)
class Request:
    """A prompt with how to continue it. `emit` gets every Piece, on the engine's thread."""

    prompt: Sequence[int]
    max_tokens: int
    sampler: Sampler
    emit: Callable[[Piece], None]
    seed: int = 0
    row: int = 0  # the number of the sample among those of the seed
    stops: Sequence[str] = ()
    top: int = 0  # most likely tokens to tell of each step
    lead: str = ""  # white space before the text that is no part of it
    drawn: int = 0  # tokens drawn, the one that ended it included
    ended: str | None = None
    cancelled: bool = False
    dispatched: int = 0  # tokens asked of the device
    pending: list[Token] = field(default_factory=list)  # tokens whose text is not yet certain
    text: Continuation | None = None

    def begin(self, tokenizer: Tokenizer) -> None:
        """Readies the request for its first token."""
        self.text = Continuation(tokenizer, self.prompt[-AROUND:], self.stops)

    def add(self, token: Token) -> None:
        """Takes a token, and emits the text that it makes certain."""
        self.drawn += 1
        if token.id in self.sampler.stop:
            return self.finish(END)
        before = len(self.text.tokens)
        self.text.add([token.id])
        self.pending.append(token)
        if self.text.stopped:  # tokens after the stop string are dropped
            lost = before + 1 - len(self.text.tokens)
            del self.pending[max(0, len(self.pending) - lost) :]
            return self.finish(END)
        if self.drawn == self.max_tokens:
            return self.finish(LENGTH)
        if news := self._news():
            self.emit(Piece(news, tuple(self.pending)))
            self.pending.clear()

    def _news(self, last: bool = False) -> str:
        """The text that has become certain, without the lead."""
        news = self.text.news(last)
        while news and self.lead:
            if news[0] != self.lead[0]:
                self.lead = ""
                break
            news, self.lead = news[1:], self.lead[1:]
        return news

    def finish(self, end: str, error: str = "") -> None:
        """Emits the last piece; nothing follows it."""
        if self.ended is None:
            self.ended = end
            news = self._news(last=True) if self.text else ""
            self.emit(Piece(news, tuple(self.pending), end, error))


def whole(pieces: Sequence[Piece]) -> Piece:
    """All pieces of a request as one."""
    tokens = tuple(itertools.chain.from_iterable(piece.tokens for piece in pieces))
    *_, last = pieces
    return Piece("".join(piece.text for piece in pieces), tokens, last.end, last.error)
