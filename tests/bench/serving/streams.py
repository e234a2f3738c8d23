"""Measures the server of `isoflop chat` against `sample`, which decodes for one reader.

    python -m tests.bench.serving.streams [--rounds=5] [--tokens=128] [--streams=1,4,16]

The model has 6 layers of width 256 and random weights. In each round, in turn: `sample` draws one
row; then 1, 4 and 16 clients read streams of the server over the loopback address, in this process
too. Prints tokens a second, the median over rounds, and the ratio to `sample` within a round.
"""

import asyncio
import json
import statistics
import tempfile
import time
from pathlib import Path

import jax
import openai
from absl import app, flags, logging

from data import tokenizer
from launch.chat.engine import Engine
from launch.chat.opened import Opened, open_run
from launch.server import serving
from model.generation import sample
from model.generation.samplers import Sampler
from model.transformer.config import ModelConfig
from model.transformer.decoder import init
from train.checkpoint import Checkpoints

ROUNDS = flags.DEFINE_integer("rounds", 5, "Rounds.")
TOKENS = flags.DEFINE_integer("tokens", 128, "Tokens of each reply.")
STREAMS = flags.DEFINE_list("streams", ["1", "4", "16"], "Numbers of streams at once.")
MODEL = dict(
    vocab_size=256, context_length=512, n_layers=6, d_model=256, n_heads=4, n_kv_heads=4,
    head_dim=64, d_ff=1024,
)  # fmt: skip
PROMPT = "a prompt of 24 characters"[:24]


def untrained(folder: Path) -> Path:
    """A run with random weights."""
    params = jax.jit(lambda key: init(ModelConfig(**MODEL), key))(jax.random.key(0))
    checkpoints = Checkpoints(folder / "checkpoints", 1, 0)
    checkpoints.save(1, {"params": params}, {})
    checkpoints.wait()
    config = {"model": MODEL, "data": {"tokenizer": "bytes"}}
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer.from_spec("bytes").save(folder / "tokenizer")
    return folder


def alone(opened: Opened) -> float:
    """Tokens a second of one row of `sample`, which never ends by itself."""
    model, began = opened.model, time.perf_counter()
    how = Sampler(temperature=1.0, vocab_size=256)
    sample.sample(model.params, model.cfg, [list(PROMPT.encode())], TOKENS.value, how)
    return TOKENS.value / (time.perf_counter() - began)


async def together(client: openai.AsyncOpenAI, streams: int) -> float:
    """Tokens a second of all streams together."""

    async def read(number: int) -> int:
        stream = await client.completions.create(
            model="bench", prompt=PROMPT, max_tokens=TOKENS.value, seed=number, stream=True,
            stream_options={"include_usage": True},
        )  # fmt: skip
        return [chunk async for chunk in stream][-1].usage.completion_tokens

    began = time.perf_counter()
    drawn = await asyncio.gather(*(read(number) for number in range(streams)))
    return sum(drawn) / (time.perf_counter() - began)


async def measured(opened: Opened, address: str) -> None:
    client = openai.AsyncOpenAI(base_url=f"{address}v1", api_key="none", timeout=600)
    counts = [int(count) for count in STREAMS.value]
    alone(opened)
    await together(client, max(counts))  # compiles
    rates: dict[int, list[float]] = {0: []} | {count: [] for count in counts}
    for _ in range(ROUNDS.value):
        rates[0].append(alone(opened))
        for count in counts:
            rates[count].append(await together(client, count))
    print(f"sample alone: {statistics.median(rates[0]):.0f} tokens/s")
    for count in counts:
        ratios = [rate / one for rate, one in zip(rates[count], rates[0], strict=True)]
        print(
            f"{count:>2} streams: {statistics.median(rates[count]):.0f} tokens/s, "
            f"{statistics.median(ratios):.2f} times sample ({min(ratios):.2f} to {max(ratios):.2f})"
        )


def main(_: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        opened = open_run(untrained(Path(folder) / "bench"))
        slots = max(map(int, STREAMS.value))
        # No token ends a reply: all rounds draw the same number.
        opened = Opened(
            opened.name, opened.model._replace(stop=frozenset()), opened.turns, opened.length
        )
        engine = Engine(opened.model, slots, opened.length)
        listening = serving.bound(serving.Place("127.0.0.1", 0), "")
        running = serving.Running(opened, engine, serving.Limits(), listening)
        asyncio.run(measured(opened, running.address))
        running.end()


if __name__ == "__main__":
    app.run(main)
