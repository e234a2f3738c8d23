"""Tests that every family can do what a trial needs: killed and resumed with the same bits, the
same numbers on eight devices, and compiled for a slice of TPUs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from data.sources.drawn import digits, written
from launch.__main__ import main as isoflop
from launch.trial import run as trial
from launch.trial.start import hash_of
from tests.launch import toy
from tests.launch.trial.test_seams import EIGHT, params, process, result, rows
from train.ahead_of_time import topology

TEXT = {"objective.name": "next_token"}
HEADS = {"model.n_layers": "1", "model.n_heads": "2"}
RECURRENT = {"model.family": "recurrent", "model.n_layers": "1"}
SOURCE = {"model.source_length": "16"}
PAIRS = SOURCE | {
    "data.kind": "pairs", "data.corpora": "synthetic_pairs:sentences=400",
    "data.tokenizer": "words", "data.too_long": "drop",
}  # fmt: skip
JOINED = {key: value for key, value in PAIRS.items() if key != "model.source_length"} | {
    "data.kind": "joined_pairs", "model.context_length": "32",
}  # fmt: skip
LABELS = {
    "model.family": "encoder", "data.tokenizer": "bytes", "model.context_length": "24",
    "data.corpora": "HOME/labels.jsonl", "data.held_out": "HOME/labels.jsonl",
}  # fmt: skip
TAGS = {"data.corpora": "HOME/tags.jsonl", "data.held_out": "HOME/tags.jsonl"}
WORDS = {"objective.name": "negative_sampling", "data.kind": "word_pairs"}
GLOVE = {
    "objective.name": "glove", "data.kind": "cooccurrence", "data.entries": "16",
    "model.context_length": toy.ABSENT,
}  # fmt: skip
IMAGES = {
    "model.family": "captioner", "model.encoder_layers": "1", "model.context_length": "4",
    "data.kind": "images", "data.corpora": "HOME/digits/train", "data.height": "8",
    "data.held_out": "HOME/digits/held_out", "data.width": "8", "data.channels": "1",
    "objective.name": "exact_match",
}  # fmt: skip
# The keys of a tiny trial of each family; tests.launch.toy has the others.
TRIALS: dict[str, dict[str, str]] = {
    "decoder": TEXT | HEADS | {"model.family": "decoder"},
    "lstm": TEXT | RECURRENT | {"model.cell": "lstm"},
    "gru_carried": TEXT | RECURRENT | {"model.cell": "gru", "model.carry_state": "True"},
    "elman": TEXT | RECURRENT | {"model.cell": "elman"},
    "jordan": TEXT | RECURRENT | {"model.cell": "jordan"},
    "t5": TEXT | HEADS | SOURCE | {"model.family": "encoder_decoder", "data.kind": "spans"},
    "vaswani": TEXT | HEADS | PAIRS | {"model.family": "encoder_decoder"},
    "bahdanau": TEXT | PAIRS | {"model.family": "recurrent_encoder_decoder"},
    "sutskever": TEXT
    | PAIRS
    | {"model.family": "recurrent_encoder_decoder", "model.context": "initial"},
    "cho": TEXT | PAIRS | {"model.family": "recurrent_encoder_decoder", "model.context": "every"},
    "joined": TEXT | HEADS | JOINED | {"model.family": "decoder"},
    "packed": TEXT
    | HEADS
    | PAIRS
    | {"model.family": "encoder_decoder", "data.rows": "packed"}
    | {"optimizer.eps": "1e-5"},  # above rounding errors, which Adam enlarges otherwise
    "packed_joined": TEXT | HEADS | JOINED | {"model.family": "decoder", "data.rows": "packed"},
    "bert": HEADS
    | {"model.family": "encoder", "objective.name": "masked", "data.kind": "masked_text"},
    "classifier": HEADS | LABELS | {"objective.name": "classify", "data.kind": "labelled"},
    "tagger": HEADS | LABELS | TAGS | {"objective.name": "tag", "data.kind": "tagged"},
    "word2vec": WORDS | {"model.family": "word2vec"},
    "glove": GLOVE | {"model.family": "glove"},
    "captioner": HEADS | IMAGES,
}
COUNTED = {
    "ngram": TEXT | {"model.family": "ngram", "model.d_model": toy.ABSENT},
    "lsa": {
        "model.family": "lsa", "objective.name": "reconstruction", "data.kind": "documents",
        "model.d_model": "2", "model.context_length": toy.ABSENT, "data.document_words": "20",
        "data.tokenizer": "words",
    },
}  # fmt: skip
COMPILED = """
from pathlib import Path
from tests.launch import toy

def get_config(arg=None):
    return toy.config(Path({home!r}), **{keys!r})
"""


@pytest.fixture(scope="module")
def home(text_folder, compiled_once) -> Path:
    texts = {
        "tags": [("the cat saw a dog", "D N V D N"), ("a cat", "D N")],
        "labels": [("good", "yes"), ("bad", "no")],
    }
    for name, pairs in texts.items():
        rows = [json.dumps(dict(zip(("text", "label"), pair, strict=True))) for pair in pairs]
        (text_folder / f"{name}.jsonl").write_text("\n".join(rows * 9))
    written.write(digits.items(100, 0), text_folder / "digits", lambda count: None)
    return text_folder


@pytest.fixture(scope="module")
def whole(home):
    """The folder of a family's uninterrupted trial, which is trained once."""

    def trained(name: str) -> Path:
        if not (home / name).exists():
            assert trial.run(toy.config(home, **keys(home, name)), home / name) == 0
        return home / name

    return trained


def keys(home: Path, name: str) -> dict[str, str]:
    """The keys of a trial, whose files are in `home`."""
    found = (TRIALS | COUNTED)[name].items()
    return {key: value.replace("HOME", str(home)) for key, value in found}


def given(home: Path, name: str, *more: str) -> list[str]:
    return [*(f"{key}={value}" for key, value in keys(home, name).items()), *more]


@pytest.mark.slow
@pytest.mark.parametrize("name", TRIALS)
def test_killed_and_resumed_it_ends_with_the_same_bits(home, whole, name):
    straight, killed = whole(name), f"{name}-killed"
    assert process(home, killed, *given(home, name, "kill_at=8")) == -9
    assert not (home / killed / "result.json").exists()
    assert trial.run(toy.config(home, **keys(home, name)), home / killed) == 0
    assert hash_of(params(home / killed)) == hash_of(params(straight))
    losses = [
        [row["loss"] for row in rows(at) if "loss" in row] for at in (home / killed, straight)
    ]
    assert losses[0] == losses[1] and losses[0][-1] < losses[0][0]


@pytest.mark.slow
@pytest.mark.parametrize("name", TRIALS)
def test_on_eight_devices_it_is_the_same_trial(home, whole, name):
    one, eight = whole(name), f"{name}-eight"
    assert process(home, eight, *given(home, name), xla_flags=EIGHT) == 0
    there, here = result(home / eight), result(one)
    assert there["devices"] == 8 and there["id"] == here["id"]
    for key in ("eval_loss", "train_loss"):
        assert there[key] == pytest.approx(here[key], abs=1e-5)
    other = f"{name}-seed"  # control
    assert process(home, other, *given(home, name, "seed=1"), xla_flags=EIGHT) == 0
    assert abs(result(home / other)["train_loss"] - here["train_loss"]) > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", COUNTED)
def test_a_counted_family_counts_the_same_on_eight_devices(home, whole, name):
    one, eight = whole(name), f"{name}-eight"
    assert process(home, eight, *given(home, name), xla_flags=EIGHT) == 0
    there, here = result(home / eight), result(one)
    assert there["devices"] == 8 and there["id"] == here["id"]
    assert there["eval_loss"] == here["eval_loss"] and there["params"] == here["params"]
    change, control = {"ngram": "model.order=2", "lsa": "model.d_model=3"}[name], f"{name}-other"
    assert process(home, control, *given(home, name, change)) == 0
    assert result(home / control)["eval_loss"] != here["eval_loss"]


@pytest.mark.skipif(not topology.installed(), reason="libtpu is not installed")
@pytest.mark.slow
@pytest.mark.parametrize("name", TRIALS)
def test_it_compiles_for_a_slice_of_tpus(home, name):
    config, report = home / f"{name}.py", home / f"{name}.json"
    config.write_text(COMPILED.format(home=str(home), keys=keys(home, name)))
    size = "--config.model.vocab_size=300"  # of words it is known only when they are counted
    flags = [f"--config={config}", "--topology=v5e:2x2", f"--json={report}", size]
    if name in ("classifier", "tagger"):
        flags.append("--config.model.n_classes=4")  # they too are counted in the data
    assert isoflop(["compile", *flags]) == 0
    assert json.loads(report.read_text())["fits"]


def test_every_trained_family_is_tried():
    """A family that is added to FAMILIES must be added to TRIALS, too."""
    code = (
        "from model.families import FAMILIES, is_counted\n"
        "print(*[name for name, family in FAMILIES.items() if not is_counted(family)])"
    )
    listed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    tried = {keys["model.family"] for keys in TRIALS.values()}
    assert set(listed.stdout.split()) == tried
