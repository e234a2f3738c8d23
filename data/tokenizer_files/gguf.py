"""Describes a tokenizer by the keys of a GGUF file, as far as llama.cpp makes the same tokens.

llama.cpp knows SentencePiece's BPE ("llama") and byte-level BPE ("gpt2") whose text is first split
by one of the rules that it has by name. Bytes are a byte-level BPE without merges. ValueError, in
one line, for every other tokenizer: llama.cpp would load it and make other tokens.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from data.tokenizer import Saved
from data.tokenizer_files import sentencepiece_model
from data.tokenizer_files.exported import END
from data.tokenizer_files.special_strings import SpecialString
from data.tokenizer_files.tokenizer_json import BYTE_LEVEL, token_ids

NORMAL, UNKNOWN, CONTROL, USER, UNUSED = 1, 2, 3, 4, 5  # as in SentencePiece; a byte is 6
# A merge that never applies: llama.cpp refuses a byte-level BPE without merges.
NO_MERGE = "no merge"
# {what splits text before merges: (llama.cpp's name for it, whether whole words skip the merges)}.
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
SPLITS = {"": ("gpt-2", False), LLAMA3: ("llama-bpe", True), QWEN2: ("qwen2", False)}


def described(saved: Saved, names: Mapping[int, str] | None = None) -> dict[str, Any]:
    """{key without its prefix "tokenizer.ggml.": value}. `names` gives tokens other names, such as
    <|im_end|> for the end of a document that a chat template spells so."""
    if saved.kind not in DESCRIBE:
        raise ValueError(
            f"data.tokenizer={saved.name!r}: llama.cpp has no tokenizer of the kind {saved.kind!r};"
            " train with data.tokenizer=bytes or bpe, or keep the model in safetensors"
        )
    if len(saved.prefix) > 1:
        raise ValueError(
            f"data.tokenizer={saved.name!r} puts {len(saved.prefix)} tokens before a text, and "
            "llama.cpp one at most; keep the model in safetensors"
        )
    about = DESCRIBE[saved.kind](saved)
    _append(about, saved.specials)
    about["token_type"][saved.eod] = CONTROL
    for i, name in (names or {}).items():
        about["tokens"][i] = name
        about["token_type"][i] = CONTROL
    if len(set(about["tokens"])) < len(about["tokens"]):
        raise ValueError(f"data.tokenizer={saved.name!r} has two tokens of one name; rename one")
    start = {"bos_token_id": saved.prefix[0]} if saved.prefix else {}
    flags = {"add_bos_token": bool(saved.prefix), "add_eos_token": False}
    return about | {"eos_token_id": saved.eod} | start | flags


def _append(about: dict[str, Any], specials: Sequence[SpecialString]) -> None:
    """Adds the special strings whose ids follow those of a tokenizer's model, as those have that
    `isoflop extend` adds to bytes."""
    for special in sorted(specials, key=lambda one: one.id):
        if special.id == len(about["tokens"]):
            about["tokens"].append(special.text)
            about["token_type"].append(CONTROL)
            if "scores" in about:
                about["scores"].append(0.0)


def _bytes(saved: Saved) -> dict[str, Any]:
    names = [character for character, byte in sorted(BYTE_LEVEL.items(), key=lambda x: x[1])]
    tokens = [*names[:255], END]
    about = {"model": "gpt2", "pre": "qwen2", "tokens": tokens, "merges": [NO_MERGE]}
    return about | {"token_type": [NORMAL] * 255 + [CONTROL]}


def _sentencepiece(saved: Saved) -> dict[str, Any]:
    proto = sentencepiece_model.parse(saved.model)
    trainer, normalizer = proto.trainer_spec, proto.normalizer_spec
    faults = {
        "no BPE (llama.cpp reads a unigram model, but knows no bytes in it)": (
            trainer.model_type != trainer.BPE
        ),
        "no bytes for unknown characters": not trainer.byte_fallback,
        "a table of normalisation": bool(normalizer.precompiled_charsmap),
        "extra white space removed": normalizer.remove_extra_whitespaces,
        "white space after words": trainer.treat_whitespace_as_suffix,
        "spaces that it does not escape": not normalizer.escape_whitespaces,
    }
    for fault, is_one in faults.items():
        if is_one:
            raise ValueError(
                f"data.tokenizer={saved.name!r} is a SentencePiece model with {fault}; "
                "llama.cpp would make other tokens; train with data.tokenizer=bpe or bytes"
            )
    unknown = next(i for i, piece in enumerate(proto.pieces) if piece.type == piece.UNKNOWN)
    return {
        "model": "llama",
        "pre": "default",
        "tokens": [piece.piece for piece in proto.pieces],
        "scores": [piece.score for piece in proto.pieces],
        "token_type": [int(piece.type) for piece in proto.pieces],
        "add_space_prefix": normalizer.add_dummy_prefix,
        "unknown_token_id": unknown,
    }


def _huggingface(saved: Saved) -> dict[str, Any]:
    about = json.loads(saved.model)
    inner, ids = about["model"], token_ids(about)
    split = _split(about)
    pre, whole_words = SPLITS.get(split, ("", False)) if split is not None else ("", False)
    normalizer = (about.get("normalizer") or {}).get("type")
    expressed = (
        (inner.get("type", "BPE"), bool(pre)) == ("BPE", True)
        and whole_words == bool(inner.get("ignore_merges"))
        and (normalizer is None or (normalizer, pre) == ("NFC", "qwen2"))
        and not inner.get("byte_fallback")
    )
    if not expressed:
        raise ValueError(
            f"data.tokenizer={saved.name!r} is a tokenizer.json whose rules llama.cpp does not "
            "have by name; those of GPT-2, Llama 3 and Qwen 2 are written, and a published "
            "tokenizer.model if the run was converted with one"
        )
    listed = {token["content"]: bool(token.get("special")) for token in about["added_tokens"]}
    count = max(ids.values()) + 1
    tokens, types = [f"[unused {i}]" for i in range(count)], [UNUSED] * count
    for name, i in ids.items():
        tokens[i] = name
        types[i] = (CONTROL if listed[name] else USER) if name in listed else NORMAL
    merges = [one if isinstance(one, str) else " ".join(one) for one in inner["merges"]]
    return {
        "model": "gpt2",
        "pre": pre,
        "tokens": tokens,
        "token_type": types,
        "merges": merges or [NO_MERGE],
    }


def _split(about: Mapping[str, Any]) -> str | None:
    """The regex that splits text before a byte-level BPE; "": that of GPT-2; None: another rule."""
    step = about.get("pre_tokenizer") or {}
    steps = step.get("pretokenizers", [step])
    last = steps[-1]
    if last.get("type") != "ByteLevel" or last.get("add_prefix_space"):
        return None
    if len(steps) == 1:
        return "" if last.get("use_regex", True) else None
    first = steps[0]
    pattern = (first.get("pattern") or {}).get("Regex")
    plain = first.get("type") == "Split" and first.get("behavior") == "Isolated"
    ordinary = plain and not first.get("invert") and not last.get("use_regex", True)
    return pattern if len(steps) == 2 and ordinary else None


DESCRIBE = {"bytes": _bytes, "sentencepiece": _sentencepiece, "huggingface": _huggingface}
