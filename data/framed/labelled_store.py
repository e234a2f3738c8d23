"""Tokenizes texts with labels once and keeps them for all later trials.

    CACHE/reviews-jsonl-bytes-1f0c…/texts.npz        tokens, and where each text and label is
                                    labels.json      names of labels, places of texts, the hash
                                    tokenizer.json   what the tokens mean

The hash of a text decides whether it is for validation, unless data.held_out names files for that.
The labels are those of the training texts, in sorted order.
"""

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data import build
from data import tokenizer as tokenizers
from data.atomic import write_atomic
from data.caching import folders
from data.files import path_of, specs_of, to_path
from data.local import sealed, unsealed
from data.shards import SPLITS
from data.sources import labelled_text
from data.sources.labelled_text import Example
from data.tokenizer import Tokenizer

FORMAT = 1
UNLABELLED = -1


@dataclass(frozen=True)
class Texts:
    """The N texts of a split, with n tokens in all."""

    tokens_n: np.ndarray
    begins_N: np.ndarray
    lengths_N: np.ndarray
    # Of the last token of each text, or of each of its words; all other tokens are UNLABELLED.
    labels_n: np.ndarray
    digests_N: np.ndarray  # uint64, in whose order texts are chosen


@dataclass(frozen=True)
class LabelledStore:
    """Texts with labels, as tokens, and their tokenizer."""

    name: str
    tokenizer: Tokenizer
    hash: str  # of the tokens, the labels, the tokenizer and the splits only
    labels: tuple[str, ...]
    splits: dict[str, Texts]
    where: dict[str, list[str]]  # file and line of each text


def prepare(data: Any, each_word: bool, progress: bool = True) -> LabelledStore:
    """Opens the labelled texts of a `data` section and builds what is not in `data.cache`.

    Raises FileNotFoundError or ValueError, in one line, for texts that cannot be read, a label that
    no training text has, a tokenizer that is not available and a damaged cache.
    """
    corpora, held_out = specs_of(data.corpora), specs_of(data.held_out)
    if not 0 <= data.validation < 1:
        raise ValueError(f"data.validation={data.validation} must be at least 0 and below 1")
    given = None
    if data.tokenizer not in tokenizers.TRAINED:
        given = tokenizers.from_spec(data.tokenizer)
    about = given.fingerprint if given else [data.tokenizer, data.vocab_size]
    origin = [*map(labelled_text.identity, (corpora, held_out)), data.text_key, data.label_key]
    key = [FORMAT, origin, each_word, data.validation, about]
    cache = path_of(data.cache, "data.cache")
    words = [*(to_path(spec).name for spec in corpora), data.tokenizer]
    folder = folders.named_folder(cache, words, key)
    with folders.locked_if_missing(folder / "labels.json") as missing:
        if missing:
            with folders.progress_of(f"tokenizing {','.join(corpora)}", None, progress) as advance:
                split = _split(data, corpora, held_out, each_word)
                _build(folder, split, given or _trained(data, split["train"]), advance)
    return _open(folder, ",".join(corpora))


def _split(data: Any, corpora: tuple, held_out: tuple, each_word: bool) -> dict[str, list[Example]]:
    """The examples of both splits. ValueError for a label that only validation has."""
    keys, found = (data.text_key, data.label_key, each_word), {name: [] for name in SPLITS}
    for example in labelled_text.examples(corpora, *keys):
        held = not held_out and build.is_validation(_digest(example), data.validation)
        found["validation" if held else "train"].append(example)
    found["validation"] += labelled_text.examples(held_out, *keys)
    known = {label for example in found["train"] for label in example.labels}
    for example in found["validation"]:
        if unseen := [label for label in example.labels if label not in known]:
            listed = ", ".join(sorted(known)[:10]) + (", …" if len(known) > 10 else "")
            raise ValueError(
                f"{example.where} has the label {unseen[0]!r}, which no training text has (they "
                f"have {listed}); correct it, or add training texts with this label"
            )
    return found


def _digest(example: Example) -> bytes:
    return build.digest_of(" ".join(example.parts).encode())


def _trained(data: Any, examples: list[Example]) -> Tokenizer:
    texts = (" ".join(example.parts) for example in examples)
    return tokenizers.train(data.tokenizer, texts, data.vocab_size)


def _build(folder: Path, split: dict, tokenizer: Tokenizer, advance: Any) -> None:
    labels = sorted({label for example in split["train"] for label in example.labels})
    arrays = {
        f"{name}/{field}": array
        for name, examples in split.items()
        for field, array in vars(_tokenized(examples, tokenizer, labels, advance)).items()
    }
    tokenizer.save(folder)
    content = io.BytesIO()
    np.savez(content, **arrays)
    write_atomic(folder / "texts.npz", content.getvalue())
    where = {name: [example.where for example in examples] for name, examples in split.items()}
    about = {"labels": labels, "where": where, "hash": _hash(arrays, tokenizer, labels)}
    write_atomic(folder / "labels.json", sealed(about))


def _tokenized(examples: list[Example], tokenizer: Tokenizer, labels: list, advance: Any) -> Texts:
    numbers, tokens, marked, lengths = {label: n for n, label in enumerate(labels)}, [], [], []
    for example in examples:
        ids = [tokenizer.encode(part) for part in _spaced(example.parts)]
        if lacking := [
            part for part, found in zip(example.parts, ids, strict=True) if not len(found)
        ]:
            raise ValueError(
                f"{example.where}: {lacking[0][:40]!r} gives no token of data.tokenizer="
                f"{tokenizer.name!r}; leave it out, or use another tokenizer"
            )
        ends = np.cumsum([len(part) for part in ids]) - 1
        labels_t = np.full(ends[-1] + 1, UNLABELLED, np.int32)
        labels_t[ends] = [numbers[label] for label in example.labels]
        tokens += ids
        marked.append(labels_t)
        lengths.append(len(labels_t))
        advance(sum(len(part.encode()) for part in example.parts))
    lengths_N, empty = np.array(lengths, np.int64), np.empty(0, np.int32)
    digests = [int.from_bytes(_digest(example)[8:16], "big") for example in examples]
    return Texts(
        np.concatenate([empty, *tokens]),
        np.cumsum(lengths_N) - lengths_N,
        lengths_N,
        np.concatenate([empty, *marked]),
        np.array(digests, np.uint64),
    )


def _spaced(parts: list[str]) -> Iterator[str]:
    """The words of a text, each after the first with the space before it."""
    return (f" {part}" if number else part for number, part in enumerate(parts))


def _hash(arrays: dict[str, np.ndarray], tokenizer: Tokenizer, labels: list[str]) -> str:
    digest = hashlib.sha256(json.dumps([tokenizer.fingerprint, labels]).encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
    return digest.hexdigest()


def _open(folder: Path, name: str) -> LabelledStore:
    tokenizer = tokenizers.load(folder)
    try:
        about = unsealed((folder / "labels.json").read_bytes())
        with np.load(folder / "texts.npz", allow_pickle=False) as file:
            arrays = dict(file)
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(f"{folder} is damaged ({error}); delete it to rebuild it") from None
    if about["hash"] != _hash(arrays, tokenizer, about["labels"]):
        raise ValueError(f"{folder / 'texts.npz'} has changed; delete {folder} to rebuild it")
    splits = {
        split: Texts(**{field: arrays[f"{split}/{field}"] for field in Texts.__annotations__})
        for split in SPLITS
    }
    labels = tuple(about["labels"])
    return LabelledStore(name, tokenizer, about["hash"], labels, splits, about["where"])
