"""Ollama's Modelfile, with the template of a run's conversations in Ollama's language.

Ollama renders Go templates, not Jinja. `go_template` renders conversations with the Jinja template
that the model was trained on, reads off what stands around each message, and keeps the result only
if it gives the same text for longer conversations: the same template, or none.
"""

import re
from typing import NamedTuple

from data.chat.templates import Messages, Template, render

# Conversations whose text a Go template must give, as the first letters of their roles.
TRIED = ("u", "uau", "uauau", "uauauau", "su", "suau", "suauau")
ROLES = {"s": "system", "u": "user", "a": "assistant"}


class Around(NamedTuple):
    """What a template writes: before the first message, around those of each role, and before the
    answer of the assistant."""

    head: str
    roles: dict[str, tuple[str, str]]  # {role: (before its content, after it)}
    answer: str

    def text(self, messages: Messages) -> str:
        """A conversation up to where the assistant answers."""
        parts = [self.head]
        for message in messages:
            before, after = self.roles[message["role"]]
            parts += [before, message["content"], after]
        return "".join(parts) + self.answer


def around(template: Template) -> Around:
    """What a template writes around messages. ValueError if it is not a fixed text for each role,
    as where the system's message is put into the user's."""
    whole = render(template, _messages("u"), True)
    plain = render(template, _messages("u"))
    two = render(template, _messages("uau"))
    begin, after_user = _around(template, plain, 1)
    if not whole.startswith(plain):
        raise ValueError(_unlike(template))
    _, between, between_back, end = _around(template, two, 3)
    if not between.startswith(after_user) or end != after_user:
        raise ValueError(_unlike(template))
    before_assistant = between[len(after_user) :]
    *_, tail = _around(template, render(template, _messages("ua")), 2)
    if not between_back.startswith(tail):
        raise ValueError(_unlike(template))
    before_user = between_back[len(tail) :]
    if not begin.endswith(before_user):
        raise ValueError(_unlike(template))
    head = begin[: len(begin) - len(before_user)]
    found = {"user": (before_user, after_user), "assistant": (before_assistant, tail)}
    if "system" in template.roles:
        first, second, _ = _around(template, render(template, _messages("su")), 2)
        if not (first.startswith(head) and second.endswith(before_user)):
            raise ValueError(_unlike(template))
        found["system"] = first[len(head) :], second[: len(second) - len(before_user)]
    made = Around(head, found, whole[len(plain) :])
    for order in TRIED:
        if ROLES[order[0]] in found:
            messages = _messages(order)
            if made.text(messages) != render(template, messages, True):
                raise ValueError(_unlike(template))
    return made


def _messages(order: str) -> list[dict[str, str]]:
    return [{"role": ROLES[one], "content": f"content {n}"} for n, one in enumerate(order)]


def _around(template: Template, text: str, count: int) -> list[str]:
    """What stands around the contents of `count` messages. ValueError unless each content is in the
    text once, in order."""
    parts = re.split(r"content \d", text)
    if re.findall(r"content \d", text) != [f"content {n}" for n in range(count)]:
        raise ValueError(_unlike(template))
    return parts


def _unlike(template: Template) -> str:
    return (
        f"the chat template {template.name!r} changes messages or writes them in more than one "
        "way, which a Go template cannot follow; the GGUF file has the Jinja template, the "
        "Modelfile has none"
    )


def go_template(template: Template, begun: bool) -> str:
    """The template in Go's language. `begun`: the program puts the token that begins a text before
    it, so the template must not write it again. ValueError as of `around`."""
    made = around(template)
    head = made.head
    if begun and template.bos:
        head = head.removeprefix(template.bos)
    branches, word = [], "if"
    for role, (before, after) in made.roles.items():
        branches.append(
            f'{{{{ {word} eq .Role "{role}" }}}}{_literal(before)}{{{{ .Content }}}}'
            f"{_literal(after)}"
        )
        word = "else if"
    loop = f"{{{{ range .Messages }}}}{''.join(branches)}{{{{ end }}}}{{{{ end }}}}"
    return f"{_literal(head)}{loop}{_literal(made.answer)}"


def begins(template: Template) -> bool:
    """Whether a template begins a conversation with the token that begins a text."""
    return bool(template.bos) and render(template, _messages("u"), True).startswith(template.bos)


def _literal(text: str) -> str:
    """Text as a Go template writes it."""
    return text.replace("{{", '{{ "{{" }}')


def modelfile(weights: str, template: str, stops: tuple[str, ...], context_length: int) -> str:
    """The Modelfile of a GGUF file in the same folder; "" leaves the template out. ValueError for a
    template with three quotes, which end a text there."""
    if '"""' in template:
        raise ValueError('the template has """, which a Modelfile cannot hold; change it')
    lines = [f"FROM ./{weights}"]
    lines += [f'TEMPLATE """{template}"""'] if template else []
    lines += [f"PARAMETER stop {_quoted(stop)}" for stop in stops]
    return "\n".join([*lines, f"PARAMETER num_ctx {context_length}"]) + "\n"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


RAW = "{{ .Prompt }}"
"""The template of a model that continues text."""
