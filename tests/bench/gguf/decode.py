"""Times llama.cpp on the GGUF files of the model of tests/bench/quantised.py, in turns, one thread.

    python -m tests.bench.gguf.decode        # needs llama-cpp-python and gguf

Prints seconds of 24 tokens, one row, and the size of the files.
"""

import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

from model.gguf import file
from model.transformer.decoder import shapes
from tests.bench.gguf.package import llama_logits
from tests.bench.quantised import CFG


def main(tokens: int = 24, repeats: int = 11) -> None:
    llama = llama_logits()
    draw = np.random.default_rng(0).standard_normal
    params = jax.tree.map(lambda leaf: draw(leaf.shape, np.float32) / 20, shapes(CFG))
    contexts, sizes, seconds = {}, {}, {kind: [] for kind in file.TYPES}
    with tempfile.TemporaryDirectory() as folder:
        for kind in file.TYPES:
            path = Path(folder, f"{kind}.gguf")
            vocabulary = {"model": "none"}
            sizes[kind] = file.write(path, CFG, params, "llama", vocabulary, kind).size
            contexts[kind] = llama.context(llama.load(path), CFG.context_length)
    for turn in range(repeats + 1):
        for kind, context in contexts.items():
            llama.forget(context)
            begun = time.perf_counter()
            for place in range(tokens):
                llama.decode(context, [place], place)
            if turn:  # the first turn is not counted
                seconds[kind].append(time.perf_counter() - begun)
    medians = {kind: float(np.median(found)) for kind, found in seconds.items()}
    for kind, median in medians.items():
        speed, size = medians["f32"] / median, sizes[kind] / sizes["f32"]
        print(f"{kind:<6} {median:.4f} s  speed {speed:.2f}  memory {size:.3f}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
