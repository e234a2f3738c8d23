"""Reads the body of a request of OpenAI's API into prompts and how to continue them."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from data.local import parse_json
from launch.chat.engine import TOP, Engine, TooLong
from launch.chat.opened import Opened
from launch.server.faults import Refused
from model.generation.samplers import Sampler

USUAL = 16  # tokens of a completion by default, as in OpenAI's API
MOST_MESSAGES = 1000
LONGEST = 64  # bytes of text that a token stands for, at most, or those of the longest one if more
MOST_STOPS, MOST_STOP_CHARACTERS = 16, 200
CHAT, TEXT = "chat", "text"

SAMPLED = {"temperature": 1.0, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0}
COMMON = {"model", "max_tokens", *SAMPLED, "top_k", "n", "seed", "stop", "stream",
          "stream_options", "logprobs"}  # fmt: skip
KNOWN = {
    CHAT: {*COMMON, "messages", "max_completion_tokens", "top_logprobs"},
    TEXT: {*COMMON, "prompt"},
}
# Keys that change nothing here, and keys that are refused unless they have a value that does
# nothing.
IGNORED = {"user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"}
NEUTRAL = {
    "frequency_penalty": (0,), "presence_penalty": (0,), "logit_bias": ({},), "echo": (False,),
    "best_of": (1,), "suffix": ("",), "tools": ([],), "tool_choice": ("none", "auto"),
    "response_format": ({"type": "text"},), "parallel_tool_calls": (True, False),
    "modalities": (["text"],),
}  # fmt: skip


@dataclass(frozen=True)
class Query:
    """What a client asks for: `n` continuations of each prompt."""

    kind: str
    prompts: list[list[int]]
    max_tokens: list[int]  # of each prompt
    n: int
    sampler: Sampler
    stops: tuple[str, ...]
    lead: str  # white space before a reply that is no part of it
    seed: int
    top: int | None  # most likely tokens to tell of; None: no log-probabilities at all
    stream: bool
    usage: bool  # whether a stream ends with the usage


def parse(raw: bytes, kind: str, opened: Opened, engine: Engine) -> Query:
    """The query in a body. Refused with 400, or with 404 for an unknown model."""
    try:
        body = parse_json(raw)
    except ValueError as error:
        raise Refused(400, f"the body is not valid JSON: {error}", code="invalid_json") from None
    if not isinstance(body, dict):
        raise Refused(400, "the body is not a JSON object")
    body = {name: value for name, value in body.items() if value is not None}
    _known(body, kind)
    name = _read(body, "model", str)
    if name is None:
        raise Refused(400, f"model is not given; use {opened.name!r}", "model")
    check_model(name, opened)
    prompts = _conversation(body, opened) if kind == CHAT else _prompts(body, opened)
    sampler = Sampler(
        **{name: _real(body, name, usual) for name, usual in SAMPLED.items()},
        top_k=_whole(body, "top_k", 0, 0),
        vocab_size=opened.model.tokenizer.vocab_size,
        stop=tuple(sorted(opened.model.stop)),
    )
    n = _whole(body, "n", 1, 1)
    most = engine.n_slots + min(engine.waiting, 10**6)
    if n * len(prompts) > most:
        raise Refused(400, f"n={n} samples of {len(prompts)} prompts are more than {most}", "n")
    options = _read(body, "stream_options", dict, {})
    return Query(
        kind=kind,
        prompts=prompts,
        max_tokens=[_room(body, kind, prompt, sampler, engine) for prompt in prompts],
        n=n,
        sampler=sampler,
        stops=(*_stops(body), *(opened.turns.stops if kind == CHAT else ())),
        lead=opened.turns.lead if kind == CHAT else "",
        seed=_whole(body, "seed", secrets.randbelow(2**31), -(2**63), 2**63),
        top=_top(body, kind),
        stream=_read(body, "stream", bool, False),
        usage=options.get("include_usage") is not None
        and _read(options, "include_usage", bool, False),
    )


def check_model(name: str, opened: Opened) -> None:
    """Refuses the name of another model with 404."""
    if name != opened.name:
        raise Refused(
            404, f"the model {name!r} does not exist; use {opened.name!r}", "model",
            "model_not_found",
        )  # fmt: skip


def _known(body: Mapping, kind: str) -> None:
    for name, value in body.items():
        if name in NEUTRAL:
            if value not in NEUTRAL[name]:
                raise Refused(400, f"{name} is not supported; leave it out", name, "unsupported")
        elif name not in KNOWN[kind] | IGNORED:
            raise Refused(400, f"{name[:100]!r} is not known; leave it out", name[:100])


def _read(body: Mapping, name: str, types: type | tuple, default: Any = None) -> Any:
    """A value of the body, of one of `types`; a bool is no number."""
    value = body.get(name, default)
    types = types if isinstance(types, tuple) else (types,)
    if value is default:
        return default
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        wanted = " or ".join(kind.__name__ for kind in types)
        raise Refused(400, f"{name} is {type(value).__name__}; it must be {wanted}", name)
    return value


def _whole(body: Mapping, name: str, default: int, least: int, most: int = 2**31 - 1) -> int:
    value = _read(body, name, int, default)
    if not least <= value <= most:
        raise Refused(400, f"{name}={value} is out of range; use {least} to {most}", name)
    return value


def _real(body: Mapping, name: str, default: float) -> float:
    try:
        return float(_read(body, name, (int, float), default))
    except OverflowError:
        raise Refused(400, f"{name} is out of range", name) from None


def _spelled(value: Any, name: str) -> str:
    """A text that can be encoded; lone surrogates cannot."""
    if not isinstance(value, str):
        raise Refused(400, f"{name} is {type(value).__name__}; it must be a text", name)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Refused(400, f"{name} holds half of a surrogate pair", name) from None
    return value


def _conversation(body: Mapping, opened: Opened) -> list[list[int]]:
    """The prompt of `messages`, as a list of one."""
    messages = _read(body, "messages", list)
    if not messages:
        raise Refused(400, "messages is empty; give it a message of the role user", "messages")
    if len(messages) > MOST_MESSAGES:
        line = f"{len(messages)} messages are more than {MOST_MESSAGES}; send the last ones"
        raise Refused(400, line, "messages")
    read = []
    for number, message in enumerate(messages):
        where = f"messages[{number}]"
        if not isinstance(message, dict):
            raise Refused(400, f"{where} is no object", "messages")
        role = message.get("role")
        role = "system" if role == "developer" else role
        if role not in opened.turns.roles:
            known = ", ".join(opened.turns.roles)
            raise Refused(400, f"{where}.role must be one of {known}", "messages")
        given = {name for name, value in message.items() if value is not None}
        if unknown := given - {"role", "content", "name", "refusal", "annotations"}:
            name = sorted(map(str, unknown))[0][:100]
            raise Refused(400, f"{where}.{name} is not supported; leave it out", "messages")
        content = message.get("content")
        content = "" if content is None and role == "assistant" else content
        read.append({"role": role, "content": _content(content, where)})
    _check_size(read, opened)
    try:
        return [opened.turns.prompt(read)]
    except ValueError as error:
        raise Refused(400, str(error), "messages") from None


def _check_size(messages: list[dict[str, str]], opened: Opened) -> None:
    """Refuses texts that cannot fit the context, before they take the time to be encoded."""
    tokenizer = opened.model.tokenizer
    if tokenizer.token_bytes is None:  # a word has any length
        return
    most = opened.length * max(LONGEST, int(tokenizer.token_bytes.max()))
    size = sum(len(message["content"].strip().encode()) for message in messages)
    if size > most:
        line = f"the messages have {size} bytes; the context holds {opened.length} tokens: shorten"
        raise Refused(400, f"{line} the conversation", "messages", "context_length_exceeded")


def _content(content: Any, where: str) -> str:
    """The text of a message, which may come in parts."""
    if isinstance(content, list):
        parts = []
        for part in content:
            if not isinstance(part, dict) or part.get("type") != "text":
                raise Refused(400, f"{where}.content has a part that is no text", "messages")
            parts.append(_spelled(part.get("text"), f"{where}.content"))
        return "".join(parts)
    return _spelled(content, f"{where}.content")


def _prompts(body: Mapping, opened: Opened) -> list[list[int]]:
    """Prompts: one text, several, a list of tokens, or several of them."""
    given, tokenizer = body.get("prompt", ""), opened.model.tokenizer
    is_tokens = isinstance(given, list) and given and not isinstance(given[0], str | list)
    listed = given if isinstance(given, list) and not is_tokens else [given]
    if not listed:
        raise Refused(400, "prompt is an empty list", "prompt")
    prompts = []
    for prompt in listed:
        if isinstance(prompt, list):
            if not all(isinstance(token, int) and not isinstance(token, bool) for token in prompt):
                raise Refused(400, "prompt holds something other than tokens", "prompt")
        else:
            text = _spelled(prompt, "prompt")
            typed = tokenizer.encode_prompt(text).tolist()
            prompt = [*tokenizer.prefix, *typed] or [tokenizer.eod]
        prompts.append(prompt)
    return prompts


def _stops(body: Mapping) -> tuple[str, ...]:
    stops = body.get("stop", [])
    stops = [stops] if isinstance(stops, str) else stops
    if not isinstance(stops, list) or len(stops) > MOST_STOPS:
        raise Refused(400, f"stop must be a text or a list of at most {MOST_STOPS}", "stop")
    for stop in stops:
        if not 0 < len(_spelled(stop, "stop")) <= MOST_STOP_CHARACTERS:
            raise Refused(400, f"a stop text has 1 to {MOST_STOP_CHARACTERS} characters", "stop")
    return tuple(stops)


def _top(body: Mapping, kind: str) -> int | None:
    if kind == TEXT:
        return _whole(body, "logprobs", 0, 0, TOP) if "logprobs" in body else None
    top = _whole(body, "top_logprobs", 0, 0, TOP)
    if _read(body, "logprobs", bool, False):
        return top
    if top:
        raise Refused(400, "top_logprobs needs logprobs: true", "top_logprobs")
    return None


def _room(body: Mapping, kind: str, prompt: list[int], sampler: Sampler, engine: Engine) -> int:
    """Tokens that may be drawn after a prompt."""
    name = "max_completion_tokens" if "max_completion_tokens" in body else "max_tokens"
    room = engine.length - len(prompt)
    usual = max(1, room if kind == CHAT else min(USUAL, room))
    wanted = _whole(body, name, usual, 1)
    try:
        engine.check(prompt, wanted, sampler)
    except TooLong as error:
        where = "messages" if kind == CHAT else "prompt"
        raise Refused(400, str(error), where, "context_length_exceeded") from None
    except ValueError as error:
        raise Refused(400, str(error), str(error).partition("=")[0].partition(" ")[0]) from None
    return wanted
