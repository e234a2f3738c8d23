"""The lengths of the documents of a split, found once and kept beside its tokens.

    CACHE/stdlib-bytes-1f0c…/train-93ab….lengths    a SHA-256, then a little-endian uint32 each

The file's name has the hash of the dataset, and its SHA-256 covers that hash too. So the lengths of
other tokens, or damaged ones, are found anew. A cache that cannot be written is read each time; a
cache in a bucket has the file in its copy on each machine.
"""

import contextlib
import hashlib
from pathlib import Path

import numpy as np

from data.atomic import write_atomic
from data.caching import folders
from data.shards import Split
from data.store import Component
from data.tokenizer import Tokenizer

LARGE = 50_000_000  # tokens from which the progress of reading is shown


def document_lengths(part: Component, tokenizer: Tokenizer) -> np.ndarray:
    """Tokens of each training document, with its end-of-document token, int64 [N]. ValueError if
    the numbers of end-of-document tokens and of documents differ."""
    path, about = part.folder / f"train-{part.hash[:16]}.lengths", f"{part.hash} train"
    kept_N = _kept(path, about, part.splits["train"])
    if kept_N is not None:
        return kept_N
    lengths_N = _found(part, tokenizer)
    content = lengths_N.astype("<u4").tobytes()
    with contextlib.suppress(OSError):
        write_atomic(path, _digest(about, content) + content)
    return lengths_N


def _kept(path: Path, about: str, tokens: Split) -> np.ndarray | None:
    """The lengths in `path`; None if they are not there, damaged, or not those of this split."""
    try:
        raw = path.read_bytes()
    except OSError:
        return None
    size = hashlib.sha256().digest_size
    if raw[:size] != _digest(about, raw[size:]):
        return None
    lengths_N = np.frombuffer(raw, "<u4", offset=size).astype(np.int64)
    same = len(lengths_N) == tokens.n_documents and lengths_N.sum() == tokens.n_tokens
    return lengths_N if same else None


def _digest(about: str, content: bytes) -> bytes:
    return hashlib.sha256(about.encode() + content).digest()


def _found(part: Component, tokenizer: Tokenizer) -> np.ndarray:
    """The lengths by the end-of-document tokens. Reads all tokens, with a progress bar if they are
    many."""
    tokens = part.splits["train"]
    size, shown = sum(shard.nbytes for shard in tokens.shards), tokens.n_tokens > LARGE
    ends = [np.empty(0, np.int64)]
    with folders.progress_of(f"reading {part.name} to pack it", size, shown) as advance:
        for begin, shard in zip(tokens.begins, tokens.shards, strict=False):
            ends.append(begin + np.flatnonzero(shard == tokenizer.eod))
            advance(shard.nbytes)
    ends_N = np.concatenate(ends)
    if len(ends_N) != tokens.n_documents:
        raise ValueError(
            f"corpus {part.name!r} has {tokens.n_documents:,} documents (train), but "
            f"{len(ends_N):,} end-of-document tokens: data.tokenizer={tokenizer.name!r} uses "
            f"token {tokenizer.eod} for text too; use data.rows=windows"
        )
    return np.diff(ends_N, prepend=-1)
