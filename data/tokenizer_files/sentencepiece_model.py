"""Reads and extends a SentencePiece tokenizer.model, which is one protocol buffer message.

Format: github.com/google/sentencepiece, src/sentencepiece_model.proto.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sentencepiece.sentencepiece_model_pb2 import ModelProto


def parse(model: bytes) -> "ModelProto":
    """The message in a tokenizer.model; ValueError if it is damaged."""
    from google.protobuf.message import DecodeError  # slow imports
    from sentencepiece.sentencepiece_model_pb2 import ModelProto

    try:
        return ModelProto.FromString(model)
    except DecodeError as error:
        raise ValueError("tokenizer.model is truncated or not a SentencePiece model") from error


def with_tokens(model: bytes, tokens: Mapping[int, tuple[str, bool]]) -> bytes:
    """`model` with `tokens` {id: (name, whether it is a control token)} added to its pieces.

    New pieces follow the old ones; ids in gaps are marked unused. Encoding text never yields a
    control token. ValueError names a token that contradicts the pieces of the model.
    """
    proto, changed = parse(model), False
    pieces, places = proto.pieces, {piece.piece: i for i, piece in enumerate(proto.pieces)}
    for i, (name, control) in sorted(tokens.items()):
        if places.get(name, i) != i:
            raise ValueError(
                f"token {name!r} has id {i}, but its id in tokenizer.model is {places[name]}"
            )
        while len(pieces) < i:
            pieces.add(
                piece=f"<no token {len(pieces)}>", score=0.0, type=proto.SentencePiece.UNUSED
            )
        if i == len(pieces):
            kind = proto.SentencePiece.CONTROL if control else proto.SentencePiece.USER_DEFINED
            pieces.add(piece=name, score=0.0, type=kind)
            changed = True
            continue
        old = pieces[i]
        if old.piece != name and old.type in (old.NORMAL, old.UNKNOWN, old.BYTE):
            raise ValueError(
                f"token {name!r} has id {i}, which is {old.piece!r} in tokenizer.model"
            )
        wanted = old.CONTROL if control and old.type in (old.NORMAL, old.USER_DEFINED) else old.type
        if (old.piece, old.type) != (name, wanted):
            old.piece, old.score, old.type, changed = name, 0.0, wanted, True
    return proto.SerializeToString() if changed else model


def without_dummy_prefix(model: bytes) -> bytes:
    """`model`, but without a space before every text."""
    proto = parse(model)
    proto.normalizer_spec.add_dummy_prefix = False
    return proto.SerializeToString()
