"""Tests that no text yields a special token, under every kind of tokenizer."""

import functools
import io
import json
import unicodedata
from collections.abc import Callable, Iterable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data import tokenizer as tokenizers
from data.chat.encoding import ChatEncoder
from data.chat.templates import Template
from data.tokenizer import Tokenizer
from data.tokenizer_files import sentencepiece_model
from data.tokenizer_files.extended import with_special_tokens
from tests.data import test_tokenizer_json as saved
from tests.data.test_tokenizer import TEXTS

SPELLED = (
    "<|im_start|>",
    "<|im_end|>",
    "<|endoftext|>",
    "</s>",
    "<s>",
    "<unk>",
    "<|user|>",
    "[SEP]",
)
NEW = SPELLED[:2]
CHATML = Template(
    "chatml",
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}",
)


def trained(name: str, size: int = 0) -> Callable[[], Tokenizer]:
    return functools.partial(tokenizers.train, name, TEXTS[:60], size)


def normalising(name: str) -> Tokenizer:
    """A published SentencePiece model: it normalises by NFKC and puts a space before a text."""
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS[:60]), model_writer=model, vocab_size=400, model_type=name,
        byte_fallback=True, minloglevel=2, control_symbols=["<|user|>"], pad_id=3,
    )  # fmt: skip
    return Tokenizer("sentencepiece", "x", model.getvalue())


def of_json(about: Callable[[], dict], normalizer: str = "") -> Tokenizer:
    """A tokenizer.json; with a normalizer, its special tokens are looked for in normalised text."""
    described = about()
    if normalizer:
        described["normalizer"] = {"type": normalizer}
        for token in described["added_tokens"]:
            token["normalized"] = True
    return Tokenizer("huggingface", "x", json.dumps(described).encode())


MADE: dict[str, Callable[[], Tokenizer]] = {
    "bytes": lambda: tokenizers.from_spec("bytes"),
    "chars": trained("chars"),
    "bpe": trained("bpe", 400),
    "unigram": trained("unigram", 400),
    "words": trained("words"),
    "lowercase_words": trained("lowercase_words"),
    "published bpe": lambda: normalising("bpe"),
    "published unigram": lambda: normalising("unigram"),
    **{
        f"json: {name}": functools.partial(of_json, about)
        for name, about in saved.LOSSLESS.items()
        if name != "ignores merges"
    },
    "json: NFKC": lambda: of_json(saved.byte_level, "NFKC"),
    "json: lower case": lambda: of_json(saved.byte_level, "Lowercase"),
    "json: WordPiece": lambda: of_json(lambda: saved.words("WordPiece")),
}
FAST = ("bytes", "chars", "bpe", "words", "published bpe", "json: byte level", "json: NFKC")
TALKING = ("bytes", "bpe", "published unigram", "json: byte level")


def slow_beyond(names: Iterable[str], fast: Sequence[str]) -> list:
    """The names as parameters, of which all but `fast` are slow: they are of a kind of those."""
    slow = pytest.mark.slow
    return [name if name in fast else pytest.param(name, marks=slow) for name in names]


# Whole special strings, parts of them, and what normalisation or lower case makes of others.
PARTS = st.one_of(
    st.sampled_from(SPELLED),
    st.sampled_from(SPELLED).flatmap(lambda s: st.integers(1, len(s)).map(lambda n: s[:n])),
    st.sampled_from(SPELLED).map(str.upper),
    st.sampled_from(SPELLED).map(lambda s: "".join(chr(ord(c) + 0xFEE0) for c in s)),
    st.text(max_size=4),
    st.sampled_from((" ", "\n", "ba ce", "▁", "<0x41>")),
)
WRITTEN = st.lists(PARTS, max_size=8).map("".join)


@functools.cache
def made(name: str) -> tuple[Tokenizer, frozenset[int]]:
    """(the tokenizer with NEW added, the ids of its control tokens)."""
    tokenizer = with_special_tokens(MADE[name](), NEW)
    control = {tokenizer.eod, *tokenizer.prefix, *(one.id for one in tokenizer.specials)}
    if tokenizer.kind == "sentencepiece":
        pieces = sentencepiece_model.parse(tokenizer.model).pieces
        control |= {i for i, piece in enumerate(pieces) if piece.type == piece.CONTROL}
    if tokenizer.kind == "huggingface":
        about = json.loads(tokenizer.model)
        listed = [one for one in about["added_tokens"] if one["special"]]
        unknown = about["model"].get("unk_token") or "<unk>"
        control |= {one["id"] for one in listed if one["content"] != unknown}
    return tokenizer, frozenset(control)


def test_full_width_letters_normalise_to_special_strings():
    wide = "".join(chr(ord(c) + 0xFEE0) for c in "<|im_end|>")
    assert unicodedata.normalize("NFKC", wide) == "<|im_end|>"


@pytest.mark.parametrize("name", slow_beyond(MADE, FAST))
@settings(max_examples=40, deadline=None)
@given(text=WRITTEN)
def test_no_text_yields_a_special_token(name, text):
    tokenizer, control = made(name)
    assert len(control) >= 3
    assert not control & set(tokenizer.encode(text).tolist())
    # Control: prompts have them.
    assert control & set(tokenizer.encode_prompt(text + NEW[0]).tolist())


@pytest.mark.parametrize("name", slow_beyond(TALKING, ("bytes", "json: byte level")))
@settings(max_examples=15, deadline=None)
@given(text=WRITTEN)
def test_no_message_ends_its_turn_or_begins_another(name, text):
    tokenizer, control = made(name)
    encoder = ChatEncoder(tokenizer, CHATML)
    found = []
    for content in (text, "ba"):
        ids, _ = encoder.encode(
            [{"role": "user", "content": content}, {"role": "assistant", "content": "ce"}]
        )
        found.append([i for i in ids.tolist() if i in control])
    assert found[0] == found[1] and len(found[0]) >= 4
