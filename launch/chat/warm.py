"""Compiles the programs of an engine before anybody waits for them."""

import threading
from collections.abc import Callable

from launch.chat.engine import Engine
from launch.chat.request import Piece, Request
from model.generation.samplers import Sampler


def step(engine: Engine, top: int = 0) -> threading.Event:
    """Draws one token after a short prompt, which compiles what every reply needs; with `top`, its
    likeliest tokens too. Does not wait: the event says when it is done."""
    ended = threading.Event()

    def emit(piece: Piece) -> None:
        if piece.end:
            ended.set()

    sampler = Sampler(vocab_size=engine.model.tokenizer.vocab_size)
    engine.submit(Request([0], 1, sampler, emit, top=top))
    return ended


def whole(engine: Engine, advance: Callable[[float], None] = lambda share: None) -> None:
    """Compiles the programs of all lengths of a prompt, with and without log-probabilities.
    `advance` receives the share done."""
    lengths, done = engine.buckets(), 0
    for length in lengths:
        engine.compile(length)
        done += 1
        advance(done / (len(lengths) + 2))
    for top in (0, 1):
        step(engine, top).wait()
