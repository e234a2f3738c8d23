"""Finds the passages of an index for a query, and puts them before a prompt."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data.retrieval import bm25, folder
from data.retrieval.folder import Index
from data.retrieval.nearest import Neighbours
from data.retrieval.passages import Passage, Passages
from scaling.printable import printable

BETWEEN = "\n\n"  # passages, and the last of them and the prompt
SHOWN = 70  # characters of a passage that its line shows


class Found(NamedTuple):
    """A passage of an index, its number there, and how well it matches a query: its BM25 score or
    its cosine."""

    number: int
    score: float
    passage: Passage


class Retriever:
    """An open index of passages."""

    def __init__(self, index: Index, backend: str = "numpy"):
        """ValueError for an index without passages."""
        self.index, self.backend = index, backend
        if index.kind == "knn":
            raise ValueError(
                f"retrieve={index.folder} holds states and next tokens (kind=knn), no passages; "
                "use isoflop evaluate, or an index of kind=bm25 or dense"
            )
        self.passages = Passages(index.folder)
        if index.kind == "bm25":
            self.scores = bm25.Scores(index.folder)
        else:
            from launch.retrieval import encoders  # slow imports

            self.encoder = encoders.of_index(index)
            self.mean = index.array(encoders.MEAN)

    def search(self, query: str, k: int, allowed: np.ndarray | None = None) -> list[Found]:
        """The `k` best passages for a query, best first, of those that are `allowed` [P]. BM25
        leaves out passages that share no word with the query."""
        return self.search_all([query], k, allowed)[0]

    def search_all(
        self, queries: Sequence[str], k: int, allowed: np.ndarray | None = None
    ) -> list[list[Found]]:
        """`search` for several queries."""
        if self.index.kind == "bm25":
            return [self._found(self._best(query, k, allowed)) for query in queries]
        from launch.retrieval import encoders

        vectors = encoders.centred(self.encoder(queries), self.mean)
        nearest, first = Neighbours(vectors, k, distances=False, backend=self.backend), 0
        for (part,) in folder.shards(self.index, ["vectors"]):
            keys = encoders.centred(np.asarray(part), self.mean)
            ids = np.arange(first, first + len(keys))
            first += len(keys)
            kept = slice(None) if allowed is None else allowed[ids]
            nearest.add(keys[kept], ids[kept])
        rows = zip(nearest.ids.tolist(), nearest.scores.tolist(), strict=True)
        return [
            self._found([one for one in zip(ids, scores, strict=True) if one[0] >= 0])
            for ids, scores in rows
        ]

    def _best(self, query: str, k: int, allowed: np.ndarray | None) -> list[tuple[int, float]]:
        words = bm25.words(query)
        sharing = self.scores.sharing(words)
        kept = sharing if allowed is None else sharing & allowed
        return bm25.best(self.scores(words), k, kept)

    def _found(self, places: Sequence[tuple[int, float]]) -> list[Found]:
        return [Found(number, score, self.passages[number]) for number, score in places]


def open_index(path: Path) -> Retriever:
    """The index in a folder, here or in a bucket. ValueError or FileNotFoundError, in one line, for
    one that is missing, damaged or of another kind."""
    return Retriever(folder.read(folder.here(path)))


def fitting(
    found: Sequence[Found], length_of: Callable[[str], int], room: int
) -> tuple[str, list[Found]]:
    """(the text before a prompt, the passages in it). The best passages are taken until `room`
    tokens are full; `length_of` counts the tokens of a text. The best one comes last, next to the
    prompt. It is cut at its end if it is too long on its own."""
    for count in range(len(found), 0, -1):
        text = BETWEEN.join(one.passage.text for one in found[count - 1 :: -1]) + BETWEEN
        if length_of(text) <= room:
            return text, list(found[:count])
    if found:
        words = found[0].passage.text
        least, most = 0, len(words)  # characters of it that fit, and that do not
        while most - least > 1:
            middle = (least + most) // 2
            fits = length_of(words[:middle] + BETWEEN) <= room
            least, most = (middle, most) if fits else (least, middle)
        if words[:least].strip():
            return words[:least] + BETWEEN, list(found[:1])
    return "", []


def source_lines(found: Sequence[Found]) -> list[str]:
    """A line for each passage: where it is from, its score, how it begins; safe to print."""
    return [
        printable(
            f"[{number}] {one.passage.source}:{one.passage.line}  {one.score:.3g}  "
            f"{' '.join(one.passage.text.split())[:SHOWN]}"
        )
        for number, one in enumerate(found, start=1)
    ]


def show_sources(found: Sequence[Found], asked: int) -> None:
    """Prints the sources of the passages before a prompt on stderr."""
    lines = source_lines(found) or ["no passage was put before the prompt"]
    if found and len(found) < asked:
        lines.append(f"{len(found)} of {asked} passages: others do not match or do not fit")
    print(*lines, sep="\n", file=sys.stderr)


def described(found: Sequence[Found]) -> list[dict]:
    """The passages, as JSON files have them."""
    return [{"number": f.number, "score": f.score, **f.passage._asdict()} for f in found]
