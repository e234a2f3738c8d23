"""Tests packed rows of text: best-fit-decreasing, and batches of whole documents."""

import itertools
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from data import loader
from data.caching import folders
from data.kinds import text
from data.packed import document_lengths
from data.packed.best_fit import best_fit_decreasing
from data.packed.packed_rows import PackedStore, own_documents
from data.shards import Split
from data.store import Component, TokenStore
from launch.config import config_file
from launch.trial.resolve import prepare, resolve

EOD = 99
RNG = np.random.default_rng(5)
DOCUMENTS = [RNG.integers(0, 90, n) for n in (3, 40, 1, 16, 15, 0, 7, 33, 5, 22, 64, 2)]


def store_of(*corpora: list[np.ndarray], weights: tuple[int, ...] = (1,)) -> TokenStore:
    """Corpora in memory, each in two shards; validation has the same documents."""
    parts = []
    for number, documents in enumerate(corpora):
        ended = [np.append(document, EOD) for document in documents]
        shards = tuple(np.concatenate(some).astype("<u4") for some in (ended[:3], ended[3:]))
        n = sum(map(len, shards))
        split = Split(shards, np.array([0, len(shards[0])]), n, len(documents), n - len(documents))
        splits = dict(train=split, validation=split)
        parts.append(Component(f"corpus{number}", Path("nowhere"), str(number), splits))
    tokenizer = SimpleNamespace(vocab_size=100, token_bytes=np.ones(100, int), eod=EOD, name="t")
    return TokenStore(tuple(parts), weights, tokenizer, "hash")


STORE = store_of(DOCUMENTS)


def naive(lengths: list[int], capacity: int, choose=min) -> list[int]:
    """The tokens of each row, sorted: each piece is compared with all rows."""
    rooms: list[int] = []
    for length in sorted(lengths, reverse=True):
        fits = [room for room in rooms if room >= length]
        room = choose(fits) if fits else capacity
        if fits:
            rooms.remove(room)
        rooms.append(room - length)
    return sorted(capacity - room for room in rooms)


@pytest.mark.parametrize("seed", range(5))
def test_pieces_are_where_best_fit_decreasing_puts_them(seed):
    rng = np.random.default_rng(seed)
    capacity = int(rng.integers(5, 60))
    lengths = rng.integers(1, capacity + 1, 400)
    if seed % 2:  # mostly short, as documents are
        lengths = np.minimum(lengths, rng.integers(1, capacity + 1, 400))
    rows = best_fit_decreasing(lengths, capacity)
    assert sorted(rows.pairs_P.tolist()) == list(range(400))
    loads = np.add.reduceat(lengths[rows.pairs_P], rows.begins[:-1])
    assert sorted(loads.tolist()) == naive(lengths.tolist(), capacity)
    assert sorted(loads.tolist()) != naive(lengths.tolist(), capacity, max)  # control: worst fit


def test_lengths_beyond_a_row_are_refused_and_none_give_no_rows():
    assert len(best_fit_decreasing(np.empty(0, np.int64), 8)) == 0
    for lengths in ([3, 9], [0, 3]):
        with pytest.raises(ValueError, match="do not fit rows of 8"):
            best_fit_decreasing(np.array(lengths), 8)


def segments_of(batch: dict) -> list[tuple]:
    """(inputs, targets) of each segment of a batch [n, T]."""
    found = []
    for row in range(len(batch["tokens"])):
        segments = batch["segments"][row]
        for number in range(1, segments.max() + 1):
            here = segments == number
            assert batch["positions"][row][here].tolist() == list(range(here.sum()))
            found.append(
                (batch["tokens"][row][here].tolist(), batch["targets"][row][here].tolist())
            )
        padding = segments == 0
        assert (batch["weights"][row] == ~padding).all()
        assert (batch["tokens"][row][padding] == EOD).all()
    return found


@pytest.mark.parametrize("length", [8, 16, 100])
def test_each_token_is_a_target_once_and_documents_are_whole_where_they_fit(length):
    packed = PackedStore(STORE, length)
    part = packed.parts[0]
    batch = part.read(np.arange(len(part.rows)))
    expected = []
    for document in DOCUMENTS:
        whole = [EOD, *document.tolist(), EOD]
        for at in range(0, len(whole) - 1, length):
            piece = whole[at : at + length + 1]
            expected.append((piece[:-1], piece[1:]))
    assert sorted(segments_of(batch)) == sorted(expected)
    assert batch["tokens"].dtype == np.int32 and batch["weights"].dtype == np.float32


def test_batches_are_a_function_of_seed_step_and_row():
    other = store_of(DOCUMENTS, DOCUMENTS[::-1], weights=(2, 1))
    for store in (STORE, other):
        packed = PackedStore(store, 16)
        chunk = packed.read_chunk(3, 4, 6, 5, None)
        for step in range(6):
            alone = packed.read_chunk(3, 4 + step, 1, 5, range(1, 4))
            for name, array in alone.items():
                assert np.array_equal(array[0], chunk[name][step, 1:4])
        assert not np.array_equal(packed.read_chunk(4, 4, 6, 5, None)["tokens"], chunk["tokens"])
    # An epoch has each row once, in an order of its own.
    packed = PackedStore(STORE, 16)
    n = len(packed.parts[0].rows)
    epochs = [packed.read_chunk(0, epoch * n, n, 1, None)["tokens"][:, 0] for epoch in range(2)]
    assert sorted(map(bytes, epochs[0])) == sorted(map(bytes, epochs[1]))
    assert not np.array_equal(*epochs)
    assert packed.epochs(2 * n, 1) == 2


@pytest.mark.parametrize("length", [4, 16, 64])
def test_cuts_are_counted_in_packed_rows_and_in_windows(length):
    """A token that follows another of its document is cut off if it is predicted without one."""
    counts = PackedStore(STORE, length).parts[0].counts()
    tokens = np.concatenate([np.append(document, EOD) for document in DOCUMENTS])
    document = np.repeat(np.arange(12), [len(one) + 1 for one in DOCUMENTS])
    # The first target of window k is k * length + 1, and its input is all that it sees.
    firsts = [at + 1 for at in range(0, len(tokens) - 1, length)]
    cut = [at for at in firsts if at >= 2 and document[at - 2] == document[at]]
    assert counts["cuts_by_windows"] == len(cut)
    assert counts["cut_documents_by_windows"] == len({int(document[at]) for at in cut})
    lengths = np.array([len(one) + 1 for one in DOCUMENTS])
    assert counts["cuts"] == (-(-lengths // length) - 1).sum()
    assert counts["cut_documents"] == (lengths > length).sum()
    assert counts["padding"] == pytest.approx(1 - len(tokens) / (counts["rows"] * length))


def test_evaluation_has_the_windows_of_other_runs_without_a_view_of_other_documents():
    tokens = np.array([[5, 6, EOD, 7, 8, EOD, EOD, 9], [EOD, 1, 2, 3, 4, 5, 6, 7]])
    batch = own_documents({"tokens": tokens}, EOD)
    assert batch["segments"].tolist() == [[1, 1, 2, 2, 2, 3, 4, 4], [2] * 8]
    assert batch["positions"].tolist() == [[0, 1, 0, 1, 2, 0, 0, 1], list(range(8))]
    windows = text.Dataset(STORE, 16, 4, 8, 4)
    packed = replace(windows, packed=PackedStore(STORE, 16))
    for one, other in zip(
        windows.examples("validation"), packed.examples("validation"), strict=True
    ):
        assert one.keys() < other.keys()
        assert all(np.array_equal(one[name], other[name]) for name in one)


def config_in(home, **keys):
    usual = {"data.corpora": f"{home}/text.txt", "data.cache": f"{home}/cache"}
    keys = {name.replace("_", ".", 1): value for name, value in keys.items()}
    return config_file.load_config("configs/base.py", usual | {"data.rows": "packed"} | keys)


def resolved(config):
    return resolve(config, prepare(config, progress=False))


def test_a_config_chooses_packed_rows(text_folder):
    ids = []
    for rows in ("windows", "packed"):
        config = config_in(text_folder, data_rows=rows)
        dataset = prepare(config, progress=False).for_run(config)
        batch = dataset.batch("train", 0, 0)
        assert batch.keys() == dataset.spec().keys() == text.spec(config).keys()
        assert ("segments" in batch) == (rows == "packed")
        assert all(batch[name].shape[1:] == field.shape for name, field in dataset.spec().items())
        ids.append(dataset.hash)
    assert ids[0] == ids[1]  # the same tokens; data.rows is in the id of a trial by itself
    longer = config_in(text_folder, train_duration="2 epochs")
    rows = len(prepare(longer, progress=False).for_run(longer).packed.parts[0].rows)
    steps = int(resolved(longer).train.duration.split()[0])
    assert steps == pytest.approx(2 * rows / longer.train.batch_size, abs=1)


@pytest.mark.parametrize(
    "keys, message",
    [
        ({"data_rows": "padded"}, "data.rows='padded' is unknown; use one of windows, packed"),
        ({"model_family": "ngram"}, "data.rows='packed'.* is for trained models"),
        ({"model_family": "recurrent", "model_carry_state": "True"}, "carry_state"),
        ({"train_batch_size": "4096"}, "fills .* packed rows of model.context_length=128"),
    ],
)
def test_what_packed_rows_cannot_do_is_refused(text_folder, keys, message):
    with pytest.raises(ValueError, match=message):
        resolved(config_in(text_folder, **keys))


def test_reading_many_tokens_to_pack_them_is_said(monkeypatch, capsys):
    clock = SimpleNamespace(monotonic=itertools.count(0, 20).__next__)
    monkeypatch.setattr(folders, "time", clock)
    assert len(PackedStore(STORE, 16).parts[0].rows) and not capsys.readouterr().err
    monkeypatch.setattr(document_lengths, "LARGE", 100)
    assert len(PackedStore(STORE, 16).parts[0].rows)
    assert capsys.readouterr().err == "reading corpus0 to pack it: 0 MB\n" * 2  # for each shard


def test_an_end_token_inside_a_document_is_refused():
    split = STORE.components[0].splits["train"]
    part = replace(STORE.components[0], splits={"train": replace(split, n_documents=11)})
    store = replace(STORE, components=(part,))
    with pytest.raises(ValueError, match="uses token 99 for text too"):
        PackedStore(store, 16).require_rows(2)
    assert loader.n_windows(split, 16) > 2
