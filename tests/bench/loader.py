"""Measures the loader alone, in tokens per second, for batches of 64 sequences of 256 tokens.

taskset -c 0 python -m tests.bench.loader 3
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from configs import base
from data import store
from data.loader import read_batch, read_chunk

BATCH, CONTEXT, CHUNK = 64, 256, 16
TARGET = 100  # Mtok/s, one batch at a time


def dataset(folder: Path, files: int = 128, size: int = 1 << 18) -> store.TokenStore:
    """Random text as token shards on disk, 32 MB by default."""
    text, rng = folder / "text", np.random.default_rng(0)
    text.mkdir()
    for number in range(files):
        (text / f"{number:03d}.txt").write_bytes(rng.integers(32, 127, size, np.uint8).tobytes())
    config = base.get_config().data
    config.corpora, config.cache = (str(text),), str(folder / "cache")
    return store.prepare(config, progress=False)


def tokens_per_second(load: Callable[[int], dict], seconds: float) -> float:
    step, tokens, begun = 0, 0, time.perf_counter()
    while (elapsed := time.perf_counter() - begun) < seconds:
        tokens += load(step)["tokens"].size
        step += 1
    return tokens / elapsed


def measure(seconds: float) -> dict:
    """Mtok/s of single batches and of chunks of batches, alternating; the best of five each."""
    with tempfile.TemporaryDirectory() as folder:
        data = dataset(Path(folder))
        load = {
            "batches": lambda step: read_batch(data, 0, step, BATCH, CONTEXT),
            "chunks": lambda step: read_chunk(data, 0, step * CHUNK, CHUNK, BATCH, CONTEXT),
        }
        rates = {name: [] for name in load}
        for _ in range(5):
            for name, function in load.items():
                rates[name].append(tokens_per_second(function, seconds / 10) / 1e6)
    return {name: max(values) for name, values in rates.items()} | {"target": TARGET}


if __name__ == "__main__":
    print(json.dumps(measure(*map(float, sys.argv[1:]))))
