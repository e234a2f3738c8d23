"""The tokens that frame a text for an encoder: [CLS] text [SEP], and the token [MASK].

A tokenizer.json of a BERT has them, and they keep their ids. For every other tokenizer of V tokens,
[CLS] is V and [MASK] is V + 1, above its vocabulary; [SEP] and padding are its end of a document.
"""

from dataclasses import dataclass

import numpy as np

from data.tokenizer import Tokenizer

MASK = "[MASK]"  # how a prompt spells the mask


@dataclass(frozen=True)
class Marks:
    """Ids, and the size of the vocabulary that has them all."""

    begin: int
    end: int
    mask: int
    padding: int
    vocab_size: int

    def framed(self, tokens: np.ndarray) -> np.ndarray:
        """The tokens of a text with [CLS] before and [SEP] after them, int32 [n + 2]."""
        return np.concatenate([[self.begin], tokens, [self.end]]).astype(np.int32)


def marks_of(tokenizer: Tokenizer) -> Marks:
    """The marks of a tokenizer: its own if it has all of them, otherwise those described above."""
    own = [_control(tokenizer, name) for name in ("[CLS]", "[SEP]", MASK, "[PAD]")]
    if None not in own:
        return Marks(*own, tokenizer.vocab_size)
    size = tokenizer.vocab_size
    return Marks(size, tokenizer.eod, size + 1, tokenizer.eod, size + 2)


def ends_of(tokenizer: Tokenizer) -> Marks:
    """The frame of a decoder: the end-of-document token on both sides, and no mask."""
    return Marks(*[tokenizer.eod] * 4, tokenizer.vocab_size)


FRAMES = {"cls": marks_of, "end": ends_of}


def with_masks(tokenizer: Tokenizer, marks: Marks, text: str) -> np.ndarray:
    """The framed tokens of a text in which each [MASK] is one token."""
    parts = [tokenizer.encode(part) for part in text.split(MASK)]
    between = [np.array([marks.mask], np.int32)]
    joined = [piece for part in parts for piece in (*between, part)][1:]
    return marks.framed(np.concatenate(joined))


def _control(tokenizer: Tokenizer, name: str) -> int | None:
    """The id of a control token by its name; None if the tokenizer has none of this name."""
    found = tokenizer.encode_prompt(name)
    return int(found[0]) if len(found) == 1 and not tokenizer.pieces[found[0]] else None
