"""This file runs the verb `sample` on a run that was never trained, and on what is no run."""

import json
import shutil

import jax
import numpy as np
import pytest

from data import tokenizer
from launch.__main__ import main
from model.config import ModelConfig
from model.transformer import init
from train.checkpoint import Checkpoints

MODEL = dict(
    vocab_size=300, context_length=24, n_layers=1, d_model=8, n_heads=2, n_kv_heads=1, head_dim=4,
    d_ff=16, init_std=0.5,
)  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Its vocabulary of 300 is larger than the 256 bytes that have a meaning."""
    folder = tmp_path_factory.mktemp("runs") / "a"
    checkpoints = Checkpoints(folder / "checkpoints", 1, 0)
    params = jax.jit(lambda key: init(ModelConfig(**MODEL), key))(jax.random.key(0))
    checkpoints.save(7, {"params": params}, {})
    checkpoints.wait()
    config = {"model": MODEL, "data": {"tokenizer": "bytes"}}
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer.given("bytes").save(folder / "tokenizer")
    return folder


def sampled(run, tmp_path, *flags):
    code = main(["sample", f"--run={run}", f"--json={tmp_path / 's.json'}", *flags])
    assert code == 0
    return json.loads((tmp_path / "s.json").read_text())


def test_prints_and_writes_what_was_drawn(run, tmp_path, capsys):
    about = sampled(run, tmp_path, "--prompt=ab", "--n=3", "--tokens=5", "--show_probabilities")
    printed = capsys.readouterr().out
    assert about["step"] == 7 and len(about["samples"]) == 3
    for number, drawn in enumerate(about["samples"], 1):
        assert f"sample {number} of 3, {drawn['nats_per_token']:.3f} nats/token" in printed
        assert 1 <= len(drawn["tokens"]) <= 5 and max(drawn["tokens"]) < 256
        assert drawn["nats_per_token"] == pytest.approx(-np.mean(drawn["logprobs"]))
        for step, token, logprob in zip(
            drawn["top"], drawn["tokens"], drawn["logprobs"], strict=True
        ):
            likeliest = {one["token"]: one["logprob"] for one in step}
            assert len(step) == 5 and list(likeliest.values()) == sorted(likeliest.values())[::-1]
            assert likeliest.get(token, logprob) == logprob <= step[0]["logprob"]


def test_seed_decides_and_zero_tokens_fill_the_context(run, tmp_path):
    draw = lambda seed: sampled(run, tmp_path, "--prompt=ab", f"--seed={seed}")["samples"][0]  # noqa: E731
    first = draw(1)
    assert first == draw(1) != draw(2)
    assert len(first["tokens"]) == 22 or first["ended"]


def test_what_is_drawn_cannot_steer_the_terminal(run, tmp_path, capsys):
    sampled(run, tmp_path, "--prompt=\x1b[31mred", "--tokens=5", "--n=3")
    assert "\x1b" not in capsys.readouterr().out


BAD = {
    "prompt has 24 tokens and model.context_length=24 no room": ["--prompt=" + "x" * 24],
    "tokens=23 and a prompt of 2 in model.context_length=24; use 1 to 22": ["--tokens=23"],
    "temperature=-1.0 is out of range": ["--temperature=-1"],
    "n=0 is out of range": ["--n=0"],
    "top_p=2.0 is out of range": ["--top_p=2"],
}


@pytest.mark.parametrize("message", BAD)
def test_bad_requests(run, message, capsys):
    assert main(["sample", f"--run={run}", "--prompt=ab", *BAD[message]]) == 2
    assert message in capsys.readouterr().err


def test_a_folder_that_is_no_run(tmp_path, run, capsys):
    assert main(["sample", f"--run={tmp_path}"]) == 2
    assert f"run={tmp_path} holds no config.json" in capsys.readouterr().err
    (tmp_path / "config.json").write_text((run / "config.json").read_text())
    shutil.copytree(run / "tokenizer", tmp_path / "tokenizer")
    assert main(["sample", f"--run={tmp_path}"]) == 2
    assert "holds no finished checkpoint; train the run first" in capsys.readouterr().err
