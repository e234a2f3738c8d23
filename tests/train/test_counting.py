"""Tests trials of counted models: results, resumption, and the output of the verb `ngram`."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from launch.__main__ import main as isoflop
from launch.trial.identity import identity
from model.counted import ngram

ROOT = Path(__file__).resolve().parents[2]
KEYS = {"model.family": "ngram", "model.order": 3, "eval.sequences": 16, "log.tensorboard": False}


def flags(home: Path, **changes) -> list[str]:
    keys = {"data.corpora": f"{home}/text.txt", "data.cache": f"{home}/cache"} | KEYS | changes
    return ["--config=configs/base.py", *(f"--config.{k}={v}" for k, v in keys.items())]


def train(home: Path, name: str, **changes) -> int:
    return isoflop(["train", f"--workdir={home}/{name}", *flags(home, **changes)])


def read_config(home: Path, name: str) -> dict:
    return json.loads((home / name / "config.json").read_text())


def result(home: Path, name: str) -> dict:
    return json.loads((home / name / "result.json").read_text())


@pytest.fixture(scope="module")
def home(text_folder) -> Path:
    assert train(text_folder, "counted") == 0
    return text_folder


def test_its_result_is_that_of_a_trial(home):
    told = result(home, "counted")
    assert told["status"] == "done" and told["family"] == "ngram" and told["counted"]
    assert list(told["params"]) == ["1-grams", "2-grams", "3-grams"]
    assert told["params"]["1-grams"] < told["params"]["2-grams"] < told["params"]["3-grams"]
    assert told["epochs_of_data"] == 1.0 and told["flops"]["6nd"] == 3 * told["tokens"]
    assert told["metrics"]["loss"]["value"] == told["eval_loss"] and told["eval_loss_se"] > 0
    rows = [json.loads(line) for line in open(home / "counted" / "metrics.jsonl")]
    assert [row["step"] for row in rows] == [1]
    assert (home / "counted" / "tokenizer").is_dir()


def test_the_verb_prints_the_same_numbers(home, tmp_path):
    out = tmp_path / "n.json"
    assert isoflop(["ngram", "--order=3", f"--json={out}", *flags(home)]) == 0
    printed, told = json.loads(out.read_text()), result(home, "counted")
    for key in ("eval_loss", "eval_loss_se", "bits_per_byte"):
        assert printed[key] == told[key]
    assert printed["ngrams"] == list(told["params"].values())


def test_smoothings_and_words_are_keys_of_a_trial(home, tmp_path, capsys):
    """Without bits per byte, and with the share of unknown words; the verb gives the same loss."""
    keys = {"data.tokenizer": "words", "data.vocab_size": 5, "model.smoothing": "witten_bell"}
    assert train(home, "words", **keys) == 0
    told = result(home, "words")
    assert told["bits_per_byte"] is None and list(told["metrics"]) == ["loss"]
    share = told["unknown_share"]["validation"]
    assert 0 < share < 1
    assert f"{share:.2%} of the validation tokens unknown" in capsys.readouterr().out
    assert "unknown_share" not in result(home, "counted")
    assert "model.smoothing" not in identity(read_config(home, "counted"))
    assert identity(read_config(home, "words"))["model.smoothing"] == "witten_bell"
    out, words = tmp_path / "n.json", {k: v for k, v in keys.items() if k.startswith("data.")}
    verb = ["ngram", "--order=3", "--smoothing=witten_bell", f"--json={out}"]
    assert isoflop([*verb, *flags(home, **words)]) == 0
    printed = json.loads(out.read_text())
    assert printed["eval_loss"] == told["eval_loss"] and printed["bits_per_byte"] is None
    assert printed["smoothing"] == "witten_bell"


def test_how_models_are_trained_is_no_part_of_it(home):
    assert train(home, "other", **{"optimizer.learning_rate": 0.5, "seed": 3}) == 0
    assert result(home, "other")["id"] == result(home, "counted")["id"]
    assert train(home, "order", **{"model.order": 2}) == 0
    assert result(home, "order")["id"] != result(home, "counted")["id"]
    assert result(home, "order")["eval_loss"] > result(home, "counted")["eval_loss"]


def test_a_model_that_is_whole_is_not_counted_again(home, monkeypatch):
    assert train(home, "again") == 0
    (home / "again" / "result.json").unlink()
    monkeypatch.setattr(ngram, "fit", lambda *_: pytest.fail("counted twice"))
    assert train(home, "again") == 0
    assert result(home, "again")["eval_loss"] == result(home, "counted")["eval_loss"]


def test_a_damaged_model_is_counted_again(home, capsys):
    assert train(home, "damaged") == 0
    (home / "damaged" / "result.json").unlink()
    model = home / "damaged" / "checkpoints" / "1" / "model.npz"
    raw = bytearray(model.read_bytes())
    raw[len(raw) // 2] ^= 1
    model.write_bytes(raw)
    assert train(home, "damaged") == 0
    assert "does not match its hash" in capsys.readouterr().out
    assert result(home, "damaged")["eval_loss"] == result(home, "counted")["eval_loss"]


@pytest.mark.slow
def test_killed_while_it_counts_it_starts_over(home):
    slow = (
        "import os, signal, sys\n"
        "from model.counted import ngram\n"
        "ngram.fit = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "from launch.__main__ import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    command = ["train", f"--workdir={home}/killed", *flags(home)]
    killed = subprocess.run([sys.executable, "-c", slow, *command], cwd=ROOT, env=os.environ)
    assert killed.returncode == -signal.SIGKILL
    assert not (home / "killed" / "result.json").exists()
    assert train(home, "killed") == 0
    assert result(home, "killed")["eval_loss"] == result(home, "counted")["eval_loss"]


def test_a_saved_model_is_the_same_model(tmp_path):
    cfg = ngram.Config(vocab_size=9, context_length=8, order=4)
    text = np.random.default_rng(0).integers(0, 9, 500)
    model = ngram.fit(cfg, [text])
    with open(tmp_path / "m", "wb") as file:
        ngram.save(model, file)
    with open(tmp_path / "m", "rb") as file:
        again = ngram.load(file)
    assert np.array_equal(ngram.nats(model, text), ngram.nats(again, text))
    assert ngram.count(again) == ngram.count(model)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.order": 0}, "model.order=0 must be at least 1"),
        ({"model.d_model": 8}, "unknown key config.model.d_model"),
        ({"model.vocab_size": 100}, "model.vocab_size=100 is smaller than the 256"),
    ],
)
def test_bad_keys_are_one_line(home, capsys, changes, message):
    assert train(home, "bad", **changes) == 2
    assert message in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (home / "bad" / "result.json").exists()
