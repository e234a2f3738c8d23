"""Reads the tokenizer of a published model from all of its files together.

The pieces come from tokenizer.model or, without one, from tokenizer.json; added tokens from those
and from tokenizer_config.json and added_tokens.json. The end of documents and what begins a prompt
come from config.json, generation_config.json and tokenizer_config.json.
"""

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from data import tokenizer_json
from data.tokenizer import Tokenizer
from data.tokenizer_files import exported, sentencepiece_model
from data.tokenizer_files.added_tokens import Added, added_tokens, end_ids, read_object
from data.tokenizer_files.special_strings import SpecialString

# Tokenizers that begin every text with <s> unless tokenizer_config.json says otherwise.
BEGINNING = ("LlamaTokenizer", "LlamaTokenizerFast", "GemmaTokenizer", "GemmaTokenizerFast")
# Prompts of a SentencePiece model are plain text if these are its only added tokens.
USUAL = ("<unk>", "<s>", "</s>", "<pad>", "<bos>", "<eos>", "<mask>")


class Around(NamedTuple):
    """What the other files of a folder say about its tokenizer."""

    added: Mapping[int, Added]
    ends: list[int]
    start: list[int]  # the tokens before every text
    space_after: bool  # text after a special string begins with a space, as text at the start does


def read(folder: Path, most: int) -> tuple[Tokenizer | None, list[str]]:
    """The tokenizer of a model with `most` tokens, or None; and what is wrong with its files.

    Added tokens of other files than the one with the pieces are left out from id `most` on.
    """
    faults: list[str] = []
    try:
        around = _around(folder)
    except ValueError as error:
        faults.append(str(error))
        around = Around({}, [], [], True)
    fitting = {i: token for i, token in around.added.items() if i < most}
    if beyond := sorted(set(around.added) - set(fitting)):
        faults.append(
            f"{len(beyond)} added tokens, such as {around.added[beyond[0]].name!r}, have ids from "
            f"{beyond[0]} on, but the model has {most} tokens; they are left out"
        )
    for name, whole in (("tokenizer.model", _sentencepiece), ("tokenizer.json", _json)):
        path = folder / name
        if not path.is_file():
            continue
        try:
            found, left_out = whole(path, around._replace(added=fitting))
        except (ValueError, RuntimeError) as error:
            faults.append(f"{path}: {error}")
            continue
        if found.vocab_size <= most:
            return found, faults + left_out
        faults.append(f"{name} has {found.vocab_size} tokens, more than the model's {most}")
    return None, faults


def _around(folder: Path) -> Around:
    config = read_object(folder / "tokenizer_config.json")
    first = read_object(folder / "config.json").get("bos_token_id")
    begins = config.get("add_bos_token", config.get("tokenizer_class") in BEGINNING)
    steps = json.dumps(read_object(folder / "tokenizer.json").get("pre_tokenizer"))
    return Around(
        added_tokens(folder),
        end_ids(folder),
        [first] if begins and type(first) is int else [],
        '"prepend_scheme": "first"' not in steps,
    )


def _sentencepiece(path: Path, around: Around) -> tuple[Tokenizer, list[str]]:
    """A tokenizer.model with the tokens that other files add to it; and which it cannot have."""
    model, faults, specials = path.read_bytes(), [], ()
    if any(token.name not in USUAL for token in around.added.values()):
        try:
            model = sentencepiece_model.with_tokens(
                model,
                {i: (t.name, t.special or i in around.ends) for i, t in around.added.items()},
            )
            specials = tuple(
                SpecialString(token.name, i, token.lstrip, token.rstrip)
                for i, token in around.added.items()
                if token.name
            )
        except ValueError as error:
            faults.append(f"{error}; added tokens are left out")
    pieces = sentencepiece_model.parse(model).pieces
    control = [i for i in around.ends if i < len(pieces) and pieces[i].type == pieces[i].CONTROL]

    def made(end: int | None) -> Tokenizer:
        how = (around.start, end, specials, around.space_after)
        return Tokenizer("sentencepiece", path.stem, model, *how)

    found = made(None)
    return made(control[0]) if control and found.eod not in control else found, faults


def _json(path: Path, around: Around) -> tuple[Tokenizer, list[str]]:
    """A tokenizer.json with the tokens that other files add to it."""
    raw = path.read_bytes()
    if ours := exported.recognised(raw):
        kind, model = ours
        return Tokenizer(kind, kind, model), []
    if importlib.util.find_spec("tokenizers") is None:
        raise ValueError("it needs the library tokenizers; pip install -e '.[hf]'")
    about = read_object(path)
    listed = about.get("added_tokens") or []
    missing = [i for i in sorted(around.added) if i not in {token["id"] for token in listed}]
    if missing:
        more = [exported.added(i, *around.added[i]) for i in missing]
        raw = json.dumps(about | {"added_tokens": [*listed, *more]}, ensure_ascii=False).encode()
    control = [i for i in around.ends if i in around.added and around.added[i].special]
    named = tokenizer_json.end_of(raw)
    end = control[0] if control and named not in around.ends else None
    start = tokenizer_json.prefix(raw) or around.start
    return Tokenizer("huggingface", path.stem, raw, start, end), []
