"""Tokenizes documents into shards, in parallel; a killed build continues where it stopped.

Documents fill groups of GROUP_BYTES of text, in order. A group becomes at most one shard per split.
The record of a group is written after its shards, and manifest.json after all groups. Groups do not
depend on the number of workers. A shard's name contains a hash of its group's text, so a later
build keeps the shards whose text is unchanged.
"""

import concurrent.futures
import hashlib
import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.atomic import write_atomic
from data.local import sealed, unsealed
from data.shards import SPLITS, damage, token_dtype, write_manifest
from data.tokenizer import Tokenizer

GROUP_BYTES = 16 << 20  # decides where shards end, so it changes every dataset's hash
# Below this many bytes of text, one process is faster than several.
MIN_BYTES_FOR_WORKERS = {
    "bytes": 256 << 20,
    "chars": 64 << 20,
    "words": 2 * GROUP_BYTES,
    "sentencepiece": 2 * GROUP_BYTES,
    "huggingface": 2 * GROUP_BYTES,
}


@dataclass(frozen=True)
class Group:
    """Documents that are tokenized together."""

    name: str  # its number and a hash of its text
    texts: list[str]
    in_validation: list[bool]
    n_bytes: int


def digest_of(raw: bytes) -> bytes:
    """The hash of a document: 8 bytes decide its split, the last 16 rank it in samples."""
    return hashlib.sha256(raw).digest()


def is_validation(digest: bytes, share: float) -> bool:
    """Whether a document is in the validation split. A larger share adds documents to the split and
    removes none."""
    return int.from_bytes(digest[:8], "big") < share * 2.0**64


def build(
    folder: Path,
    name: str,
    documents: Iterable[str],
    *,
    size: int | None,
    tokenizer: Tokenizer,
    validation: float,
    advance: Callable[[int], None],
    workers: int = 0,
) -> None:
    """Writes the shards of `documents` and then manifest.json into `folder`.

    `size` is the number of bytes of text, or None if unknown; `workers=0` chooses the number of
    workers from it. Calls `advance(bytes)` when text is finished. Raises OSError if a worker dies.
    """
    workers = workers or _useful_workers(size, tokenizer)
    dtype = token_dtype(tokenizer.vocab_size)
    tokenizer.save(folder)
    groups = _groups(documents, validation)
    if workers == 1:
        records = list(_serial_records(folder, groups, tokenizer, advance))
    else:
        records = list(_parallel_records(folder, groups, tokenizer, workers, advance))
    manifest = {
        "corpus": name,
        "validation": validation,
        "dtype": dtype,
        "tokenizer": {
            "name": tokenizer.name,
            "fingerprint": tokenizer.fingerprint,
            "vocab_size": tokenizer.vocab_size,
            "end_of_document": tokenizer.eod,
        },
        "splits": {split: _summary([record[split] for record in records]) for split in SPLITS},
    }
    write_manifest(folder, manifest)
    _remove_leftovers(folder, manifest)


def _useful_workers(size: int | None, tokenizer: Tokenizer) -> int:
    """One for little text, otherwise one per core."""
    if size is not None and size < MIN_BYTES_FOR_WORKERS[tokenizer.kind]:
        return 1
    return usable_cores()


def usable_cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _groups(documents: Iterable[str], validation: float) -> Iterator[Group]:
    """Consecutive documents of at least GROUP_BYTES; the last group may be smaller."""
    members, n_bytes, number = [], 0, 0
    for text in documents:
        raw = text.encode()
        members.append((text, digest_of(raw)))
        n_bytes += len(raw)
        if n_bytes >= GROUP_BYTES:
            yield _group(number, members, n_bytes, validation)
            members, n_bytes, number = [], 0, number + 1
    if members:
        yield _group(number, members, n_bytes, validation)


def _group(number: int, members: list[tuple[str, bytes]], n_bytes: int, validation: float) -> Group:
    """The group of these texts with their digests."""
    digest = hashlib.sha256(b"".join(digest for _, digest in members)).hexdigest()
    in_validation = [is_validation(digest, validation) for _, digest in members]
    return Group(
        f"{number:05d}-{digest[:16]}", [text for text, _ in members], in_validation, n_bytes
    )


def _serial_records(
    folder: Path, groups: Iterable[Group], tokenizer: Tokenizer, advance: Callable[[int], None]
) -> Iterator[dict]:
    """The record of each group, in order. Groups that an earlier build finished are skipped."""
    for group in groups:
        yield _finished_record(folder, group.name) or tokenize_group(folder, group, tokenizer)
        advance(group.n_bytes)


def _parallel_records(
    folder: Path,
    groups: Iterable[Group],
    tokenizer: Tokenizer,
    workers: int,
    advance: Callable[[int], None],
) -> Iterator[dict]:
    """What `_serial_records` yields, tokenized by `workers` processes."""
    pool = concurrent.futures.ProcessPoolExecutor(
        workers,
        # A fork would copy locks that other threads hold at that moment.
        multiprocessing.get_context("spawn"),
        _start_worker,
        (tokenizer.kind, tokenizer.name, tokenizer.model, tokenizer.end, tokenizer.specials),
    )
    pending: deque[tuple[int, dict | concurrent.futures.Future]] = deque()

    def take() -> dict:
        n_bytes, item = pending.popleft()
        record = item if isinstance(item, dict) else item.result()
        advance(n_bytes)
        return record

    try:
        for group in groups:
            record = _finished_record(folder, group.name)
            pending.append((group.n_bytes, record or pool.submit(_work, folder, group)))
            if len(pending) > 2 * workers:
                yield take()
        while pending:
            yield take()
    except BrokenProcessPool as error:
        raise OSError(
            f"a tokenizing process of {folder} died, perhaps out of memory; run the command "
            "again: finished shards are kept"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


_tokenizer: Tokenizer


def _start_worker(kind: str, name: str, model: bytes, end: int | None, specials: tuple) -> None:
    global _tokenizer
    _tokenizer = Tokenizer(kind, name, model, end=end, specials=specials)
    exit_with_parent()


def exit_with_parent() -> None:
    """Ends this worker, which waits for work forever, when its parent is killed."""
    parent = multiprocessing.parent_process()

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _work(folder: Path, group: Group) -> dict:
    return tokenize_group(folder, group, _tokenizer)


def tokenize_group(folder: Path, group: Group, tokenizer: Tokenizer) -> dict:
    """Writes the shards of `group`, then its record, which it returns."""
    dtype = token_dtype(tokenizer.vocab_size)
    end = np.array([tokenizer.eod], dtype)
    record = {}
    for split in SPLITS:
        members = zip(group.texts, group.in_validation, strict=True)
        texts = [text for text, validation in members if validation == (split == "validation")]
        parts = [part for text in texts for part in (tokenizer.encode(text).astype(dtype), end)]
        content = np.concatenate(parts).tobytes() if parts else b""
        record[split] = {
            "file": f"{group.name}.{split}.bin",
            "tokens": len(content) // np.dtype(dtype).itemsize,
            "documents": len(texts),
            "bytes": sum(len(text.encode()) for text in texts),
            "sha256": hashlib.sha256(content).hexdigest(),
        }
        if content:
            write_atomic(folder / record[split]["file"], content)
    record["itemsize"] = np.dtype(dtype).itemsize
    write_atomic(folder / f"{group.name}.json", sealed(record))
    return record


def _finished_record(folder: Path, name: str) -> dict | None:
    """The record of a group if all its shards are present and undamaged; otherwise None."""
    try:
        record = unsealed((folder / f"{name}.json").read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    for split in SPLITS:
        shard = record[split]
        size = shard["tokens"] * record["itemsize"]
        if size and damage(folder / shard["file"], size, shard["sha256"]):
            return None
    return record


def _summary(shards: list[dict]) -> dict:
    """The totals of a split and its non-empty shards."""
    return {
        **{
            count: sum(shard[count] for shard in shards)
            for count in ("documents", "tokens", "bytes")
        },
        "shards": [shard for shard in shards if shard["tokens"]],
    }


def _remove_leftovers(folder: Path, manifest: dict) -> None:
    """Deletes records, temporary files and shards of text that has since changed."""
    kept = {"manifest.json", "tokenizer.json", "tokenizer.model", ".lock"}
    kept |= {shard["file"] for split in SPLITS for shard in manifest["splits"][split]["shards"]}
    for path in folder.iterdir():
        if path.name not in kept:
            path.unlink(missing_ok=True)
