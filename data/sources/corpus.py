"""Reads the documents of a corpus spec, always in the same order.

    'stdlib'                    the library sources of the running Python (the default)
    'book.txt'                  one text file, split into documents of about 8 KiB
    'folder/'                   all files in it except hidden ones; a row format gives one document
                                per row, any other file is one document; links to folders are not
                                followed
    'web.jsonl', 'web.parquet'  one document per row, its text under `text_key`; also .ndjson,
                                .jsonlines, .json (an array, or objects), .csv, .tsv
    'x.txt.gz', 'x.jsonl.zst'   any of these, compressed; also .bz2, .xz
    'hf:NAME[:CONFIG[:SPLIT]]'  a Hugging Face dataset, streamed (needs the package `datasets`)
    'synthetic[:KEY=VALUE…]'    a language of known entropy (`data/sources/synthetic.py`)
    'synthetic_sentiment[:…]'   made-up reviews, as running text (`data/sources/sentiment.py`)
    'corrupted:CORPUS[:…]'      another corpus with faults of the web (`data/sources/corrupted.py`)
    'world[:KEY=VALUE…]'        a made-up world of facts (`data/sources/world.py`)

Text is not changed: newlines stay and nothing is normalised. A document is a non-empty str.
"""

import functools
import os
import re
import sysconfig
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from data.files import REMOTE, is_remote, path_of, to_path
from data.sources import corrupted, sentiment, synthetic, world
from data.sources.compression import compressed, ending
from data.sources.formats import read_file, read_unchanged, row_text

Row = TypeVar("Row")
READ_REVISION = 1  # increment when the reading of files changes for which `read_unchanged` is False
STDLIB_SKIPPED_FOLDERS = {
    "test",
    "tests",
    "idle_test",
    "site-packages",
    "dist-packages",
    "__pycache__",
    "lib-dynload",
}
GENERATED = re.compile(r"auto-?generated|generated (by|from|automatically)|do not edit", re.I)


def documents(spec: str, text_key: str = "text", max_bytes: int = 0) -> Iterator[str]:
    """The documents of `spec`, in order. Stops after `max_bytes` bytes of text; 0 means no limit.

    Raises FileNotFoundError or ValueError, naming the file, if it is missing, empty, binary, not of
    the format of its suffix, or without `text_key`.
    """
    rows = ((text, text) for text in _read(spec, text_key))
    yield from checked(spec, rows, max_bytes, "data.corpora")


def checked(spec: str, rows: Iterator[tuple[str, Row]], max_bytes: int, key: str) -> Iterator[Row]:
    """The second of each (text, row) of `spec` with a text, up to `max_bytes` bytes of text; 0: no
    limit. ValueError, naming `key`, for a corpus that changes meanwhile or holds no text."""
    total, before = 0, identity(spec)
    for text, row in rows:
        if text:
            total += len(text.encode())
            yield row
        if max_bytes and total >= max_bytes:
            return
    if identity(spec) != before:
        raise ValueError(f"{key}={spec!r} changed while it was read; run the command again")
    if not total:
        raise ValueError(f"{key}={spec!r} holds no text; name a corpus with documents in it")


def identity(spec: str) -> list:
    """Name, size and time of each file, which change when the text does; in a bucket, the version
    in place of the time. Reads no text."""
    if scheme(spec):
        return SCHEMES[scheme(spec)].identity(spec)
    single, about = is_file(spec), []
    for name, path, stat in _with_stats(spec):
        changed = stat.st_ino if is_remote(path) else stat.st_mtime_ns
        about.append([name, stat.st_size, changed])
        if not read_unchanged(path, stat.st_size, single):
            about[-1].append(READ_REVISION)  # so that tokens of older versions are not used
    return about


def size(spec: str) -> int | None:
    """Approximate bytes of text in `spec`; None if it is unknown until the text is read."""
    if scheme(spec):
        return SCHEMES[scheme(spec)].size(spec)
    listed = _with_stats(spec)
    if any(compressed(path) or ending(path) in {".parquet", ".pq"} for _, path, _ in listed):
        return None
    return sum(stat.st_size for _, _, stat in listed)


def scheme(spec: str) -> str:
    """The key in SCHEMES that `spec` begins with; '' if it names files."""
    name, colon, _ = spec.partition(":")
    known = name in SCHEMES and (name == corrupted.SCHEME or not REMOTE.match(spec))
    return name if known and (colon or name != "hf") else ""


def files(spec: str) -> list[tuple[str, Path]]:
    """The files of a corpus as (name within the corpus, path), sorted by name."""
    if spec == "stdlib":
        return _stdlib_files(Path(sysconfig.get_paths()["stdlib"]))
    path = path_of(spec, "data.corpora")
    if path.is_file():
        return [(path.name, path)]
    if not path.is_dir():
        raise FileNotFoundError(
            f"data.corpora={spec!r} does not exist; give a file, a folder, 'stdlib', 'synthetic' "
            "or 'hf:NAME'"
        )
    inside = (p for p, _ in path.files_below()) if is_remote(path) else _walk(path)
    named = ((file.relative_to(path).as_posix(), file) for file in inside)
    listed = sorted((name, file) for name, file in named if not _is_hidden(name))
    if not listed:
        raise ValueError(f"data.corpora={spec!r} is an empty folder; put text files into it")
    return listed


def _with_stats(spec: str) -> list[tuple[str, Path, Any]]:
    """`files` with the stat of each; one listing for a folder in a bucket."""
    path = to_path(spec)
    stats = dict(path.files_below()) if is_remote(path) else {}
    return [(name, file, stats.get(file) or file.stat()) for name, file in files(spec)]


def _is_hidden(name: str) -> bool:
    return any(part[0] == "." for part in name.split("/"))


def _walk(root: Path, skipped: Set[str] = frozenset()) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in skipped and name[0] != "."]
        yield from (Path(folder, name) for name in names if name[0] != ".")


@functools.cache
def _stdlib_files(root: Path) -> list[tuple[str, Path]]:
    return sorted(
        (path.relative_to(root).as_posix(), path)
        for path in _walk(root, STDLIB_SKIPPED_FOLDERS)
        # Linux distributions add symbolic links to the library, which differ between machines.
        if path.suffix == ".py" and not path.is_symlink() and _hand_written(path)
    )


def _hand_written(path: Path) -> bool:
    """False for files that are not UTF-8, and for generated files, which say so at the top."""
    if path.name.startswith("_sysconfigdata"):
        return False
    try:
        return not GENERATED.search(path.read_bytes().decode()[:600])
    except UnicodeDecodeError:
        return False


def _read(spec: str, text_key: str) -> Iterator[str]:
    if scheme(spec):
        yield from SCHEMES[scheme(spec)].read(spec, text_key)
        return
    for _, path in files(spec):
        yield from read_file(path, text_key, is_file(spec))


def is_file(spec: str) -> bool:
    """Whether a corpus of files is a single one."""
    return spec != "stdlib" and path_of(spec, "data.corpora").is_file()


def _hugging_face(spec: str, text_key: str) -> Iterator[str]:
    try:
        import datasets
    except ImportError:
        raise ValueError(
            f"data.corpora={spec!r} needs the package datasets; pip install datasets"
        ) from None
    name, config, split, *rest = [*spec.removeprefix("hf:").split(":"), "", ""][:4]
    if not name or any(rest):
        raise ValueError(f"data.corpora={spec!r} is not of the form 'hf:NAME[:CONFIG[:SPLIT]]'")
    try:
        rows = datasets.load_dataset(name, config or None, split=split or "train", streaming=True)
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(f"data.corpora={spec!r} cannot be loaded: {reason}") from error
    for number, row in enumerate(rows):
        yield row_text(row, text_key, f"{spec} row {number}")


def _synthetic(spec: str, text_key: str) -> Iterator[str]:
    return synthetic.parse(spec).documents()


def _corrupted(spec: str, text_key: str) -> Iterator[str]:
    corruption = corrupted.parse(spec)
    yield from corruption.documents(_read(corruption.corpus, text_key))


def _corrupted_identity(spec: str) -> list:
    corruption = corrupted.parse(spec)
    return [repr(corruption), corrupted.VERSION, identity(corruption.corpus)]


@dataclass(frozen=True)
class Scheme:
    """A source of text other than files. Its functions do the work of `documents`, `identity` and
    `size`.
    """

    read: Callable[[str, str], Iterator[str]]
    identity: Callable[[str], list]
    size: Callable[[str], int | None]


SCHEMES = {
    "hf": Scheme(_hugging_face, lambda spec: [spec], lambda spec: None),
    "synthetic": Scheme(
        _synthetic,
        lambda spec: [repr(synthetic.parse(spec)), synthetic.VERSION],
        lambda spec: synthetic.parse(spec).tokens,
    ),
    sentiment.SCHEME: Scheme(
        lambda spec, text_key: sentiment.parse(spec).documents(),
        lambda spec: [repr(sentiment.parse(spec)), sentiment.VERSION],
        lambda spec: None,
    ),
    corrupted.SCHEME: Scheme(_corrupted, _corrupted_identity, lambda spec: None),
    world.SCHEME: Scheme(
        lambda spec, text_key: world.parse(spec).documents(),
        lambda spec: world.parse(spec).identity,
        lambda spec: None,
    ),
}
