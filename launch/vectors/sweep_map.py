"""The map of words beside the page of a sweep whose tokens are words."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from launch.files import AGAIN, read_family, read_json, write_json

WORDS = 100  # on the map


def write_words(folder: Path, ranking: Mapping[str, Any], out: Path) -> None:
    """Writes words.json into `out` for the first trial of the best configuration of the sweep in
    `folder`, if its tokens are words and its family has vectors; otherwise removes that of an
    earlier page. A run that cannot be read is a line on stderr."""
    from scaling.report.word_map import FILE

    (out / FILE).unlink(missing_ok=True)
    for best in ranking["configurations"][:1]:
        try:
            if about := _map_of(folder / best["trials"][0]):
                write_json(out / FILE, about)
        except (ValueError, OSError) as error:
            print(f"the page has no map of words: {error}", file=sys.stderr)


def _map_of(run: Path) -> dict[str, Any] | None:
    """The map of a run; None if its tokens are no words, or it has no vectors."""
    if (read_json(run / "tokenizer" / "tokenizer.json", AGAIN) or {}).get("kind") != "words":
        return None
    if not hasattr(read_family(run, "runs")[0], "vectors"):
        return None
    from launch.vectors.projection import word_map  # slow imports
    from launch.vectors.word_vectors import open_vectors

    return word_map(open_vectors(run), run, "pca", WORDS)
