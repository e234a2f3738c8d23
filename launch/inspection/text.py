"""The text that `isoflop inspect` looks at: from a flag or a file, cut to what a page can show."""

import codecs
from dataclasses import dataclass

import numpy as np

from data.files import to_path
from data.tokenizer import Tokenizer
from launch.evaluation.scored_model import ScoredModel
from launch.sampling.continuation import spell

CHARACTERS = 1 << 20  # of a text that are read: more than any page shows
WEIGHTS = 24_000_000  # attention weights, one byte each, that a page carries


@dataclass(frozen=True)
class Text:
    """The tokens [T] that the model reads. The first `start` of them stand before the text and are
    no targets. `cut`: the text goes on."""

    tokens: np.ndarray
    start: int
    cut: bool


def read(text: str | None, file: str | None) -> str:
    """The text of --text or --file. FileNotFoundError or ValueError, in one line."""
    if (text is None) == (not file):
        wrong = "text and file are both given" if file else "text is not given"
        raise ValueError(f'{wrong}; use --text="A sentence." or --file=FILE')
    if not file:
        return text[:CHARACTERS]
    if not to_path(file).is_file():
        wrong = "is no file" if to_path(file).exists() else "does not exist"
        raise FileNotFoundError(f"file={file} {wrong}; name a file of text")
    with to_path(file).open("rb") as opened:
        content = opened.read(CHARACTERS)
    try:  # the end may be in the middle of a character
        return codecs.getincrementaldecoder("utf-8")().decode(content)
    except UnicodeDecodeError as error:
        raise ValueError(f"file={file} is not UTF-8 ({error.reason}); convert it") from None


def encoded(model: ScoredModel, text: str, most: int) -> Text:
    """At most `most` tokens of a text, after the tokens that stand before every text. ValueError
    without any, and if their attention is more than a page can carry."""
    ids = model.tokenizer.encode(text)
    if not len(ids):
        raise ValueError(f"text ({text[:40]!r}) holds no token; give it some words")
    start = len(model.start)
    room = most if model.counted else min(most, model.cfg.context_length - start)
    if room < 1:
        raise ValueError(
            f"run={model.run} has model.context_length={model.cfg.context_length}, which leaves no "
            "place for a text; use a model with a longer context"
        )
    length = start + min(room, len(ids))
    heads = getattr(model.cfg, "n_heads", 0) * getattr(model.cfg, "n_layers", 0)
    if heads * length**2 // 2 > WEIGHTS and hasattr(model.family, "activations"):
        fits = max(1, int((2 * WEIGHTS / heads) ** 0.5) - start)
        raise ValueError(
            f"tokens={most} makes {heads * length**2 // 2:,} attention weights in {heads} heads, "
            f"above {WEIGHTS:,}; use --tokens={fits}"
        )
    tokens = np.array([*model.start, *ids[:room]], np.int32)
    return Text(tokens, start, len(ids) > room)


def name(tokenizer: Tokenizer, token: int) -> str:
    """A token as visible text; <number> for one that spells nothing."""
    known = token < tokenizer.vocab_size and (tokenizer.pieces[token] or token == tokenizer.eod)
    return spell(tokenizer, token) if known else f"<{token}>"


def printable_tokens(tokenizer: Tokenizer, words: bool = False) -> np.ndarray:
    """The tokens that spell printable text by themselves, in the order of the vocabulary; with
    `words`, those with a letter or a digit."""
    found = []
    for token, piece in enumerate(tokenizer.pieces):
        try:
            text = piece.decode("utf-8")
        except UnicodeDecodeError:
            continue
        shown = text.strip() and text.isprintable() and (not words or any(map(str.isalnum, text)))
        if shown and token not in (tokenizer.eod, tokenizer.unknown):
            found.append(token)
    return np.array(found, np.int32)
