"""Words as tokens: the rule that splits a text, and the vocabulary of the most frequent words.

A word is a run of letters, digits and underscores (what Unicode counts as such, `\\w` of Python's
`re`) and may have apostrophes inside: "don't" is one word. Every other character that is no space
is a word by itself: "3.14" is three words, "iced-latte" too. Spaces and line breaks only separate
words. `lowercase_words` is the same rule for the text in lower case.

The ids are ranks: the most frequent word of the training documents is 0, equally frequent ones are
ordered by their characters. The end of a document and the unknown word follow. A word that is not
in the vocabulary becomes the unknown word.

Words do not give back the text: spaces, unknown words and perhaps capitals are lost. `decode` puts
one space between two words and writes <unk> for the unknown one.
"""

import collections
import json
import re
from collections.abc import Callable, Iterable

import numpy as np

WORD = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")
UNKNOWN = b" <unk>"


def split(text: str, lowercase: bool) -> list[str]:
    """The words of a text."""
    return WORD.findall(text.lower() if lowercase else text)


def train(texts: Iterable[str], vocab_size: int, lowercase: bool = False) -> bytes:
    """The model with `vocab_size` tokens, or with every word of the texts if that is 0. ValueError
    if there are too few words, or none."""
    counts: collections.Counter[str] = collections.Counter()
    for text in texts:
        counts.update(split(text, lowercase))
    most = len(counts) + 2
    if vocab_size and not 3 <= vocab_size <= most:
        raise ValueError(
            f"data.vocab_size={vocab_size} does not fit this text, which has {len(counts):,} "
            f"distinct words; use 3 to {most}, which counts the end of a document and the unknown "
            "word too, or 0 for all words"
        )
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    about = {"lowercase": lowercase, "words": ranked[: (vocab_size or most) - 2]}
    return json.dumps(about, ensure_ascii=False).encode()


def spaced(model: bytes, text: str) -> str:
    """The words of a text, as a model splits it, with one space between two. Words that it does not
    know stay as they are."""
    return " ".join(split(text, json.loads(model)["lowercase"]))


def read(model: bytes, end: int | None) -> tuple[Callable[[str], np.ndarray], list[bytes], int]:
    """(encode, the spelling of each token, the end of a document) of a model."""
    about = json.loads(model)
    lowercase, words = about["lowercase"], about["words"]
    if not words:
        raise ValueError(
            "data.tokenizer='words' found no training text; use more, or a smaller data.validation"
        )
    ids, eod, unknown = {word: i for i, word in enumerate(words)}, len(words), len(words) + 1

    def encode(text: str) -> np.ndarray:
        found = split(text, lowercase)
        return np.fromiter((ids.get(word, unknown) for word in found), np.int32, len(found))

    return encode, [f" {word}".encode() for word in words] + [b"", UNKNOWN], eod
