"""Tests of `isoflop extend`: tokens added to models and tokenizers of every kind."""

import dataclasses
import functools
import json

import jax
import numpy as np
import pytest

from data import tokenizer as tokenizers
from data.chat.encoding import ChatEncoder
from data.chat.templates import Template
from data.tokenizer_files import exported, published
from data.tokenizer_files.extended import with_special_tokens
from launch.__main__ import main
from launch.conversion.vocabulary import with_entries
from model.huggingface import weights
from model.transformer import family
from model.transformer.config import ModelConfig
from model.transformer.decoder import init
from tests.data.test_tokenizer import TEXTS
from tests.model import golden
from train.checkpoint import restore_params

NEW = ("<|im_start|>", "<|im_end|>")
V = 40
MODEL = ModelConfig(
    vocab_size=V, context_length=8, n_layers=1, d_model=16, n_heads=2, n_kv_heads=2, head_dim=8,
    d_ff=16, init_std=0.5,
)  # fmt: skip
TOKENS = np.random.default_rng(0).integers(0, V, (4, 8))


@functools.partial(jax.jit, static_argnums=0)
def logits_of(cfgs: tuple[ModelConfig, ...], all_params: tuple[dict, ...]) -> list[jax.Array]:
    """The logits [B, T, V] of some models."""
    pairs = zip(cfgs, all_params, strict=True)
    hidden = [(cfg, p, family.hidden(cfg, p, {"tokens": TOKENS})) for cfg, p in pairs]
    return [family.logits(*one) for one in hidden]


@pytest.mark.parametrize("tied", [True, False])
def test_old_tokens_keep_their_logits(tied):
    cfg = dataclasses.replace(MODEL, tie_embeddings=tied)
    params = jax.jit(init, static_argnums=0)(cfg, jax.random.key(0))
    params = jax.tree.map(np.asarray, params)
    sources = [np.arange(V), np.array([3, 5])]
    grown = with_entries(params, family.PARAMETER_AXES, V, sources, V + 2)
    larger = dataclasses.replace(cfg, vocab_size=V + 2)
    old, new = map(np.asarray, logits_of((cfg, larger), (params, grown)))
    before, after = (x - np.log(np.exp(x).sum(-1, keepdims=True)) for x in (old, new))
    assert np.abs(new[..., :V] - old).max() < 1e-5
    # The head is linear: a mean of entries has the mean of their logits.
    assert np.abs(new[..., V] - old.mean(-1)).max() < 1e-5
    assert np.abs(new[..., V + 1] - old[..., [3, 5]].mean(-1)).max() < 1e-5
    # All that changes is the softmax's sum.
    shift = np.log1p(np.exp(after[..., V:]).sum(-1) / (1 - np.exp(after[..., V:]).sum(-1)))
    assert np.abs(before - after[..., :V] - shift[..., None]).max() < 1e-5
    # Hewitt 2021: by Jensen's inequality the mean of all adds at most 1 / V to the sum.
    lost = np.log1p(np.exp(new[..., V] - np.log(np.exp(old).sum(-1))))
    assert 0 < lost.min() <= lost.max() <= np.log1p(1 / V)
    # Control: the entry of a single token adds as much as that token has.
    assert np.log1p(np.exp(before[..., 3])).max() > np.log1p(1 / V) + 1e-3


def test_padding_of_the_vocabulary_becomes_new_tokens():
    params = {"embed": {"embedding": np.arange(20.0, dtype=np.float32).reshape(10, 2)}}
    rules = ((r"embedding$", ("vocab", "embed")),)
    found = with_entries(params, rules, 7, [np.arange(7)], 10)["embed"]["embedding"]
    assert found[7].tolist() == [6, 7] and found.shape == (10, 2)
    assert np.array_equal(np.delete(found, 7, 0), np.delete(params["embed"]["embedding"], 7, 0))


@pytest.fixture(scope="module")
def known():
    """A tokenizer of every kind."""
    made = {name: tokenizers.train(name, TEXTS, n) for name, n in SIZES.items()}
    return {
        "bytes": tokenizers.from_spec("bytes"),
        "huggingface": tokenizers.from_spec(str(golden.FOLDER / "hf/llama_gqa/tokenizer.json")),
        **made,
    }


SIZES = {"chars": 0, "bpe": 400, "words": 0}
KINDS = ("bytes", "huggingface", *SIZES)


@pytest.mark.parametrize("kind", KINDS)
def test_texts_keep_their_tokens_and_prompts_have_the_new_ones(known, kind, tmp_path):
    before = known[kind]
    after = with_special_tokens(before, NEW)
    first = before.vocab_size
    assert after.vocab_size == first + 2 and after.fingerprint != before.fingerprint
    text = f"ba {NEW[0]}ce di{NEW[1]} fo</s>"
    assert np.array_equal(after.encode(text), before.encode(text))
    assert max(after.encode(text)) < first and after.eod == before.eod
    prompt = after.encode_prompt(text).tolist()
    assert prompt.count(first) == prompt.count(first + 1) == 1
    assert after.decode([first, first + 1]) == "" and after.unknown == before.unknown
    after.save(tmp_path)
    loaded = tokenizers.load(tmp_path)
    assert loaded.fingerprint == after.fingerprint
    assert loaded.encode_prompt(text).tolist() == prompt
    # A second extension goes on from the first.
    again = with_special_tokens(loaded, ["<|tool|>"])
    assert again.encode_prompt("<|tool|>").tolist() == [first + 2]
    assert again.encode_prompt(text).tolist() == prompt


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "words"])
def test_the_files_for_transformers_have_the_new_tokens(known, kind, tmp_path):
    after = with_special_tokens(known[kind], NEW)
    after.save(tmp_path / "t")
    for name, content in exported.files(tokenizers.read_saved(tmp_path / "t"), 32).items():
        (tmp_path / name).write_bytes(content)
    text = f"ba {NEW[0]}ce di{NEW[1]} fo"
    for file in ("both", "tokenizer.json"):  # SentencePiece's model is preferred if it is there
        if file != "both":
            (tmp_path / "tokenizer.model").unlink(missing_ok=True)
        read, faults = published.read(tmp_path, after.vocab_size)
        assert not faults
        assert read.encode_prompt(text).tolist() == after.encode_prompt(text).tolist()
        assert read.encode(text).max() < known[kind].vocab_size


@pytest.mark.parametrize(
    ("kind", "name"),
    [("bytes", exported.END), ("bytes", "Ā"), ("chars", exported.END), ("chars", exported.OTHER)],
)
def test_the_names_that_tokens_get_in_a_tokenizer_json_are_refused(known, kind, name):
    """Ā stands for the byte 0 there. Two tokens of one name would be one token."""
    with pytest.raises(ValueError, match="is the name of token"):
        with_special_tokens(known[kind], [name])


def test_a_template_uses_the_new_tokens(known):
    template = Template(
        "chatml",
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    )
    said = [{"role": "user", "content": "<|im_end|> ab"}, {"role": "assistant", "content": "cd"}]
    before, after = known["bytes"], with_special_tokens(known["bytes"], NEW)
    encoder = ChatEncoder(after, template)
    ids, _ = encoder.encode(said)
    assert encoder.end == 257 and ids.tolist().count(256) == ids.tolist().count(257) == 2
    assert ChatEncoder(before, template).end == before.eod  # without it, the end of a document


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A converted LLaMA with a tokenizer.json, and the same with a token more."""
    folder = tmp_path_factory.mktemp("runs")
    source = golden.FOLDER / "hf" / "llama_gqa"
    assert main(["convert", f"--from_hf={source}", f"--to={folder / 'base'}"]) == 0
    tokens = [f"--token={name}" for name in NEW]
    command = ["extend", f"--run={folder / 'base'}", *tokens, f"--to={folder / 'more'}"]
    assert main([*command, "--rows=pieces"]) == 0
    return folder


def test_a_run_with_more_tokens_is_exported(run, capsys):
    config = json.loads((run / "more" / "config.json").read_text())
    old, _ = restore_params(run / "base" / "checkpoints")
    new, meta = restore_params(run / "more" / "checkpoints")
    first = len(old["embed"]["embedding"])
    assert config["model"]["vocab_size"] == first + 2 == len(new["embed"]["embedding"])
    assert np.array_equal(new["embed"]["embedding"][:first], old["embed"]["embedding"])
    ids = tokenizers.load(run / "base" / "tokenizer").encode_prompt(NEW[0])
    mean = old["embed"]["embedding"][ids].mean(0)
    assert np.allclose(new["embed"]["embedding"][first], mean, atol=1e-6) and meta["step"] == 0
    assert main(["convert", f"--from={run / 'more'}", f"--to_hf={run / 'hf'}"]) == 0
    cfg, params = weights.load(run / "hf")
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(params), new)
    tokenizer, faults = published.read(run / "hf", cfg.vocab_size)
    assert not faults and tokenizer.encode_prompt("".join(NEW)).tolist() == [first, first + 1]
    assert (run / "hf" / "generation_config.json").read_bytes() == (
        golden.FOLDER / "hf" / "llama_gqa" / "generation_config.json"
    ).read_bytes()


@pytest.mark.slow
def test_training_goes_on_from_it(run, tmp_path, capsys):
    """Conversations in ChatML; the fresh optimiser has moments of the larger vocabulary."""
    command = [
        "train", "--config=configs/post/sft.py", f"--workdir={tmp_path / 'sft'}",
        f"--config.train.init_from={run / 'more'}", "--config.data.template=chatml",
        f"--config.data.tokenizer={run / 'more' / 'tokenizer' / 'tokenizer.json'}",
        f"--config.data.cache={tmp_path / 'cache'}", "--config.train.duration=2 steps",
        "--config.data.corpora=task:addition_reversed:examples=200", "--config.train.batch_size=4",
        "--config.eval.sequences=4", "--config.eval.batch_size=4", "--config.data.too_long=drop",
    ]  # fmt: skip
    assert main(command) == 0
    result = json.loads((tmp_path / "sft" / "result.json").read_text())
    assert result["status"] == "done"
    code = main(
        [*command[:-1], f"--config.train.init_from={run / 'base'}", f"--workdir={tmp_path}"]
    )
    assert code == 2 and "makes other tokens" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"token": "x"}, "--token='x' is token"),
        ({"token": " "}, "--token=' ' is empty"),
        ({"rows": "zero"}, "--rows='zero' is unknown; use one of mean, pieces"),
        ({"run": golden.FOLDER / "hf" / "llama_gqa"}, "--run={hf} holds Hugging Face weights"),
        ({"run": "nowhere"}, "--run=nowhere holds no config.json"),
        ({"to": "{run}"}, "{run} exists already and is not empty; name a new folder\n"),
        ({"to": "{file}/to"}, "--to={file}/to cannot be written (Not a directory); name"),
    ],
)
def test_what_cannot_be_extended_is_one_line(run, changes, message, tmp_path, capsys):
    given = {"run": run / "base", "token": "<|x|>", "to": tmp_path / "to"} | changes
    (tmp_path / "file").touch()
    places = {
        "run": run / "base",
        "hf": golden.FOLDER / "hf" / "llama_gqa",
        "file": tmp_path / "file",
    }
    given = {name: str(value).format(**places) for name, value in given.items()}
    assert main(["extend", *(f"--{name}={value}" for name, value in given.items())]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"isoflop extend: {message.format(**places)}")
    assert error.count("\n") == 1 and not (tmp_path / "to").exists()
