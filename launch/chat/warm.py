"""Compiles the programs of an engine before anybody waits for them."""

from collections.abc import Callable
from concurrent.futures import Future

from launch.chat.engine import Engine
from launch.chat.request import FAILED, Piece, Request
from model.generation.samplers import Sampler


class Unready(Exception):
    """The engine could not draw a first token, and why."""


def step(engine: Engine, top: int = 0) -> Future[Piece]:
    """Draws one token after a short prompt, which compiles what every reply needs; with `top`, its
    likeliest tokens too. Does not wait: the future is the last piece. Ended if the engine has."""
    last: Future[Piece] = Future()

    def emit(piece: Piece) -> None:
        if piece.end:
            last.set_result(piece)

    sampler = Sampler(vocab_size=engine.model.tokenizer.vocab_size)
    engine.submit(Request([0], 1, sampler, emit, top=top))
    return last


def whole(engine: Engine, advance: Callable[[float], None] = lambda share: None) -> None:
    """Compiles the programs of all lengths of a prompt, with and without log-probabilities.
    `advance` receives the share done. Unready or Ended if a token cannot be drawn; what JAX raises
    if a program cannot be compiled."""
    lengths, done = engine.buckets(), 0
    for length in lengths:
        engine.compile(length)
        done += 1
        advance(done / (len(lengths) + 2))
    for top in (0, 1):
        piece = step(engine, top).result()
        if piece.end == FAILED:
            raise Unready(piece.error)
