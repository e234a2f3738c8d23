"""Reads conversations and preferences from .jsonl files, one in each line.

    {"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}
    {"conversations": [{"from": "human", "value": "…"}, {"from": "gpt", "value": "…"}]}   ShareGPT
    {"instruction": "…", "input": "…", "output": "…"}                                     Alpaca

    {"prompt": "…", "chosen": "…", "rejected": "…", "margin": 1.0}      strings, or messages

The format of each line follows from its keys. `input` may be missing, and so may `margin`. If
`chosen` and `rejected` are lists of messages without a `prompt`, the messages that they begin with
in common are the prompt; with a `prompt`, answers may begin with it. Files may be compressed.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from data.chat.templates import ROLES, Message
from data.files import path_of
from data.sources import corpus
from data.sources.compression import ending, naming_damage, open_file
from data.sources.formats import json_lines

JSON_LINES = (".jsonl", ".jsonlines", ".ndjson")
NAMES = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "model": "assistant"}
FORMATS = "messages; conversations (ShareGPT); instruction and output (Alpaca)"


class Conversation(NamedTuple):
    """Messages, and where they are: file and line."""

    where: str
    messages: list[Message]


class Preference(NamedTuple):
    """A prompt with two answers, as messages. `margin` says by how much the first is better."""

    where: str
    prompt: list[Message]
    chosen: list[Message]
    rejected: list[Message]
    margin: float


def conversations(spec: str) -> Iterator[Conversation]:
    """The conversations of a file. FileNotFoundError or ValueError, naming file and line, for what
    cannot be read, an unknown role and an empty message."""
    for where, row in _rows(spec):
        yield Conversation(where, _conversation(where, row))


def preferences(spec: str) -> Iterator[Preference]:
    """The preferences of a file; raises what `conversations` raises."""
    for where, row in _rows(spec):
        row = row if isinstance(row, dict) else {}
        if missing := [key for key in ("chosen", "rejected") if key not in row]:
            keys = ", ".join(map(str, row)) or "none"
            raise ValueError(f"{where} has no {missing[0]!r}; its keys: {keys}")
        prompt = _messages(where, "prompt", row["prompt"], "user") if "prompt" in row else []
        chosen, rejected = (_messages(where, key, row[key], "assistant")
                            for key in ("chosen", "rejected"))  # fmt: skip
        if "prompt" not in row:
            prompt = _common(chosen, rejected)
            chosen, rejected = chosen[len(prompt) :], rejected[len(prompt) :]
        else:
            chosen, rejected = (_after(prompt, answer) for answer in (chosen, rejected))
        if not prompt:
            raise ValueError(
                f"{where} has no prompt, and its answers begin with no message in common; add it"
            )
        for key, answer in (("chosen", chosen), ("rejected", rejected)):
            if not answer or answer[0]["role"] != "assistant":
                found = f"begins with the role {answer[0]['role']!r}" if answer else "is empty"
                raise ValueError(
                    f"{where}: {key!r} {found} after the prompt; use messages of the assistant"
                )
        margin = row.get("margin") or 0.0
        if not isinstance(margin, int | float) or not math.isfinite(margin):
            raise ValueError(f"{where} has the margin {margin!r}, which is no finite number")
        yield Preference(where, prompt, chosen, rejected, float(margin))


def identity(spec: str) -> list:
    """What changes when a file does: its name, size and time. Reads no text."""
    return [str(_file(spec).resolve()), corpus.identity(spec)]


def _file(spec: str) -> Path:
    path = path_of(spec, "data.corpora")
    if not path.is_file():
        raise FileNotFoundError(
            f"data.corpora: the file {str(path)!r} does not exist; give a .jsonl, or task:NAME"
        )
    if ending(path) not in JSON_LINES:
        raise ValueError(f"data.corpora={spec!r} is no {', '.join(JSON_LINES)}")
    return path


def _rows(spec: str) -> Iterator[tuple[str, Any]]:
    path, found = _file(spec), False
    with naming_damage(path), open_file(path) as stream:
        for found_at in json_lines(stream, path):
            found = True
            yield found_at
    if not found:
        raise ValueError(f"data.corpora={spec!r} is empty; name a file with some lines")


def _conversation(where: str, row: Any) -> list[Message]:
    row = row if isinstance(row, dict) else {}
    if "messages" in row:
        return _messages(where, "messages", row["messages"])
    if "conversations" in row:
        listed = row["conversations"]
        if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
            raise ValueError(f"{where}: 'conversations' is no list of objects")
        turns = [{"role": one.get("from"), "content": one.get("value")} for one in listed]
        return _messages(where, "conversations", turns)
    if "instruction" in row and "output" in row:
        for key in ("instruction", "input"):
            if not isinstance(row.get(key) or "", str):
                raise ValueError(f"{where}: {key!r} is no text")
        asked = "\n\n".join(filter(None, (row["instruction"], row.get("input"))))
        said = [("user", asked), ("assistant", row["output"])]
        if row.get("system"):
            said.insert(0, ("system", row["system"]))
        return _messages(where, "output", [{"role": r, "content": c} for r, c in said])
    keys = ", ".join(map(str, row)) or "none"
    raise ValueError(f"{where} is no conversation: its keys are {keys}; known formats: {FORMATS}")


def _messages(where: str, key: str, value: Any, role: str = "") -> list[Message]:
    """The messages under a key: a list of them or, if a role is given, one of them or its text."""
    if role and isinstance(value, str):
        value = [{"role": role, "content": value}]
    value = [value] if role and isinstance(value, dict) else value
    if not isinstance(value, list) or not value:
        raise ValueError(f"{where}: {key!r} is no list of messages; use role and content in each")
    return [message for message in (_message(where, one) for one in value) if message]


def _message(where: str, one: Any) -> Message | None:
    """A message; None for a system message without text, which says nothing."""
    one = one if isinstance(one, dict) else {}
    role, content = one.get("role"), one.get("content")
    role = NAMES.get(role, role) if isinstance(role, str) else None
    if role not in ROLES:
        known = ", ".join((*ROLES, *NAMES))
        raise ValueError(f"{where} has a message of the role {role!r}; use one of {known}")
    if isinstance(content, list):  # parts, of which text is read
        texts = [part.get("text") for part in content if isinstance(part, dict)]
        content = "".join(texts) if len(texts) == len(content) and all(
            isinstance(text, str) for text in texts) else None  # fmt: skip
    if not isinstance(content, str):
        raise ValueError(f"{where} has a message of the role {role!r} whose content is no text")
    if not content.strip():
        if role == "system":
            return None
        raise ValueError(f"{where} has an empty message of the role {role!r}; fill or delete it")
    # JSON can contain half a surrogate pair, which UTF-8 cannot encode.
    text = content.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    return {"role": role, "content": text}


def _after(prompt: Sequence[Message], answer: Sequence[Message]) -> list[Message]:
    """An answer without the prompt, with which some files begin it again."""
    repeated = list(answer[: len(prompt)]) == list(prompt)
    return list(answer[len(prompt) :] if repeated else answer)


def _common(one: Sequence[Message], other: Sequence[Message]) -> list[Message]:
    """The messages that both begin with, up to the last answer of the shorter one."""
    count = 0
    for mine, theirs in zip(one[:-1], other[:-1], strict=False):
        if mine != theirs:
            break
        count += 1
    return list(one[:count])
