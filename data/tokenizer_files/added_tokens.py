"""Reads the added tokens and the end tokens of a published model from its files."""

import re
from pathlib import Path
from typing import NamedTuple

from data.local import parse_object

IN_BRACKETS = re.compile(r"<.+>|\[.+\]", re.DOTALL)


class Added(NamedTuple):
    """An added token. Special tokens represent no text."""

    name: str
    special: bool
    lstrip: bool
    rstrip: bool


def read_object(path: Path) -> dict:
    """The JSON object in a file, or {} if there is no file; ValueError names a damaged file."""
    try:
        return parse_object(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); fetch it again") from None


def added_tokens(folder: Path) -> dict[int, Added]:
    """The added tokens of a folder by id, from tokenizer.json, tokenizer_config.json and
    added_tokens.json. If they differ, the first of these counts. ValueError if one is damaged."""
    listed = read_object(folder / "tokenizer.json").get("added_tokens") or []
    numbered = read_object(folder / "tokenizer_config.json").get("added_tokens_decoder") or {}
    plain = read_object(folder / "added_tokens.json")
    tokens: dict[int, Added] = {}
    try:
        rows = [(token["id"], token) for token in listed]
        rows += [(int(i), token) for i, token in numbered.items()]
        # added_tokens.json does not say which tokens are special. Those in brackets are; others,
        # such as runs of spaces, are not.
        rows += [
            (i, {"content": name, "special": IN_BRACKETS.fullmatch(name)})
            for name, i in plain.items()
        ]
        taken = set()
        for i, token in rows:
            if type(i) is not int or i < 0 or not isinstance(token["content"], str):
                raise ValueError(f"token {token['content']!r} has the id {i!r}")
            if i not in tokens and token["content"] not in taken:
                flags = (bool(token.get(flag)) for flag in ("special", "lstrip", "rstrip"))
                tokens[i] = Added(token["content"], *flags)
                taken.add(token["content"])
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{folder} has an invalid list of added tokens ({error}); fetch it again"
        ) from None
    return tokens


def end_ids(folder: Path) -> list[int]:
    """Ids of the tokens that end a text, such as the end of a turn: those of config.json, then any
    others of generation_config.json and the end that tokenizer_config.json or, without one there,
    special_tokens_map.json names. ValueError if a file is damaged."""
    configs = [read_object(folder / name) for name in ("config.json", "generation_config.json")]
    ids = [one for config in configs for one in _as_list(config.get("eos_token_id"))]
    files = ("tokenizer_config.json", "special_tokens_map.json")
    names = [read_object(folder / file).get("eos_token") for file in files]
    name = next((name for name in names if name is not None), None)
    name = name.get("content") if isinstance(name, dict) else name
    if name is not None:
        ids += [i for i, token in added_tokens(folder).items() if token.name == name]
    if isinstance(name, str):
        ids.append(read_object(folder / "vocab.json").get(name))
    return list(dict.fromkeys(one for one in ids if type(one) is int and one >= 0))


def _as_list(ids: object) -> list:
    return ids if isinstance(ids, list) else [ids]
