"""Vectors of texts for a dense index: mean states of a trained model, or mean word vectors."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np

from data.files import to_path
from data.retrieval import folder
from data.retrieval.folder import Index
from data.tokenizer import Tokenizer, load
from launch.converted import read_tokenizer
from launch.restored import family_of, restored
from launch.trial.start import hash_of
from model import families
from train.evaluate import states

ROWS = 64  # passages that are encoded together
TABLE, MEAN = "token_vectors.npy", "mean.npy"
STATES, WORDS = "states", "words"  # what the vectors are made from


class Encoder(Protocol):
    """Makes vectors of texts."""

    made_from: str  # STATES or WORDS
    tokenizer: Tokenizer
    weights: str  # the hash of the model's parameters

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """The vectors of texts [N, D], float32, neither centred nor scaled."""


class OfStates:
    """The mean of the last hidden states of a text's tokens. A text that is longer than the model's
    context is read in parts."""

    made_from = STATES

    def __init__(self, run: Path, key: str = "run"):
        """ValueError or FileNotFoundError, in one line, for a run without hidden states of
        tokens."""
        family, self.cfg = family_of(run, published=True)
        self.name = families.name_of(family)
        if not has_states(family):
            raise ValueError(
                f"{key}={run} has model.family={self.name!r}, which has no hidden states of a "
                "text; use a decoder, an encoder, a recurrent model, or one with word vectors"
            )
        self.tokenizer = read_tokenizer(run, self.cfg.vocab_size, key)
        self.params, _ = restored(run, family, self.cfg)
        self.weights = weights_hash(self.params)

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        length, parts = self.cfg.context_length, []
        for number, text in enumerate(texts):
            tokens = self.tokenizer.encode(text)
            tokens = tokens if len(tokens) else np.array([self.tokenizer.eod], np.int32)
            parts += [(number, tokens[i : i + length]) for i in range(0, len(tokens), length)]
        sums, counts = None, np.zeros((len(texts), 1))
        for first in range(0, len(parts), ROWS):
            some = parts[first : first + ROWS]
            tokens_BT, segments_BT = np.zeros((2, ROWS, length), np.int32)
            for row, (_, tokens) in enumerate(some):
                tokens_BT[row, : len(tokens)], segments_BT[row, : len(tokens)] = tokens, 1
            batch = {"tokens": tokens_BT, "segments": segments_BT}
            x_BTD = np.asarray(states(self.name, self.cfg, self.params, batch), np.float32)
            sums = np.zeros((len(texts), x_BTD.shape[-1])) if sums is None else sums
            for row, (number, tokens) in enumerate(some):
                sums[number] += x_BTD[row, : len(tokens)].sum(0)
                counts[number] += len(tokens)
        return (sums / counts).astype(np.float32)


class OfWords:
    """The mean vector of a text's tokens. `weighed` gives rare ones more weight. Unknown tokens
    have the vector 0."""

    made_from = WORDS

    def __init__(self, table: np.ndarray, tokenizer: Tokenizer, weights: str):
        """`table`: the vectors of tokens [V, D], times their weights."""
        self.table, self.tokenizer, self.weights = table, tokenizer, weights

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        found = np.zeros((len(texts), self.table.shape[1]), np.float32)
        for number, text in enumerate(texts):
            if len(tokens := self.tokenizer.encode(text)):
                found[number] = self.table[tokens].mean(0)
        return found

    def weighed(self, texts: Iterable[str]) -> "OfWords":
        """The same with each token weighted by log((1 + N) / (1 + n)), where n of these N texts
        have it: a token of every text has no weight."""
        found, count = np.zeros(len(self.table)), 0
        for text in texts:
            found[np.unique(self.tokenizer.encode(text))] += 1
            count += 1
        table = self.table * np.log((1 + count) / (1 + found))[:, None].astype(np.float32)
        return OfWords(table, self.tokenizer, self.weights)


def has_states(family: Any) -> bool:
    """Whether a family gives hidden states of the tokens of a text."""
    return hasattr(family, "hidden") and set(family.INPUTS) <= {"tokens", "segments"}


def weights_hash(params: Any) -> str:
    """The hash of a model's parameters, on any device."""
    return hash_of(jax.tree.map(np.asarray, params))


def open_encoder(run: Path) -> Encoder:
    """What makes the vectors of a run: of its states, or of its word vectors if it has no states.
    ValueError or FileNotFoundError, in one line, for a run with neither."""
    family, cfg = family_of(run, published=True)
    if has_states(family) or not hasattr(family, "vectors"):
        return OfStates(run)
    tokenizer = read_tokenizer(run, cfg.vocab_size, "run")
    fitted, _ = restored(run, family, cfg)
    vectors = family.vectors(cfg, fitted)
    table = vectors.toarray() if hasattr(vectors, "toarray") else vectors
    table = np.array(table, np.float32)
    if tokenizer.unknown is not None:
        table[tokenizer.unknown] = 0
    return OfWords(table, tokenizer, hash_of({"vectors": table}))


def save(encoder: Encoder, place: Path) -> None:
    """Writes what `of_index` needs to encode queries. An index of word vectors needs no run."""
    encoder.tokenizer.save(place)
    if isinstance(encoder, OfWords):
        folder.write_array(place / TABLE, encoder.table)


def of_index(index: Index) -> Encoder:
    """The encoder of an index. Hidden states need their run: ValueError or FileNotFoundError, in
    one line, if it is missing or has other weights."""
    about = index.about
    if about["made_from"] == WORDS:
        table = index.array(TABLE)
        return OfWords(np.asarray(table), load(index.folder), about["weights"])
    where = to_path(about["run"])
    try:
        encoder = OfStates(where, "retrieve")
    except FileNotFoundError:
        raise FileNotFoundError(
            f"retrieve={index.folder} was encoded by the model of run={where}, which is not there; "
            "put it back, or build the index again"
        ) from None
    if encoder.weights != about["weights"]:
        raise ValueError(
            f"retrieve={index.folder} was encoded by other weights than those in {where} now "
            f"({about['weights']} and {encoder.weights}); build the index again"
        )
    return encoder


def centred(vectors: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Vectors without their common part, scaled to length 1, so that inner products are cosines.
    Mean states of a model point nearly the same way without this (Mu & Viswanath 2018)."""
    vectors = vectors - mean
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-30)
