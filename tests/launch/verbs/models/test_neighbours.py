"""Tests `isoflop neighbours`: planted analogies, formats of files, unknown words, the map."""

import itertools
import json
import re
import string
from pathlib import Path

import numpy as np
import pytest

from data import tokenizer
from launch.__main__ import main as isoflop
from train.checkpoint import restore_params

# Word (a, b) of a grid stands between a word that goes with its row and one that goes with its
# column, so (a, b) is to (a, c) as (d, b) is to (d, c). Every word is one character.
ROWS, COLUMNS, EACH = 5, 5, 3
LETTERS = iter(string.ascii_letters + string.digits)
GRID = {place: next(LETTERS) for place in itertools.product(range(ROWS), range(COLUMNS))}
OF_ROW = [[next(LETTERS) for _ in range(EACH)] for _ in range(ROWS)]
OF_COLUMN = [[next(LETTERS) for _ in range(EACH)] for _ in range(COLUMNS)]

VECTORS = {"data.tokenizer": "chars", "model.d_model": 16, "log.tensorboard": "false"}
TRAINED = VECTORS | {
    "optimizer.weight_decay": 0, "optimizer.learning_rate": 0.02, "schedule.name": "linear",
    "eval.every": "0 steps", "checkpoint.every": "0 steps", "eval.sequences": 8,
    "eval.batch_size": 8,
}  # fmt: skip
WORD2VEC = TRAINED | {
    "model.family": "word2vec", "data.kind": "word_pairs", "objective.name": "negative_sampling",
    "model.window": 2, "model.context_length": 64, "data.subsample": 0, "train.batch_size": 16,
    "train.duration": "8 epochs",
}  # fmt: skip
MODELS = {
    "skipgram": WORD2VEC,
    "cbow": WORD2VEC | {"model.method": "cbow"},
    "softmax": WORD2VEC | {"objective.name": "full_softmax", "model.negatives": 0},
    "glove": TRAINED | {
        "model.family": "glove", "data.kind": "cooccurrence", "objective.name": "glove",
        "data.window": 4, "data.entries": 64, "train.duration": "100 epochs", "train.batch_size": 8,
    },
    "lsa": VECTORS | {
        "model.family": "lsa", "data.kind": "documents", "objective.name": "reconstruction",
        "data.document_words": 3,
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("planted")
    rng = np.random.default_rng(0)
    places = rng.integers((ROWS, COLUMNS), size=(12_000, 2))
    beside = rng.integers(EACH, size=(12_000, 2))
    sentences = (
        OF_ROW[a][i] + GRID[a, b] + OF_COLUMN[b][j]
        for (a, b), (i, j) in zip(places, beside, strict=True)
    )
    (folder / "text.txt").write_text("".join(sentences))
    questions = [": of the grid"]
    for (a, d), (b, c) in itertools.product(
        itertools.permutations(range(ROWS), 2), itertools.permutations(range(COLUMNS), 2)
    ):
        questions.append(" ".join((GRID[a, b], GRID[a, c], GRID[d, b], GRID[d, c])))
    (folder / "questions.txt").write_text("\n".join([*questions, ": unknown", "a b c é"]))
    return folder


def train(home: Path, name: str) -> Path:
    run = home / name
    keys = {"data.corpora": home / "text.txt", "data.cache": home / "cache"} | MODELS[name]
    given = [f"--config.{key}={value}" for key, value in keys.items()]
    assert isoflop(["train", "--config=configs/base.py", f"--workdir={run}", *given]) == 0
    return run


def asked(run: Path, *given: str) -> dict:
    file = run / "asked.json"
    assert isoflop(["neighbours", f"--run={run}", f"--json={file}", *given]) == 0
    return json.loads(file.read_text())


@pytest.fixture(scope="module")
def skipgram(home, compiled_once) -> Path:
    return train(home, "skipgram")


def planted(home: Path, run: Path) -> float:
    return asked(run, f"--analogies={home / 'questions.txt'}")["analogies"]["accuracy"]


def test_planted_analogies_are_found(home, skipgram):
    assert planted(home, skipgram) >= 0.95


def test_neighbours_are_those_of_numpy(skipgram):
    word, other = GRID[0, 0], GRID[0, 1]
    found = asked(skipgram, f"--word={word}", f"--analogy={word} {other} {GRID[1, 0]}", "--n=3")
    params, _ = restore_params(skipgram / "checkpoints")
    pieces = [piece.decode() for piece in tokenizer.load(skipgram / "tokenizer").pieces]
    vectors = params["input"]["embedding"][: pieces.index("")]  # the end of a document follows
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    at = pieces.index

    def nearest(query: np.ndarray, *without: str) -> list[dict]:
        cosine = unit @ query / np.linalg.norm(query)
        order = [i for i in np.argsort(-cosine) if pieces[i] not in without][:3]
        return [{"word": pieces[i], "cosine": pytest.approx(cosine[i], abs=1e-5)} for i in order]

    assert found["neighbours"][word] == nearest(unit[at(word)], word)
    query = unit[at(other)] - unit[at(word)] + unit[at(GRID[1, 0])]
    (answer,) = found["analogy"].values()
    assert answer == nearest(query, word, other, GRID[1, 0])
    assert answer[0]["word"] == GRID[1, 1]
    assert found["neighbours"][word] != nearest(-unit[at(word)], word)


def test_counts_of_what_is_out_of_vocabulary(home, skipgram, tmp_path):
    found = asked(skipgram, f"--analogies={home / 'questions.txt'}")["analogies"]
    assert (found["asked"], found["out_of_vocabulary"]) == (400, 1)
    assert found["sections"]["unknown"] == {"right": 0, "asked": 0, "out_of_vocabulary": 1}
    pairs = [(GRID[0, 0], GRID[0, j]) for j in range(1, 5)] + [(GRID[0, 0], GRID[4, 4])]
    cosine = {
        row["word"]: row["cosine"]
        for row in asked(skipgram, f"--word={GRID[0, 0]}", "--n=99")["neighbours"][GRID[0, 0]]
    }
    lines = [f"{a}\t{b}\t{cosine[b] ** 3}" for a, b in pairs]  # the same order
    file = tmp_path / "pairs.tsv"
    file.write_text("\n".join(["# a comment", "Word 1\tWord 2\tHuman (mean)", *lines, "a\té\t1"]))
    found = asked(skipgram, f"--similarities={file}")["similarities"]
    assert (found["pairs"], found["out_of_vocabulary"]) == (5, 1)
    assert found["spearman"] == pytest.approx(1)
    file.write_text("\n".join(f"{a}\t{b}\t{-cosine[b]}" for a, b in pairs))
    assert asked(skipgram, f"--similarities={file}")["similarities"]["spearman"] == pytest.approx(
        -1
    )


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ([], "nothing is asked; give one of --word, --analogy"),
        (["--word=é"], "'é' is not among the "),
        (["--analogy=a é c"], " --analogy: 'é' is not among the "),
        (["--analogy=a b"], "'a b' has 2 words; give three"),
        (["--analogies=bad.txt"], "line 2 has 3 words; a question is four words"),
        (["--analogies=none.txt"], "does not exist"),
        (["--similarities=bad.txt"], "line 2 is no pair"),
        (["--word=a", "--map=words.gif"], "must end with .html or .png"),
    ],
)
def test_what_cannot_be_asked_is_one_line(given, line, skipgram, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("bad.txt").write_text(": section\na b c\n")
    assert isoflop(["neighbours", f"--run={skipgram}", *given]) == 2
    said = capsys.readouterr().err
    assert line in said and said.count("\n") == 1


def test_a_family_without_vectors_names_those_with(tmp_path, capsys):
    (tmp_path / "config.json").write_text(
        json.dumps({"model": {"family": "ngram", "vocab_size": 9}})
    )
    assert isoflop(["neighbours", f"--run={tmp_path}", "--word=a"]) == 2
    assert "these have: decoder, word2vec, glove, lsa" in capsys.readouterr().err


def test_the_map_holds_the_words(skipgram, tmp_path):
    file = tmp_path / "words.html"
    assert asked(skipgram, f"--map={file}", "--map_words=9")["map"] == str(file)
    specs = re.search(r'id="specs">(.*?)</script>', file.read_text(), re.DOTALL)[1]
    rows = json.loads(specs)["words"]["data"]["values"]
    assert len(rows) == 9 and all(row["word"].isalpha() for row in rows)
    assert np.abs(np.sum([[row["x"], row["y"]] for row in rows], axis=0)).max() < 1e-3


@pytest.mark.slow
def test_a_picture_of_the_map_by_tsne(skipgram, tmp_path):
    picture = tmp_path / "words.png"
    asked(skipgram, f"--map={picture}", "--projection=tsne", "--map_words=20")
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in MODELS if name != "skipgram"])
def test_planted_analogies_are_found_by_every_model(name, home):
    assert planted(home, train(home, name)) >= 0.95
