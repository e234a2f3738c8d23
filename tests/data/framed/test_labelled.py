"""Tests labelled texts: how they are read, split and framed, and what is refused."""

import json

import numpy as np
import pytest

from configs import base
from data.kinds import labelled, tagged
from data.tokenizer import Tokenizer, from_spec
from launch.verbs.texts.classify import spell
from model import families
from model.families import FAMILIES

ROWS = [("good", "yes"), ("bad", "no"), ("very good", "yes"), ("not good", "no")]


def write(path, rows, keys=("text", "label")):
    path.write_text("".join(json.dumps(dict(zip(keys, row, strict=True))) + "\n" for row in rows))
    return str(path)


def config_of(folder, corpora, held_out=(), kind=labelled, **keys):
    config = base.get_config("encoder", "classify", "labelled").unlock()
    config.data.update(families.keys(kind) | dict(corpora=corpora, held_out=held_out))
    config.data.update(dict(cache=str(folder / "cache")) | keys)
    config.model.update(families.keys(FAMILIES["encoder"]) | dict(context_length=12))
    config.train.batch_size, config.eval.batch_size, config.eval.sequences = 4, 4, 256
    return config


def prepared(folder, *args, kind=labelled, **keys):
    config = config_of(folder, *args, kind=kind, **keys)
    return kind.prepare(config.data, progress=False).for_run(config)


@pytest.fixture
def both(tmp_path):
    return [write(tmp_path / "a.jsonl", ROWS)], [write(tmp_path / "b.jsonl", ROWS[:2])]


def test_rows_hold_framed_texts_and_labels_in_sorted_order(tmp_path, both):
    dataset = prepared(tmp_path, *both)
    assert dataset.store.labels == ("no", "yes") and dataset.n_classes == 2
    batch = dataset.batch("train", 0, 0)
    assert {k: v.shape[1:] for k, v in batch.items()} == {k: f.shape for k, f in dataset.spec().items()}  # fmt: skip  # noqa: E501
    found = set()
    for tokens, segments, label in zip(*batch.values(), strict=True):
        length = segments.sum()
        assert (segments[:length] == 1).all() and (tokens[length:] == 255).all()
        assert tokens[0] == 256 and tokens[length - 1] == 255
        found.add((bytes(tokens[1 : length - 1].tolist()).decode(), dataset.store.labels[label]))
    assert found == set(ROWS)  # one epoch


def test_with_the_frame_of_a_decoder_no_token_is_added(tmp_path, both):
    dataset = prepared(tmp_path, *both, frame="end")
    assert dataset.vocab_size == 256
    assert dataset.batch("train", 0, 0)["tokens"].max() == 255


def test_batches_are_a_pure_function_of_the_step(tmp_path, both):
    dataset = prepared(tmp_path, *both)
    batches = dataset.batches("train", 0, 5, 3)
    for name, values in dataset.batch("train", 0, 6, [0, 2]).items():
        np.testing.assert_array_equal(values, batches[name][1][[0, 2]])
    again = prepared(tmp_path, *both)  # from the cache
    assert again.hash == dataset.hash
    examples = list(again.examples("validation"))
    assert examples[0]["label"].tolist() == [1, 0, -1, -1]


def test_a_limit_takes_the_same_texts_whatever_their_order(tmp_path, both):
    chosen = []
    for number, rows in enumerate((ROWS, ROWS[::-1])):
        path = write(tmp_path / f"{number}.jsonl", rows)
        dataset = prepared(tmp_path, [path], both[1], limit=2)
        batch = dataset.batch("train", 0, 0)
        chosen.append({tuple(row) for row in batch["tokens"].tolist()})
    assert chosen[0] == chosen[1] and len(chosen[0]) == 2
    assert dataset.epochs(3) == 6


def test_tsv_csv_and_compressed_files_hold_the_same_texts(tmp_path, both):
    import gzip

    for name, between in (("x.tsv", "\t"), ("x.csv", ",")):
        lines = [between.join(row) for row in [("label", "text"), *(r[::-1] for r in ROWS)]]
        (tmp_path / name).write_text("\n".join(lines))
        assert prepared(tmp_path, [str(tmp_path / name)], both[1]).hash == prepared(tmp_path, *both).hash  # fmt: skip  # noqa: E501
    with gzip.open(tmp_path / "x.jsonl.gz", "wb") as file:
        file.write((tmp_path / "a.jsonl").read_bytes())
    found = prepared(tmp_path, [str(tmp_path / "x.jsonl.gz")], both[1])
    assert found.hash == prepared(tmp_path, *both).hash


def test_each_word_has_a_label_at_its_last_token(tmp_path):
    rows = [("the cat", "D N"), (["a", "dog"], ["D", "N"])]
    paths = [write(tmp_path / "a.jsonl", rows)]
    dataset = prepared(tmp_path, paths, paths, kind=tagged)
    assert dataset.store.labels == ("D", "N")
    (batch,) = dataset.examples("validation")
    expected = [-1, -1, -1, 0, -1, -1, -1, 1] + [-1] * 4  # [CLS] t h e _ c a t [SEP] padding
    assert batch["labels"][0].tolist() == expected
    assert (batch["labels"][2:] == -1).all()


def test_a_word_without_a_token_is_named(tmp_path, monkeypatch):
    """A text of such words has no token to label, and such a word would label the one before it."""
    paths = [write(tmp_path / "a.jsonl", [("a b", "x y"), ("a \u200b b", "x y x")])]
    encode, silent = Tokenizer.encode, lambda self, text: encode(self, text.replace("\u200b", ""))
    prepared(tmp_path, paths, paths, kind=tagged)
    monkeypatch.setattr(Tokenizer, "encode", lambda self, text: silent(self, text.strip()))
    with pytest.raises(ValueError, match=r"a.jsonl line 2: .*u200b' gives no token of data.token"):
        prepared(tmp_path, paths, paths, kind=tagged, cache=str(tmp_path / "other"))
    with pytest.raises(ValueError, match=r"^text 1: .*u200b' gives no token of the run's"):
        spell(from_spec("bytes"), "text 1", "a \u200b", True)


FAULTS = [
    ([("", "yes")], "a.jsonl line 1 has an empty text"),
    ([("x", None)], "a.jsonl line 1 has nothing under data.label_key='label'; keys: label, text"),
    ([("x", 0.5)], "a.jsonl line 1: the label 0.5 is no word and no whole number"),
    ([(3, "yes")], "a.jsonl line 1: the text is int, not a string"),
    ([], "holds no texts"),
    (
        [("much too long a text", "yes"), ("fits", "no")],
        "1 of 2 texts (train) do not fit: model.context_length=12 has room for 10 tokens between "
        "their marks. The first, ",
    ),
]


@pytest.mark.parametrize(("rows", "message"), FAULTS)
def test_what_is_wrong_with_texts_is_named(rows, message, tmp_path, both):
    path = write(tmp_path / "a.jsonl", rows)
    with pytest.raises(ValueError) as error:
        prepared(tmp_path, [path], [path])
    assert message in str(error.value)


def test_a_label_that_no_training_text_has_is_named(tmp_path, both):
    held_out = write(tmp_path / "b.jsonl", [ROWS[0], ("fine", "maybe")])
    with pytest.raises(ValueError) as error:
        prepared(tmp_path, both[0], [held_out])
    assert "b.jsonl line 2 has the label 'maybe', which no training text has (they have no, yes)" in str(error.value)  # fmt: skip  # noqa: E501


def test_words_without_labels_are_named(tmp_path):
    path = write(tmp_path / "a.jsonl", [("the cat sat", "D N")])
    with pytest.raises(ValueError, match="line 1 has 3 words, but 2 labels; give one a word"):
        prepared(tmp_path, [path], [path], kind=tagged)


def test_long_texts_are_truncated_only_where_asked(tmp_path):
    path = write(tmp_path / "a.jsonl", [("much too long a text", "yes")])
    dataset = prepared(tmp_path, [path], [path], too_long="truncate")
    (batch,) = dataset.examples("validation")
    assert bytes(batch["tokens"][0, 1:-1].tolist()) == b"much too l"
    assert batch["segments"][0].all() and batch["tokens"][0, -1] == 255


@pytest.mark.parametrize("key", ["frame", "too_long"])
def test_an_unknown_choice_lists_the_known_ones(key, tmp_path, both):
    with pytest.raises(ValueError, match=f"data.{key}='x' is unknown; use one of "):
        prepared(tmp_path, *both, **{key: "x"})


def test_a_damaged_cache_is_named(tmp_path, both):
    prepared(tmp_path, *both)
    (folder,) = (tmp_path / "cache").iterdir()
    raw = bytearray((folder / "texts.npz").read_bytes())
    raw[200] ^= 1
    (folder / "texts.npz").write_bytes(raw)
    with pytest.raises(ValueError, match="delete"):
        prepared(tmp_path, *both)
