"""Builds the indexes of passages: BM25, or vectors of a run."""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data.retrieval import bm25, folder, passages
from data.retrieval.folder import Index
from data.sources import corpus
from launch.evaluation.scored_model import with_defaults
from launch.files import read_config

SHARD = 4096  # passages of a file of vectors
Advance = Callable[[float], None]


@dataclass(frozen=True)
class Texts:
    """What is indexed, and how it is cut. `validation`: the share of documents that is left out
    because a run holds it out; 0 leaves out none."""

    specs: tuple[str, ...]
    text_key: str = "text"
    max_bytes: int = 0
    words: int = 100
    lines: int = 0
    overlap: int = 0
    validation: float = 0.0

    def __post_init__(self):
        size = self.lines or self.words
        if size < 1 or not 0 <= self.overlap < size:
            unit = "lines" if self.lines else "words"
            raise ValueError(
                f"overlap={self.overlap} and {unit}={size}: a passage needs at least 1 of them, "
                "and more than it shares with the one before"
            )

    def identity(self) -> str:
        """The hash of everything that decides the passages, without reading them."""
        about = [asdict(self), [corpus.identity(spec) for spec in self.specs]]
        return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]

    def documents(self) -> Iterator[passages.Document]:
        """The documents that are indexed."""
        from data.build import is_validation

        for spec in self.specs:
            for document in passages.documents(spec, self.text_key, self.max_bytes):
                if not is_validation(document.digest, self.validation):
                    yield document

    def cut(self, advance: Advance) -> Iterator[passages.Passage]:
        """The passages; `advance` receives the share that is done, as far as it is known."""
        sizes = [corpus.size(spec) for spec in self.specs]
        total, done = (None if None in sizes else sum(sizes)), 0
        for document in self.documents():
            yield from passages.cut(document, self.words, self.lines, self.overlap)
            done += len(document.text)
            if total:
                advance(min(1.0, done / total))


def texts_of(values: Any, run: Path | None) -> Texts:
    """The texts that the flags of `isoflop index` name: those of --texts, or the training text of
    a run. ValueError for a run without any."""
    cutting = {name: values[name].value for name in ("words", "lines", "overlap")}
    config = None
    if run is not None:
        found = read_config(run)
        if found is None:
            raise FileNotFoundError(f"run={run} holds no config.json; give it the folder of a run")
        if "data" in found:
            config = with_defaults(found).data
    key = values.text_key or (config.text_key if config else "") or "text"
    most = int(values.max_bytes)
    if values.texts:
        held_out = config.validation if values.kind == "knn" and config else 0.0
        return Texts(tuple(values.texts), key, most, **cutting, validation=held_out)
    if config is None or "corpora" not in config:
        raise ValueError(f"run={run} names no training text; give --texts=TEXT")
    specs = (config.corpora,) if isinstance(config.corpora, str) else tuple(config.corpora)
    most = most or config.max_bytes
    return Texts(specs, key, most, **cutting, validation=config.validation)


def prepared(place: Path, texts: Texts, advance: Advance) -> passages.Passages:
    """The passages of texts, written into an index unless they are there."""
    if not (place / passages.OFFSETS).is_file():
        passages.write(place, texts.cut(advance))
    found = passages.Passages(place)
    if not len(found):
        raise ValueError(f"texts={','.join(texts.specs)}: every document is held out; give more")
    return found


def build_bm25(
    place: Path, texts: Texts, variant: str, k1: float, b: float, delta: float, advance: Advance
) -> tuple[Index, bool]:
    """(the BM25 index of texts in a folder, whether it was built now)."""
    bm25.require_package()
    settings = {"kind": "bm25", "texts": texts.identity(), "variant": variant}
    settings |= {"k1": k1, "b": b} | ({"delta": delta} if variant in ("bm25+", "bm25l") else {})
    with folder.building(place, settings) as missing:
        if not missing:
            return folder.read(place, "out"), False
        found = prepared(place, texts, lambda share: advance(share / 2))
        counted, size = [], 0
        for number, passage in enumerate(found):
            counted.append(bm25.words(passage.text))
            size += len(passage.text.encode())
            advance(0.5 + number / len(found) / 4)
        bm25.build(place, counted, variant, k1, b, delta)
        return folder.finish(place, settings, described("bm25", texts, len(found), size)), True


def build_dense(place: Path, texts: Texts, run: Path, advance: Advance) -> tuple[Index, bool]:
    """(the index of vectors in a folder, whether it was built now). Vectors that a killed build
    wrote are kept."""
    from launch.retrieval import encoders  # slow imports

    encoder = encoders.open_encoder(run)
    settings = {"kind": "dense", "texts": texts.identity(), "weights": encoder.weights}
    with folder.building(place, settings) as missing:
        if not missing:
            return folder.read(place, "out"), False
        found = prepared(place, texts, lambda share: advance(share / 5))
        if isinstance(encoder, encoders.OfWords):
            encoder = encoder.weighed(passage.text for passage in found)
        total, size, count = None, 0, 0
        for number, first in enumerate(range(0, len(found), SHARD)):
            path = place / folder.shard_name("vectors", number)
            chosen = [found[i].text for i in range(first, min(first + SHARD, len(found)))]
            size += sum(len(text.encode()) for text in chosen)
            if not path.is_file():
                made = []
                for batch in encoders.in_batches(chosen):
                    made.append(encoder(batch))
                    done = first + sum(map(len, made))
                    advance(0.2 + 0.8 * done / len(found))
                folder.write_array(path, np.concatenate(made))
            vectors = np.load(path, allow_pickle=False).astype(float)
            total = vectors.sum(0) if total is None else total + vectors.sum(0)
            count += len(vectors)
        folder.write_array(place / encoders.MEAN, (total / count).astype(np.float32))
        encoders.save(encoder, place)
        about = described("dense", texts, len(found), size) | {
            "run": str(run.resolve()),
            "made_from": encoder.made_from,
            "weights": encoder.weights,
            "dimensions": int(total.shape[0]),
        }
        return folder.finish(place, settings, about), True


def described(kind: str, texts: Texts, count: int, size: int) -> dict[str, Any]:
    """What the manifest of an index of passages says."""
    return {"kind": kind, "passages": count, "bytes": size, "texts": asdict(texts)}
