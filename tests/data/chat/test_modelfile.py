"""Tests Ollama's templates: they write what the Jinja template writes, or there is none."""

import re

import jinja2
import pytest

from configs.chat import TEMPLATES
from data.chat import modelfile
from data.chat.templates import Template, render

TALKS = ("u", "uau", "uauauauau", "su", "suauau")


def talk(order: str) -> list[dict[str, str]]:
    return [
        {"role": modelfile.ROLES[one], "content": f"Say {n}: {{x}} {one}?"}
        for n, one in enumerate(order)
    ]


def run_go(source: str, messages: list[dict[str, str]]) -> str:
    """The text of a Go template of the few forms that `go_template` writes, by way of Jinja."""
    forms = (
        (r'\{\{ "\{\{" \}\}', "\x00"),
        (r"\{\{ range \.Messages \}\}", "{% for m in messages %}"),
        (r'\{\{ if eq \.Role "(\w+)" \}\}', r"{% if m.role == '\1' %}"),
        (r'\{\{ else if eq \.Role "(\w+)" \}\}', r"{% elif m.role == '\1' %}"),
        (r"\{\{ \.Content \}\}", "{{ m.content }}"),
        (r"\{\{ end \}\}\{\{ end \}\}", "{% endif %}{% endfor %}"),
    )
    for pattern, text in forms:
        source = re.sub(pattern, lambda m, text=text: m.expand(text), source)
    made = jinja2.Environment(keep_trailing_newline=True).from_string(source)
    return made.render(messages=messages).replace("\x00", "{{")


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("begun", [False, True])
def test_go_templates_write_the_same_text(name, begun):
    template = Template(name, TEMPLATES[name], "<s>", "</s>")
    source = modelfile.go_template(template, begun)
    for order in TALKS:
        if order[0] == "s" and "system" not in template.roles:
            continue
        wanted = render(template, talk(order), add_generation_prompt=True)
        wanted = wanted.removeprefix("<s>") if begun else wanted
        assert run_go(source, talk(order)) == wanted, order


def test_braces_of_a_template_stay_braces():
    template = Template("braces", "{{ '{{' }}" + TEMPLATES["plain"], "<s>", "</s>")
    assert run_go(modelfile.go_template(template, False), talk("u")).startswith("{{<s>USER: Say 0")


@pytest.mark.parametrize(
    "source",
    [
        # The system's message inside the user's, as in Llama 2; the last message apart; a content
        # that is changed; one that is written twice; one that is left out.
        "{% for m in messages %}{% if m.role == 'user' %}[{% if loop.index0 == 1 and "
        "messages[0].role == 'system' %}{{ messages[0].content }}|{% endif %}{{ m.content }}]"
        "{% elif m.role == 'assistant' %}{{ m.content + eos_token }}{% endif %}{% endfor %}",
        "{% for m in messages %}{{ loop.last }}{{ m.content + eos_token }}{% endfor %}",
        "{% for m in messages %}{{ m.content|upper + eos_token }}{% endfor %}",
        "{% for m in messages %}{{ m.content + m.content + eos_token }}{% endfor %}",
        "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}",
    ],
)
def test_templates_that_a_go_template_cannot_follow_are_refused(source):
    with pytest.raises(ValueError, match="'mine' changes messages or writes them in more than one"):
        modelfile.go_template(Template("mine", source, "", "</s>"), False)


def test_a_template_without_a_system_is_written_without_one():
    source = "{% for m in messages if m.role != 'system' %}{{ m.content + eos_token }}{% endfor %}"
    template = Template("mine", source, "", "</s>")
    made = modelfile.go_template(template, False)
    assert 'eq .Role "user"' in made and 'eq .Role "system"' not in made
    assert run_go(made, talk("uau")) == render(template, talk("uau"), True)


def test_a_modelfile_has_the_template_and_its_stops():
    text = modelfile.modelfile("a.gguf", "{{ .Prompt }}", ('<|"end"|>',), 64)
    assert text.splitlines() == [
        "FROM ./a.gguf", 'TEMPLATE """{{ .Prompt }}"""', r'PARAMETER stop "<|\"end\"|>"',
        "PARAMETER num_ctx 64",
    ]  # fmt: skip
    assert "TEMPLATE" not in modelfile.modelfile("a.gguf", "", (), 64)
    with pytest.raises(ValueError, match="cannot hold"):
        modelfile.modelfile("a.gguf", '"""', (), 64)
