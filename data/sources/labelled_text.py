"""Reads texts with labels: a label for each text, or one for each of its words.

    'reviews.jsonl'                      {"text": "…", "label": "positive"} in each line
    'reviews.tsv', 'reviews.csv'         the first line names the columns
    'synthetic_sentiment[:KEY=VALUE…]'   made-up reviews (`data/sources/sentiment.py`)

Words with labels are lists of equal length under both keys, or strings whose words are separated by
spaces. Files may be compressed.
"""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from data.files import path_of
from data.sources import corpus, sentiment
from data.sources.compression import ending, naming_damage, open_file
from data.sources.formats import LARGEST_DOCUMENT, json_lines, lines

JSON_LINES = (".jsonl", ".jsonlines", ".ndjson")
DELIMITERS = {".tsv": "\t", ".csv": ","}


class Example(NamedTuple):
    """A text as its parts, and a label for each part: the text itself, or its words."""

    where: str  # file and line
    parts: list[str]
    labels: list[str]


def examples(
    specs: Sequence[str], text_key: str, label_key: str, each_word: bool
) -> Iterator[Example]:
    """The examples of `specs`, in order. FileNotFoundError or ValueError, naming file and line, for
    a file that is missing or damaged, a missing key, an empty text and labels that do not match."""
    for spec in specs:
        found = False
        for where, row in _rows(spec, text_key, label_key):
            found = True
            values = [_value(row, key, name, where) for key, name in
                      (("text_key", text_key), ("label_key", label_key))]  # fmt: skip
            yield (_words if each_word else _text)(where, *values)
        if not found:
            raise ValueError(f"data.corpora={spec!r} holds no texts; name a file with some")


def identity(specs: Sequence[str]) -> list:
    """What changes when the texts do: names, sizes and times of the files. Reads no text."""
    return [
        [repr(sentiment.parse(spec)), sentiment.VERSION]
        if _made_up(spec)
        else [str(_file(spec).resolve()), corpus.identity(spec)]
        for spec in specs
    ]


def _made_up(spec: str) -> bool:
    return spec.partition(":")[0] == sentiment.SCHEME


def _file(spec: str) -> Path:
    path = path_of(spec, "data.corpora")
    if not path.is_file():
        raise FileNotFoundError(
            f"data.corpora: the file {str(path)!r} does not exist; give a .jsonl, .tsv or .csv "
            f"with texts and labels, or {sentiment.SCHEME}"
        )
    return path


def _rows(spec: str, text_key: str, label_key: str) -> Iterator[tuple[str, Any]]:
    """(where it is, {key: value}) of each row."""
    if _made_up(spec):
        for number, (text, label) in enumerate(sentiment.parse(spec).labelled()):
            yield f"{spec} text {number}", {text_key: text, label_key: label}
        return
    path = _file(spec)
    with naming_damage(path), open_file(path) as stream:
        if ending(path) in JSON_LINES:
            yield from json_lines(stream, path)
        elif delimiter := DELIMITERS.get(ending(path)):
            csv.field_size_limit(LARGEST_DOCUMENT)
            rows = csv.reader(lines(stream, path), delimiter=delimiter, strict=True)
            yield from _columns(rows, path)
        else:
            known = ", ".join((*JSON_LINES, *DELIMITERS))
            raise ValueError(f"data.corpora={spec!r} has labels only if it is one of {known}")


def _columns(rows: Any, path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    try:
        names = next(rows, [])
        for row in filter(None, rows):
            where = f"{path} line {rows.line_num}"
            if len(row) != len(names):
                raise ValueError(
                    f"{where} has {len(row)} columns, but the first line names {len(names)}"
                )
            yield where, dict(zip(names, row, strict=True))
    except csv.Error as error:
        raise ValueError(f"{path} line {rows.line_num} cannot be read: {error}") from error


def _value(row: Any, key: str, name: str, where: str) -> Any:
    if not isinstance(row, dict) or row.get(name) is None:
        found = ", ".join(sorted(map(str, row))) if isinstance(row, dict) else ""
        raise ValueError(f"{where} has nothing under data.{key}={name!r}; keys: {found or 'none'}")
    return row[name]


def _text(where: str, text: Any, label: Any) -> Example:
    if not isinstance(text, str):
        raise ValueError(f"{where}: the text is {type(text).__name__}, not a string")
    if not text.strip():
        raise ValueError(f"{where} has an empty text; complete or delete this line")
    return Example(where, [_unicode(text)], [_label(label, where)])


def _words(where: str, words: Any, labels: Any) -> Example:
    words, labels = (x.split() if isinstance(x, str) else x for x in (words, labels))
    if not isinstance(words, list) or not all(isinstance(w, str) and w.strip() for w in words):
        raise ValueError(f"{where}: the words must be a string, or a list of strings of which none "
                         "is empty")  # fmt: skip
    if not words:
        raise ValueError(f"{where} has an empty text; complete or delete this line")
    if not isinstance(labels, list) or len(labels) != len(words):
        count = len(labels) if isinstance(labels, list) else "no list of"
        raise ValueError(f"{where} has {len(words)} words, but {count} labels; give one a word")
    return Example(where, [_unicode(w) for w in words], [_label(one, where) for one in labels])


def _label(value: Any, where: str) -> str:
    if not isinstance(value, str | int) or not str(value).strip():
        raise ValueError(f"{where}: the label {value!r} is no word and no whole number")
    return _unicode(str(value))


def _unicode(text: str) -> str:
    """JSON can contain half a surrogate pair, which UTF-8 cannot encode."""
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
