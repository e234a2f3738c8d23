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

    New pieces follow the old ones; missing ids are filled with UNUSED pieces. Encoding text never
    yields a control token. Raises ValueError, with the name, for a token that contradicts the
    pieces of the model.
    """
    proto = parse(model)
    ids = {piece.piece: i for i, piece in enumerate(proto.pieces)}
    for i, (name, control) in sorted(tokens.items()):
        if ids.get(name, i) != i:
            raise ValueError(
                f"token {name!r} has id {i}, but its id in tokenizer.model is {ids[name]}"
            )
        if i < len(proto.pieces):
            _rename_piece(proto.pieces[i], i, name, control)
        else:
            _append_piece(proto, i, name, control)
    return model if proto == parse(model) else proto.SerializeToString()


def _append_piece(proto: "ModelProto", i: int, name: str, control: bool) -> None:
    """Adds a piece with the id i, after UNUSED pieces for the ids below it."""
    Piece = proto.SentencePiece
    while len(proto.pieces) < i:
        proto.pieces.add(piece=f"<no token {len(proto.pieces)}>", score=0.0, type=Piece.UNUSED)
    proto.pieces.add(piece=name, score=0.0, type=Piece.CONTROL if control else Piece.USER_DEFINED)


def _rename_piece(piece: "ModelProto.SentencePiece", i: int, name: str, control: bool) -> None:
    """Gives the piece with the id i this name, and makes it a control token if asked to. Raises
    ValueError if the piece encodes text.
    """
    if piece.piece != name and piece.type in (piece.NORMAL, piece.UNKNOWN, piece.BYTE):
        raise ValueError(f"token {name!r} has id {i}, which is {piece.piece!r} in tokenizer.model")
    becomes_control = control and piece.type in (piece.NORMAL, piece.USER_DEFINED)
    if piece.piece != name or becomes_control:
        piece.piece, piece.score = name, 0.0
        if becomes_control:
            piece.type = piece.CONTROL


def without_dummy_prefix(model: bytes) -> bytes:
    """`model` with add_dummy_prefix off: it puts no space before a text."""
    proto = parse(model)
    proto.normalizer_spec.add_dummy_prefix = False
    return proto.SerializeToString()
