"""Tests of the verb `evaluate`, on a tiny trained run, a counted run and an untrained one."""

import json
import math
import shutil

import numpy as np
import pytest

from configs import base
from launch.__main__ import main
from launch.evaluation.scored_model import open_model
from launch.evaluation.tally import Tally, bin_of, by_position, difference, overall
from launch.evaluation.windows import batches, windows
from launch.trial import run as trial
from model import families
from model.counted import ngram
from tests.launch.trial.test_trial import TINY

CONTEXT = TINY["model.context_length"]
DOCUMENTS = ["to be or not", "that " * 30, "or", "be not to " * 11 + "\n"]


@pytest.fixture(scope="module")
def home(text_folder, compiled_once):
    """A folder with text.txt, the runs `decoder` and `ngram` on it, and other.jsonl."""
    for name, family in (("decoder", "decoder"), ("ngram", "ngram")):
        config = base.get_config()
        keys = {"data.corpora": (f"{text_folder}/text.txt",), "data.cache": f"{text_folder}/cache"}
        keys |= {"data.validation": 0.2, "log.tensorboard": False} | TINY
        keys |= {"train.duration": "120 steps", "optimizer.learning_rate": 0.02}
        if family == "ngram":
            config.model = dict(family="ngram", **families.keys(ngram) | {"order": 3})
            keys = {k: v for k, v in keys.items() if not k.startswith("model.")}
            keys["model.context_length"] = CONTEXT
        config.update_from_flattened_dict(keys)
        assert trial.run(config, text_folder / name) == 0
    lines = "".join(json.dumps({"text": text, "other": "x"}) + "\n" for text in DOCUMENTS)
    (text_folder / "other.jsonl").write_text(lines)
    return text_folder


def evaluated(home, tmp_path, *flags: str) -> dict:
    assert main(["evaluate", f"--json={tmp_path / 'out.json'}", *flags]) == 0
    return json.loads((tmp_path / "out.json").read_text())


@pytest.mark.parametrize("name", ["decoder", "ngram"])
def test_the_validation_set_gives_what_the_run_recorded(home, tmp_path, capsys, name):
    recorded = json.loads((home / name / "result.json").read_text())
    about = evaluated(home, tmp_path, f"--run={home / name}", "--ngram=3")
    for key in ("eval_loss", "eval_loss_se", "bits_per_byte"):
        assert about[key] == pytest.approx(recorded[key], rel=1e-5), key
    assert (about["texts"], about["tokens"]) == (16, 16 * CONTEXT)
    # The n-gram beside it is the one that a run of that family is.
    counted = json.loads((home / "ngram" / "result.json").read_text())
    assert about["ngram"]["eval_loss"] == pytest.approx(counted["eval_loss"], rel=1e-9)
    apart = recorded["eval_loss"] - counted["eval_loss"]
    assert about["ngram"]["difference"] == pytest.approx(apart, abs=1e-5)
    text = capsys.readouterr().out
    assert f"{recorded['eval_loss']:.4f} ± {recorded['eval_loss_se']:.4f}" in text
    assert "result.json has" not in text and "worst sequences" in text


def one_by_one(model, text: list[int], context: int, stride: int) -> list[float]:
    """The nats of each target after the first token, each from a forward pass that sees only the
    window before it; padding follows, which no token sees."""
    found = []
    for place in range(len(text) - 1):
        begin = max(0, math.ceil((place + 1 - context) / stride)) * stride
        inputs, targets = np.zeros((2, 1, context), np.int32)
        seen = place + 1 - begin
        inputs[0, :seen] = text[begin : place + 1]
        targets[0, seen - 1] = text[place + 1]
        found.append(float(model.nats(inputs, targets)[0, seen - 1]))
    return found


@pytest.mark.parametrize("stride", [CONTEXT, 6])
def test_each_token_is_scored_once_with_the_context_of_its_window(home, tmp_path, stride):
    data = f"--data={home / 'other.jsonl'}"
    about = evaluated(home, tmp_path, str(home / "decoder"), data, f"--stride={stride}")
    model = open_model(home / "decoder")
    end, sums = model.tokenizer.eod, []
    for number, document in enumerate(DOCUMENTS):
        text = [end, *document.encode(), end]
        assert about["by_text"][number]["tokens"] == len(document) + 1
        if number == 3 or len(text) <= CONTEXT:
            nats = one_by_one(model, text, CONTEXT, stride)
            assert about["by_text"][number]["loss"] == pytest.approx(np.mean(nats), rel=1e-5)
            sums.append(sum(nats))
    assert len(sums) == 3
    assert about["bytes"] == sum(map(len, DOCUMENTS))
    per_byte = about["eval_loss"] * about["tokens"] / about["bytes"] / math.log(2)
    assert about["bits_per_byte"] == pytest.approx(per_byte)
    assert [one["text"] for one in about["by_text"]][1].startswith("that that")


def test_more_context_predicts_better_where_the_text_is_learnt(home, tmp_path):
    flags = (str(home / "decoder"), f"--data={home / 'text.txt'}", "--max_bytes=5k", "--ngram=0")
    full, apart = (evaluated(home, tmp_path, *flags, f"--stride={s}") for s in (4, CONTEXT))
    assert full["eval_loss"] < apart["eval_loss"]
    positions = {one["first"]: one["loss"] for one in apart["by_position"]}
    assert positions[1] > positions[8] and list(positions) == [1, 2, 4, 8, 16]
    assert sum(one["tokens"] for one in apart["by_position"]) == apart["tokens"]
    assert apart["by_position"][-1]["last"] == CONTEXT
    assert apart["ngram"] == {"reason": "--ngram=0"}


def test_a_counted_model_sees_the_whole_document(home, tmp_path):
    about = evaluated(home, tmp_path, str(home / "ngram"), f"--data={home / 'other.jsonl'}",
                      "--ngram=3")  # fmt: skip
    model = open_model(home / "ngram")
    nats = [ngram.nats(model.fitted, np.array([255, *d.encode(), 255]))[1:] for d in DOCUMENTS]
    assert about["eval_loss"] == pytest.approx(np.concatenate(nats).mean(), rel=1e-12)
    assert about["ngram"]["difference"] == pytest.approx(0, abs=1e-12)  # it is the same model


def test_a_run_without_training_text_says_so(home, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(home / "decoder", run)
    config = json.loads((run / "config.json").read_text())
    for data, reason in (
        ({"corpora": ["/no.txt"]}, "its training text cannot be read: data.corpora='/no.txt'"),
        (
            {"corpora": [str(home / "other.jsonl")], "validation": 0.0},
            "its training text has changed since it was trained",
        ),
        ({"hash": ""}, "the run names no training text, as converted models do not"),
    ):
        (run / "config.json").write_text(json.dumps(config | {"data": config["data"] | data}))
        about = evaluated(home, tmp_path, str(run), f"--data={home / 'other.jsonl'}")
        assert about["ngram"]["reason"].startswith(reason) and list(about["ngram"]) == ["reason"]
        assert f"no n-gram model: {reason}" in capsys.readouterr().out
        # Nor can it be scored on its validation set.
        assert main(["evaluate", str(run)]) == 2
        error = capsys.readouterr().err
        assert f"{reason}" in error and "; give --data=TEXT" in error


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["nowhere"], "--run=nowhere holds no config.json"),
        (["decoder", "--data=nowhere.txt"], "data.corpora='nowhere.txt' does not exist"),
        (["decoder", "--data=other.jsonl", "--text_key=txt"], "keys found: other, text"),
        (["decoder", "--data=other.jsonl", "--context=17"], "--context=17 is above the model's"),
        (["decoder", "--data=other.jsonl", "--stride=99"], "--stride=99 is above --context=16"),
        (["decoder", "--stride=4"], "--stride means nothing without --data"),
        (["decoder", "--data="], "--data= is empty"),
        (["decoder", "--data=other.jsonl", "--ngram=-1"], "ngram"),
        ([], "--run is not given"),
    ],
)
def test_bad_input_is_one_line(home, monkeypatch, capsys, flags, message):
    monkeypatch.chdir(home)
    assert main(["evaluate", *flags]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_text_from_outside_does_not_move_the_cursor(home, tmp_path, capsys):
    (tmp_path / "x.jsonl").write_text('{"text": "\\u001b[2J[red] a"}\n{"text": "b c d"}\n')
    evaluated(home, tmp_path, str(home / "decoder"), f"--data={tmp_path / 'x.jsonl'}")
    text = capsys.readouterr().out
    assert "\x1b" not in text and "\\x1b[2J[red] a" in text


@pytest.mark.parametrize(("length", "context", "stride"), [(50, 16, 16), (50, 16, 5), (9, 16, 4)])
def test_windows_score_every_target_once(length, context, stride):
    text = np.arange(100, 100 + length)
    for start in (1, 3):
        found = windows(0, text, start, context, stride)
        scored = np.concatenate([window.targets[window.fresh :] for window in found])
        assert scored.tolist() == text[start:].tolist()
        for window in found:
            assert (window.targets == window.tokens + 1).all() and len(window.tokens) <= context
        least = min(w.fresh for w in found[1:]) if len(found) > 1 else context
        assert least >= context - stride


def test_batches_have_few_lengths_and_all_windows():
    texts = [(number, np.arange(2 + 7 * number)) for number in range(40)]
    sizes, numbers = set(), []
    for rows, tokens_BT, targets_BT in batches(iter(texts), 1, 128, 128):
        sizes.add(tokens_BT.shape)
        numbers += [window.number for window in rows]
        for row, window in enumerate(rows):
            assert targets_BT[row, len(window.targets) - 1] == window.targets[-1]
    assert sizes == {(256, 32), (64, 128)} and set(numbers) == set(range(40))


def test_standard_errors_are_clustered_by_text():
    tally, other = Tally(), Tally()
    sums = [(2.0, 1), (9.0, 3), (4.0, 2)]
    for total, count in sums:
        tally.add(tally.text("t", 4 * count), 0, np.full(count, total / count))
        other.add(other.text("t", 4 * count), 0, np.full(count, total / count - 0.5))
    mean = 15 / 6
    variance = sum((total - mean * count) ** 2 for total, count in sums) / 2 / 3
    about = overall(tally)
    assert about["eval_loss"] == pytest.approx(mean)
    assert about["eval_loss_se"] == pytest.approx(math.sqrt(variance) / 2)
    assert about["bits_per_byte"] == pytest.approx(mean / 4 / math.log(2))
    # Paired by text, a difference that is equal everywhere has no error.
    assert difference(tally, other) == (pytest.approx(0.5), pytest.approx(0, abs=1e-12))
    # Splitting a text in two changes the error but not the loss.
    split = Tally()
    for total, count in [*sums[:1], *[(3.0, 1)] * 3, *sums[2:]]:
        split.add(split.text("t", 1), 0, np.full(count, total / count))
    assert overall(split)["eval_loss_se"] != about["eval_loss_se"]


def test_bins_of_positions_double():
    assert bin_of(np.arange(8)).tolist() == [0, 1, 1, 2, 2, 2, 2, 3]
    tally = Tally()
    tally.add(tally.text("t", 0), 2, np.array([1.0, 2.0, 4.0]))
    found = [(one["first"], one["last"], one["tokens"], one["loss"]) for one in by_position(tally)]
    assert found == [(2, 3, 1, 1.0), (4, 5, 2, 3.0)]
    assert overall(tally)["bits_per_byte"] is None  # no bytes of text
