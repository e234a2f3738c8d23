"""The chat template of a config and of a run: names become Jinja source, folders are searched."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from configs.chat import TEMPLATES
from data.chat.encoding import FILE, ChatEncoder, template_of
from data.chat.templates import Template
from data.files import path_of, to_path
from data.local import parse_object
from data.tokenizer import Tokenizer
from launch.converted import is_published, published_files

KEY = "template"  # of a section `data`


def filled(data: Any) -> Any:
    """A section `data` whose template is Jinja source, if it has a template: the section itself
    where nothing has to be replaced."""
    value = data.get(KEY, "")
    if not value or (source := source_of(value)) == value:
        return data
    made = data.copy_and_resolve_references()
    made[KEY] = source
    return made


def source_of(value: str, key: str = "data.template") -> str:
    """The Jinja source that `value` names: a template of configs/chat.py, a .jinja file or a
    tokenizer_config.json; source stays as it is. ValueError or FileNotFoundError names `key`."""
    if "{{" in value or "{%" in value:
        return value
    if value in TEMPLATES:
        return TEMPLATES[value]
    known = f"use {', '.join(TEMPLATES)}, or the path of a .jinja file or a tokenizer_config.json"
    if to_path(value).suffix not in (".jinja", ".json"):
        raise ValueError(f"{key}={value!r} is unknown; {known}")
    path = path_of(value, key)
    if not path.is_file():
        raise FileNotFoundError(f"{key}={value!r} does not exist; {known}")
    source = read(path)
    if not source:
        raise ValueError(f"{key}={value!r} has no chat_template; {known}")
    return source


def read(path: Path) -> str:
    """The source in a .jinja file, or in a tokenizer_config.json together with the tokens that it
    names; '' if that has none."""
    try:
        if path.suffix == ".jinja":
            return path.read_text(encoding="utf-8")
    except ValueError as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    about = _object(path)
    source = about.get("chat_template") or ""
    if isinstance(source, list):  # several, with names
        named = {one.get("name"): one.get("template") for one in source if isinstance(one, dict)}
        source = named.get("default") or ""
    if not isinstance(source, str):
        raise ValueError(f"{path} has a chat_template that is no text")
    return f"{_tokens(about)}{source}" if source else ""


def _object(path: Path) -> dict:
    try:
        return parse_object(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} cannot be read: {error}") from None


def _tokens(about: dict) -> str:
    """Jinja that gives bos_token and eos_token the names that a tokenizer_config.json has."""
    lines = []
    for name in ("bos_token", "eos_token"):
        value = about.get(name)
        value = value.get("content") if isinstance(value, dict) else value
        if isinstance(value, str) and value:
            lines.append(f"{{%- set {name} = {json.dumps(value, ensure_ascii=False)} -%}}")
    return "".join(lines)


def of_run(run: Path) -> Template:
    """The template of a run's folder: that of its data, or that of the checkpoint it was converted
    from; or of a folder of Hugging Face weights. ValueError if it has none."""
    if (found := _found(run)) is None:
        why = (
            "its tokenizer_config.json has no chat_template, and there is no chat_template.jinja"
            if is_published(run)
            else "it was trained neither on conversations nor on another kind of data with "
            "data.template"
        )
        raise ValueError(f"run={run} has no chat template: {why}")
    return template_of(*found)


def _found(run: Path) -> tuple[str, str] | None:
    """(the source of a folder's template, the name of its file). ValueError for a damaged file."""
    published = published_files(run)
    about = published / "tokenizer_config.json"
    for path in (run / FILE, published / FILE, about):
        if path.is_file() and (source := read(path)):
            if path == published / FILE and about.is_file():  # names the tokens of both files
                source = f"{_tokens(_object(about))}{source}"
            return source, path.name
    return None


def prompt_of(
    run: Path, tokenizer: Tokenizer, text: str, chat: bool | None = None, before: str = ""
) -> tuple[list[int], set[int]]:
    """(the tokens that a sample of a run continues, the tokens that end it besides the usual ones).

    With `chat` the text is a user's message; None: if the run was trained with a template. An empty
    text begins a new document. `before` is untrusted text, such as passages, to put before it: no
    string in it becomes a special token."""
    trained = (run / FILE).is_file() and not is_published(run)
    if text and (trained if chat is None else chat):
        encoder = encoder_of(run, tokenizer)
        return encoder.prompt([{"role": "user", "content": before + text}]).tolist(), {encoder.end}
    typed = tokenizer.encode_prompt(text).tolist()
    if before:
        quoted = tokenizer.encode(before)
        if np.array_equal(quoted, tokenizer.encode_prompt(before)):
            typed = tokenizer.encode_prompt(before + text).tolist()
        else:
            typed = [*quoted.tolist(), *typed]
    return [*tokenizer.prefix, *typed] or [tokenizer.eod], set()


def has_template(run: Path) -> bool:
    """Whether a folder has a template. ValueError for a damaged one."""
    return _found(run) is not None


def encoder_of(run: Path, tokenizer: Tokenizer) -> ChatEncoder:
    """What encodes conversations for a run, with the token that ends an answer; raises what
    `of_run` raises."""
    return ChatEncoder(tokenizer, of_run(run))
