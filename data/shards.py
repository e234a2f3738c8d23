"""Reads and verifies token shards: files of little-endian integers, checked by SHA-256.

A split, 'train' or 'validation', is one long sequence of tokens: its shards, concatenated in order.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.atomic import write_atomic
from data.files import sha256_of
from data.local import sealed, unsealed

SPLITS = ("train", "validation")

# Files that this process has verified, as (path, size, time, inode, SHA-256).
_verified: set[tuple] = set()


def token_dtype(vocab_size: int) -> str:
    """The type of one token on disk."""
    return "<u2" if vocab_size <= 1 << 16 else "<u4"


def damage(path: Path, size: int, sha256: str) -> str | None:
    """What is wrong with the shard at `path`, or None. Reads it once per process, at 1 GB/s."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return "is missing"
    if stat.st_size != size:
        return f"has {stat.st_size} bytes instead of {size}"
    memo = (str(path), stat.st_size, stat.st_mtime_ns, stat.st_ino, sha256)
    if memo not in _verified:
        if sha256_of(path) != sha256:
            return "is damaged: its SHA-256 is not that of the manifest"
        _verified.add(memo)
    return None


@dataclass(frozen=True)
class Split:
    """The tokens of one split, memory-mapped."""

    shards: tuple[np.ndarray, ...]
    begins: np.ndarray  # position of each shard's first token in the split, int64
    n_tokens: int
    n_documents: int
    n_bytes: int  # of text, without the end-of-document tokens

    def read(self, starts: np.ndarray, length: int) -> np.ndarray:
        """Tokens [n, length] from each of `starts` [n] on; they may span several shards.

        Raises IndexError beyond the end of the split.
        """
        if len(starts) and (starts.min() < 0 or starts.max() + length > self.n_tokens):
            raise IndexError(
                f"{length} tokens from {starts.max()} on exceed the {self.n_tokens} of the split"
            )
        out = np.empty((len(starts), length), self.shards[0].dtype if self.shards else "<u2")
        shard_of = np.searchsorted(self.begins, starts, side="right") - 1
        local = starts - self.begins[shard_of]
        for number in range(shard_of.min(), shard_of.max() + 1) if len(starts) else ():
            shard = self.shards[number]
            here = shard_of == number
            inside = here & (local + length <= len(shard))
            if inside.all():
                return _rows(shard, length)[local]
            if inside.any():
                out[inside] = _rows(shard, length)[local[inside]]
            for row in np.flatnonzero(here & ~inside):
                out[row] = self._across(number, int(local[row]), length)
        return out

    def _across(self, number: int, local: int, length: int) -> np.ndarray:
        parts = []
        while length:
            part = self.shards[number][local : local + length]
            parts.append(part)
            number, local, length = number + 1, 0, length - len(part)
        return np.concatenate(parts)


def _rows(shard: np.ndarray, length: int) -> np.ndarray:
    """A view [len - length + 1, length] of every run of `length` tokens."""
    step = shard.strides[0]
    return np.lib.stride_tricks.as_strided(
        shard, (len(shard) - length + 1, length), (step, step), writeable=False
    )


def write_manifest(folder: Path, about: dict) -> None:
    """Writes `about`, its dataset hash and a checksum of both. This completes a build."""
    write_atomic(folder / "manifest.json", sealed({**about, "hash": content_hash(about)}))


def read_manifest(folder: Path) -> dict:
    """The manifest of `folder`; ValueError if its checksum does not match."""
    path = folder / "manifest.json"
    try:
        return unsealed(path.read_bytes())
    except ValueError:
        raise ValueError(f"{path} is damaged; delete {folder} to rebuild it") from None


def content_hash(about: dict) -> str:
    """The dataset's hash: of its tokens, tokenizer and splits, not of paths, names or dates."""
    content = {
        "tokenizer": about["tokenizer"]["fingerprint"],
        "dtype": about["dtype"],
        "splits": {
            name: [[shard["tokens"], shard["sha256"]] for shard in about["splits"][name]["shards"]]
            for name in SPLITS
        },
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def open_splits(folder: Path, manifest: dict) -> dict[str, Split]:
    """Both splits of `folder`; ValueError names a shard that is missing, truncated or damaged."""
    itemsize = np.dtype(manifest["dtype"]).itemsize
    splits = {}
    for split in SPLITS:
        about = manifest["splits"][split]
        for shard in about["shards"]:
            fault = damage(folder / shard["file"], shard["tokens"] * itemsize, shard["sha256"])
            if fault:
                raise ValueError(
                    f"shard {folder / shard['file']} {fault}; delete {folder} to rebuild it"
                )
        lengths = [shard["tokens"] for shard in about["shards"]]
        splits[split] = Split(
            shards=tuple(
                np.memmap(folder / shard["file"], manifest["dtype"], "r").view(np.ndarray)
                for shard in about["shards"]
            ),
            begins=np.concatenate([[0], np.cumsum(lengths[:-1])]).astype(np.int64),
            n_tokens=sum(lengths),
            n_documents=about["documents"],
            n_bytes=about["bytes"],
        )
    return splits
