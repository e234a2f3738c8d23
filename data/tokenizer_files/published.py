"""Reads the tokenizer of a published model from all of its files together.

The pieces come from tokenizer.model or, without one, from tokenizer.json or, without either, from
GPT-2's vocab.json and merges.txt. Added tokens come from these files, tokenizer_config.json and
added_tokens.json. The end-of-document token and the tokens before a prompt come from config.json,
generation_config.json, tokenizer_config.json and special_tokens_map.json.
"""

import importlib.util
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from data.local import parse_object
from data.tokenizer import Tokenizer
from data.tokenizer_files import exported, sentencepiece_model, tokenizer_json
from data.tokenizer_files.added_tokens import Added, added_tokens, end_ids, read_object
from data.tokenizer_files.special_strings import SpecialString

# Tokenizers that begin every text with <s> unless tokenizer_config.json says otherwise.
BEGINNING = ("LlamaTokenizer", "LlamaTokenizerFast", "GemmaTokenizer", "GemmaTokenizerFast")
# If a SentencePiece model has no other added tokens, its prompts are plain text.
USUAL = ("<unk>", "<s>", "</s>", "<pad>", "<bos>", "<eos>", "<mask>")


class Settings(NamedTuple):
    """The settings of a tokenizer from the other files of its folder."""

    added: Mapping[int, Added]
    ends: list[int]
    start: list[int]  # the tokens before every text
    space_after: bool  # text after a special string begins with a space, as text at the start does


def read(folder: Path, vocab_size: int) -> tuple[Tokenizer | None, list[str]]:
    """Returns the tokenizer, or None, of a model with `vocab_size` tokens, and the faults of its
    files.

    Added tokens whose id is `vocab_size` or more are left out, unless the file with the pieces has
    them.
    """
    faults: list[str] = []
    try:
        settings = _settings(folder)
    except ValueError as error:
        faults.append(str(error))
        settings = Settings({}, [], [], True)
    fitting = {i: token for i, token in settings.added.items() if i < vocab_size}
    if beyond := sorted(set(settings.added) - set(fitting)):
        faults.append(
            f"{len(beyond)} added tokens, such as {settings.added[beyond[0]].name!r}, have ids "
            f"from {beyond[0]} on, but the model has {vocab_size} tokens; they are left out"
        )
    for name, reader in _readers(folder).items():
        path = folder / name
        try:
            tokenizer, left_out = reader(path, settings._replace(added=fitting))
        except (ValueError, RuntimeError) as error:
            faults.append(f"{path}: {error}")
            continue
        if tokenizer.vocab_size <= vocab_size:
            return tokenizer, faults + left_out
        faults.append(
            f"{name} has {tokenizer.vocab_size} tokens, more than the model's {vocab_size}"
        )
    return None, faults


def _readers(folder: Path) -> dict[str, Callable[[Path, Settings], tuple[Tokenizer, list[str]]]]:
    """The files with pieces, in the order of preference, with what reads each."""
    known = {"tokenizer.model": _sentencepiece, "tokenizer.json": _json}
    found = {name: reader for name, reader in known.items() if (folder / name).is_file()}
    alone = not found and (folder / "vocab.json").is_file()
    return {"vocab.json": _vocabulary} if alone else found


def _settings(folder: Path) -> Settings:
    config = read_object(folder / "tokenizer_config.json")
    first = read_object(folder / "config.json").get("bos_token_id")
    begins = config.get("add_bos_token", config.get("tokenizer_class") in BEGINNING)
    steps = json.dumps(read_object(folder / "tokenizer.json").get("pre_tokenizer"))
    return Settings(
        added_tokens(folder),
        end_ids(folder),
        [first] if begins and type(first) is int else [],
        '"prepend_scheme": "first"' not in steps,
    )


def _sentencepiece(path: Path, settings: Settings) -> tuple[Tokenizer, list[str]]:
    """The tokenizer of a tokenizer.model with the tokens that other files add, and the faults."""
    model, faults, specials = path.read_bytes(), [], ()
    if any(token.name not in USUAL for token in settings.added.values()):
        try:
            model = sentencepiece_model.with_tokens(
                model,
                {i: (t.name, t.special or i in settings.ends) for i, t in settings.added.items()},
            )
            specials = tuple(
                SpecialString(token.name, i, token.lstrip, token.rstrip)
                for i, token in settings.added.items()
                if token.name
            )
        except ValueError as error:
            faults.append(f"{error}; added tokens are left out")
    pieces = sentencepiece_model.parse(model).pieces
    control = [i for i in settings.ends if i < len(pieces) and pieces[i].type == pieces[i].CONTROL]

    def build(end: int | None) -> Tokenizer:
        options = (settings.start, end, specials, settings.space_after)
        return Tokenizer("sentencepiece", path.stem, model, *options)

    tokenizer = build(None)
    return build(control[0]) if control and tokenizer.eod not in control else tokenizer, faults


def _vocabulary(path: Path, settings: Settings) -> tuple[Tokenizer, list[str]]:
    """The tokenizer of a vocab.json and a merges.txt, if it is that of GPT-2."""
    config = read_object(path.with_name("tokenizer_config.json"))
    model = read_object(path.with_name("config.json")).get("model_type")
    name = config.get("tokenizer_class") or ("GPT2Tokenizer" if model == "gpt2" else None)
    merges = path.with_name("merges.txt")
    if name not in ("GPT2Tokenizer", "GPT2TokenizerFast") or not merges.is_file():
        raise ValueError(
            f"without a tokenizer.json, only that of a GPT2Tokenizer with its merges.txt is read "
            f"(here: {name}); write one with transformers: AutoTokenizer.from_pretrained(FOLDER)."
            "save_pretrained(FOLDER)"
        )
    lines = merges.read_text("utf-8").split("\n")
    pairs = [line.split(" ") for line in lines if line and not line.startswith("#version")]
    prefix_space = bool(config.get("add_prefix_space"))
    return _of_json(exported.byte_level(read_object(path), pairs, prefix_space), settings)


def _json(path: Path, settings: Settings) -> tuple[Tokenizer, list[str]]:
    return _of_json(path.read_bytes(), settings)


def _of_json(raw: bytes, settings: Settings) -> tuple[Tokenizer, list[str]]:
    """The tokenizer of a tokenizer.json with the tokens that other files add."""
    if parsed := exported.parse_exported(raw):
        kind, model = parsed
        return Tokenizer(kind, kind, model), []
    if importlib.util.find_spec("tokenizers") is None:
        raise ValueError("it needs the library tokenizers; pip install -e '.[hf]'")
    about = parse_object(raw)
    listed = about.get("added_tokens") or []
    missing = [i for i in sorted(settings.added) if i not in {token["id"] for token in listed}]
    if missing:
        more = [exported.added(i, *settings.added[i]) for i in missing]
        raw = json.dumps(about | {"added_tokens": [*listed, *more]}, ensure_ascii=False).encode()
    control = [i for i in settings.ends if i in settings.added and settings.added[i].special]
    named = tokenizer_json.end_of(raw)
    end = control[0] if control and named not in settings.ends else None
    start = tokenizer_json.prefix(raw) or settings.start
    return Tokenizer("huggingface", "tokenizer", raw, start, end), []
