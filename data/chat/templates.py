"""Chat templates: how the messages of a conversation become one text.

A message is {"role": "system" | "user" | "assistant", "content": str}. A template is Jinja source,
as the `chat_template` of a tokenizer_config.json, rendered as Hugging Face does in a sandbox that
can neither change what it is given nor reach the machine. A config names a template by
`data.template`: the launcher replaces the name by its source, so `data` reads sources only.

The text of a conversation is cut into pieces: what the template writes, what a message says, and
what the model is trained on, which is each message of the assistant up to its end of the turn:

    USER: Hi          ASSISTANT: Hello!</s>
                                ^^^^^^^^^^^ targets; the prompt of generation ends before them
"""

import functools
import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.sandbox

ROLES = ("system", "user", "assistant")
BOS, EOS = "<s>", "</s>"  # of templates whose tokenizer names no others; see `encoding.py`
# Around the content of message number n, while its place in the text is looked for. These
# characters are reserved for private use, so no text has them.
OPEN, NUMBERED, CLOSE = "\ue000", "\ue001", "\ue002"
_MARKED = re.compile(f"{OPEN}(\\d+){NUMBERED}(.*?){CLOSE}", re.DOTALL)
MOST_TRIES = 32  # renderings of prompts with which a text does not begin
_SPACES = re.compile(r"\s*")

Message = dict[str, str]
Messages = Sequence[Message]


@dataclass(frozen=True)
class Template:
    """A template with the strings that begin a text and end one. `name` is for messages."""

    name: str
    source: str  # Jinja
    bos: str = ""
    eos: str = EOS

    @property
    def stops(self) -> tuple[str, ...]:
        """What ends a turn of the assistant, such as <|im_end|>."""
        return (_stop(self),)

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles that the template can write."""
        return tuple(role for role in ROLES if _has(self, role))


class Piece(NamedTuple):
    """A part of a rendered conversation."""

    text: str
    is_content: bool  # of a message; otherwise the template wrote it
    is_target: bool
    message: int = -1  # the number of the message whose content or target it is


def render(template: Template, messages: Messages, add_generation_prompt: bool = False) -> str:
    """The text of a conversation; with `add_generation_prompt`, up to where the assistant answers.
    ValueError with what the template says if it refuses the conversation."""
    try:
        return _compiled(template.source).render(
            messages=[dict(message) for message in messages],
            add_generation_prompt=add_generation_prompt,
            bos_token=template.bos,
            eos_token=template.eos,
            tools=None,
            documents=None,
        )
    except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError, LookupError) as error:
        roles = ", ".join(dict.fromkeys(message["role"] for message in messages))
        raise ValueError(
            f"the chat template {template.name!r} refuses a conversation of {roles}: {error}; use "
            "another data.template, or change the conversation"
        ) from None


def segments(template: Template, messages: Messages) -> list[tuple[str, bool]]:
    """The rendered text as (text, whether the model is trained on it); neighbours differ in it."""
    found: list[tuple[str, bool]] = []
    for piece in pieces(template, messages):
        if found and found[-1][1] == piece.is_target:
            found[-1] = found[-1][0] + piece.text, piece.is_target
        else:
            found.append((piece.text, piece.is_target))
    return found


def pieces(
    template: Template, messages: Messages, add_generation_prompt: bool = False
) -> list[Piece]:
    """The pieces of the rendered text, in order. ValueError names a role that the template does not
    write, or writes in another way than given, and an answer without an end of its turn."""
    text, spans = _placed(template, messages, add_generation_prompt)
    targets = _targets(template, messages, text, spans)
    edges = sorted({0, len(text)}.union(*spans.values(), *targets.values()))
    said, target = _owners(edges, spans), _owners(edges, targets)
    return [
        Piece(text[begin:end], said[at] >= 0, target[at] >= 0, max(said[at], target[at]))
        for at, (begin, end) in enumerate(itertools.pairwise(edges))
    ]


def _owners(edges: Sequence[int], spans: dict[int, tuple[int, int]]) -> list[int]:
    """The message of the span around each stretch between neighbours of `edges`; -1: none."""
    places = {edge: at for at, edge in enumerate(edges)}
    owners = [-1] * (len(edges) - 1)
    for number, (begin, end) in reversed(spans.items()):
        first, last = places[begin], places[end]
        owners[first:last] = [number] * (last - first)
    return owners


def _placed(
    template: Template, messages: Messages, add_generation_prompt: bool
) -> tuple[str, dict[int, tuple[int, int]]]:
    """(the rendered text, where the content of each message lies in it)."""
    for message in messages:
        if message["role"] not in ROLES:
            known = ", ".join(ROLES)
            raise ValueError(f"the role {message['role']!r} is unknown; use one of {known}")
        if any(mark in message["content"] for mark in (OPEN, NUMBERED, CLOSE)):
            raise ValueError(
                "a message has a character from U+E000 to U+E002, which is reserved; remove it"
            )
    text = render(template, messages, add_generation_prompt)
    # Templates may drop the white space around some contents, mostly around those of some roles.
    for whole in _subsets({message["role"] for message in messages}):
        tried = [m["content"] if m["role"] in whole else m["content"].strip() for m in messages]
        marked = render(template, _numbered(messages, tried), add_generation_prompt)
        if _MARKED.sub(r"\2", marked) == text:
            break
    else:
        marked = render(
            template, _numbered(messages, _kept(template, messages, text)), add_generation_prompt
        )
    spans, read, place = {}, 0, 0
    for match in _MARKED.finditer(marked):
        place += match.start() - read
        number, length = int(match[1]), len(match[2])
        if number in spans:
            _refuse(template, messages[number]["role"], "writes it twice")
        spans[number] = place, place + length
        place, read = place + length, match.end()
    for number, message in enumerate(messages):
        if number not in spans:
            _refuse(template, message["role"], "leaves it out")
    if _MARKED.sub(r"\2", marked) != text:
        _refuse(template, messages[-1]["role"], "changes it")
    return text, spans


def _subsets(roles: set[str]) -> list[set[str]]:
    """All sets of some roles, the largest first."""
    ordered = sorted(roles)
    sizes = range(len(ordered), -1, -1)
    return [set(some) for size in sizes for some in itertools.combinations(ordered, size)]


def _kept(template: Template, messages: Messages, text: str) -> list[str]:
    """The contents as the template writes them: each whole, or without white space around it."""
    kept = []
    for number, message in enumerate(messages):
        marked = [m["content"] for m in messages]
        marked[number] = f"{OPEN}{message['content']}{CLOSE}"
        shown = render(
            template, [m | {"content": c} for m, c in zip(messages, marked, strict=True)]
        )
        whole = shown.replace(OPEN, "").replace(CLOSE, "") == text
        kept.append(message["content"] if whole else message["content"].strip())
    return kept


def _numbered(messages: Messages, contents: Sequence[str]) -> list[Message]:
    return [
        dict(message) | {"content": f"{OPEN}{number}{NUMBERED}{content}{CLOSE}"}
        for number, (message, content) in enumerate(zip(messages, contents, strict=True))
    ]


def _refuse(template: Template, role: str, what: str) -> None:
    raise ValueError(
        f"the chat template {template.name!r} has no place for a message of the role {role!r}: it "
        f"{what}; use another data.template, or drop these messages"
    )


def _targets(
    template: Template, messages: Messages, text: str, spans: dict[int, tuple[int, int]]
) -> dict[int, tuple[int, int]]:
    """Where the model writes in each answer: from the end of its prompt to the end of the turn.

    The prompt is rendered for the first answer with each text before it. Other answers with that
    text have as much of it as a lead, so that long conversations take few renderings: where the
    text does not begin with a prompt, MOST_TRIES.
    """
    found, leads, tries, stop = {}, {}, 0, _stop(template)
    for number, (begin, end) in spans.items():
        if messages[number]["role"] != "assistant":
            continue
        before = spans[number - 1][1] if number else 0
        key = text[before:begin], messages[number - 1]["role"] if number else ""
        if leads.get(key) is None and tries < MOST_TRIES:
            leads[key] = _lead(template, messages[:number], text, begin)
            tries += leads[key] is None
        after = _SPACES.match(text, end).end()
        if not text.startswith(stop, after):
            raise ValueError(
                f"the chat template {template.name!r} does not end every answer with {stop!r}; the "
                "model would never learn to stop. Use another data.template"
            )
        found[number] = begin - (leads.get(key) or 0), after + len(stop)
    return found


def _lead(template: Template, messages: Messages, text: str, begin: int) -> int | None:
    """Characters between the prompt of an answer to `messages` and its content; None if the text
    does not begin with that prompt."""
    try:
        prompt = render(template, messages, add_generation_prompt=True)
    except ValueError:  # the conversation begins with the assistant
        return None
    is_prompt = prompt and text.startswith(prompt) and len(prompt) <= begin
    return begin - len(prompt) if is_prompt else None


@functools.lru_cache(maxsize=64)
def _stop(template: Template) -> str:
    """What the template writes after an answer."""
    answer = f"{OPEN}{CLOSE}"
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": answer}]
    after = render(template, messages).partition(answer)[2].strip()
    if not after:
        raise ValueError(
            f"the chat template {template.name!r} writes nothing after an answer, so the model "
            "could not learn to stop; end the assistant's messages with {{ eos_token }}"
        )
    return after


@functools.lru_cache(maxsize=64)
def _has(template: Template, role: str) -> bool:
    order = {"system": ("system", "user"), "user": ("user",), "assistant": ("user", "assistant")}
    try:
        pieces(template, [{"role": one, "content": f"a {one}"} for one in order[role]])
    except ValueError:
        return False
    return True


class _Generation(jinja2.ext.Extension):
    """The block {% generation %} … {% endgeneration %}, which changes nothing in the text."""

    tags = frozenset({"generation"})

    def parse(self, parser: Any) -> Any:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.Scope(body, lineno=line)


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)


def _to_json(value: Any, indent: int | None = None, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent, **options)


@functools.lru_cache(maxsize=64)
def _compiled(source: str) -> jinja2.Template:
    """The program of a template, in the environment that Hugging Face gives it, without the clock:
    equal conversations make equal texts on every day."""
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise
    return environment.from_string(source)
