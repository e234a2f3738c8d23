"""Reads pairs of sentences: a source and its translation, the target.

    ('pairs.tsv',)                one pair per line: source, tab, target; more columns are ignored
    ('pairs.jsonl',)              one pair per line, under `source_key` and `target_key`
    ('train.de', 'train.en')      line n of the second file translates line n of the first
    ('synthetic_pairs:…',)        a language that is made up (`data/sources/translation_task.py`)
    ('messages:PACKAGE:fr',)      the user interface of a package (`data/sources/messages.py`)

Files may be compressed. White space around a sentence is dropped, and a line that is blank on both
sides is skipped. A sentence that is empty on one side only is an error.
"""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

from data.files import path_of
from data.sources import corpus, messages, translation_task
from data.sources.compression import ending, naming_damage, open_file
from data.sources.formats import json_lines, lines

Pair = tuple[str, str]
JSON_LINES = (".jsonl", ".jsonlines", ".ndjson")
SYNTHETIC, MESSAGES = "synthetic_pairs", "messages"  # what a spec begins with
# Stands between the two sides where a pair is one text. No sentence contains it.
BETWEEN = "\0"


def pairs(corpora: Sequence[str], source_key: str, target_key: str) -> Iterator[Pair]:
    """The pairs of `corpora`, in order. FileNotFoundError or ValueError, naming file and line, for
    a file that is missing or damaged, lines without a counterpart and a side that is empty."""
    read = 0
    for where, source, target in _read(corpora, source_key, target_key):
        source, target = source.strip(), target.strip()
        if not source and not target:
            continue
        for side, sentence in (("source", source), ("target", target)):
            if not sentence:
                raise ValueError(f"{where} has an empty {side}; complete or delete this pair")
            if BETWEEN in sentence:
                raise ValueError(f"{where} has a NUL character in its {side}; delete it")
        read += 1
        yield source, target
    if not read:
        raise ValueError(f"data.corpora={_shown(corpora)} holds no pairs; name files with some")


def identity(corpora: Sequence[str]) -> list:
    """What changes when the pairs do: names, sizes and times of the files. Reads no text."""
    if _scheme(corpora) == SYNTHETIC:
        return [repr(translation_task.parse(corpora[0])), translation_task.VERSION]
    return [[str(path.resolve()), corpus.identity(str(path))] for path in _files(corpora)]


def size(corpora: Sequence[str]) -> int | None:
    """Approximate bytes of text; None if it is unknown until the text is read."""
    if _scheme(corpora) == SYNTHETIC:
        return None
    sizes = [corpus.size(str(path)) for path in _files(corpora)]
    return None if None in sizes else sum(sizes)


def _scheme(corpora: Sequence[str]) -> str:
    """SYNTHETIC or MESSAGES; '' for files."""
    name = corpora[0].partition(":")[0] if len(corpora) == 1 else ""
    return name if name in (SYNTHETIC, MESSAGES) else ""


def _read(corpora: Sequence[str], source_key: str, target_key: str) -> Iterator[tuple]:
    """(where it is, source, target) of each pair."""
    if _scheme(corpora) == MESSAGES:
        yield from messages.pairs(corpora[0])
        return
    if _scheme(corpora) == SYNTHETIC:
        for number, (source, target) in enumerate(translation_task.parse(corpora[0]).pairs()):
            yield f"pair {number}", source, target
        return
    paths = _files(corpora)
    if len(paths) == 2:
        yield from _two_files(*paths)
    elif ending(paths[0]) in JSON_LINES:
        yield from _json_lines(paths[0], source_key, target_key)
    else:
        yield from _columns(paths[0])


def _files(corpora: Sequence[str]) -> list[Path]:
    if _scheme(corpora) == MESSAGES:
        return messages.files(corpora[0])
    if not 1 <= len(corpora) <= 2:
        raise ValueError(
            f"data.corpora={_shown(corpora)} names {len(corpora)} files; give one .tsv or .jsonl, "
            "or the sources' file and the targets' file"
        )
    paths = [path_of(spec, "data.corpora") for spec in corpora]
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(
                f"data.corpora: the file {str(path)!r} does not exist; give a .tsv or .jsonl of "
                f"pairs, two files with equal lines, or {SYNTHETIC}"
            )
    if len(paths) == 1 and ending(paths[0]) not in (".tsv", *JSON_LINES):
        raise ValueError(
            f"data.corpora={_shown(corpora)} is neither a .tsv nor a .jsonl; if it holds the "
            "sources line by line, name the targets' file too, after a comma"
        )
    return paths


def _two_files(first: Path, second: Path) -> Iterator[tuple[str, str, str]]:
    with (
        naming_damage(first),
        open_file(first) as one,
        naming_damage(second),
        open_file(second) as other,
    ):
        both = itertools.zip_longest(lines(one, first), lines(other, second))
        for number, (source, target) in enumerate(both, start=1):
            if source is None or target is None:
                short, long = (first, second) if source is None else (second, first)
                more = 1 + sum((source or target) is not None for source, target in both)
                raise ValueError(
                    f"{short} has {number - 1} lines, but {long} has {number - 1 + more}: line "
                    f"{number} has no counterpart; both need the same number of lines"
                )
            yield f"{first} and {second}, line {number},", source, target


def _json_lines(path: Path, source_key: str, target_key: str) -> Iterator[tuple[str, str, str]]:
    named = {"source_key": source_key, "target_key": target_key}
    with naming_damage(path), open_file(path) as stream:
        for where, row in json_lines(stream, path):
            row = row if isinstance(row, dict) else {}
            for key, name in named.items():
                if not isinstance(row.get(name), str):
                    found = ", ".join(k for k, value in row.items() if isinstance(value, str))
                    raise ValueError(
                        f"{where} has no text under data.{key}={name!r}; keys with text: "
                        f"{found or 'none'}"
                    )
            yield where, row[source_key], row[target_key]


def _columns(path: Path) -> Iterator[tuple[str, str, str]]:
    with naming_damage(path), open_file(path) as stream:
        for number, line in enumerate(lines(stream, path), start=1):
            columns = line.rstrip("\r\n").split("\t")
            if len(columns) < 2 and line.strip():
                raise ValueError(
                    f"{path} line {number} has one column; give source and target with a tab "
                    "between them"
                )
            yield f"{path} line {number}", columns[0], (columns[1:] or [""])[0]


def _shown(corpora: Sequence[str]) -> str:
    return repr(",".join(corpora))
