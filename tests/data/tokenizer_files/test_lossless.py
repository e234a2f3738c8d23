"""Tests that any bytes become tokens and gaps, and come back."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from data import tokenizer as tokenizers
from data.tokenizer import Tokenizer
from data.tokenizer_files import lossless
from tests.data.test_tokenizer import SIZES, TEXTS, TRICKY

NAMES = ["bytes", "chars", "bpe", "words", "lowercase_words"]


@pytest.fixture(scope="module")
def trained() -> dict[str, Tokenizer]:
    made = {name: tokenizers.train(name, TEXTS, SIZES[name]) for name in NAMES[1:]}
    return {"bytes": tokenizers.from_spec("bytes"), **made}


def check(tokenizer: Tokenizer, content: bytes) -> lossless.Spelled:
    spelled = lossless.spell(tokenizer, content)
    assert lossless.join(tokenizer, spelled) == content
    assert lossless.usable(tokenizer, tokenizer.vocab_size)[spelled.tokens].all()
    places = [place for place, _ in spelled.gaps]
    assert places == sorted(set(places)) and all(raw for _, raw in spelled.gaps)
    return spelled


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=30, deadline=None)
@given(content=st.binary(max_size=80))
@example(content=b"\xff" * 9)
@example(content=b"ba\xff\xfe di\n\xc3")
def test_any_bytes_come_back(trained, name, content):
    check(trained[name], content)


@pytest.mark.parametrize("name", NAMES)
def test_tricky_text_comes_back(trained, name):
    for text in (*TRICKY, *TEXTS[:3]):
        check(trained[name], text.encode())
        check(trained[name], text.encode() + b"\xf0\x28" + text.encode())


def test_text_has_the_tokens_of_training(trained):
    for name in ("bytes", "chars", "bpe"):
        tokens, gaps = check(trained[name], TEXTS[0].encode())
        assert tokens.tolist() == trained[name].encode(TEXTS[0]).tolist() and not gaps


def test_what_is_around_unknown_characters_keeps_its_tokens(trained):
    lines = TEXTS[:4]
    content = "\n".join([*lines[:2], "語", *lines[2:]]).encode()
    tokens, gaps = check(trained["chars"], content)
    plain = trained["chars"].encode("\n".join([*lines[:2], "", *lines[2:]]))
    assert tokens.tolist() == plain.tolist()
    assert b"".join(raw for _, raw in gaps) == "語".encode() and len(gaps) == 1


def test_a_space_before_every_text_is_no_part_of_the_file(monkeypatch):
    """A tokenizer that puts one there, as LLaMA's does: the pieces are words with their space."""
    pieces = [b" ab", b" cd", b"e", b""]
    ids = {piece.decode(): i for i, piece in enumerate(pieces)}

    class Spaced:
        dummy_prefix, unknown, vocab_size = b" ", None, len(pieces)

        def encode(self, text):
            words = f" {text}".replace(" ", "\0 ").split("\0")[1:]
            return np.array([ids.get(word, 3) for word in words], np.int32)

    Spaced.pieces = pieces
    for content, tokens, gaps in (
        (b"ab cd ab", [0, 1, 0], []),
        (b" ab", [0], [(0, b" ")]),
        (b"cd\xff ab", [1, 0], [(1, b"\xff")]),
        (b"ab\nab", [0], [(1, b"\nab")]),
        (b"", [], []),
        (b"\xff", [], [(0, b" \xff")]),
    ):
        spelled = lossless.spell(Spaced(), content)
        assert (spelled.tokens.tolist(), list(spelled.gaps)) == (tokens, gaps), content
        assert lossless.join(Spaced(), spelled) == content
