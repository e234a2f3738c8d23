"""Writes a tokenizer as files for the library transformers, with the same ids.

A tokenizer.json describes byte, character, BPE and unigram models exactly, with two exceptions for
SentencePiece: it reads the character U+2581 as a space, and among equally likely segmentations it
may choose another one. Neither exception applies to the tokenizer.model that is written as well.
"""

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from data.tokenizer import Saved, Tokenizer
from data.tokenizer_files import sentencepiece_model
from data.tokenizer_files.tokenizer_json import BYTE_LEVEL, SPACE, token_ids

if TYPE_CHECKING:
    from sentencepiece.sentencepiece_model_pb2 import ModelProto, NormalizerSpec

END, OTHER = "<|endoftext|>", "<unk>"  # isoflop's tokenizers do not name these tokens


def files(saved: Saved, context_length: int) -> dict[str, bytes]:
    """{name: content} of a tokenizer's files; ValueError if no tokenizer.json can describe it."""
    about = with_added(DESCRIBE[saved.kind](saved), saved)
    names = {i: name for name, i in token_ids(about).items()}
    start = names[saved.prefix[0]] if saved.prefix else None
    unknown = _unknown(about["model"])
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": context_length,
        "clean_up_tokenization_spaces": False,
        "eos_token": names[saved.eod],
        "bos_token": start,
        "unk_token": unknown,
        "add_bos_token": start is not None,
    }
    contents = {
        "tokenizer.json": saved.model if saved.kind == "huggingface" else as_json(about),
        "tokenizer_config.json": as_json({k: v for k, v in config.items() if v is not None}),
        "generation_config.json": as_json(ids(saved)),
    }
    return contents | ({"tokenizer.model": saved.model} if saved.kind == "sentencepiece" else {})


def names(saved: Saved | Tokenizer) -> dict[str, int]:
    """{name: id} of the tokens that a tokenizer.json lists for bytes, characters or the model of
    another tokenizer.json; empty for other kinds. Special strings that were added are left out."""
    described = saved.kind in ("bytes", "chars", "huggingface")
    return token_ids(DESCRIBE[saved.kind](saved)) if described else {}


def with_added(about: dict, saved: Saved) -> dict:
    """A tokenizer.json with the special strings of a tokenizer that it lacks."""
    known = {one["id"] for one in about["added_tokens"]}
    more = [added(s.id, s.text, True, s.lstrip, s.rstrip) for s in saved.specials]
    missing = [one for one in more if one["id"] not in known]
    return about | {"added_tokens": [*about["added_tokens"], *missing]}


def ids(saved: Saved) -> dict[str, int]:
    """The keys of config.json and generation_config.json that name special tokens."""
    start = {"bos_token_id": saved.prefix[0]} if saved.prefix else {}
    return {"eos_token_id": saved.eod} | start


def parse_exported(raw: bytes) -> tuple[str, bytes] | None:
    """(kind, model) of a tokenizer.json that `files` wrote for bytes or characters, without the
    library tokenizers; None for any other file."""
    try:
        about = json.loads(raw)
        if about == _bytes():
            return "bytes", b""
        names = list(about["model"]["vocab"])
        model = "".join(name for name in names if name not in (END, OTHER)).encode("utf-32-le")
        return ("chars", model) if about == _characters(model) else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def as_json(about: Mapping[str, Any]) -> bytes:
    """The bytes of a JSON file."""
    return (json.dumps(about, indent=1, ensure_ascii=False) + "\n").encode()


def _unknown(model: Mapping[str, Any]) -> str | None:
    if model.get("unk_id") is not None:
        return model["vocab"][model["unk_id"]][0]
    return model.get("unk_token")


def _described(model: dict, tokens: list[dict], **steps: Any) -> dict:
    empty = dict.fromkeys(("normalizer", "pre_tokenizer", "post_processor", "decoder"))
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": tokens} | (
        empty | steps | {"model": model}
    )


def added(i: int, name: str, special: bool = True, lstrip=False, rstrip=False) -> dict:
    return {
        "id": i, "content": name, "single_word": False, "lstrip": lstrip, "rstrip": rstrip,
        "normalized": False, "special": special,
    }  # fmt: skip


def _bpe(vocab: dict[str, int], merges: list, unknown: str | None, **changes: Any) -> dict:
    return {
        "type": "BPE", "dropout": None, "unk_token": unknown, "continuing_subword_prefix": None,
        "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
        "ignore_merges": False, "vocab": vocab, "merges": merges,
    } | changes  # fmt: skip


def _bytes() -> dict:
    vocab = {character: byte for character, byte in BYTE_LEVEL.items() if byte < 255}
    step = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": False,
    }
    model = _bpe(vocab | {END: 255}, [], None)
    return _described(model, [added(255, END)], pre_tokenizer=step, decoder=step)


def byte_level(vocab: dict[str, int], merges: list[list[str]], prefix_space: bool) -> bytes:
    """The tokenizer.json that equals a vocab.json with a merges.txt, as GPT-2 was published."""
    step = {"type": "ByteLevel", "trim_offsets": True, "use_regex": True}
    step["add_prefix_space"] = prefix_space
    tokens = [added(vocab[END], END)] if END in vocab else []
    model = _bpe(vocab, merges, None)
    return as_json(_described(model, tokens, pre_tokenizer=step, decoder=step))


def _characters(model: bytes) -> dict:
    vocab = {chr(point): i for i, point in enumerate(np.frombuffer(model, "<u4").tolist())}
    end, unknown = len(vocab), len(vocab) + 1
    tokens = [added(end, END), added(unknown, OTHER)]
    described = _bpe(vocab | {END: end, OTHER: unknown}, [], OTHER)
    return _described(described, tokens, decoder={"type": "Fuse"})


def _sentencepiece(saved: Saved) -> dict:
    about = sentencepiece_model.parse(saved.model)
    trainer, normalizer = about.trainer_spec, about.normalizer_spec
    described = trainer.model_type in (trainer.UNIGRAM, trainer.BPE, trainer.CHAR)
    spaces_first = normalizer.escape_whitespaces and not trainer.treat_whitespace_as_suffix
    if not described or not spaces_first:
        raise ValueError("a tokenizer.json cannot describe this kind of SentencePiece model")
    unknown = next(i for i, piece in enumerate(about.pieces) if piece.type == piece.UNKNOWN)
    vocab = {piece.piece: i for i, piece in enumerate(about.pieces)}
    if trainer.model_type == trainer.UNIGRAM:
        scored = [[piece.piece, piece.score] for piece in about.pieces]
        model = {"type": "Unigram", "unk_id": unknown, "vocab": scored}
        model["byte_fallback"] = trainer.byte_fallback
    else:
        merges = _merges(about.pieces) if trainer.model_type == trainer.BPE else []
        model = _bpe(
            vocab, merges, about.pieces[unknown].piece, fuse_unk=True,
            byte_fallback=trainer.byte_fallback,
        )  # fmt: skip
    flags = {special.id: (special.lstrip, special.rstrip) for special in saved.specials}
    tokens = [
        added(i, piece.piece, piece.type != piece.USER_DEFINED, *flags.get(i, ()))
        for i, piece in enumerate(about.pieces)
        if piece.type in (piece.UNKNOWN, piece.CONTROL, piece.USER_DEFINED)
    ]
    steps = {"normalizer": _normalizer(normalizer), "decoder": _decoder(normalizer)}
    if saved.prefix:
        steps["post_processor"] = _start(saved.prefix[0], about.pieces[saved.prefix[0]].piece)
    return _described(model, tokens, **steps)


def _merges(pieces: Sequence["ModelProto.SentencePiece"]) -> list[list[str]]:
    """The pairs that form each piece, in SentencePiece's order of merging."""
    score = {piece.piece: piece.score for piece in pieces if piece.type == piece.NORMAL}
    pairs = [
        (name[:cut], name[cut:])
        for name in sorted(score, key=lambda name: -score[name])
        for cut in range(1, len(name))
    ]
    return [[left, right] for left, right in pairs if left in score and right in score]


def _normalizer(about: "NormalizerSpec") -> dict:
    replaced = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    steps = [replaced]
    if about.add_dummy_prefix:
        steps.insert(0, {"type": "Prepend", "prepend": SPACE})
    if about.remove_extra_whitespaces:
        runs = {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}
        outer = {"type": "Replace", "pattern": {"Regex": "^ +| +$"}, "content": ""}
        steps = [outer, runs, *steps]
    if about.precompiled_charsmap:
        charsmap = base64.b64encode(about.precompiled_charsmap).decode()
        steps.insert(0, {"type": "Precompiled", "precompiled_charsmap": charsmap})
    return {"type": "Sequence", "normalizers": steps} if len(steps) > 1 else replaced


def _decoder(about: "NormalizerSpec") -> dict:
    spaces = {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}
    steps = [spaces, {"type": "ByteFallback"}, {"type": "Fuse"}]
    if about.add_dummy_prefix:
        steps.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return {"type": "Sequence", "decoders": steps}


def _start(i: int, name: str) -> dict:
    """The step that puts a token before every text."""
    first, text = (
        {"SpecialToken": {"id": name, "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
    )
    other = {"Sequence": {"id": "B", "type_id": 0}}
    return {
        "type": "TemplateProcessing", "single": [first, text], "pair": [first, text, other],
        "special_tokens": {name: {"id": name, "ids": [i], "tokens": [name]}},
    }  # fmt: skip


def _words(saved: Saved) -> dict:
    raise ValueError(f"a tokenizer.json cannot describe the rule of data.tokenizer={saved.name!r}")


DESCRIBE: dict[str, Callable[[Saved], dict]] = {
    "bytes": lambda saved: _bytes(),
    "chars": lambda saved: _characters(saved.model),
    "words": _words,
    "sentencepiece": _sentencepiece,
    "huggingface": lambda saved: json.loads(saved.model),
}
