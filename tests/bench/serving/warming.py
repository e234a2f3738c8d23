"""Measures what the server of `isoflop chat` compiles before it answers, and what that saves.

    python -m tests.bench.serving.warming [--length=2048] [--slots=8]

The model has 6 layers of width 256 and random weights. One engine compiles everything: prints the
seconds of all padded lengths of a prompt and of the two steps. Another, with only a step compiled
as in the terminal, gets a prompt of each other length: prints the fastest and the slowest.
"""

import tempfile
import time
from pathlib import Path

from absl import app, flags, logging

from launch.chat import warm
from launch.chat.engine import Engine
from launch.chat.opened import Opened, open_run
from launch.chat.request import Request
from model.generation.samplers import Sampler
from tests.bench.serving import streams

LENGTH = flags.DEFINE_integer("length", 2048, "Tokens of a context.")
SLOTS = flags.DEFINE_integer("slots", 8, "Contexts.")


def first_prompts(opened: Opened) -> list[float]:
    """Seconds until a prompt of each other length is answered by one token, for the first time."""
    engine, found = Engine(opened.model, SLOTS.value, opened.length), []
    warm.step(engine).result()
    for bucket in engine.buckets()[1:]:  # the step has compiled the shortest
        pieces, began = warm.Future(), time.perf_counter()
        how = Sampler(vocab_size=256)
        engine.submit(Request([0] * (bucket - 1), 1, how, pieces.set_result))
        pieces.result()
        found.append(time.perf_counter() - began)
    engine.close()
    return found


def compiled(opened: Opened) -> tuple[int, float, float]:
    """(lengths, seconds until the programs of all are compiled, seconds of all and the steps)."""
    engine, began = Engine(opened.model, SLOTS.value, opened.length), time.perf_counter()
    times = []
    warm.whole(engine, lambda share: times.append(time.perf_counter() - began))
    whole = time.perf_counter() - began
    engine.close()
    return len(times), times[-1], whole


def main(_: list[str]) -> None:
    """Prints both."""
    logging.set_verbosity(logging.ERROR)
    streams.MODEL["context_length"] = LENGTH.value
    with tempfile.TemporaryDirectory() as folder:
        opened = open_run(streams.untrained(Path(folder) / "run"))
        lengths, programs, whole = compiled(opened)
        print(f"{lengths} lengths: {programs:.1f} s; two steps: {whole - programs:.1f} s")
        seconds = first_prompts(opened)
        print(f"first prompt of a length: {min(seconds):.1f} to {max(seconds):.1f} s")


if __name__ == "__main__":
    app.run(main)
