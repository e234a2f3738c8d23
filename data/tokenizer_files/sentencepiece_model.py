"""Reads and extends a SentencePiece tokenizer.model, which is one protocol buffer message.

Only the fields that this project needs are read; all others are kept as they are.
Format: github.com/google/sentencepiece, src/sentencepiece_model.proto.
"""

import struct
from collections.abc import Iterator, Mapping
from typing import NamedTuple

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)  # types of pieces
UNIGRAM, BPE, WORD, CHAR = range(1, 5)  # types of models
VARINT, EIGHT, LENGTH, FOUR = 0, 1, 2, 5  # how a field is written


class Piece(NamedTuple):
    """One token: its spelling, its log-probability or negated rank, and its type."""

    name: str
    score: float
    type: int


class Described(NamedTuple):
    """What a model does: its pieces by id, and how it normalises text."""

    pieces: list[Piece]
    type: int
    byte_fallback: bool
    suffix: bool  # spaces belong to the word before them
    charsmap: bytes  # replaces characters, such as by NFKC; empty for none
    dummy_prefix: bool  # a space is put before every text
    single_spaces: bool  # outer spaces are removed, and runs of spaces become one
    escaped: bool  # spaces become U+2581


def describe(model: bytes) -> Described:
    """The content of a tokenizer.model; ValueError if it is damaged."""
    pieces, trainer, normalizer = [], {}, {}
    for number, value in _fields(model):
        if number == 1:
            pieces.append(_piece(value))
        elif number == 2:
            trainer |= dict(_fields(value))
        elif number == 3:
            normalizer |= dict(_fields(value))
    return Described(
        pieces,
        trainer.get(3, UNIGRAM),
        bool(trainer.get(35, 0)),
        bool(trainer.get(24, 0)),
        normalizer.get(2, b""),
        *(bool(normalizer.get(number, 1)) for number in (3, 4, 5)),
    )


def with_tokens(model: bytes, tokens: Mapping[int, tuple[str, bool]]) -> bytes:
    """`model` with `tokens` {id: (name, whether it is a control token)} among its pieces.

    New pieces follow the old ones, and ids between them stay unused. Text yields no control token.
    ValueError names a token that contradicts the pieces of the model.
    """
    bodies = [value for number, value in _fields(model) if number == 1]
    pieces = [_piece(body) for body in bodies]
    places = {piece.name: i for i, piece in enumerate(pieces)}
    changed = False
    for i, (name, control) in sorted(tokens.items()):
        if places.get(name, i) != i:
            raise ValueError(
                f"token {name!r} has id {i}, and tokenizer.model has it as {places[name]}"
            )
        bodies += [_body(f"<no token {gap}>", UNUSED) for gap in range(len(bodies), i)]
        if i == len(bodies):
            bodies.append(_body(name, CONTROL if control else USER_DEFINED))
            changed = True
            continue
        old = pieces[i]
        if old.name != name and old.type in (NORMAL, UNKNOWN, BYTE):
            raise ValueError(f"token {name!r} has id {i}, which is {old.name!r} in tokenizer.model")
        wanted = CONTROL if control and old.type in (NORMAL, USER_DEFINED) else old.type
        if (old.name, old.type) != (name, wanted):
            bodies[i], changed = _body(name, wanted), True
    if not changed:
        return model
    others = b"".join(_written(number, value) for number, value in _fields(model) if number != 1)
    return b"".join(_written(1, body) for body in bodies) + others


def without_dummy_prefix(model: bytes) -> bytes:
    """`model`, but without a space before every text."""
    return model + _written(3, _written(3, 0))  # messages that follow one another are merged


def _piece(body: bytes) -> Piece:
    found = dict(_fields(body))
    return Piece(found.get(1, b"").decode(), found.get(2, 0.0), found.get(3, NORMAL))


def _body(name: str, kind: int) -> bytes:
    return _written(1, name.encode()) + _written(2, 0.0) + _written(3, kind)


def _fields(raw: bytes) -> Iterator[tuple[int, int | float | bytes]]:
    """(number, value) of each field of a message; ValueError if it is damaged."""
    at = 0
    while at < len(raw):
        tag, at = _varint(raw, at)
        kind = tag & 7
        if kind == VARINT:
            value, at = _varint(raw, at)
        elif kind in (EIGHT, FOUR, LENGTH):
            size, at = _varint(raw, at) if kind == LENGTH else ({EIGHT: 8, FOUR: 4}[kind], at)
            value, at = raw[at : at + size], at + size
            if len(value) != size:
                raise ValueError("tokenizer.model is truncated")
            value = struct.unpack("<f", value)[0] if kind == FOUR else value
        else:
            raise ValueError("tokenizer.model is not a SentencePiece model")
        yield tag >> 3, value


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    """A number of 7 bits a byte, the lowest first, and where it ends."""
    value = shift = 0
    while at < len(raw):
        value |= (raw[at] & 127) << shift
        shift, at = shift + 7, at + 1
        if raw[at - 1] < 128:
            return value, at
    raise ValueError("tokenizer.model is truncated")


def _written(number: int, value: int | float | bytes) -> bytes:
    """One field of a message, the inverse of `_fields`."""
    if isinstance(value, float):
        return _number(number << 3 | FOUR) + struct.pack("<f", value)
    if isinstance(value, int):
        return _number(number << 3 | VARINT) + _number(value)
    return _number(number << 3 | LENGTH) + _number(len(value)) + value


def _number(value: int) -> bytes:
    parts = [value & 127]
    while value := value >> 7:
        parts.append(value & 127)
    return bytes([part | 128 for part in parts[:-1]] + parts[-1:])
