"""Tests runs of captioners: training, exact captions, sampling, frozen encoders, bad input."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from data.sources.drawn import SETS, digits, written
from launch.__main__ import main as isoflop
from launch.files import read_config
from launch.trial import run as trial
from launch.trial.start import hash_of
from model import families
from model.captioner import config as captioner
from tests.launch import toy
from tests.launch.trial.test_every_family import HEADS, IMAGES
from tests.launch.trial.test_seams import params, process, result
from train.objectives.captioned import captions

KEYS = HEADS | IMAGES | {
    "model.init_std": "0.1", "train.batch_size": "16", "train.duration": "48 steps",
    "optimizer.learning_rate": "0.01", "eval.every": "0 steps", "checkpoint.every": "0 steps",
}  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory, compiled_once) -> Path:
    """A folder with digits, and a run that was trained on them."""
    folder = tmp_path_factory.mktemp("captions")
    written.write(digits.items(100, 0), folder / "digits", lambda count: None)
    assert trial.run(toy.config(folder, **keys(folder)), folder / "run") == 0
    return folder


@pytest.fixture(scope="module")
def untrained(tmp_path_factory) -> Path:
    """A folder with digits."""
    folder = tmp_path_factory.mktemp("untrained")
    written.write(digits.items(100, 0), folder / "digits", lambda count: None)
    return folder


def keys(home: Path, **changes: str) -> dict[str, str]:
    return {k: v.replace("HOME", str(home)) for k, v in (KEYS | changes).items()}


def said(capsys, *argv: str) -> str:
    """The one line of bad input."""
    capsys.readouterr()
    assert isoflop(list(argv)) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return error.splitlines()[-1]


@pytest.mark.slow
def test_greedy_captions_are_right_as_often_as_training_measured(home, tmp_path):
    told = result(home / "run")
    assert told["family"] == "captioner" and told["predicts"] == "the caption of an image"
    assert isoflop(["evaluate", f"--run={home / 'run'}", f"--json={tmp_path / 'a.json'}"]) == 0
    about = json.loads((tmp_path / "a.json").read_text())
    assert about["images"] == 20 and 0 < about["right"] < 20  # eval.sequences=16 of them
    data = home / "digits" / "held_out"
    also = [f"--data={data}", f"--json={tmp_path / 'b.json'}"]
    assert isoflop(["evaluate", f"--run={home / 'run'}", *also]) == 0
    again = json.loads((tmp_path / "b.json").read_text())
    assert again["captions"] == about["captions"]
    chosen = [about["captions"][(2 * i + 1) * 20 // 32]["right"] for i in range(16)]
    assert told["metrics"]["exact_match"]["value"] == pytest.approx(np.mean(chosen))


@pytest.mark.slow
def test_sampling_writes_the_caption_that_is_evaluated(home, tmp_path, capsys):
    run, data = f"--run={home / 'run'}", home / "digits" / "held_out"
    out = f"--json={tmp_path / 'c.json'}"
    assert isoflop(["evaluate", run, f"--data={data}", out]) == 0
    rows = json.loads((tmp_path / "c.json").read_text())["captions"]
    image = f"--image={data / rows[0]['file']}"
    assert isoflop(["sample", run, image, out, "--temperature=0"]) == 0
    told = json.loads((tmp_path / "c.json").read_text())
    assert told["step"] == 48 and told["samples"][0]["text"] == rows[0]["written"]
    assert rows[0]["written"].strip() in capsys.readouterr().out


@pytest.mark.slow
def test_bad_input_is_one_line(home, tmp_path, capsys):
    run, image = f"--run={home / 'run'}", tmp_path / "a.png"
    image.write_bytes(b"no image")
    assert "writes captions: use isoflop sample" in said(capsys, "sample", run)
    assert "is not an image of the formats" in said(capsys, "sample", run, f"--image={image}")
    assert "No such file" in said(capsys, "sample", run, f"--image={tmp_path / 'gone.png'}")
    wrong = said(capsys, "sample", run, f"--image={image}", "--template")
    assert "--template is for text" in wrong
    assert "--ngram is for text" in said(capsys, "evaluate", run, "--ngram=4")
    assert "does not exist; name a folder" in said(capsys, "evaluate", run, "--data=nowhere")
    listed = tmp_path / "captions.jsonl"
    listed.write_text('{"file": "a.png", "caption": "one"}\n')
    lost = said(capsys, "evaluate", run, f"--data={listed}")
    assert "more than data.max_unreadable=0 files cannot be read: 'a.png'" in lost
    for verb, flags in (("score", ["--text=a"]), ("translate", ["--text=a"])):
        assert f"run={home / 'run'}" in said(capsys, verb, run, *flags)


def test_synthesise_never_replaces_a_file(tmp_path, capsys):
    made = ["synthesise", "--of=digits", "--count=20", f"--to={tmp_path / 'set'}"]
    (tmp_path / "set").mkdir()  # an empty folder is taken
    assert isoflop(made) == 0
    assert "train: 16 files" in capsys.readouterr().out
    assert f"to={tmp_path / 'set'} exists already and is not empty" in said(capsys, *made)
    mine = tmp_path / "set" / "train" / "000000.png"  # in a folder without a list
    (tmp_path / "set" / "train" / "captions.jsonl").unlink()
    shutil.rmtree(tmp_path / "set" / "held_out")
    mine.write_bytes(b"mine")
    assert "exists already and is not empty; name a new folder" in said(capsys, *made)
    assert mine.read_bytes() == b"mine"
    assert "--count=9000 is above the 1797 digits" in said(
        capsys, "synthesise", "--of=digits", "--count=9000", f"--to={tmp_path / 'more'}"
    )
    assert not (tmp_path / "more").exists()  # so that the next try finds it empty


def test_synthesise_holds_some_out_of_every_set(tmp_path, capsys):
    for name, drawn in SETS.items():
        made = ["synthesise", f"--of={name}", f"--to={tmp_path / name}"]
        fault = f"too few to hold any of --of={name} out; use {drawn.EACH} or more"
        assert fault in said(capsys, *made, f"--count={drawn.EACH - 1}")
        if name != "spoken_digits":  # which needs a program
            held = [item.held_out for item in drawn.items(drawn.EACH, 0)]
            assert sum(held) == 1 and len(held) == drawn.EACH


@pytest.mark.slow
def test_other_models_read_no_images(home, text_folder, tmp_path, capsys):
    shutil.copy(text_folder / "text.txt", tmp_path)
    keys = HEADS | {"model.family": "decoder", "objective.name": "next_token"}
    keys |= {"train.duration": "2 steps", "checkpoint.every": "0 steps"}
    assert trial.run(toy.config(tmp_path, **keys), tmp_path / "run") == 0
    image = f"--image={home / 'digits' / 'train' / '000000.png'}"
    line = said(capsys, "sample", f"--run={tmp_path / 'run'}", image)
    assert "'decoder', which reads no images" in line


FROZEN = {
    "objective.name": "captions", "objective.encoder": "HOME/run", "model.encoder": "frozen",
    "train.duration": "24 steps",
}  # fmt: skip


@pytest.mark.slow
def test_a_frozen_encoder_is_read_and_not_trained(home, tmp_path, capsys):
    trained = keys(home, **FROZEN, **{"model.d_model": "32", "model.encoder_width": "16"})
    assert trial.run(toy.config(home, **trained), home / "frozen") == 0
    told = result(home / "frozen")
    assert told["params"]["encoder"] == 0 and "encoder" not in params(home / "frozen")
    straight = hash_of(params(home / "frozen"))
    given = [f"{key}={value}" for key, value in trained.items()]
    more = ["checkpoint.every=6 steps", "kill_at=12"]
    assert process(home, "killed", *given, *more) == -9
    assert (
        trial.run(toy.config(home, **trained | {"checkpoint.every": "6 steps"}), home / "killed")
        == 0
    )
    assert hash_of(params(home / "killed")) == straight
    out = tmp_path / "f.json"
    assert isoflop(["evaluate", f"--run={home / 'frozen'}", f"--json={out}"]) == 0
    rows = json.loads(out.read_text())["captions"]
    chosen = [rows[(2 * i + 1) * 20 // 32]["right"] for i in range(16)]
    assert told["metrics"]["exact_match"]["value"] == pytest.approx(np.mean(chosen))
    # Other weights in its place are found.
    other = tmp_path / "other"
    shutil.copytree(home / "frozen", other)
    config = read_config(other)
    config["objective"]["encoder_hash"] = "0" * 16
    (other / "config.json").write_text(json.dumps(config))
    assert "was trained with an encoder of the hash '0000" in said(
        capsys, "evaluate", f"--run={other}"
    )


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"model.encoder": "learned"}, "use model.family=captioner with model.encoder=frozen"),
        ({"objective.encoder": ""}, "objective.encoder is empty; name a run of a captioner"),
    ],
)
def test_an_encoder_that_does_not_fit_is_refused(untrained, changes, fault):
    config = toy.config(untrained, **keys(untrained, **FROZEN | changes))
    with pytest.raises(ValueError, match=fault):
        captions.configure(config)


def test_an_encoder_of_other_sizes_is_refused():
    usual = families.keys(families.find("captioner"))
    cfg = captioner.derive(usual | {"vocab_size": 9, "image": (8, 8, 1)})
    other = dataclasses.replace(cfg, patch=2, patch_height=2)
    captions.check_frozen(cfg, (("encoder", "captioner", cfg),))
    with pytest.raises(ValueError, match=r"another encoder; use model\.patch=2 and model\.patch_h"):
        captions.check_frozen(cfg, (("encoder", "captioner", other),))
    frozen = dataclasses.replace(cfg, encoder="frozen")
    with pytest.raises(ValueError, match=r"name a run of a captioner with model\.encoder=learned"):
        captions.check_frozen(cfg, (("encoder", "captioner", frozen),))
