"""Tokenizes pairs of sentences once and opens them for all later trials.

The shards are those of `data/build.py`: a pair is a document whose tokens are

    source  end  target  end

where `end` is the tokenizer's end of a document. One tokenizer serves both sides, given or trained
on both. The hash of the whole pair decides whether it is in the validation split.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from data import build, store
from data import tokenizer as tokenizers
from data.caching import folders
from data.files import path_of, specs_of
from data.shards import Split, open_splits, read_manifest
from data.sources import parallel_text
from data.sources.parallel_text import BETWEEN
from data.tokenizer import Tokenizer

FORMAT = 1


class PairEncoder:
    """Encodes a pair, written as one text, by the tokenizer of both sides. For `build.build`."""

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer
        self.kind, self.name, self.eod = tokenizer.kind, tokenizer.name, tokenizer.eod
        self.vocab_size, self.fingerprint = tokenizer.vocab_size, tokenizer.fingerprint
        self.save = tokenizer.save

    def encode(self, text: str) -> np.ndarray:
        source, target = map(self.tokenizer.encode, text.split(BETWEEN))
        return np.concatenate([source, [self.eod], target])


@dataclass(frozen=True)
class Pairs:
    """The P pairs of a split: where each side lies in its tokens."""

    split: Split
    begins_P2: np.ndarray  # first token of source and target
    lengths_P2: np.ndarray  # tokens, without the end

    def take(self, places_n: np.ndarray) -> np.ndarray:
        """The tokens at these places of the split, int32 [n]."""
        out = np.empty(len(places_n), np.int32)
        shard_n = np.searchsorted(self.split.begins, places_n, side="right") - 1
        for number in np.unique(shard_n):
            here = shard_n == number
            out[here] = self.split.shards[number][places_n[here] - self.split.begins[number]]
        return out


@dataclass(frozen=True)
class PairStore:
    """Pairs of sentences as tokens, and their tokenizer."""

    name: str
    tokenizer: Tokenizer
    hash: str  # of the tokens, the tokenizer and the splits only
    splits: dict[str, Split]

    @cached_property
    def pairs(self) -> dict[str, Pairs]:
        """The pairs of each split."""
        return {name: self._pairs(split) for name, split in self.splits.items()}

    def _pairs(self, split: Split) -> Pairs:
        each = zip(split.begins, split.shards, strict=False)
        ends = [begin + np.flatnonzero(shard == self.tokenizer.eod) for begin, shard in each]
        ends_P2 = np.concatenate([np.empty(0, np.int64), *ends]).reshape(-1, 2)
        if len(ends_P2) != split.n_documents:
            raise ValueError(
                f"{self.name}: the tokenizer writes its end token inside of sentences; use another"
            )
        before = np.concatenate([[-1], ends_P2.ravel()[:-1]]) if len(ends_P2) else ends_P2
        begins_P2 = before.reshape(-1, 2) + 1
        return Pairs(split, begins_P2, ends_P2 - begins_P2)


def prepare(data: Any, progress: bool = True) -> PairStore:
    """Opens the pairs of a `data` section and builds what is not in `data.cache`.

    Raises FileNotFoundError or ValueError, in one line, for pairs that cannot be read, a tokenizer
    that is not available, and a shard that is missing, truncated or damaged.
    """
    corpora = specs_of(data.corpora)
    if not 0 <= data.validation < 1:
        raise ValueError(f"data.validation={data.validation} must be at least 0 and below 1")
    origin = [FORMAT, parallel_text.identity(corpora), data.source_key, data.target_key]
    tokenizer = _tokenizer(data, corpora, origin, progress)
    cache, name = path_of(data.cache, "data.cache"), ",".join(corpora)
    key = [origin, tokenizer.fingerprint, data.validation]
    folder = folders.named_folder(cache, [*corpora, tokenizer.name], key)
    with folders.locked_if_missing(folder / "manifest.json") as missing:
        if missing:
            total = parallel_text.size(corpora)
            with folders.progress_of(f"tokenizing {name}", total, progress) as advance:
                build.build(
                    folder,
                    name,
                    _documents(data, corpora),
                    size=total,
                    tokenizer=PairEncoder(tokenizer),
                    validation=data.validation,
                    advance=advance,
                    workers=1,  # other processes would build a Tokenizer of their own
                )
    manifest = read_manifest(folder)
    store.check_tokenizer(folder, tokenizer)
    return PairStore(name, tokenizer, manifest["hash"], open_splits(folder, manifest))


def held_out(data: Any) -> list[tuple[str, str]]:
    """The validation pairs of a `data` section as they are written, in the order of the store."""
    corpora = specs_of(data.corpora)
    held = (
        text
        for text in _documents(data, corpora)
        if build.is_validation(build.digest_of(text.encode()), data.validation)
    )
    return [tuple(text.split(BETWEEN)) for text in held]


def _documents(data: Any, corpora: tuple[str, ...]) -> Iterator[str]:
    """Each pair as one text."""
    read = parallel_text.pairs(corpora, data.source_key, data.target_key)
    return (f"{source}{BETWEEN}{target}" for source, target in read)


def _tokenizer(data: Any, corpora: tuple[str, ...], origin: list, progress: bool) -> Tokenizer:
    """The tokenizer of both sides; one that must be trained is trained once and kept."""
    if data.tokenizer not in tokenizers.TRAINED:
        return tokenizers.from_spec(data.tokenizer)
    folder = folders.named_folder(
        path_of(data.cache, "data.cache"),
        ["tokenizer", data.tokenizer],
        [origin, data.vocab_size, data.validation],
    )
    with folders.locked_if_missing(folder / "tokenizer.json") as missing:
        if missing:
            with folders.progress_of(f"training {data.tokenizer}", None, progress) as advance:
                texts = _sentences(data, corpora, advance)
                tokenizers.train(data.tokenizer, texts, data.vocab_size).save(folder)
    return tokenizers.load(folder)


def _sentences(
    data: Any, corpora: tuple[str, ...], advance: Callable[[int], None]
) -> Iterator[str]:
    """Both sides of the training pairs: of all, or of a sample where training takes long."""
    kept = store.not_held_out(_documents(data, corpora), data.validation, advance)
    most = store.SAMPLE_BYTES.get(data.tokenizer)
    for text in store.sampled(kept, most) if most else (text for _, text in kept):
        yield from text.split(BETWEEN)
