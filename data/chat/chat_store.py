"""Tokenizes conversations or preferences once and keeps them for all later trials.

    CACHE/chat-jsonl-bytes-1f0c…/train.tokens.npy    tokens of all sequences, one after another
                                 train.*.npy         which are targets, where sequences lie, margins
                                 chat.json           places of the examples, the hash
                                 tokenizer.json      what the tokens mean

An example has one sequence (a conversation) or two (the chosen and the rejected answer, each after
the prompt). A hash of the prompt, which is what precedes the first answer, decides whether it is
for validation, so a prompt of a task is in the same split as under the kind `tasks`.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data import build
from data.atomic import write_atomic
from data.caching import folders
from data.files import path_of, specs_of
from data.local import sealed, unsealed
from data.shards import SPLITS
from data.tokenizer import Tokenizer

FORMAT = 1
SHOWN = 10  # lines that an error lists


TokenSequence = tuple[np.ndarray, np.ndarray]
"""(token ids int32 [n], whether each is a target bool [n])."""


class Example(NamedTuple):
    """An example as tokens."""

    where: str
    prompt: str
    sequences: list[TokenSequence]
    margin: float = 0.0


@dataclass(frozen=True)
class Examples:
    """The N examples of a split, with K sequences each and n tokens in all."""

    tokens: np.ndarray  # uint32 [n]
    targets: np.ndarray  # bool [n]
    lengths_NK: np.ndarray
    margins_N: np.ndarray  # float32

    @property
    def begins_NK(self) -> np.ndarray:
        ends = np.cumsum(self.lengths_NK)
        return (ends - self.lengths_NK.ravel()).reshape(self.lengths_NK.shape)

    def __len__(self) -> int:
        return len(self.lengths_NK)


FIELDS = tuple(Examples.__annotations__)


@dataclass(frozen=True)
class ChatStore:
    """Examples as tokens, and their tokenizer."""

    name: str
    tokenizer: Tokenizer
    hash: str  # of the tokens, the targets, the tokenizer and the splits only
    splits: dict[str, Examples]
    where: dict[str, list[str]]  # file and line of each example


def prepare(
    data: Any,
    identity: list,
    tokenizer: Tokenizer,
    examples: Callable[[], Iterator[Example]],
    progress: bool = True,
) -> ChatStore:
    """Opens the examples of a `data` section and builds what is not in `data.cache`. `identity`
    changes when the examples do. ValueError for a damaged cache, and what `examples` raises."""
    if not 0 <= data.validation < 1:
        raise ValueError(f"data.validation={data.validation} must be at least 0 and below 1")
    names = corpora_of(data)
    key = [FORMAT, data.kind, identity, data.validation, tokenizer.fingerprint]
    words = [*names, tokenizer.name]
    folder = folders.named_folder(path_of(data.cache, "data.cache"), words, key)
    with folders.locked_if_missing(folder / "chat.json") as missing:
        if missing:
            name = ",".join(names)
            with folders.progress_of(f"tokenizing {name}", None, progress) as advance:
                _build(folder, _split(examples(), data.validation, advance), tokenizer)
    return _open(folder, ",".join(names), tokenizer)


def corpora_of(data: Any) -> tuple[str, ...]:
    """The corpora of a `data` section; ValueError if there are none."""
    names = specs_of(data.corpora)
    if not names or not all(names):
        raise ValueError("data.corpora is empty; name a .jsonl, or task:NAME")
    return names


def trimmed(sequence: TokenSequence) -> TokenSequence:
    """A sequence up to its last target: nothing is learned from what follows."""
    ids, targets = sequence
    last = int(np.flatnonzero(targets)[-1]) + 1
    return ids[:last], targets[:last]


def listed(where: Sequence[str]) -> str:
    """Files and lines, the first SHOWN of them."""
    more = f" and {len(where) - SHOWN} more" if len(where) > SHOWN else ""
    return f"{', '.join(where[:SHOWN])}{more}"


def _split(examples: Iterator[Example], share: float, advance: Callable) -> dict[str, list]:
    found: dict[str, list[Example]] = {name: [] for name in SPLITS}
    for example in examples:
        held_out = build.is_validation(build.digest_of(example.prompt.encode()), share)
        found["validation" if held_out else "train"].append(example)
        advance(sum(len(ids) for ids, _ in example.sequences))
    return found


def _arrays(examples: list[Example]) -> dict[str, np.ndarray]:
    sequences = [one for example in examples for one in example.sequences]
    ids = [np.empty(0, np.int32), *(ids for ids, _ in sequences)]
    targets = [np.empty(0, bool), *(targets for _, targets in sequences)]
    per = len(examples[0].sequences) if examples else 1
    return {
        "tokens": np.concatenate(ids).astype("<u4"),
        "targets": np.concatenate(targets),
        "lengths_NK": np.array([len(ids) for ids, _ in sequences], "<i8").reshape(-1, per),
        "margins_N": np.array([example.margin for example in examples], "<f4"),
    }


def _build(folder: Path, split: dict[str, list[Example]], tokenizer: Tokenizer) -> None:
    arrays = {
        f"{name}.{field}": array
        for name, examples in split.items()
        for field, array in _arrays(examples).items()
    }
    tokenizer.save(folder)
    for name, array in arrays.items():
        with open(folder / f".{name}.npy", "wb") as file:
            np.lib.format.write_array(file, array, allow_pickle=False)
        (folder / f".{name}.npy").replace(folder / f"{name}.npy")
    where = {name: [example.where for example in examples] for name, examples in split.items()}
    about = {"where": where, "hash": _hash(arrays, tokenizer)}
    write_atomic(folder / "chat.json", sealed(about))  # last: it says that the rest is complete


def _hash(arrays: dict[str, np.ndarray], tokenizer: Tokenizer) -> str:
    digest = hashlib.sha256(json.dumps(tokenizer.fingerprint).encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()


def _open(folder: Path, name: str, tokenizer: Tokenizer) -> ChatStore:
    try:
        about = unsealed((folder / "chat.json").read_bytes())
        arrays = {
            f"{split}.{field}": np.load(folder / f"{split}.{field}.npy", mmap_mode="r")
            for split in SPLITS
            for field in FIELDS
        }
    except (OSError, ValueError, EOFError, KeyError) as error:
        raise ValueError(f"{folder} is damaged ({error}); delete it to rebuild it") from None
    if about["hash"] != _hash(arrays, tokenizer):
        raise ValueError(f"{folder} has changed; delete it to rebuild it")
    splits = {
        split: Examples(**{field: arrays[f"{split}.{field}"] for field in FIELDS})
        for split in SPLITS
    }
    return ChatStore(name, tokenizer, about["hash"], splits, about["where"])
