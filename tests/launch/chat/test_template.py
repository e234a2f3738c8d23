"""Tests how templates are named, saved in runs and used by `isoflop sample`; and SFT end to end."""

import json
from pathlib import Path

import pytest

from configs import base
from configs.chat import TEMPLATES
from data import tokenizer as tokenizers
from data.chat.templates import render
from launch.__main__ import main
from launch.chat import template
from launch.converted import KEPT
from launch.trial.identity import trial_id
from launch.trial.resolve import prepare, resolve

ROOT = Path(__file__).parents[2]
USER = [{"role": "user", "content": "Hi"}]
SMALL = (
    "--config.model.d_model=8", "--config.model.n_heads=1", "--config.model.n_layers=1",
    "--config.model.context_length=40", "--config.train.batch_size=4", "--config.eval.sequences=4",
    "--config.eval.batch_size=4", "--config.train.duration=2 steps",
    "--config.log.tensorboard=False",
    "--config.schedule.warmup=0 steps",
)  # fmt: skip


def test_names_files_and_sources_are_resolved(tmp_path):
    assert template.source_of("chatml") == TEMPLATES["chatml"]
    assert template.source_of(TEMPLATES["gemma"]) == TEMPLATES["gemma"]
    (tmp_path / "a.jinja").write_text(TEMPLATES["llama3"])
    assert template.source_of(str(tmp_path / "a.jinja")) == TEMPLATES["llama3"]
    about = {"chat_template": TEMPLATES["mistral"], "bos_token": "<b>",
             "eos_token": {"content": 'e"{}'}}  # fmt: skip
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(about))
    source = template.source_of(str(tmp_path / "tokenizer_config.json"))
    talk = [*USER, {"role": "assistant", "content": "Yes"}]
    assert render(template.template_of(source), talk) == '<b>[INST] Hi [/INST]Yese"{}'
    several = [{"name": "tools", "template": "x"}, {"name": "default", "template": "{{ 1 }}"}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": several}))
    assert template.source_of(str(tmp_path / "tokenizer_config.json")) == "{{ 1 }}"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("vicuna", "'vicuna' is unknown; use plain, chatml, llama3, gemma, mistral, or the path"),
        ("no/tokenizer_config.json", "does not exist; use plain"),
        ("empty.json", "has no chat_template; use plain"),
        ("bad.json", "cannot be read"),
    ],
)
def test_unknown_templates_are_named(value, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.json").write_text("{}")
    (tmp_path / "bad.json").write_text("[")
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        template.source_of(value)


def test_a_resolved_config_has_the_source_and_the_id_of_its_name(tmp_path):
    ids = []
    for value in ("chatml", TEMPLATES["chatml"], "plain"):
        config = base.get_config(kind="conversations")
        config.data.update(template=value, cache=str(tmp_path), corpora=("task:sorting",))
        resolved = resolve(config, prepare(config, progress=False))
        ids.append(trial_id(resolved))
        assert "{%" in resolved.data.template
        assert trial_id(resolve(resolved, prepare(resolved, progress=False))) == ids[-1]
    assert ids[0] == ids[1] != ids[2]


def test_the_template_of_a_run(tmp_path):
    with pytest.raises(ValueError, match="has no chat template"):
        template.of_run(tmp_path)
    (tmp_path / KEPT).mkdir()
    about = {"chat_template": TEMPLATES["gemma"], "bos_token": "<bos>"}
    (tmp_path / KEPT / "tokenizer_config.json").write_text(json.dumps(about))
    assert render(template.of_run(tmp_path), USER).startswith("<bos><start_of_turn>user")
    tokenizer = tokenizers.from_spec("bytes")
    # A converted checkpoint continues text unless a template is asked for.
    assert bytes(template.prompt_of(tmp_path, tokenizer, "Hi")[0]) == b"Hi"
    asked, ends = template.prompt_of(tmp_path, tokenizer, "Hi", chat=True)
    assert bytes(asked).endswith(b"<start_of_turn>model\n") and ends == {255}
    (tmp_path / "chat_template.jinja").write_text(TEMPLATES["plain"])
    assert bytes(template.prompt_of(tmp_path, tokenizer, "Hi")[0]) == b"USER: Hi\nASSISTANT:"
    assert bytes(template.prompt_of(tmp_path, tokenizer, "Hi", chat=False)[0]) == b"Hi"
    assert template.prompt_of(tmp_path, tokenizer, "") == ([255], set())


@pytest.mark.slow
def test_sft_from_a_base_model_and_a_sample(tmp_path, capsys):
    text = tmp_path / "text.txt"
    text.write_text("Some text to begin with, which is long enough.\n" * 400)
    runs, cache = tmp_path / "runs", f"--config.data.cache={tmp_path / 'cache'}"
    train = ["train", "--config=configs/base.py", f"--workdir={runs / 'base'}", *SMALL, cache]
    assert main([*train, f"--config.data.corpora={text}", "--config.data.validation=0.3"]) == 0
    tuned = ["train", f"--config=configs/post/sft.py:{runs / 'base'}", f"--workdir={runs / 'sft'}"]
    corpus = "--config.data.corpora=task:letter_counting:examples=80:size=4"
    small = [flag for flag in SMALL if "model." not in flag]
    assert main([*tuned, *small, cache, corpus]) == 0
    result = json.loads((runs / "sft" / "result.json").read_text())
    assert result["predicts"] == "the assistant's tokens" and result["parent"]
    assert (runs / "sft" / "chat_template.jinja").read_text() == TEMPLATES["plain"]
    capsys.readouterr()
    out = tmp_path / "s.json"
    sample = ["sample", f"--run={runs / 'sft'}", "--prompt=Hi", "--tokens=2", f"--json={out}"]
    assert main(sample) == 0
    assert len(json.loads(out.read_text())["samples"][0]["tokens"]) <= 2
    # The tokens of another tokenizer mean nothing to the weights.
    golden = json.loads((ROOT / "golden/chat_templates.json").read_text())["tokenizer"]
    (tmp_path / "tokenizer.json").write_text(json.dumps(golden))
    capsys.readouterr()
    other = f"--config.data.tokenizer={tmp_path / 'tokenizer.json'}"
    assert main([*tuned[:2], f"--workdir={runs / 'other'}", *small, cache, corpus, other]) == 2
    assert "which makes other tokens" in capsys.readouterr().err
    # 19 tokens of prompt leave no room for 30.
    assert main([*sample[:3], "--tokens=30"]) == 2
    assert main([*sample[:3], "--tokens=30", "--notemplate"]) == 0


def test_a_file_without_answers_ends_with_2_and_its_lines(tmp_path, capsys):
    path = tmp_path / "chat.jsonl"
    path.write_text('{"messages": [{"role": "user", "content": "Hi"}]}\n')
    flags = [f"--config.data.corpora={path}", f"--config.data.cache={tmp_path / 'cache'}"]
    run = ["train", "--config=configs/post/sft.py", f"--workdir={tmp_path / 'run'}", *flags]
    assert main(run) == 2
    error = capsys.readouterr().err
    assert "nothing to train on" in error and "chat.jsonl line 1" in error
    assert "Traceback" not in error
