"""Tests `isoflop quantise` and `isoflop convert --to_gguf` end to end, on one tiny run."""

import json
import math
import shutil
import sys

import numpy as np
import pytest

from configs import base
from configs.chat import TEMPLATES
from data import tokenizer as tokenizers
from data.chat.templates import render
from launch.__main__ import main
from launch.chat import opened, template
from launch.evaluation.scored_model import open_model
from launch.quantising import cases, measured, quantised
from launch.trial import run as trial
from launch.trial.start import of_run
from model.quantised import model as kernels
from scaling.report.precision import precision_page
from tests.launch.trial.test_trial import TINY
from tests.model import golden

LLAMA = {
    "model.norm": "rmsnorm", "model.positions": "rotary", "model.activation": "silu",
    "model.gated": True, "model.attention_bias": False, "model.mlp_bias": False,
}  # fmt: skip
TALK = [{"role": "system", "content": "be"}, {"role": "user", "content": "or <|im_end|> not"}]


@pytest.fixture(scope="module")
def home(text_folder, compiled_once):
    """A folder with text.txt and a run on it, with a chat template."""
    config = base.get_config()
    keys = {"data.corpora": (f"{text_folder}/text.txt",), "data.cache": f"{text_folder}/cache"}
    keys |= {"data.validation": 0.2, "log.tensorboard": False} | TINY | LLAMA
    keys |= {"train.duration": "60 steps", "optimizer.learning_rate": 0.02}
    config.update_from_flattened_dict(keys)
    assert trial.run(config, text_folder / "run") == 0
    (text_folder / "run" / "chat_template.jinja").write_text(TEMPLATES["chatml"])
    return text_folder


@pytest.fixture(scope="module")
def int4(home):
    """(the quantised run, what the verb wrote of it)."""
    (home / "run" / "imports").mkdir()
    (home / "run" / "imports" / "own.py").write_text("MINE = 1\n")
    argv = [
        str(home / "run"),
        f"--to={home / 'int4'}",
        "--format=int4",
        f"--json={home / 'a.json'}",
    ]
    assert main(["quantise", *argv]) == 0
    return home / "int4", json.loads((home / "a.json").read_text())


@pytest.mark.slow
def test_the_change_is_that_of_both_evaluations(home, int4, tmp_path, capsys):
    run, about = int4
    losses = []
    for name in (home / "run", run):
        argv = [f"--run={name}", "--ngram=0", f"--json={tmp_path / 'e.json'}"]
        assert main(["evaluate", *argv]) == 0
        losses.append(json.loads((tmp_path / "e.json").read_text())["eval_loss"])
    assert losses == pytest.approx([about["loss_before"], about["loss"]], rel=1e-5)
    assert about["degradation"] == pytest.approx(losses[1] - losses[0], abs=1e-5)
    # Paired: the same sequences are hard for both models.
    assert 0 < about["degradation_se"] < 0.5 * math.hypot(about["loss_se"], about["loss_before_se"])
    assert 4.5 <= about["bits"] < 6 and about["bytes"] < 0.8 * about["bytes_before"]


@pytest.mark.slow
def test_the_loss_of_packed_rows_is_that_of_evaluate(home, tmp_path):
    """And GPTQ reads them packed."""
    words = (home / "text.txt").read_text().split()
    lines = [json.dumps({"text": f"{word[0]}{i}"}) for i, word in enumerate(words[:3000])]
    (tmp_path / "text.jsonl").write_text("\n".join(lines))
    config = base.get_config()
    keys = {"data.corpora": (f"{tmp_path}/text.jsonl",), "data.cache": f"{tmp_path}/cache"} | TINY
    keys |= {"data.validation": 0.2, "log.tensorboard": False, "data.rows": "packed"}
    keys |= {"optimizer.learning_rate": 0.02}
    config.update_from_flattened_dict(keys | LLAMA)
    assert trial.run(config, tmp_path / "run") == 0
    wanted, about = tmp_path / "e.json", tmp_path / "a.json"
    argv = [str(tmp_path / "run"), f"--to={tmp_path / 'int2'}", "--format=int2", f"--json={about}"]
    assert main(["quantise", *argv, "--calibrate=gptq", "--calibration=8"]) == 0
    assert main(["evaluate", f"--run={tmp_path / 'run'}", "--ngram=0", f"--json={wanted}"]) == 0
    found = json.loads(about.read_text())["loss_before"]
    assert found == pytest.approx(json.loads(wanted.read_text())["eval_loss"], rel=1e-5)
    model = open_model(tmp_path / "run")
    batches = measured.texts(model, 0, 2, 0)
    plain = [{k: x for k, x in b.items() if k != "segments"} for b in batches.validation]
    control = measured.losses(model, model.fitted, plain)
    assert control[:, 0].sum() / control[:, 1].sum() != pytest.approx(found, rel=1e-4)
    assert batches.calibration[0]["segments"].max() > 1


@pytest.mark.slow
def test_other_verbs_read_it(home, int4, capsys):
    run, _ = int4
    for name in ("imports/own.py", "chat_template.jinja", "tokenizer/tokenizer.json"):
        assert (run / name).read_bytes() == (home / "run" / name).read_bytes()
    assert quantised.is_quantised(run) and not quantised.is_quantised(home / "run")
    assert main(["score", f"--run={run}", "--text=to be"]) == 0
    found = open_model(run)
    assert kernels.is_kernel(found.fitted["blocks"]["mlp"]["up"]["kernel"])
    dense, _ = of_run(run)  # what convert and train.init_from read
    wanted = kernels.dense(found.fitted)["blocks"]["mlp"]["up"]["kernel"]
    np.testing.assert_array_equal(dense["blocks"]["mlp"]["up"]["kernel"], wanted)
    capsys.readouterr()
    assert main(["quantise", str(run), f"--to={home / 'again'}"]) == 2
    assert "is quantised already" in capsys.readouterr().err


@pytest.mark.slow
def test_it_samples_and_chats(int4):
    """By steps, from the codes."""
    run, _ = int4
    assert main(["sample", f"--run={run}", "--prompt=", "--tokens=3", "--nostream"]) == 0
    assert opened.open_run(run).model.params


@pytest.mark.slow
def test_a_curve_has_every_run_and_format(home, tmp_path, without_pictures, capsys):
    argv = [str(home / "run"), "--format=int2,int4", "--calibrate=none,gptq", "--calibration=8"]
    assert main(["quantise", *argv, f"--curve={tmp_path / 'curve'}", "--sequences=8"]) == 0
    about = json.loads((tmp_path / "curve" / "precision.json").read_text())
    ways = [(point["format"], point["calibrate"]) for point in about["points"]]
    assert ways == [("int2", ""), ("int2", "gptq"), ("int4", ""), ("int4", "gptq")]
    assert {point["sequences"] for point in about["points"]} == {8}
    lost = [point["degradation"] for point in about["points"]]
    assert lost[0] > lost[2] and lost[1] < lost[0]  # fewer bits lose more; GPTQ loses less
    header, *rows = (tmp_path / "curve" / "precision.csv").read_text().splitlines()
    assert header == "run,params,tokens,bits,degradation,degradation_se" and rows


def test_a_single_sequence_has_no_standard_error(capsys):
    one, two = np.array([[30.0, 15.0]]), np.array([[33.0, 15.0], [31.0, 12.0]])
    about = measured.compared(one, two[:1])
    assert about["degradation"] == pytest.approx(0.2) and about["degradation_se"] is None
    assert measured.compared(two, two[::-1])["loss_se"] > 0  # control
    json.dumps(about, allow_nan=False)
    size = {"params": 9, "bits": 4.5, "bytes": 1, "bytes_before": 2}
    point = {"run": "a", "format": "int4", "calibrate": "", "activations": ""} | size | about
    cases.show([point])
    assert "—" in capsys.readouterr().out
    assert "<td>—</td>" in precision_page.table([point])


@pytest.mark.slow
def test_decoding_is_timed_by_turns(home):
    found = open_model(home / "run")
    seconds = measured.decode_seconds(found, {"a": found.fitted, "b": found.fitted}, 4, repeats=2)
    assert seconds.keys() == {"a", "b"} and min(seconds.values()) > 0


def test_published_weights_are_quantised_without_a_loss(tmp_path, capsys):
    """A converted run names no text: GPTQ and a curve need it, rounding to nearest does not."""
    run = tmp_path / "run"
    assert main(["convert", f"--from_hf={golden.FOLDER / 'hf' / 'llama_gqa'}", f"--to={run}"]) == 0
    assert main(["quantise", str(run), f"--to={tmp_path / 'int8'}", "--format=int8"]) == 0
    said = capsys.readouterr()
    assert "so no loss can be measured" in said.err and "—" in said.out
    assert quantised.is_quantised(tmp_path / "int8")
    argv = [str(run), f"--to={tmp_path / 'gptq'}", "--calibrate=gptq"]
    assert main(["quantise", *argv]) == 2
    error = capsys.readouterr().err
    assert "no loss can be measured" in error and not (tmp_path / "gptq").exists()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--to=x", "--format=int1"], "--format='int1' is unknown; use one of int8"),
        (["--to=x", "--calibrate=awq"], "--calibrate='awq' is unknown; use gptq"),
        (["--to=x", "--activations=int4"], "--activations='int4' is unknown; use int8"),
        (["--to=x", "--format=int4,int8"], "is one run; give one --format"),
        (["--to=int4"], "exists already and is not empty"),
        ([], "give --to=RUN for one quantised run, or --curve=DIR"),
    ],
)
def test_bad_input_is_one_line(argv, message, home, int4, monkeypatch, capsys):
    monkeypatch.chdir(home)
    capsys.readouterr()
    assert main(["quantise", "run", *argv]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not (home / "x").exists()


@pytest.mark.parametrize(
    "argv", [["quantise", "missing", "--to=out"], ["convert", "--from=missing", "--to_gguf=out"]]
)
def test_a_missing_run_is_not_blamed_on_the_output(argv, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert "missing" in error and "cannot be written" not in error and error.count("\n") == 1


@pytest.mark.parametrize(
    "argv", [["quantise", "run", "--to=."], ["convert", "--from=run", "--to_gguf=."]]
)
def test_a_full_folder_has_one_remedy(argv, home, monkeypatch, capsys):
    monkeypatch.chdir(home)
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert "not empty; name a new folder" in error and "name another place" not in error


def test_a_missing_package_is_said_before_anything_is_read(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gguf", None)
    assert main(["convert", f"--from={tmp_path}", f"--to_gguf={tmp_path / 'out'}"]) == 2
    assert "pip install -e '.[gguf]' adds it" in capsys.readouterr().err


def test_a_damaged_quantised_json_is_one_line(home, int4, tmp_path, capsys):
    shutil.copytree(int4[0], tmp_path / "run")
    (tmp_path / "run" / "quantised.json").write_text('{"format": "int4"}')
    assert main(["score", f"--run={tmp_path / 'run'}", "--text=to"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "quantised.json is damaged (it has no key 'groups'); quantise the run again" in error


def test_a_run_becomes_gguf_with_its_template(home, tmp_path, capsys):
    gguf = pytest.importorskip("gguf")
    argv = [f"--from={home / 'run'}", f"--to_gguf={tmp_path / 'out'}", "--gguf_type=f32"]
    assert main(["convert", *argv]) == 0
    reader = gguf.GGUFReader(tmp_path / "out" / "run-f32.gguf")
    field = lambda name: reader.get_field(name).contents()  # noqa: E731
    assert field("general.architecture") == "llama" and field("tokenizer.ggml.model") == "gpt2"
    assert field("tokenizer.ggml.tokens")[255] == "<|im_end|>"
    source = field("tokenizer.chat_template")
    ours = template.encoder_of(home / "run", tokenizers.load(home / "run" / "tokenizer"))
    theirs = template.template_of(source, bos="<|im_end|>", eos="<|im_end|>")
    assert render(theirs, TALK, True) == render(ours.template, TALK, True)
    text = (tmp_path / "out" / "Modelfile").read_text()
    assert 'PARAMETER stop "<|im_end|>"' in text and "<|im_start|>assistant\n" in text
    params, _ = of_run(home / "run")
    embedding = next(t for t in reader.tensors if t.name == "token_embd.weight")
    np.testing.assert_array_equal(embedding.data, params["embed"]["embedding"])
    capsys.readouterr()
    assert main(["convert", *argv]) == 2
    assert "exists already and is not empty" in capsys.readouterr().err


@pytest.mark.slow
def test_an_extended_run_becomes_gguf(home, tmp_path):
    gguf = pytest.importorskip("gguf")
    run, out = tmp_path / "run", tmp_path / "out"
    argv = [f"--run={home / 'run'}", f"--to={run}", "--token=<|a|>", "--token=<|b|>"]
    assert main(["extend", *argv]) == 0
    assert main(["convert", f"--from={run}", f"--to_gguf={out}", "--gguf_type=f32"]) == 0
    tokens = gguf.GGUFReader(out / "run-f32.gguf").get_field("tokenizer.ggml.tokens").contents()
    assert tokens[-2:] == ["<|a|>", "<|b|>"] and len(tokens) == 258


def test_prompts_are_the_tokens_of_training(home, tmp_path):
    pytest.importorskip("llama_cpp", reason="this machine has no llama-cpp-python")
    from tests.model.gguf import llama_logits

    argv = [f"--from={home / 'run'}", f"--to_gguf={tmp_path / 'out'}", "--gguf_type=f32"]
    assert main(["convert", *argv]) == 0
    theirs = llama_logits.Vocabulary(tmp_path / "out" / "run-f32.gguf")
    tokenizer = tokenizers.load(home / "run" / "tokenizer")
    encoder = template.encoder_of(home / "run", tokenizer)
    talk = [{"role": "user", "content": "to be"}, {"role": "assistant", "content": "or"}] * 2
    text = render(encoder.template, talk[:3], add_generation_prompt=True)
    assert theirs.encode(text, special=True) == encoder.prompt(talk[:3]).tolist()
    assert theirs.encode(text) != encoder.prompt(talk[:3]).tolist()  # control: names are text


@pytest.mark.parametrize(
    ("changes", "argv", "message"),
    [
        ({"model.activation": "relu"}, [], "model.activation='relu'"),
        ({"model.vocab_size": 300}, [], "model.vocab_size=300 rows of the embedding for 256"),
        ({}, ["--gguf_type=q4_k"], "--gguf_type='q4_k': the package gguf reads this type but"),
    ],
)
def test_what_gguf_cannot_hold_is_one_line(changes, argv, message, home, tmp_path, capsys):
    shutil.copytree(home / "run", tmp_path / "run")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    for key, value in changes.items():
        section, name = key.split(".")
        config[section][name] = value
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    out = tmp_path / "out"
    assert main(["convert", f"--from={tmp_path / 'run'}", f"--to_gguf={out}", *argv]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not out.exists()
