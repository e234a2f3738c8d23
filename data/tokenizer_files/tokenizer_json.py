"""Reads a Hugging Face tokenizer.json with the library tokenizers.

Documents and prompts are encoded differently. In a prompt, a special string becomes its token. In a
document it is plain text. So that documents never yield control tokens, these tokens are renamed to
random strings that no text contains.

Truncation, padding and BPE dropout, which a file may have saved for other uses, are switched off.
"""

import functools
import json
import re
import secrets
from collections.abc import Callable

import numpy as np

from data.local import parse_object

SPACE = "\u2581"  # SentencePiece's character for a space
BERT_END = "[SEP]"
# End-of-document tokens of published models.
ENDS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", BERT_END)
LARGEST_ID = 1 << 24
BYTE = re.compile(r"<0x([0-9A-F]{2})>")  # a token for one byte, used where no other token fits


def read(
    model: bytes, end_id: int | None = None
) -> tuple[Callable[[str], np.ndarray], list[bytes], int]:
    """Returns (a function that encodes documents, the bytes of each token [V], the end-of-document
    token).

    Give `end_id` if the name of the end-of-document token is not in ENDS. V is the largest id plus
    1. Control tokens and unused ids have no bytes; the unknown token has one. Raises ValueError if
    the file does not describe a tokenizer.
    """
    about = _described(model)
    try:
        names, unknown = token_ids(about), _unknown(about)
        ends = ENDS if end_id is None else [name for name, i in names.items() if i == end_id]
        end = next((name for name in ends if name in names), None)
        hidden = {name: secrets.token_hex(32) for name in sorted(_control(about, end, unknown))}
        edited = _hide(about, hidden)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise _invalid(error) from None
    if end is None:
        raise ValueError(
            f"data.tokenizer: the tokenizer.json has none of the end tokens {', '.join(ENDS)}; "
            "put the config.json that names the end token into the same folder"
            if end_id is None
            else f"data.tokenizer: the tokenizer.json does not have the end token {end_id}"
        )
    fast = _library(edited)
    fast.encode_special_tokens = True

    ids = fast.get_vocab(with_added_tokens=True)
    if max(ids.values()) > LARGEST_ID:
        raise ValueError(
            f"data.tokenizer: the largest token id, {max(ids.values())}, is above {LARGEST_ID}"
        )
    added = set(fast.get_added_tokens_decoder())
    byte_level = '"ByteLevel"' in model.decode()
    inside = _inside_words(about) if end == BERT_END else ""
    steps = [about.get(step) for step in ("normalizer", "pre_tokenizer", "decoder")]
    space = SPACE if SPACE in json.dumps(steps, ensure_ascii=False) else None
    pieces = [b""] * (max(ids.values()) + 1)
    for name, i in ids.items():
        # The library spells bytes as characters, except in added tokens, which are plain text.
        pieces[i] = (
            name.encode() if i in added and byte_level else _spelled(name, byte_level, space)
        )
        if inside and i not in added:
            pieces[i] = _of_word(name, inside)
    for name in hidden.values():
        pieces[ids[name]] = b""
    if unknown in names and unknown != end:
        pieces[ids[hidden.get(unknown, unknown)]] = b"?"

    def encode(text: str) -> np.ndarray:
        return np.array(fast.encode(text, add_special_tokens=False).ids, np.int32)

    return encode, pieces, ids[hidden[end]]


def end_of(model: bytes) -> int | None:
    """The id of the first name in ENDS that a tokenizer.json has; None if it has no such name."""
    try:
        ids = token_ids(_described(model))
    except (ValueError, TypeError) as error:
        raise _invalid(error) from None
    return next((ids[name] for name in ENDS if name in ids), None)


def prefix(model: bytes) -> list[int]:
    """The tokens that a tokenizer.json puts before every text, such as <s>."""
    fast = _for_prompts(model)
    full, plain = (fast.encode("a", add_special_tokens=special).ids for special in (True, False))
    return full[: full.index(plain[0])] if plain and plain[0] in full else []


def encode_prompt(model: bytes, text: str) -> np.ndarray:
    """Token ids int32 [n] of `text`, in which special strings are tokens."""
    return np.array(_for_prompts(model).encode(text, add_special_tokens=False).ids, np.int32)


@functools.lru_cache(maxsize=1)
def _for_prompts(model: bytes):
    return _library(_described(model))


def _described(model: bytes) -> dict:
    """Parses a tokenizer.json and checks the parts that this module edits."""
    try:
        about = parse_object(model)
        inner = about["model"]
        inner["vocab"], about["added_tokens"] = inner["vocab"], about.get("added_tokens") or []
        if not all(isinstance(token["content"], str) for token in about["added_tokens"]):
            raise ValueError("an added token is not a string")
    except (ValueError, KeyError, TypeError) as error:
        raise _invalid(error) from None
    inner["dropout"] = None
    return about | {"truncation": None, "padding": None}


def token_ids(about: dict) -> dict[str, int]:
    """{name: id} of all tokens of a tokenizer.json, including added tokens."""
    vocab = about["model"]["vocab"]
    listed = vocab if isinstance(vocab, dict) else {name: i for i, (name, _) in enumerate(vocab)}
    added = about.get("added_tokens") or []
    return {token["content"]: token.get("id", -1) for token in added} | listed


def _unknown(about: dict) -> str | None:
    inner = about["model"]
    if isinstance(inner.get("unk_id"), int) and isinstance(inner["vocab"], list):
        return inner["vocab"][inner["unk_id"]][0]
    return inner.get("unk_token")


def _control(about: dict, end: str | None, unknown: str | None) -> set[str]:
    """The names of the tokens that no document may contain."""
    special = {token["content"] for token in about["added_tokens"] if token.get("special")}
    # Models whose vocabulary is a dict find their unknown token by name, so it keeps its name.
    by_name = {unknown} if isinstance(about["model"]["vocab"], dict) else set()
    return (special - by_name - {""}) | ({end} if end else set())


def _invalid(error: object) -> ValueError:
    return ValueError(f"data.tokenizer: this is not a tokenizer.json: {error}")


def _hide(about: dict, hidden: dict[str, str]) -> dict:
    """`about` with the tokens in `hidden` renamed, and without merges that produce them.

    Merges that produce the token of a byte are removed too: '<0x41>' in a document is 6 characters.
    """
    inner = dict(about["model"])
    vocab, mark = inner["vocab"], inner.get("continuing_subword_prefix") or ""
    if isinstance(vocab, dict):
        inner["vocab"] = {hidden.get(name, name): i for name, i in vocab.items()}
    else:
        inner["vocab"] = [[hidden.get(name, name), score] for name, score in vocab]
    if inner.get("unk_token") in hidden:
        inner["unk_token"] = None

    def kept(merge: str | list[str]) -> bool:
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        names = {left, right, left + right.removeprefix(mark)}
        spells_byte = inner.get("byte_fallback") and any(map(BYTE.fullmatch, names))
        return not names & hidden.keys() and not spells_byte

    if "merges" in inner:
        inner["merges"] = [merge for merge in inner["merges"] if kept(merge)]
    added = [
        token | {"content": hidden[token["content"]], "special": True}
        if token["content"] in hidden
        else token
        for token in about["added_tokens"]
    ]
    return about | {"model": inner, "added_tokens": added}


def _library(about: dict):
    """Builds the library's tokenizer from `about`, with the ids that `about` declares."""
    try:
        import tokenizers
    except ImportError as error:
        raise ValueError(
            "data.tokenizer: a tokenizer.json needs the library tokenizers; pip install -e '.[hf]'"
        ) from error
    try:
        fast = tokenizers.Tokenizer.from_str(json.dumps(about))
        vocab, ids = about["model"]["vocab"], fast.get_vocab(with_added_tokens=True)
        moved = {
            token["content"]: token["id"]
            for token in about["added_tokens"]
            if token["id"] != ids[token["content"]] and token["content"] not in vocab
        }
        if moved and isinstance(vocab, dict) and not set(moved.values()) & set(vocab.values()):
            # The library renumbers added tokens unless the model's vocabulary has them too.
            inner = about["model"] | {"vocab": vocab | moved}
            fast = tokenizers.Tokenizer.from_str(json.dumps(about | {"model": inner}))
        return fast
    except Exception as error:  # the library raises nothing narrower
        raise _invalid(error) from error


def _spelled(piece: str, byte_level: bool, space: str | None) -> bytes:
    """The bytes of a piece. Byte-level tokenizers spell each byte as one character; others may
    write `space` for a space."""
    if byte_level and all(character in BYTE_LEVEL for character in piece):
        return bytes(BYTE_LEVEL[character] for character in piece)
    if not byte_level and (byte := BYTE.fullmatch(piece)):
        return bytes([int(byte[1], 16)])
    return (piece if byte_level or space is None else piece.replace(space, " ")).encode()


def _inside_words(about: dict) -> str:
    """What WordPiece writes before a piece that continues a word, "##"; "" for other models."""
    inner = about["model"]
    return inner["continuing_subword_prefix"] if inner.get("type") == "WordPiece" else ""


def _of_word(piece: str, inside: str) -> bytes:
    """The bytes of a piece of WordPiece. A word follows a space, which the tokenizer drops."""
    return (piece.removeprefix(inside) if piece.startswith(inside) else f" {piece}").encode()


# GPT-2 spells bytes as characters: printable ones as themselves, the others from U+0100 on.
_PRINTABLE = [*range(33, 127), *range(161, 173), *range(174, 256)]
_OTHERS = [byte for byte in range(256) if byte not in _PRINTABLE]
BYTE_LEVEL = {chr(byte): byte for byte in _PRINTABLE}
BYTE_LEVEL |= {chr(256 + place): byte for place, byte in enumerate(_OTHERS)}
