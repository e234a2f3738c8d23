"""The word-embedding association test on the vectors of a run."""

from collections.abc import Sequence
from typing import Any

from launch.probing.files import Sets
from launch.vectors.word_vectors import WordVectors
from scaling.estimators.association import weat


def measured(vectors: WordVectors, tests: Sequence[Sets], seed: int) -> list[dict[str, Any]]:
    """What --json writes of each test: WEAT's keys, the words in use and those that are missing.
    ValueError if the model lacks too many words of a test."""
    return [_test(vectors, sets, seed) for sets in tests]


def _test(vectors: WordVectors, sets: Sets, seed: int) -> dict[str, Any]:
    places, words, missing = {}, {}, []
    for name in ("x", "y", "a", "b"):
        found = {word: vectors.find(word) for word in dict.fromkeys(getattr(sets, name))}
        missing += [word for word, place in found.items() if place is None]
        words[name] = [word for word, place in found.items() if place is not None]
        places[name] = [place for place in found.values() if place is not None]
    targets, attributes = places["x"] + places["y"], places["a"] + places["b"]
    cosines = vectors.cosines(vectors.unit[targets])[:, attributes]
    try:
        about = weat(cosines, len(places["x"]), len(places["a"]), seed=seed)
    except ValueError as error:
        lacks = f", of which the model lacks {', '.join(missing[:8])}" if missing else ""
        raise ValueError(f"weat: {sets.name!r}{lacks}: {error}; use words of the model") from None
    return {"name": sets.name, "words": words, "missing": missing} | about
