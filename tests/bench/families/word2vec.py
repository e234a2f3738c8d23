"""Compares word2vec with gensim on one core: words per second, and the neighbours of words.

    python -m tests.bench.families.word2vec --text=FILE [--gensim_python=PATH] [--epochs=20]

Both learn vectors of 100 numbers for the same words in the same documents, with the settings that
gensim has by default: window 5, 5 noise words, subsampling at 1e-3. Ours takes steps of 16 rows of
256 words, gensim one pair at a time. Rates are words of the text, before subsampling, by seconds of
training, without compilation; one of ours lies between two of gensim, with other seeds. The overlap
is the share of the 10 nearest neighbours of the 1,000 most frequent words that two models have in
common; that of the two seeds of gensim is the most that can be expected.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from absl import app, flags

from launch.__main__ import main as isoflop
from launch.runners import local
from launch.vectors.word_vectors import open_vectors

TEXT = flags.DEFINE_string("text", None, "A text file.", required=True)
PYTHON = flags.DEFINE_string("gensim_python", sys.executable, "A Python that has gensim.")
METHOD = flags.DEFINE_enum("method", "skipgram", ("skipgram", "cbow"), "What predicts what.")
EPOCHS = flags.DEFINE_integer("epochs", 20, "Passes over the text.")
RATE = flags.DEFINE_float("learning_rate", 0.0, "Ours; 0: that of the config.")
JSON = flags.DEFINE_string("json", "", "File to write the measurements to.")

WORDS, NEIGHBOURS, VOCABULARY = 1000, 10, 8000
GENSIM = """
import json, sys, time
from gensim.models import Word2Vec
documents, method, epochs, seed, out = sys.argv[1:]
documents = json.load(open(documents))
model = Word2Vec(vector_size=100, window=5, min_count=1, sample=1e-3, negative=5, workers=1,
                 sg=int(method == "skipgram"), seed=int(seed), epochs=int(epochs))
model.build_vocab(documents)
begun = time.perf_counter()
model.train(documents, total_examples=len(documents), epochs=int(epochs))
seconds = time.perf_counter() - begun
vectors = {word: model.wv[word].tolist() for word in model.wv.index_to_key}
json.dump({"seconds": seconds, "vectors": vectors}, open(out, "w"))
"""


def main(_: list[str]) -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, local.available_cores()[:1])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        documents = prepared(folder)
        words = sum(map(len, documents)) * EPOCHS.value
        one = gensim(folder, 1)
        ours, seconds = trained(folder)
        other = gensim(folder, 2)
    frequent = ours.words[:WORDS]  # the vocabulary begins with them
    near = [
        neighbours(dict(zip(ours.words, np.asarray(ours.unit), strict=True)), frequent),
        *(neighbours(found["vectors"], frequent) for found in (one, other)),
    ]
    about = {
        "method": METHOD.value,
        "words": words,
        "ours": words / seconds,
        "gensim": [words / found["seconds"] for found in (one, other)],
        "overlap": [overlap(near[0], other) for other in near[1:]],
        "overlap_of_seeds": overlap(*near[1:]),
    }
    print(json.dumps(about, indent=1))
    if JSON.value:
        Path(JSON.value).write_text(json.dumps(about, indent=1) + "\n")


def config(folder: Path) -> list[str]:
    """The flags of our run."""
    keys = {"data.corpora": TEXT.value, "data.cache": folder / "cache",
            "data.vocab_size": VOCABULARY, "model.d_model": 100, "log.tensorboard": "false",
            "train.duration": f"{EPOCHS.value} epochs", "eval.every": "0 steps",
            "checkpoint.every": "0 steps"}  # fmt: skip
    if RATE.value:
        keys["optimizer.learning_rate"] = RATE.value
    given = [f"--config.{key}={value}" for key, value in keys.items()]
    return [f"--config=configs/study/word_vectors.py:{METHOD.value}", *given]


def prepared(folder: Path) -> list[list[str]]:
    """The documents of the training split as words, which lie in documents.json too."""
    from data.kinds.words.running_words import words_of
    from launch import flags as isoflop_flags
    from launch.trial.resolve import prepare

    spec, *given = config(folder)
    overrides = dict(item.removeprefix("--config.").split("=", 1) for item in given)
    loaded = isoflop_flags.load_config(spec.removeprefix("--config="), overrides)
    dataset = prepare(loaded)
    ids, document = words_of(dataset.token_store, "train")
    pieces = [piece.decode().strip() for piece in dataset.tokenizer.pieces]
    borders = np.flatnonzero(document[1:] != document[:-1]) + 1
    found = [[pieces[i] for i in part] for part in np.split(ids, borders)]
    (folder / "documents.json").write_text(json.dumps(found))
    return found


def gensim(folder: Path, seed: int) -> dict:
    """The vectors that gensim learns, by word, and the seconds of its training."""
    out = folder / f"gensim-{seed}.json"
    arguments = (folder / "documents.json", METHOD.value, EPOCHS.value, seed, out)
    subprocess.run([PYTHON.value, "-c", GENSIM, *map(str, arguments)], check=True)
    return json.loads(out.read_text())


def trained(folder: Path) -> tuple:
    """(our vectors, the seconds of our training)."""
    run = folder / "ours"
    if code := isoflop(["train", f"--workdir={run}", *config(folder)]):
        raise app.UsageError(f"training ended with exit code {code}")
    return open_vectors(run), json.loads((run / "result.json").read_text())["seconds"]


def neighbours(vectors: dict, frequent: list[str]) -> list[set[str]]:
    """The nearest words of each of the most frequent ones, by the vectors of words."""
    words, unit = list(vectors), np.array(list(vectors.values()))
    place = {word: n for n, word in enumerate(words)}
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    chosen = [place[word] for word in frequent]
    cosine = unit[chosen] @ unit.T
    cosine[np.arange(len(chosen)), chosen] = -2
    nearest = np.argpartition(-cosine, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]
    return [{words[i] for i in row} for row in nearest]


def overlap(one: list[set[str]], other: list[set[str]]) -> float:
    """The mean share of neighbours in common."""
    return float(np.mean([len(a & b) / NEIGHBOURS for a, b in zip(one, other, strict=True)]))


if __name__ == "__main__":
    app.run(main)
