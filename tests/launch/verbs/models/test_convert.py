"""Tests of `isoflop convert`: round trips, sampling from converted runs, and one-line errors."""

import functools
import io
import json
import shutil
import sys
import time

import jax
import numpy as np
import pytest

from data import tokenizer as tokenizers
from launch import alive
from launch.__main__ import main
from launch.converted import end_tokens
from model import families
from model.huggingface import weights
from model.transformer.config import ModelConfig
from model.transformer.decoder import shapes
from tests.model import golden
from train.checkpoint import restore_params

HF = golden.FOLDER / "hf"
CHAT = ("<|user|>", "<|end|>")


def run(*argv: str) -> int:
    return main(["convert", *map(str, argv)])


@pytest.mark.parametrize("case", ["mistral", "phi3_longrope"])
def test_there_and_back(case, tmp_path, capsys):
    """The original family is kept, although llama would fit phi3_longrope as well."""
    assert run(f"--from_hf={HF / case}", f"--to={tmp_path / 'run'}") == 0
    assert run(f"--from={tmp_path / 'run'}", f"--to_hf={tmp_path / 'back'}") == 0
    kept, came = golden.read_all(HF / case), golden.read_all(tmp_path / "back")
    assert kept.keys() == came.keys()
    for name, array in kept.items():
        assert (array.dtype, array.tobytes()) == (came[name].dtype, came[name].tobytes()), name
    assert weights.load(tmp_path / "back")[0] == weights.load(HF / case)[0]
    assert "has no tokenizer.model" in capsys.readouterr().err


def test_the_tokenizers_files_travel_along(tmp_path):
    assert run(f"--from_hf={HF / 'llama_gqa'}", f"--to={tmp_path / 'run'}") == 0
    assert run(f"--from={tmp_path / 'run'}", f"--to_hf={tmp_path / 'back'}") == 0
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        assert (tmp_path / "back" / name).read_bytes() == (HF / "llama_gqa" / name).read_bytes()


def test_a_tokenizer_json_spells_samples(tmp_path, capsys):
    """Its </s> ends a document, and it adds no prefix to a text."""
    assert run(f"--from_hf={HF / 'llama_gqa'}", f"--to={tmp_path / 'run'}") == 0
    tokenizer = tokenizers.load(tmp_path / "run" / "tokenizer")
    assert (tokenizer.kind, tokenizer.eod, tokenizer.prefix) == ("huggingface", 96, ())
    text = "Any ASCII, spelled: {x}~"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    command = [f"--run={tmp_path / 'run'}", "--prompt=Ab", "--tokens=1", "--nostream"]
    assert main(["sample", *command]) == 0
    assert "Ab" in capsys.readouterr().out


def test_a_tokenizer_never_blocks_weights(tmp_path, capsys):
    """A damaged tokenizer and one with more tokens than the model are reported and skipped."""
    shutil.copytree(HF / "llama_gqa", tmp_path / "hf")
    file = tmp_path / "hf" / "tokenizer.json"
    content = json.loads(file.read_bytes())
    content["added_tokens"].append(content["added_tokens"][-1] | {"id": 200, "content": "<x>"})
    for text, fault in (
        ("{}", "tokenizer.json"),
        (json.dumps(content), "tokenizer.json has 201 tokens, more than the model's 97"),
    ):
        file.write_text(text)
        run_folder = tmp_path / f"run{len(text)}"
        assert run(f"--from_hf={tmp_path / 'hf'}", f"--to={run_folder}") == 0
        said = capsys.readouterr().err
        assert fault in said and "[hf]" not in said and "weights are converted" in said
        assert (run_folder / "huggingface" / "tokenizer.json").read_text() == text
        assert main(["sample", f"--run={run_folder}"]) == 2
        said = capsys.readouterr().err
        assert f"run={run_folder} has no tokenizer: " in said and said.count("\n") == 1
        assert fault in said and "mend it and convert again" in said


def test_samples_end_where_the_checkpoint_says(tmp_path):
    """generation_config.json may list more end tokens than config.json, such as a turn's."""
    shutil.copytree(HF / "llama_gqa", tmp_path / "hf")
    (tmp_path / "hf" / "generation_config.json").write_text('{"eos_token_id": [96, 7]}')
    assert run(f"--from_hf={tmp_path / 'hf'}", f"--to={tmp_path / 'run'}") == 0
    assert end_tokens(tmp_path / "run") == {96, 7}
    assert end_tokens(tmp_path / "no_run") == set()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A LLaMA with a SentencePiece tokenizer: its Hugging Face folder, parameters and tokenizer."""
    folder = tmp_path_factory.mktemp("model")
    tokenizer = tokenizers.train("bpe", ["the cat sat on the mat. " * 9] * 9, 280)
    tokenizer.save(folder / "tokenizer")
    cfg = ModelConfig(
        vocab_size=288, context_length=32, n_layers=1, d_model=16, n_heads=2, n_kv_heads=1,
        head_dim=8, d_ff=24, norm="rmsnorm", positions="rotary", activation="silu", gated=True,
        attention_bias=False, mlp_bias=False, tie_embeddings=False,
    )  # fmt: skip
    draw = np.random.default_rng(0).standard_normal
    params = jax.tree.map(lambda leaf: draw(leaf.shape, np.float32), shapes(cfg))
    files = {"tokenizer.model": tokenizer.model}
    weights.save(folder / "hf", cfg, params, extra={"eos_token_id": 1}, files=files)
    return folder / "hf", params, tokenizer


def test_a_converted_model_can_be_sampled(model, tmp_path, capsys):
    source, params, tokenizer = model
    assert run(f"--from_hf={source}", f"--to={tmp_path / 'run'}") == 0
    assert "llama" in capsys.readouterr().out
    found, meta = restore_params(tmp_path / "run" / "checkpoints")
    assert meta["step"] == 0
    jax.tree.map(np.testing.assert_array_equal, found, params)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert families.read(config["model"])[1] == weights.load(source)[0]
    assert tokenizers.load(tmp_path / "run" / "tokenizer").fingerprint == tokenizer.fingerprint
    argv = [f"--run={tmp_path / 'run'}", "--prompt=the cat", "--tokens=1"]
    assert main(["sample", *argv, f"--json={tmp_path / 'sample.json'}"]) == 0
    assert len(json.loads((tmp_path / "sample.json").read_text())["samples"][0]["tokens"]) > 0
    assert run(f"--from={tmp_path / 'run'}", f"--to_hf={tmp_path / 'back'}") == 0
    back = json.loads((tmp_path / "back" / "config.json").read_text())
    assert (back["eos_token_id"], back["bos_token_id"]) == (1, None)
    assert (tmp_path / "back" / "tokenizer.model").read_bytes() == tokenizer.model


def test_a_run_of_ours_takes_its_own_tokenizer_along(model, tmp_path):
    source, params, tokenizer = model
    assert run(f"--from_hf={source}", f"--to={tmp_path / 'run'}") == 0
    shutil.rmtree(tmp_path / "run" / "huggingface")
    assert run(f"--from={tmp_path / 'run'}", f"--to_hf={tmp_path / 'out'}") == 0
    assert json.loads((tmp_path / "out" / "config.json").read_text())["eos_token_id"] == 1
    assert (tmp_path / "out" / "tokenizer.model").read_bytes() == tokenizer.model
    head = golden.read_all(tmp_path / "out")["lm_head.weight"]
    np.testing.assert_array_equal(head.T, params["head"]["kernel"])


@pytest.mark.parametrize("kind", ["bytes", "chars"])
def test_the_tokenizer_of_a_run_survives_a_round_trip(kind, model, tmp_path, capsys):
    """Byte and character tokenizers become a tokenizer.json that converts back to the same one."""
    source = model[0]
    made = tokenizers.from_spec(kind) if kind == "bytes" else tokenizers.train(kind, ["the cat\n"])
    assert run(f"--from_hf={source}", f"--to={tmp_path / 'run'}") == 0
    for folder in ("huggingface", "tokenizer"):
        shutil.rmtree(tmp_path / "run" / folder)
    made.save(tmp_path / "run" / "tokenizer")
    assert run(f"--from={tmp_path / 'run'}", f"--to_hf={tmp_path / 'out'}") == 0
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["eos_token_id"], config["bos_token_id"]) == (made.eod, None)
    capsys.readouterr()
    assert run(f"--from_hf={tmp_path / 'out'}", f"--to={tmp_path / 'back'}") == 0
    assert capsys.readouterr().err == ""
    assert tokenizers.load(tmp_path / "back" / "tokenizer").fingerprint == made.fingerprint
    spec = json.loads((tmp_path / "back" / "config.json").read_text())["data"]["tokenizer"]
    assert tokenizers.from_spec(spec).fingerprint == made.fingerprint
    assert end_tokens(tmp_path / "back") == {made.eod}


def test_a_damaged_tokenizer_keeps_no_weights_back(model, tmp_path, capsys):
    assert run(f"--from_hf={model[0]}", f"--to={tmp_path / 'run'}") == 0
    shutil.rmtree(tmp_path / "run" / "huggingface")
    (tmp_path / "run" / "tokenizer" / "tokenizer.model").write_bytes(b"x")
    assert run(f"--from={tmp_path / 'run'}", f"--to_hf={tmp_path / 'out'}") == 0
    assert "does not match tokenizer.json" in capsys.readouterr().err
    assert (tmp_path / "out" / "model.safetensors").exists()


def test_chat_tokens_beside_tokenizer_model(model, tmp_path):
    """As in Phi-3, only tokenizer_config.json lists the end of a turn; it can still be sampled."""
    shutil.copytree(model[0], tmp_path / "hf")
    chat = {str(280 + i): {"content": name, "special": True} for i, name in enumerate(CHAT)}
    about = {"added_tokens_decoder": chat, "eos_token": CHAT[1]}
    (tmp_path / "hf" / "tokenizer_config.json").write_text(json.dumps(about))
    assert run(f"--from_hf={tmp_path / 'hf'}", f"--to={tmp_path / 'run'}") == 0
    assert end_tokens(tmp_path / "run") == {1, 281}
    tokenizer = tokenizers.load(tmp_path / "run" / "tokenizer")
    assert (tokenizer.vocab_size, tokenizer.eod) == (282, 1)
    out = tmp_path / "sample.json"
    argv = [f"--run={tmp_path / 'run'}", f"--prompt={''.join(CHAT)}", "--tokens=1"]
    assert main(["sample", *argv, f"--json={out}"]) == 0
    assert tokenizer.encode_prompt("".join(CHAT)).tolist() == [280, 281]


def test_it_says_what_it_does_on_a_terminal(tmp_path, monkeypatch):
    shown = io.StringIO()
    shown.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", shown)
    monkeypatch.setattr(alive, "QUIET", 0.0)
    for name in ("load", "save"):
        slow = functools.partial(slowly, getattr(weights, name))
        monkeypatch.setattr(weights, name, slow)
    assert run(f"--from_hf={HF / 'mistral'}", f"--to={tmp_path / 'run'}") == 0
    assert run(f"--from={tmp_path / 'run'}", f"--to_hf={tmp_path / 'back'}") == 0
    lines = shown.getvalue().split("\r")
    for line in ("reading the weights", "writing the run", "writing the weights"):
        assert f"{line} … 0 s\033[K" in lines


def slowly(act, *args, **options):
    time.sleep(0.05)
    return act(*args, **options)


def bad(folder, **changes):
    """Writes a folder with the config.json of LLaMA and these changes."""
    folder.mkdir()
    keys = golden.config_json("llama") | changes
    (folder / "config.json").write_text(json.dumps(keys))
    return folder


def test_bad_input_is_one_line(tmp_path, capsys):
    mamba = bad(tmp_path / "mamba", model_type="mamba")
    empty = bad(tmp_path / "empty")
    pickle = bad(tmp_path / "pickle")
    (pickle / "pytorch_model.bin").write_bytes(b"")
    to = tmp_path / "to"
    cases = [
        ([f"--from_hf={mamba}", f"--to={to}"], "model_type='mamba' is not supported; supported"),
        ([f"--from_hf={empty}", f"--to={to}"], "holds neither model.safetensors"),
        ([f"--from_hf={pickle}", f"--to={to}"], "pickle checkpoint, pytorch_model.bin"),
        ([f"--from_hf={tmp_path}", f"--to={to}"], "has no config.json"),
        ([f"--from_hf={HF / 'llama'}", f"--to={mamba}"], "is not empty; name a new folder"),
        ([f"--from={tmp_path}", f"--to_hf={to}"], "holds no config.json"),
        ([f"--from={HF / 'llama'}", f"--to_hf={to}"], "holds a Hugging Face model"),
        ([f"--from_hf={HF / 'llama'}", f"--to_hf={to}"], "give --from_hf=FOLDER --to=RUN,"),
        ([f"--from_hf={HF / 'llama'}", f"--to={to}", "--model_type=phi3"], "goes with --to_hf"),
        ([], "give --from_hf=FOLDER --to=RUN,"),
    ]
    for argv, message in cases:
        assert run(*argv) == 2, argv
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1 and message in lines[0], lines
        assert not to.exists() and not list(tmp_path.glob("*.tmp"))


def test_a_run_that_no_family_computes_is_refused(tmp_path, capsys):
    config = json.dumps({"model": vars(golden.checkpoint("llama")[0]) | {"query_scale": 0.5}})
    (tmp_path / "config.json").write_text(config)
    assert run(f"--from={tmp_path}", f"--to_hf={tmp_path / 'out'}") == 2
    assert "model.query_scale=0.5: no family of transformers" in capsys.readouterr().err
