"""Measures how long bpe and unigram take to train on much text, and the memory that they need.

    python -m tests.bench.texts.tokenizer_training --bytes=1e9 --names=bpe,unigram --folder=bench

The text is the standard library, repeated with seeded changes until it has --bytes: in each copy a
third of the distinct words are replaced by made-up ones, and every document begins with a line of
its own, so no two documents are equal. Each tokenizer is trained in a process of its own, whose
peak memory (resident set) and CPU time are printed.
"""

import json
import re
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from absl import app, flags

from configs import base
from data import store
from data.sources import corpus

BYTES = flags.DEFINE_float("bytes", 1e9, "Bytes of text.")
NAMES = flags.DEFINE_list("names", ["bpe", "unigram"], "Tokenizers to train.")
FOLDER = flags.DEFINE_string("folder", "bench", "Folder for the text, which is kept.")
SAMPLE = flags.DEFINE_integer("sample", 0, "data.tokenizer_sample.")
VOCAB = flags.DEFINE_integer("vocab_size", 4096, "Tokens.")
ALONE = flags.DEFINE_string("alone", "", "Train this one in this process.")

WORD = re.compile(r"([A-Za-z_]{3,})")
SYLLABLES = "ba ce di fo gu ha ki lo mu na po ri st tr ve wo xy zi an er in on".split()
SHARE = 1 / 3  # of the distinct words of a copy that are replaced


def documents(n_bytes: float) -> Iterator[str]:
    """Changed copies of the standard library with `n_bytes` bytes in all."""
    originals = [WORD.split(text) for text in corpus.documents("stdlib")]
    words = sorted({word for parts in originals for word in parts[1::2]})
    total = copy = 0
    while total < n_bytes:
        rng = np.random.default_rng(copy)
        chosen = rng.random(len(words)) < SHARE
        made = rng.choice(SYLLABLES, (len(words), 4))
        changed = {
            word: "".join(made[n][: 2 + len(word) // 6])
            for n, word in enumerate(words)
            if chosen[n]
        }
        for number, parts in enumerate(originals):
            text = "".join(changed.get(part, part) for part in parts)
            text = f"# copy {copy} of document {number}\n{text}"
            yield text
            total += len(text.encode())
            if total >= n_bytes:
                return
        copy += 1


def write(file: Path, n_bytes: float) -> None:
    """A .jsonl file of the documents; kept if it is there."""
    if file.exists():
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_suffix(".part")
    with open(draft, "w", encoding="utf-8") as out:
        for text in documents(n_bytes):
            out.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
    draft.rename(file)


def train(file: Path, name: str) -> dict:
    """Trains a tokenizer in this process, without a cache; seconds, CPU seconds, peak megabytes."""
    config = base.get_config().data
    config.corpora, config.cache = (str(file),), str(file.parent / f"cache-{time.time_ns()}")
    config.tokenizer, config.vocab_size = name, VOCAB.value
    config.tokenizer_sample = SAMPLE.value
    begun = time.perf_counter()
    tokenizer = store.trained_tokenizer(config)
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "name": name,
        "vocab_size": tokenizer.vocab_size,
        "bytes": file.stat().st_size,
        "sample": SAMPLE.value or store.SAMPLE_BYTES[name],
        "seconds": round(time.perf_counter() - begun, 1),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
        "peak_mb": round(used.ru_maxrss / 1024),
    }


def main(_: list[str]) -> None:
    file = Path(FOLDER.value) / f"text-{BYTES.value:.0e}.jsonl"
    if ALONE.value:
        print(json.dumps(train(file, ALONE.value)))
        return
    begun = time.perf_counter()
    write(file, BYTES.value)
    print(
        f"{file}: {file.stat().st_size / 1e6:,.0f} MB, {time.perf_counter() - begun:.0f} s",
        flush=True,
    )
    for name in NAMES.value:
        subprocess.run(
            [sys.executable, "-m", __spec__.name, *sys.argv[1:], f"--alone={name}"], check=True
        )


if __name__ == "__main__":
    app.run(main)
