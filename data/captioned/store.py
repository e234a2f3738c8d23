"""Decodes captioned files once and keeps their pixels and captions for all later trials.

    CACHE/shapes-words-1f0c…/00000.train.bin    pixels, uint8: N images of H × W × C, in order
                             captions.npz       tokens, and where the caption of each image is
                             manifest.json      hashes of all of it; written last
                             tokenizer.json     what the tokens mean

The hash of a file's bytes decides whether it is for validation, unless data.held_out names lists
for that. So an image that is listed twice is never on both sides.
"""

import hashlib
import io
import json
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from data import build
from data import tokenizer as tokenizers
from data.atomic import write_atomic
from data.caching import folders
from data.captioned import listing
from data.captioned.listing import Captioned
from data.captioned.pictures import Unreadable, raw_bytes
from data.files import path_of, specs_of, to_path
from data.local import sealed
from data.shards import SPLITS, Split, content_hash, open_splits, read_manifest
from data.tokenizer import Tokenizer

FORMAT = 1
SHARD_BYTES = 64 << 20  # of pixels, about
NAMED = 5  # unreadable files that a message names

Shape = tuple[int, int, int]
Decode = Callable[[bytes], np.ndarray]
"""A file's bytes to uint8 [H, W, C]; raises Unreadable."""


@dataclass(frozen=True)
class Captions:
    """The captions of the N images of a split as tokens, n in all."""

    tokens_n: np.ndarray
    lengths_N: np.ndarray
    names: np.ndarray  # of the files: UTF-8, with a newline after each

    @cached_property
    def begins_N(self) -> np.ndarray:
        return np.cumsum(self.lengths_N) - self.lengths_N


@dataclass(frozen=True)
class CaptionedStore:
    """Images with captions. Pixels are memory-mapped."""

    name: str
    tokenizer: Tokenizer
    hash: str  # of pixels, captions, tokenizer and splits only
    shape: Shape
    pixels: dict[str, Split]
    captions: dict[str, Captions]

    def images(self, split: str, numbers_R: np.ndarray) -> np.ndarray:
        """The images of a split with these numbers, uint8 [R, H, W, C]."""
        size = int(np.prod(self.shape))
        return self.pixels[split].read(numbers_R * size, size).reshape(-1, *self.shape)

    def names(self, split: str) -> list[str]:
        """The files of a split, as the lists spell them."""
        return self.captions[split].names.tobytes().decode().split("\n")[:-1]


def prepare(
    data: Any, shape: Shape, origin: Sequence, decode: Decode, progress: bool = True
) -> CaptionedStore:
    """Opens the captioned files of a `data` section and builds what is not in `data.cache`.
    `origin` holds the settings that decide what `decode` returns.

    Raises FileNotFoundError or ValueError, in one line, for lists that cannot be read, more than
    data.max_unreadable files that cannot be read, a tokenizer that is not available and a damaged
    cache.
    """
    if not 0 <= data.validation < 1:
        raise ValueError(f"data.validation={data.validation} must be at least 0 and below 1")
    listed = {
        key: listing.files(specs_of(data[key]), f"data.{key}", data.file_key, data.caption_key)
        for key in ("corpora", "held_out")
    }
    given = None
    if data.tokenizer not in tokenizers.TRAINED:
        given = tokenizers.from_spec(data.tokenizer)
    about = given.fingerprint if given else [data.tokenizer, data.vocab_size]
    files = [listing.identity(found) for found in listed.values()]
    key = [FORMAT, shape, list(origin), files, data.validation, about]
    cache, specs = path_of(data.cache, "data.cache"), specs_of(data.corpora)
    words = [*(to_path(spec).name for spec in specs), data.tokenizer]
    folder, name = folders.named_folder(cache, words, key), ",".join(specs)
    with folders.locked_if_missing(folder / "manifest.json") as missing:
        if missing:
            with folders.progress_of(f"reading {name}", None, progress) as advance:
                most = data.max_unreadable
                _Build(folder, shape, decode, most, advance).run(listed, data, given)
    return _open(folder, name, shape, data.max_unreadable, progress)


class _Build:
    """Writes the folder of a store. A killed build begins anew."""

    def __init__(
        self,
        folder: Path,
        shape: Shape,
        decode: Decode,
        most: int,
        advance: Callable[[int], None],
    ):
        self.folder, self.shape, self.decode, self.most = folder, shape, decode, most
        self.advance, self.unreadable = advance, []

    def run(self, listed: dict[str, list[Captioned]], data: Any, given: Tokenizer | None) -> None:
        """Reads every file, then writes captions and manifest."""
        kept: dict[str, list[Captioned]] = {split: [] for split in SPLITS}
        open_shards = {split: _Shards(self.folder, split) for split in SPLITS}
        share = 0.0 if listed["held_out"] else data.validation
        for key, found in listed.items():
            for one, digest, image in self._read(found):
                held = key == "held_out" or build.is_validation(digest, share)
                split = "validation" if held else "train"
                open_shards[split].add(image)
                kept[split].append(one)
        texts = (one.caption for one in kept["train"])
        tokenizer = given or tokenizers.train(data.tokenizer, texts, data.vocab_size)
        tokenizer.save(self.folder)
        captions = _captions(kept, tokenizer)
        write_atomic(self.folder / "captions.npz", captions)
        splits = {split: shards.summary() for split, shards in open_shards.items()}
        about = {
            "shape": self.shape,
            "dtype": "|u1",
            "tokenizer": {"fingerprint": tokenizer.fingerprint},
            "splits": splits,
            "captions": hashlib.sha256(captions).hexdigest(),
            "unreadable": self.unreadable,
        }
        content = [content_hash(about), about["captions"], self.shape]
        whole = {**about, "hash": hashlib.sha256(json.dumps(content).encode()).hexdigest()}
        write_atomic(self.folder / "manifest.json", sealed(whole))

    def _read(self, found: Iterable[Captioned]) -> Iterator[tuple[Captioned, bytes, np.ndarray]]:
        """Each file that can be read, with the hash of its bytes and its pixels."""
        for one in found:
            try:
                raw = raw_bytes(one.path)
                image = self.decode(raw)
            except Unreadable as reason:
                self.unreadable.append(unreadable(one, reason))
                require_few(self.unreadable, self.most)
                continue
            self.advance(len(raw))
            yield one, build.digest_of(raw), image


class _Shards:
    """The pixels of a split, written in files of about SHARD_BYTES."""

    def __init__(self, folder: Path, split: str):
        self.folder, self.split = folder, split
        self.waiting, self.size, self.images, self.shards = [], 0, 0, []

    def add(self, image: np.ndarray) -> None:
        self.waiting.append(image.tobytes())
        self.size, self.images = self.size + image.nbytes, self.images + 1
        if self.size >= SHARD_BYTES:
            self._write()

    def summary(self) -> dict:
        """The split as manifests describe it."""
        self._write()
        total = sum(shard["tokens"] for shard in self.shards)
        return {"documents": self.images, "tokens": total, "bytes": total, "shards": self.shards}

    def _write(self) -> None:
        if not self.waiting:
            return
        content, name = b"".join(self.waiting), f"{len(self.shards):05d}.{self.split}.bin"
        write_atomic(self.folder / name, content)
        sha256 = hashlib.sha256(content).hexdigest()
        self.shards.append({"file": name, "tokens": len(content), "sha256": sha256})
        self.waiting, self.size = [], 0


def _captions(kept: dict[str, list[Captioned]], tokenizer: Tokenizer) -> bytes:
    """The content of captions.npz."""
    arrays = {}
    for split, found in kept.items():
        tokens = [tokenizer.encode(one.caption) for one in found]
        for one, ids in zip(found, tokens, strict=True):
            if not len(ids):
                raise ValueError(
                    f"{one.where}: {one.caption[:40]!r} gives no token of data.tokenizer="
                    f"{tokenizer.name!r}; leave it out, or use another tokenizer"
                )
        names = "".join(one.name.replace("\n", " ") + "\n" for one in found)
        arrays[f"{split}/tokens_n"] = np.concatenate([np.empty(0, np.int32), *tokens])
        arrays[f"{split}/lengths_N"] = np.array([len(ids) for ids in tokens], np.int64)
        arrays[f"{split}/names"] = np.frombuffer(names.encode(), np.uint8)
    content = io.BytesIO()
    np.savez(content, **arrays)
    return content.getvalue()


def unreadable(one: Captioned, reason: Unreadable) -> str:
    """What messages say about a file that cannot be read."""
    return f"{one.name!r} ({one.where}): {reason}"


def require_few(unreadable: Sequence[str], most: int) -> None:
    """ValueError if more than `most` files cannot be read; it names the last of them."""
    if len(unreadable) > most:
        shown = "; ".join(unreadable[-NAMED:])
        raise ValueError(
            f"more than data.max_unreadable={most} files cannot be read: {shown}. Mend them, take "
            f"them off the list, or leave them out by data.max_unreadable={len(unreadable)} or more"
        )


def _open(folder: Path, name: str, shape: Shape, most: int, progress: bool) -> CaptionedStore:
    manifest, tokenizer = read_manifest(folder), tokenizers.load(folder)
    if skipped := manifest["unreadable"]:
        require_few(skipped, most)
        if progress:
            shown = "; ".join(skipped[:NAMED]) + ("; …" if len(skipped) > NAMED else "")
            print(f"{name}: {len(skipped)} unreadable files left out: {shown}", file=sys.stderr)
    try:
        content = (folder / "captions.npz").read_bytes()
        if hashlib.sha256(content).hexdigest() != manifest["captions"]:
            raise ValueError("its SHA-256 is not that of the manifest")
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            arrays = dict(file)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"{folder / 'captions.npz'} is damaged ({error}); delete {folder} to "
                         "rebuild it") from None  # fmt: skip
    captions = {
        split: Captions(*(arrays[f"{split}/{of}"] for of in Captions.__annotations__))
        for split in SPLITS
    }
    pixels = open_splits(folder, manifest)
    return CaptionedStore(name, tokenizer, manifest["hash"], shape, pixels, captions)
