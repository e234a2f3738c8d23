"""Tests of `isoflop chat` in the terminal."""

import io
import itertools
import json
import signal
import sys

import jax
import pytest

from data import tokenizer
from data.chat.encoding import FILE
from launch.__main__ import main
from launch.chat import console as consoles
from launch.chat import engine as engines
from launch.chat.conversation import Conversation
from launch.chat.turns import Turns
from launch.verbs.texts import chat
from tests.launch.chat.runs import DECODER, untrained


@pytest.fixture(scope="module")
def run(tmp_path_factory, compiled_once):
    return untrained(tmp_path_factory.mktemp("runs") / "a", DECODER)


def talked(run, lines, monkeypatch, capsys, *flags, code=0):
    """What is printed for lines of input."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
    capsys.readouterr()
    assert main(["chat", f"--run={run}", "--temperature=0", "--tokens=6", *flags]) == code
    printed = capsys.readouterr()
    return printed.out if code == 0 else printed.err


def test_a_conversation_is_kept_saved_and_forgotten(run, tmp_path, monkeypatch, capsys):
    file, again = tmp_path / "c.jsonl", tmp_path / "d.jsonl"
    lines = ["hi", "", "/nonsense", f"/save {file}", f"/save {file}", "/save", "/help", "/reset",
             f"/save {again}", "/quit", "never read"]  # fmt: skip
    text = talked(run, lines, monkeypatch, capsys, "--system=Be good.")
    assert text.startswith("a: a base model, which was trained on no conversations")
    assert "a context of 96 tokens" in text
    saved = json.loads(file.read_text())["messages"]
    assert [m["role"] for m in saved] == ["system", "user", "assistant"]
    assert [m["content"] for m in saved[:2]] == ["Be good.", "hi"]
    for part in ("/nonsense is no command; use one of /help", "3 messages are in",
                 "not saved:", "exists; name another file", "needs the name of a file",
                 "Ctrl-C stops a reply", "the conversation is forgotten"):  # fmt: skip
        assert part in text
    assert [m["role"] for m in json.loads(again.read_text())["messages"]] == ["system"]


def test_the_reply_is_what_sample_draws(run, tmp_path, monkeypatch, capsys):
    file = tmp_path / "c.jsonl"
    talked(run, ["hi", f"/save {file}"], monkeypatch, capsys)
    reply = json.loads(file.read_text())["messages"][1]["content"]
    drawn = tmp_path / "s.json"
    prompt = "USER: hi\nASSISTANT:"
    flags = [f"--run={run}", f"--prompt={prompt}", "--temperature=0", "--tokens=6"]
    assert main(["sample", *flags, f"--json={drawn}"]) == 0
    assert reply.strip() == json.loads(drawn.read_text())["samples"][0]["text"].strip() != ""


def test_replies_cannot_steer_the_terminal(run, monkeypatch, capsys):
    talk = consoles.Console._shown

    def steering(self, request, pieces):
        request.emit(consoles.Piece("\x1b[31mred", ()))
        return talk(self, request, pieces)

    monkeypatch.setattr(consoles.Console, "_shown", steering)
    shown = talked(run, ["hi", "/save \x1b[31m/x"], monkeypatch, capsys)
    assert "[31mred" in shown and "\x1b" not in shown


@pytest.mark.parametrize(
    ("where", "name", "calls"),
    [(consoles.queue.Queue, "get", 2), (Conversation, "ask", 1), (consoles, "visible", 3)],
)
def test_ctrl_c_stops_a_reply_and_the_conversation_goes_on(
    run, tmp_path, monkeypatch, capsys, where, name, calls
):
    """Ctrl-C comes in one of the calls of a function, wherever it is."""
    real, count = getattr(where, name), itertools.count(1)

    def interrupted(*args, **kwargs):
        if next(count) == calls:
            signal.raise_signal(signal.SIGINT)
        return real(*args, **kwargs)

    monkeypatch.setattr(where, name, interrupted)
    file = tmp_path / "c.jsonl"
    shown = talked(run, ["hi", "again", f"/save {file}"], monkeypatch, capsys, "--tokens=30")
    assert "[stopped]" in shown or "limit" in shown
    assert len(json.loads(file.read_text())["messages"]) == 4


def test_bytes_that_are_not_utf_8_end_no_conversation(run, tmp_path, monkeypatch, capsys):
    file = tmp_path / "c.jsonl"
    lines = b"h\xff\nok\n" + f"/save {file}\n".encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines), "utf-8"))
    assert main(["chat", f"--run={run}", "--tokens=6"]) == 0
    assert "holds bytes that are not UTF-8" in capsys.readouterr().out
    assert json.loads(file.read_text())["messages"][0]["content"] == "ok"


def failing(monkeypatch, *calls):
    """Steps of the device that raise, by their number from 1 on; 0: all of them."""
    real, count = engines.slots.advance, itertools.count(1)

    def advance(*args):
        if next(count) in calls or 0 in calls:
            raise RuntimeError("device lost\nfirst line of a stack")
        return real(*args)

    monkeypatch.setattr(engines.slots, "advance", advance)


@pytest.mark.parametrize("step", [1, 3])
def test_a_reply_that_fails_is_one_line_and_takes_nothing_away(
    run, tmp_path, monkeypatch, capsys, step
):
    file = tmp_path / "c.jsonl"
    failing(monkeypatch, 1 + 6 + step)  # of the second reply: one token was drawn to compile
    shown = talked(run, ["hi", "again", "once more", f"/save {file}"], monkeypatch, capsys)
    (line,) = (line for line in shown.splitlines() if "no reply" in line)
    assert line == (
        "no reply: RuntimeError: device lost; the conversation before it is kept: send the message "
        "again"
    )
    said = [m["content"] for m in json.loads(file.read_text())["messages"]]
    assert (said[0], said[2], len(said)) == ("hi", "once more", 4) and said[1] and said[3]


def test_an_engine_that_is_lost_ends_no_conversation(run, tmp_path, monkeypatch, capsys):
    """Neither the step nor a fresh cache can be had: the exit code says that it was an error."""
    file = tmp_path / "c.jsonl"
    failing(monkeypatch, 1 + 6 + 1)
    real, count = engines._emptied, itertools.count(1)
    full = lambda *args: real(*args) if next(count) == 1 else [][0]  # noqa: E731
    monkeypatch.setattr(engines, "_emptied", full)
    lines = ["hi", "again", "and again", f"/save {file}"]
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
    assert main(["chat", f"--run={run}", "--temperature=0", "--tokens=6"]) == 1
    out, err = capsys.readouterr()
    first, second = (line for line in out.splitlines() if "no reply" in line)
    assert first.startswith("no reply: RuntimeError: device lost; the conversation before it")
    assert "the engine has ended (IndexError: list index out of range); start it again" in second
    assert second.endswith("is kept: /save, /quit") and "Traceback" not in out + err
    said = json.loads(file.read_text())["messages"]
    assert (said[0]["content"], len(said)) == ("hi", 2)


def test_a_thread_that_dies_without_a_word_is_noticed(run, monkeypatch, capsys):
    monkeypatch.setattr(consoles, "PATIENCE", 0.05)
    monkeypatch.setattr(engines.Engine, "_next", lambda *_, **__: None)
    shown = talked(run, ["hi"], monkeypatch, capsys)
    assert "no reply: the engine has ended; the conversation before it is kept: /save" in shown


def test_a_cache_that_does_not_fit_is_one_line(run, monkeypatch, capsys):
    pytest.importorskip("launch.server.serving", reason="starlette is not installed")

    def full(*_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating")

    monkeypatch.setattr(chat, "Engine", full)
    assert main(["chat", f"--run={run}", "--serve=0", "--slots=9"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert any(line.startswith("the cache of 9 contexts of 96 tokens takes") for line in lines)
    assert "--slots=9: 9 contexts of 96 tokens do not fit the memory" in lines[-1]
    assert main(["chat", f"--run={run}"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert "--length=96: a context of as many tokens does not fit the memory" in lines[-1]


def test_the_oldest_turns_are_dropped_and_it_says_so(run, monkeypatch, capsys):
    lines = [f"message number {number}" for number in range(4)]
    shown = talked(run, lines, monkeypatch, capsys)
    notes = [line for line in shown.splitlines() if "the model no longer sees" in line]
    assert "the oldest 2 messages" in notes[0] and len(notes) >= 2
    assert "the message has" in talked(run, ["x" * 96], monkeypatch, capsys)


def test_the_system_prompt_stays_when_turns_are_dropped(run):
    turns = Turns(run, tokenizer.from_spec("bytes"))
    talk = Conversation(turns, 70, "Be good.")
    for number in range(5):
        prompt = bytes(talk.ask(f"number {number}")).decode("latin-1")
        talk.answer("yes")
        assert prompt.startswith("Be good.\nUSER: number") and len(prompt) <= 70
        assert prompt.endswith(f"USER: number {number}\nASSISTANT:")
    assert talk.dropped == 8 - 2 and len(talk.messages) == 10
    before = list(talk.messages)
    with pytest.raises(ValueError, match="the context leaves room for 70"):
        talk.ask("x" * 70)
    assert talk.messages == before
    talk.reset()
    assert (talk.messages, talk.dropped) == ([], 0)
    with pytest.raises(ValueError, match="leaves room"):
        Conversation(turns, 20, "a long system prompt")


def test_the_template_is_the_runs(run, monkeypatch, capsys):
    source = (
        "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}{{ eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    (run / FILE).write_text(source)
    try:
        turns = Turns(run, tokenizer.from_spec("bytes"))
        messages = [{"role": "user", "content": "hi"}]
        assert bytes(turns.prompt(messages)) == b"[user] hi\xff[assistant]"
        assert (turns.trained, turns.lead, turns.stops, turns.end) == (True, " ", (), 255)
        shown = talked(run, [], monkeypatch, capsys)
        assert f"template {FILE}" in shown and "base model" not in shown
        other = talked(run, [], monkeypatch, capsys, "--template=chatml")
        assert "template chatml" in other
    finally:
        (run / FILE).unlink()


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--run=setup.py"], "--run=setup.py holds no config.json; give it the folder of a run"),
        (["--stop="], "--stop= is empty"),
        (["--system=\udcff"], r"--system='\udcff' is not UTF-8"),
        (["--slots=3"], "--slots=3 means nothing here: it is for --serve"),
        (["--serve=0", "--system=x"], "--system=x means nothing here: each request has its own"),
        (["--serve=0", "--slots=0"], "--slots=0 is out of range"),
        (["--serve=0", "--host=0.0.0.0"], "--host=0.0.0.0 lets other machines in; set"),
        (["--serve=99999"], "--serve=99999 is no port; use 0 to 65535"),
        (["--template=nonsense"], "--template='nonsense' is unknown; use plain, chatml"),
        (["--length=97"], "--length=97 exceeds model.context_length=96"),
        (["--top_p=2"], "top_p=2.0 is out of range"),
        (["--system=" + "x" * 96], "the context leaves room for"),
    ],
)
def test_bad_flags_are_one_line(run, monkeypatch, capsys, flags, text):
    monkeypatch.delenv("ISOFLOP_TOKEN", raising=False)
    if "--serve" in flags[0]:
        argv = ["chat", f"--run={run}", *flags]
        assert main(argv) == 2
        error = capsys.readouterr().err
    else:
        error = talked(run, [], monkeypatch, capsys, *flags, code=2)
    assert text in error and len(error.splitlines()) == 1
