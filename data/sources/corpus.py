"""Turns a corpus spec into documents, always the same ones in the same order.

    'stdlib'                    the library sources of the running Python (the default)
    'book.txt'                  one text file, cut into documents of about 8 KiB (`_paragraphs`)
    'folder/'                   all files in it except hidden ones: .jsonl and .parquet as below,
                                any other is one document; links to folders are not followed
    'web.jsonl', 'web.parquet'  one document per row, its text under `text_key`
    'x.txt.gz', 'x.jsonl.zst'   any of the text formats, compressed
    'hf:NAME[:CONFIG[:SPLIT]]'  a Hugging Face dataset, streamed (needs the package `datasets`)
    'synthetic[:KEY=VALUE…]'    a language whose entropy is known (`data/sources/synthetic.py`)

Text is kept byte for byte: no newline translation, no normalisation. A document is a non-empty str.
"""

import functools
import gzip
import io
import json
import os
import re
import sysconfig
import zlib
from collections.abc import Callable, Iterable, Iterator, Set
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import zstandard

from data.sources import synthetic

CHUNK_BYTES = 8 * 1024  # smallest document that a single text file is cut into
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
    """The documents of `spec`, in order; stops after `max_bytes` bytes of text, 0: never.

    Raises FileNotFoundError or ValueError, naming a file that is missing, empty, binary, not what
    its suffix says, or without `text_key`.
    """
    total, before = 0, identity(spec)
    for text in _read(spec, text_key):
        if not text:
            continue
        if max_bytes and total >= max_bytes:
            return
        total += len(text.encode())
        yield text
    if identity(spec) != before:
        raise ValueError(f"data.corpora={spec!r} changed while it was read; run this again")
    if not total:
        raise ValueError(f"data.corpora={spec!r} holds no text; name a corpus with documents in it")


def identity(spec: str) -> list:
    """What changes whenever the text does: name, size and time of each file. Reads no text."""
    if scheme(spec):
        return SCHEMES[scheme(spec)].identity(spec)
    return [[name, path.stat().st_size, path.stat().st_mtime_ns] for name, path in files(spec)]


def size(spec: str) -> int | None:
    """Approximate bytes of text in `spec`; None if only reading it would tell."""
    if scheme(spec):
        return SCHEMES[scheme(spec)].size(spec)
    listed = [path for _, path in files(spec)]
    if any(path.suffix in {".gz", ".zst", ".parquet"} for path in listed):
        return None
    return sum(path.stat().st_size for path in listed)


def scheme(spec: str) -> str:
    """The key in SCHEMES of text that does not come from files, otherwise ''."""
    name, colon, _ = spec.partition(":")
    return name if name in SCHEMES and (colon or name == "synthetic") else ""


def files(spec: str) -> list[tuple[str, Path]]:
    """The files of a local corpus as (name within the corpus, path), sorted by name."""
    if spec == "stdlib":
        return _stdlib_files(Path(sysconfig.get_paths()["stdlib"]))
    path = Path(spec).expanduser()
    if path.is_file():
        return [(path.name, path)]
    if not path.is_dir():
        raise FileNotFoundError(
            f"data.corpora={spec!r} does not exist; give a file, a folder, 'stdlib', 'synthetic' "
            "or 'hf:NAME'"
        )
    listed = sorted((file.relative_to(path).as_posix(), file) for file in _walk(path))
    if not listed:
        raise ValueError(f"data.corpora={spec!r} is an empty folder; put text files into it")
    return listed


def _walk(root: Path, skipped: Set[str] = frozenset()) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in skipped and name[0] != "."]
        yield from (Path(folder, name) for name in names if name[0] != ".")


@functools.cache
def _stdlib_files(root: Path) -> list[tuple[str, Path]]:
    return sorted(
        (path.relative_to(root).as_posix(), path)
        for path in _walk(root, STDLIB_SKIPPED_FOLDERS)
        # Distributions link their own files into the library; those differ between machines.
        if path.suffix == ".py" and not path.is_symlink() and _hand_written(path)
    )


def _hand_written(path: Path) -> bool:
    """False for generated files, which say so at the top, and for files that are not UTF-8."""
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
    alone = spec != "stdlib" and Path(spec).expanduser().is_file()
    for _, path in files(spec):
        kind = _kind(path)
        if kind == ".parquet":
            yield from _parquet(path, text_key)
            continue
        reader = READERS.get(kind, _paragraphs if alone else _whole)
        with _open(path) as stream:
            yield from _naming_damage(path, reader(stream, path, text_key))


def _kind(path: Path) -> str:
    """The suffix that says how to read a file: '.jsonl' for x.jsonl.zst."""
    return (path.with_suffix("") if path.suffix in OPENERS else path).suffix.lower()


def _open(path: Path) -> BinaryIO:
    return OPENERS.get(path.suffix, _open_plain)(path)


def _open_plain(path: Path) -> BinaryIO:
    return open(path, "rb")


def _open_zstandard(path: Path) -> BinaryIO:
    return io.BufferedReader(_Zstandard(open(path, "rb")))


class _Zstandard(io.RawIOBase):
    """Decompresses frame after frame. EOFError for a cut file, which zstandard.open hides."""

    def __init__(self, file: BinaryIO):
        self.file, self.frame = file, None
        self.ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:
        while not self.ready and (raw := self.file.read(1 << 16)):
            self.ready = memoryview(b"".join(self._decompress(raw)))
        if not self.ready and self.frame:
            raise EOFError("it ends within a frame")
        n = min(len(buffer), len(self.ready))
        buffer[:n], self.ready = self.ready[:n], self.ready[n:]
        return n

    def _decompress(self, raw: bytes) -> Iterator[bytes]:
        while raw:
            self.frame = self.frame or zstandard.ZstdDecompressor().decompressobj()
            yield self.frame.decompress(raw)
            raw = self.frame.unused_data
            if self.frame.eof:
                self.frame = None

    def close(self) -> None:
        self.file.close()
        super().close()


def _naming_damage(path: Path, texts: Iterable[str]) -> Iterator[str]:
    """Passes documents on; turns a decompressor's error into one line that names the file."""
    try:
        yield from texts
    except (gzip.BadGzipFile, zlib.error, zstandard.ZstdError, EOFError) as error:
        kind = {".gz": "gzip", ".zst": "zstandard"}[path.suffix]
        raise ValueError(f"{path} is damaged or not {kind}: {error}") from error


def _decode(raw: bytes, path: Path, offset: int) -> str:
    zero = raw.find(b"\0")
    if zero >= 0:
        raise ValueError(f"{path} is not text: NUL byte at offset {offset + zero}; leave it out")
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8: byte 0x{raw[error.start]:02x} at offset {offset + error.start}; "
            "convert it to UTF-8 or leave it out"
        ) from error


def _whole(stream: BinaryIO, path: Path, text_key: str) -> Iterator[str]:
    yield _decode(stream.read(), path, 0)


def _paragraphs(stream: BinaryIO, path: Path, text_key: str) -> Iterator[str]:
    """Cuts one text into documents, so that a share of them can be held out.

    A document ends at the first blank line after CHUNK_BYTES bytes, or at twice that if there is
    none. Concatenated, the documents are the file. Text appended to the file changes only the last
    document.
    """
    block, offset = bytearray(), 0
    while line := stream.readline(CHUNK_BYTES):
        block += line
        long_enough = len(block) >= (2 * CHUNK_BYTES if line.strip() else CHUNK_BYTES)
        if long_enough:
            end = _last_whole_character(block)
            yield _decode(bytes(block[:end]), path, offset)
            block, offset = block[end:], offset + end
    if block:
        yield _decode(bytes(block), path, offset)


def _last_whole_character(block: bytearray) -> int:
    """Where to cut `block`, which may end within a character of a very long line."""
    for end in range(len(block) - 1, len(block) - 5, -1):
        if block[end] < 0x80:
            return end + 1
        if block[end] >= 0xC0:
            return end
    return len(block)


def _jsonl(stream: BinaryIO, path: Path, text_key: str) -> Iterator[str]:
    offset = 0
    for number, raw in enumerate(stream, start=1):
        line, offset = _decode(raw, path, offset), offset + len(raw)
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{path} line {number} is not JSON: {error}") from error
        if not isinstance(row, dict) or text_key not in row:
            _missing_key(f"{path} line {number}", text_key, row if isinstance(row, dict) else [])
        yield _as_text(row[text_key], f"{path} line {number}", text_key)


def _parquet(path: Path, text_key: str) -> Iterator[str]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ValueError(f"{path} needs the package pyarrow; pip install pyarrow") from None
    try:
        file = pyarrow.parquet.ParquetFile(path)
    except pyarrow.ArrowException as error:
        raise ValueError(f"{path} is damaged or not Parquet: {error}") from error
    with file:
        if text_key not in file.schema_arrow.names:
            _missing_key(str(path), text_key, file.schema_arrow.names)
        row = 0
        for batch in file.iter_batches(columns=[text_key], batch_size=1024):
            for value in batch.column(0):
                yield _as_text(value.as_py(), f"{path} row {row}", text_key)
                row += 1


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
        if text_key not in row:
            _missing_key(f"{spec} row {number}", text_key, row)
        yield _as_text(row[text_key], f"{spec} row {number}", text_key)


def _synthetic(spec: str, text_key: str) -> Iterator[str]:
    return synthetic.parse(spec).documents()


def _missing_key(where: str, text_key: str, found: Iterable[str]) -> None:
    keys = ", ".join(sorted(found)) or "none"
    raise ValueError(f"{where} has no key data.text_key={text_key!r}; keys found: {keys}")


def _as_text(value: object, where: str, text_key: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError(
            f"{where}: data.text_key={text_key!r} holds {type(value).__name__}, not a string"
        )
    # JSON can escape half a surrogate pair, which UTF-8 cannot hold.
    return value.encode("utf-8", "surrogatepass").decode("utf-8", "replace")


OPENERS: dict[str, Callable[[Path], BinaryIO]] = {".gz": gzip.open, ".zst": _open_zstandard}
READERS: dict[str, Callable[[BinaryIO, Path, str], Iterator[str]]] = {".jsonl": _jsonl}


@dataclass(frozen=True)
class Scheme:
    """A source of text other than files: documents, identity and size of a spec."""

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
}
