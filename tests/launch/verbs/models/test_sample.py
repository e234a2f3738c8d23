"""Tests of the verb `sample`, on an untrained run and on folders without a run."""

import json
import shutil
import sys

import jax
import numpy as np
import pytest

from data import tokenizer
from launch.__main__ import main
from launch.sampling.continuation import Continuation
from launch.verbs.models import sample as verb
from model.counted import ngram
from model.generation import sample as decoding
from model.transformer.config import ModelConfig
from model.transformer.decoder import init
from train.checkpoint import Checkpoints, write_manifest
from train.counting import MODEL as COUNTS

MODEL = dict(
    vocab_size=300, context_length=24, n_layers=1, d_model=8, n_heads=2, n_kv_heads=1, head_dim=4,
    d_ff=16, init_std=0.5,
)  # fmt: skip
# Tests with equal --n and --show_probabilities share a compiled program.
THREE = ("--prompt=ab", "--n=3", "--show_probabilities")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """An untrained run whose vocabulary of 300 is larger than the 256 bytes of its tokenizer."""
    return untrained(tmp_path_factory.mktemp("runs") / "a", MODEL)


def untrained(folder, model):
    checkpoints = Checkpoints(folder / "checkpoints", 1, 0)
    params = jax.jit(lambda key: init(ModelConfig(**model), key))(jax.random.key(0))
    checkpoints.save(7, {"params": params}, {})
    checkpoints.wait()
    config = {"model": model, "data": {"tokenizer": "bytes"}}
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer.from_spec("bytes").save(folder / "tokenizer")
    return folder


def sampled(run, tmp_path, *flags):
    code = main(["sample", f"--run={run}", f"--json={tmp_path / 's.json'}", *flags])
    assert code == 0
    return json.loads((tmp_path / "s.json").read_text())


def test_without_tokens_it_draws_a_bounded_number(run, tmp_path, monkeypatch):
    """The cache grows with the number of tokens, and contexts can be long."""
    monkeypatch.setattr(verb, "MOST_TOKENS", 3)
    assert [len(s["tokens"]) for s in sampled(run, tmp_path, *THREE)["samples"]] == [3] * 3


def test_prints_and_writes_what_was_drawn(run, tmp_path, capsys):
    about = sampled(run, tmp_path, *THREE, "--tokens=5")
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
    sampled(run, tmp_path, *THREE, "--prompt=\x1b[31mred", "--tokens=5")
    assert "\x1b" not in capsys.readouterr().out


def shown(continuation, pieces):
    """The text printed after each piece of tokens."""
    texts = []
    for piece in pieces:
        continuation.add(piece)
        texts.append(continuation.news())
    return [*texts, continuation.news(last=True)]


def test_streamed_text_has_whole_characters():
    text = "naïve 中文 🙂!"
    pieces = [[byte] for byte in text.encode()]
    texts = shown(Continuation(tokenizer.from_spec("bytes"), []), pieces)
    assert "".join(texts) == text and not any("\ufffd" in t for t in texts)
    cut = shown(Continuation(tokenizer.from_spec("bytes"), []), pieces[:-2])  # inside 🙂
    assert "".join(cut) == "naïve 中文 \ufffd"


def test_long_text_is_that_of_all_tokens_and_each_is_decoded_few_times(monkeypatch):
    """Random tokens of whole and broken characters, and text of many scripts."""
    made, sizes = tokenizer.from_spec("bytes"), []
    real = made.decode
    rng = np.random.default_rng(0)
    for tokens in (
        rng.integers(0, 256, 400).tolist(),
        list(("naïve 中文 🙂!\ufffd é " * 30).encode()),
    ):
        context = list("é中".encode())[:-1]
        row = Continuation(made, context)
        with monkeypatch.context() as patch:
            patch.setattr(made, "decode", lambda ids: (sizes.append(len(ids)), real(ids))[1])
            texts = shown(row, [[token] for token in tokens])
        assert row.text == "".join(texts) == real(context + tokens)[len(real(context)) :]
    assert max(sizes) < 100


def test_text_ends_before_a_stop_string_and_no_part_of_it_is_shown():
    pieces = [list(b"some text\n"), list(b"\nd"), list(b"ef f(x)"), list(b"never")]
    row = Continuation(tokenizer.from_spec("bytes"), [], ["\n\ndef", "zzz"])
    assert shown(row, pieces) == ["some text", "", "", "", ""]
    assert row.text == "some text" and bytes(row.tokens) == b"some text\n\ndef" and row.stopped
    row = Continuation(tokenizer.from_spec("bytes"), [], ["\n\ndeF"])
    assert "".join(shown(row, pieces)) == row.text == "some text\n\ndef f(x)never"


def test_stop_strings_end_samples(run, tmp_path):
    free = sampled(run, tmp_path, *THREE, "--tokens=12")["samples"]
    stop = next(c for c in free[0]["text"][3:] if c.isascii() and c.isprintable())
    found = sampled(run, tmp_path, *THREE, "--tokens=12", f"--stop={stop}")
    for before, after in zip(free, found["samples"], strict=True):
        assert after["text"] == before["text"].partition(stop)[0]
        assert after["tokens"] == before["tokens"][: len(after["tokens"])]
        assert len(after["logprobs"]) == len(after["tokens"])
        assert after["ended"] == (before["ended"] or stop in before["text"])


def test_streaming_prints_what_is_written(run, tmp_path, capsys):
    about = sampled(run, tmp_path, "--prompt=ab", "--tokens=12", "--stream")["samples"][0]
    plain = sampled(run, tmp_path, "--prompt=ab", "--tokens=12", "--nostream")["samples"][0]
    assert about == plain
    first, second = capsys.readouterr().out.rstrip("\n").split("\nab")
    assert first.removeprefix("ab").strip() == second.strip()


def test_ctrl_c_keeps_what_was_drawn(run, tmp_path, capsys, monkeypatch):
    real = verb.sample.stream

    def interrupted(*args, **how):
        yield next(real(*args, **how))
        raise KeyboardInterrupt

    monkeypatch.setattr(verb.sample, "stream", interrupted)
    file = tmp_path / "s.json"
    flags = [f"--run={run}", f"--json={file}", "--prompt=ab", "--tokens=12", "--stream"]
    assert main(["sample", *flags]) == 130
    assert len(json.loads(file.read_text())["samples"][0]["tokens"]) == 1
    assert capsys.readouterr().out.startswith("ab")


def test_streaming_is_for_terminals(monkeypatch):
    def streams(*argv):
        values = verb.make_flags()
        values(["isoflop", "--run=a", *argv])
        return verb.streams(values)

    assert not streams() and streams("--stream")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert streams() and not streams("--n=2") and not streams("--nostream")


@pytest.mark.slow
def test_a_model_that_drafts_for_itself_is_always_accepted(run, tmp_path, capsys):
    greedy = ("--prompt=ab", "--tokens=12", "--temperature=0")
    plain = sampled(run, tmp_path, *greedy)["samples"][0]
    drafted = sampled(run, tmp_path, *greedy, f"--draft={run}", "--ahead=3")["samples"][0]
    assert drafted["tokens"] == plain["tokens"]
    assert drafted["logprobs"] == pytest.approx(plain["logprobs"], abs=1e-5)
    assert f"accepted 100% of the tokens drafted by {run}" in capsys.readouterr().err


def test_beams(run, tmp_path, capsys):
    found = sampled(run, tmp_path, "--prompt=ab", "--tokens=6", "--beams=3")["samples"]
    scores = [one["score"] for one in found]
    assert scores == sorted(scores)[::-1] and len(scores) == 3
    assert found[0]["nats_per_token"] == pytest.approx(-scores[0])
    assert "beam 3 of 3" in capsys.readouterr().out


BAD = {
    "prompt has 24 tokens; model.context_length=24 leaves no room": ["--prompt=" + "x" * 24],
    "tokens=23 after a prompt of 2 do not fit model.context_length=24; use 1 to 22": [
        "--tokens=23"
    ],
    "temperature=-1.0 is out of range": ["--temperature=-1"],
    "n=0 is out of range": ["--n=0"],
    "top_p=2.0 is out of range": ["--top_p=2"],
    "min_p=2.0 is out of range": ["--min_p=2"],
    "beams=999 is out of range; use 1 to 128": ["--beams=999"],
    "--top_k means nothing with --beams": ["--beams=2", "--top_k=3"],
    "--show_probabilities means nothing with --draft": ["--draft=x", "--show_probabilities"],
    "--stream shows one sample": ["--stream", "--n=2"],
    "--stop= is empty": ["--stop="],
    "draft=nowhere holds no config.json": ["--draft=nowhere"],
}


@pytest.mark.parametrize("message", BAD)
def test_bad_requests(run, message, capsys):
    assert main(["sample", f"--run={run}", "--prompt=ab", *BAD[message]]) == 2
    assert message in capsys.readouterr().err


def test_a_draft_with_another_tokenizer(run, tmp_path, capsys):
    shutil.copytree(run, tmp_path / "b")
    tokenizer.train("chars", ["abc"]).save(tmp_path / "b" / "tokenizer")
    flags = [f"--run={run}", f"--draft={tmp_path / 'b'}", "--prompt=ab", "--tokens=4"]
    assert main(["sample", *flags]) == 2
    assert "has another tokenizer (chars) than" in capsys.readouterr().err


def refused(run, capsys):
    """The one-line error."""
    assert main(["sample", f"--run={run}", "--prompt=ab", "--tokens=1"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def test_a_config_that_is_not_that_of_the_weights(run, tmp_path, capsys):
    shutil.copytree(run, tmp_path / "b")
    config = tmp_path / "b" / "config.json"
    config.write_text(json.dumps({"model": MODEL | {"d_ff": 24}}))
    line = refused(tmp_path / "b", capsys)
    assert "blocks/mlp/down/kernel has shape (1, 16, 8); the model needs (1, 24, 8)" in line
    config.write_text(json.dumps({"model": MODEL | {"depth": 2}}))
    line = refused(tmp_path / "b", capsys)
    assert "describes no model" in line and "model.depth is unknown" in line
    config.write_text(json.dumps({"name": "a"}))
    assert "describes no model ('model')" in refused(tmp_path / "b", capsys)
    config.write_text(json.dumps({"model_type": "llama"}))
    assert "config.json lacks vocab_size; add it" in refused(tmp_path / "b", capsys)
    # A verb that needs a run says how to make one of the weights.
    assert main(["score", f"--run={tmp_path / 'b'}", "--text=ab"]) == 2
    wanted = f"isoflop convert --from_hf={tmp_path / 'b'} --to=RUN"
    assert wanted in capsys.readouterr().err


def test_a_folder_that_is_no_run(tmp_path, run, capsys):
    assert main(["sample", f"--run={tmp_path}"]) == 2
    assert f"run={tmp_path} holds no config.json" in capsys.readouterr().err
    (tmp_path / "config.json").write_text((run / "config.json").read_text())
    shutil.copytree(run / "tokenizer", tmp_path / "tokenizer")
    assert main(["sample", f"--run={tmp_path}"]) == 2
    assert "holds no finished checkpoint; train the run first" in capsys.readouterr().err


@pytest.mark.slow
def test_a_long_context_makes_no_large_cache(tmp_path, monkeypatch):
    """The cache of a whole context of 131,072 would be 100 times as large."""
    model = MODEL | {"context_length": 131_072, "positions": "rotary"}
    made, empty = [], decoding.empty_caches
    monkeypatch.setattr(
        decoding, "empty_caches", lambda *args: made.append(empty(*args)) or made[-1]
    )
    run = untrained(tmp_path / "long", model)
    drawn = sampled(run, tmp_path, "--prompt=ab", "--nostream")["samples"][0]
    assert 1 <= len(drawn["tokens"]) <= verb.MOST_TOKENS == 1024
    (caches,) = made
    per_token = 2 * model["n_kv_heads"] * model["head_dim"] * model["n_layers"]  # keys and values
    size = sum(leaf.size for leaf in jax.tree.leaves(caches))
    assert 1026 * per_token <= size <= 1200 * (per_token + 2)


@pytest.mark.slow
def test_a_vocabulary_with_gaps_is_trained_and_drawn_from(tmp_path, capsys):
    """The tokens are 0, 1 and 400, which is the likeliest one of the text, and the end is 410."""
    pytest.importorskip("tokenizers")
    (tmp_path / "a.txt").write_text("ab" * 20_000)
    end = {"id": 410, "content": "</s>", "special": True, "single_word": False}
    end |= {"lstrip": False, "rstrip": False, "normalized": False}
    bpe = {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 400}, "merges": ["a b"]}
    (tmp_path / "gaps.json").write_text(json.dumps({"model": bpe, "added_tokens": [end]}))
    keys = {
        "data.corpora": tmp_path / "a.txt", "data.tokenizer": tmp_path / "gaps.json",
        "data.cache": tmp_path / "cache", "data.validation": 0.5, "model.n_layers": 1,
        "model.d_model": 8, "model.n_heads": 1, "model.context_length": 8,
        "train.batch_size": 4, "train.duration": "10 steps", "eval.sequences": 2,
        "optimizer.learning_rate": 0.3, "log.tensorboard": False,
    }  # fmt: skip
    run = tmp_path / "run"
    flags = [f"--config.{key}={value}" for key, value in keys.items()]
    assert main(["train", "--config=configs/base.py", f"--workdir={run}", *flags]) == 0
    result = json.loads((run / "result.json").read_text())
    assert result["params"]["embedding"] == 411 * 8 and result["bits_per_byte"] < 1
    capsys.readouterr()
    assert main(["sample", f"--run={run}", "--prompt=ab", "--tokens=4", "--temperature=0"]) == 0
    assert "ab" * 5 in capsys.readouterr().out


@pytest.fixture(scope="module")
def counted(tmp_path_factory):
    return counted_run(tmp_path_factory.mktemp("counted"))


def counted_run(folder):
    """A run of 3-grams of the bytes of a text, with a context of 8 tokens."""
    cfg = ngram.Config(256, context_length=8, order=3)
    (folder / "checkpoints" / "1").mkdir(parents=True)
    with open(folder / "checkpoints" / "1" / COUNTS, "wb") as file:
        text = np.frombuffer(b"to be or not to be that is " * 9, np.uint8)
        ngram.save(ngram.fit(cfg, [text]), file)
    write_manifest(folder / "checkpoints" / "1", {"step": 1})
    config = {"model": {"family": "ngram"} | vars(cfg), "data": {"tokenizer": "bytes"}}
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer.from_spec("bytes").save(folder / "tokenizer")
    return folder


def test_counted_models_continue_a_prompt(counted, tmp_path, capsys):
    """Greedily, what follows most often; there is no longest context. Streamed is the same."""
    found = sampled(counted, tmp_path, "--prompt=to b", "--tokens=20", "--temperature=0")
    assert found["samples"][0]["text"] == "e to be to be to be "
    assert len(found["samples"][0]["logprobs"]) == 20
    capsys.readouterr()
    streamed = ("--prompt=to b", "--tokens=20", "--temperature=0", "--stream")
    assert sampled(counted, tmp_path, *streamed)["samples"] == found["samples"]
    assert "to be to be to be to be" in capsys.readouterr().out
    stopped = sampled(counted, tmp_path, "--prompt=to b", "--stop= be", "--temperature=0")
    assert stopped["samples"][0]["text"] == "e to"


def test_only_decoders_search_and_draft(run, counted, capsys):
    for flags in ("--beams=2", f"--draft={run}"):
        assert main(["sample", f"--run={counted}", flags]) == 2
        error = capsys.readouterr().err
        assert "needs a decoder, and" in error and error.count("\n") == 1


def test_a_family_that_continues_no_text_is_named(counted, capsys, monkeypatch):
    monkeypatch.delattr(ngram, "distribution")
    assert main(["sample", f"--run={counted}"]) == 2
    error = capsys.readouterr().err
    assert "of the family 'ngram', which continues no text; those of decoder, recurrent do" in error
