"""Tests of `isoflop chat` and of drawn answers from a folder of Hugging Face weights."""

import io
import json
import shutil
import sys
from pathlib import Path

import pytest

from configs.chat import TEMPLATES
from data.chat.encoding import FILE
from data.chat.templates import render
from launch.__main__ import main
from launch.chat import template
from tests.launch.chat.runs import DECODER, untrained

LLAMA = DECODER | dict(
    norm="rmsnorm", positions="rotary", activation="silu", gated=True, attention_bias=False,
    mlp_bias=False, tie_embeddings=False, init="normal",
)  # fmt: skip
USER = [{"role": "user", "content": "hi"}]


@pytest.fixture(scope="module")
def home(tmp_path_factory, compiled_once):
    """A run with a chat template, and the folder `weights` that `isoflop convert` writes of it."""
    home = tmp_path_factory.mktemp("published")
    run = untrained(home / "run", LLAMA)
    (run / FILE).write_text(TEMPLATES["chatml"])
    assert main(["convert", f"--from={run}", f"--to_hf={home / 'weights'}"]) == 0
    return home


@pytest.fixture
def weights(home, tmp_path):
    """A copy of the folder that a test may change."""
    return shutil.copytree(home / "weights", tmp_path / "weights")


def talked(folder, capsys, monkeypatch, *flags, code=0):
    """(what is printed, the reply) of one message."""
    file = Path(folder).parent / "said.jsonl"
    file.unlink(missing_ok=True)
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"hi\n/save {file}\n"))
    capsys.readouterr()
    flags = ("--temperature=0", "--tokens=8", *flags)
    assert main(["chat", f"--run={folder}", *flags]) == code
    printed = capsys.readouterr()
    if code:
        return printed.err
    return printed.out, json.loads(file.read_text())["messages"][1]["content"]


@pytest.mark.slow
def test_the_folder_talks_as_the_run_does(home, weights, capsys, monkeypatch):
    assert (weights / FILE).read_text() == TEMPLATES["chatml"]
    _, wanted = talked(home / "run", capsys, monkeypatch)
    shown, reply = talked(weights, capsys, monkeypatch)
    assert reply == wanted and len(reply) >= 4
    assert f"weights: template {FILE}, a context of 96 tokens" in shown
    # The tokens that the template names are those of the tokenizer's own config.
    about = {"chat_template": "{{ bos_token }}" + TEMPLATES["chatml"], "bos_token": "<b>"}
    (weights / "tokenizer_config.json").write_text(json.dumps(about))
    (weights / FILE).unlink()
    assert render(template.of_run(weights), USER).startswith("<b><|im_start|>user\nhi")
    (weights / FILE).write_text(about["chat_template"])
    assert render(template.of_run(weights), USER).startswith("<b><|im_start|>user\nhi")
    shown, _ = talked(weights, capsys, monkeypatch)
    assert f"weights: template {FILE}" in shown


def test_a_folder_without_a_template_says_which_it_gets(weights, capsys, monkeypatch):
    (weights / FILE).unlink()
    shown, plain = talked(weights, capsys, monkeypatch)
    assert "no chat_template in its files: the template plain (--template names others)" in shown
    shown, chatml = talked(weights, capsys, monkeypatch, "--template=chatml")
    assert "template chatml" in shown and chatml != plain


@pytest.mark.slow
def test_tasks_and_samples_are_drawn_from_the_folder_too(home, capsys):
    found = []
    for folder in (home / "run", home / "weights"):
        flags = ["--prompts=2", "--samples=2", "--size=1", "--tokens=4", "--k=1"]
        file = f"--json={home / 'e.json'}"
        argv = ["evaluate", f"--run={folder}", "--tasks=spelling_backwards", *flags, file]
        assert main(argv) == 0
        (task,) = json.loads((home / "e.json").read_text())["tasks"]
        found.append([one["responses"] for one in task["responses"]])
        assert task["template"]
    assert found[0] == found[1]
    drawn = []
    for folder, more in ((home / "run", ["--notemplate"]), (home / "weights", [])):
        argv = ["sample", f"--run={folder}", "--prompt=a", "--tokens=4", "--temperature=0", *more]
        assert main([*argv, f"--json={home / 's.json'}"]) == 0
        drawn.append(json.loads((home / "s.json").read_text())["samples"][0]["tokens"])
    assert drawn[0] == drawn[1]  # as after a conversion: text, unless --template asks for a message


def broken(name, text):
    return lambda folder: (folder / name).write_text(text)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: (w / "tokenizer.json").unlink(), "has no tokenizer: it has no tokenizer.model"),
        (broken("tokenizer.json", "{"), "tokenizer.json is damaged"),
        (lambda w: next(w.glob("*.safetensors")).unlink(), "safetensors"),
        (broken("config.json", '{"model_type": "mamba"}'), "mamba"),
        (broken("config.json", "{"), "; download it again"),
        (broken(FILE, "{% for"), "refuses a conversation"),
        (broken(FILE, "{{ messages }}"), "template"),
    ],
)
def test_a_damaged_folder_is_one_line(change, message, weights, capsys, monkeypatch):
    change(weights)
    err = talked(weights, capsys, monkeypatch, code=2)
    assert message in err and len(err.splitlines()) == 1, err
