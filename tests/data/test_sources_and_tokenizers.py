"""Tests that every kind of source works with every kind of tokenizer."""

import csv
import gzip
import json
import sys
import tracemalloc
import types

import numpy as np
import pytest

from data import build
from data import tokenizer as tokenizers
from data.sources import corpus
from data.store import prepare
from data.tokenizer_files import words
from tests.data.conftest import sentence

TEXTS = [sentence(number) for number in range(60)]
ROWS = [{"text": text} for text in TEXTS]


def stdlib(folder, monkeypatch):
    return "stdlib"


def file(folder, monkeypatch):
    path = folder / "book.txt"
    path.write_text("\n\n".join(TEXTS * 4))
    return str(path)


def compressed(folder, monkeypatch):
    path = folder / "book.txt.gz"
    path.write_bytes(gzip.compress("\n\n".join(TEXTS * 4).encode()))
    return str(path)


def of_files(folder, monkeypatch):
    for number, text in enumerate(TEXTS):
        (folder / f"{number}.txt").write_text(text)
    return str(folder)


def jsonl(folder, monkeypatch):
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return str(path)


def array(folder, monkeypatch):
    path = folder / "rows.json"
    path.write_text(json.dumps(ROWS))
    return str(path)


def table(folder, monkeypatch):
    path = folder / "rows.csv"
    with open(path, "w", newline="") as opened:
        csv.writer(opened).writerows([["text"], *([text] for text in TEXTS)])
    return str(path)


def parquet(folder, monkeypatch):
    pyarrow, writer = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = folder / "rows.parquet"
    writer.write_table(pyarrow.Table.from_pylist(ROWS), path)
    return str(path)


def hugging_face(folder, monkeypatch):
    library = types.SimpleNamespace(load_dataset=lambda *_, **__: iter(ROWS))
    monkeypatch.setitem(sys.modules, "datasets", library)
    return "hf:org/name"


def synthetic(folder, monkeypatch):
    return "synthetic:tokens=20000:document=500"


SOURCES = [
    stdlib,
    file,
    compressed,
    of_files,
    jsonl,
    array,
    table,
    parquet,
    hugging_face,
    synthetic,
]
VOCAB_SIZES = {stdlib: 500, synthetic: 290}
TOKENIZERS = [
    *("bytes", "chars", "bpe", "unigram", "words", "lowercase_words"),
    *("existing.model", "tokenizer.json"),
]


@pytest.fixture(scope="module")
def existing(tmp_path_factory):
    folder = tmp_path_factory.mktemp("existing")
    (folder / "existing.model").write_bytes(tokenizers.train("bpe", TEXTS * 4, 300).model)
    library = pytest.importorskip("tokenizers")
    fast = library.Tokenizer(library.models.BPE())
    fast.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = library.pre_tokenizers.ByteLevel.alphabet()
    trainer = library.trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    fast.train_from_iterator(TEXTS, trainer)
    fast.save(str(folder / "tokenizer.json"))
    return folder


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@pytest.mark.parametrize("source", SOURCES)
def test_every_source_with_every_tokenizer(
    config, tmp_path, monkeypatch, existing, source, tokenizer
):
    folder = tmp_path / "source"
    folder.mkdir()
    spec = source(folder, monkeypatch)
    settings = config(
        corpora=(spec,),
        tokenizer=str(existing / tokenizer) if "." in tokenizer else tokenizer,
        vocab_size=VOCAB_SIZES.get(source, 296) if tokenizer in ("bpe", "unigram") else 0,
        max_bytes=60_000,
    )
    dataset = prepare(settings, progress=False)
    part = dataset.components[0].splits["train"]
    tokens = np.concatenate(part.shards)
    ends = np.flatnonzero(tokens == dataset.tokenizer.eod)
    decoded = [dataset.tokenizer.decode(ids[:-1]) for ids in np.split(tokens, ends + 1)[:-1]]
    texts = list(corpus.documents(spec, max_bytes=60_000))
    digests = [build.digest_of(text.encode()) for text in texts]
    wanted = [
        text
        for text, digest in zip(texts, digests, strict=True)
        if not build.is_validation(digest, settings.validation)
    ]
    assert len(wanted) == part.n_documents > 0
    if "words" in tokenizer:
        lowercase = tokenizer == "lowercase_words"
        assert decoded == [" ".join(words.split(text, lowercase)) for text in wanted]
        assert dataset.token_bytes is None and dataset.unknown_share["train"] == 0
    else:
        assert decoded == wanted
        assert dataset.token_bytes[tokens].sum() == part.n_bytes
    assert prepare(settings, progress=False).hash == dataset.hash


def test_unknown_words_are_counted(config, folder_of_text):
    """The sentences differ in their last word, a number. The vocabulary has the others."""
    keys = dict(corpora=(str(folder_of_text),), tokenizer="words", vocab_size=18)
    dataset = prepare(config(**keys), progress=False)
    for split, share in dataset.unknown_share.items():
        (shard,) = dataset.components[0].splits[split].shards
        text = dataset.tokenizer.decode(shard)
        documents = dataset.components[0].splits[split].n_documents
        assert share * len(shard) == pytest.approx(text.count("<unk>"))
        assert text.count("<unk>") == documents > 0
    assert prepare(config(corpora=keys["corpora"]), progress=False).unknown_share is None


def test_tables_by_kind_of_tokenizer_are_total():
    assert build.MIN_BYTES_FOR_WORKERS.keys() == tokenizers.KINDS.keys()
    assert tokenizers.REVISIONS.keys() <= tokenizers.KINDS.keys()


def test_characters_are_gathered_in_little_memory():
    """Each text is freed before the next one is read."""

    def texts():
        for number in range(32):
            yield chr(ord("α") + number % 20) * (1 << 16)

    tracemalloc.start()
    try:
        made = tokenizers.train("chars", texts())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert made.vocab_size == 20 + 2
    assert peak < 1 << 20  # the whole text takes 4 MiB


def test_a_corpus_of_characters_is_prepared_in_little_memory(tmp_path, monkeypatch):
    """From the file to the shards, with small groups. The text alone takes 4 MiB."""
    monkeypatch.setattr(build, "GROUP_BYTES", 1 << 16)
    text = "".join(f"Paragraph {i} αβγ\n" for i in range(2000))
    (tmp_path / "a.txt").write_text(text * 50)
    settings = types.SimpleNamespace(
        corpora=(str(tmp_path / "a.txt"),), weights=(1.0,), text_key="text", tokenizer="chars",
        vocab_size=0, validation=0.1, cache=str(tmp_path / "cache"), max_bytes=0, held_out=(),
    )  # fmt: skip
    tracemalloc.start()
    try:
        dataset = prepare(settings, progress=False)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sum(dataset.n_bytes.values()) == len(text.encode()) * 50 > 2 << 20
    assert peak < 3 << 19, peak


def test_equal_characters_give_equal_tokenizers():
    one, two = (tokenizers.train("chars", texts) for texts in (["ba", "c"], ["cab"]))
    assert one.fingerprint == two.fingerprint
    assert one.model == "abc".encode("utf-32-le")
