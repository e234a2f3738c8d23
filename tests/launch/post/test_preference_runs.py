"""Tests whole runs of reward models, DPO and distillation, and what they refuse."""

import json
from pathlib import Path

import numpy as np
import pytest

from launch.__main__ import main as isoflop
from launch.config import config_file
from launch.trial import run as trial
from launch.trial.resolve import prepare, resolve
from launch.trial.start import hash_of, require_template, start
from train.checkpoint import restore_params
from train.objectives.preference import dpo, reward
from train.objectives.preference import stored as stored_values

COMMON = {
    "model.context_length": "32", "model.n_layers": "1", "model.d_model": "16",
    "model.n_heads": "2", "train.batch_size": "8", "eval.sequences": "16", "eval.batch_size": "16",
    "eval.every": "100 %", "checkpoint.every": "0 steps", "log.every": "1 steps",
    "log.tensorboard": "False", "schedule.warmup": "0 steps", "train.chunk": "2",
    "train.duration": "4 steps",
}  # fmt: skip
PAIRS = {"data.corpora": "task:addition_reversed:examples=60", "data.validation": "0.3"}
FAST = {"optimizer.learning_rate": "0.01"}
FROM_BASE = ("model.context_length", "model.n_layers", "model.d_model", "model.n_heads")


@pytest.fixture(scope="module")
def home(text_folder, compiled_once) -> Path:
    return text_folder


def run(home: Path, name: str, config: str, expected: int = 0, **keys) -> dict:
    given = {"data.cache": f"{home}/cache"} | COMMON | keys
    if ":" in config:  # the model comes with the weights
        given = {key: value for key, value in given.items() if key not in FROM_BASE}
    config = config_file.load_config(f"configs/{config}", given)
    assert trial.run(config, home / name) == expected
    return json.loads((home / name / "result.json").read_text()) if expected == 0 else {}


def rows(home: Path, name: str) -> list[dict]:
    return [json.loads(line) for line in open(home / name / "metrics.jsonl")]


def losses(home: Path, name: str) -> list[float]:
    return [row["loss"] for row in rows(home, name) if "loss" in row]


def params(home: Path, name: str) -> dict:
    return restore_params(home / name / "checkpoints")[0]


@pytest.fixture(scope="module")
def base(home) -> Path:
    """A model of bytes."""
    run(home, "base", "base.py", **{"data.corpora": f"{home}/text.txt"})
    return home / "base"


@pytest.fixture(scope="module")
def stored(home, base) -> Path:
    """DPO with log-probabilities of the reference that are computed once."""
    run(home, "stored", f"post/dpo.py:{base}", **PAIRS | FAST)
    return home / "stored"


@pytest.mark.slow
def test_a_reward_model_has_a_fresh_head_and_its_metrics(home, base):
    told = run(home, "reward", f"post/reward.py:{base}", **PAIRS)
    assert told["params"]["classes"] == 17 and told["predicts"] == reward.PREDICTS
    assert set(told["metrics"]) == set(reward.METRICS)
    assert abs(rows(home, "reward")[0]["loss"] - np.log(2)) < 0.05  # the head is small
    assert 0 <= told["metrics"]["accuracy"]["value"] <= 1


@pytest.mark.slow
def test_an_encoder_can_be_a_reward_model(home):
    """It reads the reward at the first token, which sees the whole text."""
    keys = PAIRS | {"model.family": "encoder", "train.duration": "120 steps", "train.chunk": "0"}
    keys |= {"optimizer.learning_rate": "0.02", "log.every": "10 steps"}
    told = run(home, "reward_encoder", "post/reward.py", **keys)
    assert told["family"] == "encoder" and set(told["metrics"]) == set(reward.METRICS)
    found = losses(home, "reward_encoder")
    assert abs(found[0] - np.log(2)) < 0.05 and min(found) < 0.5  # log 2: it cannot tell


@pytest.mark.parametrize("family", ["recurrent", "encoder_decoder", "word2vec", "ngram"])
def test_a_family_without_a_state_of_its_rows_is_no_reward_model(family, capsys):
    arguments = ["train", "--config=configs/post/reward.py", "--workdir=runs/none"]
    assert isoflop([*arguments, f"--config.model.family={family}"]) == 2
    err = capsys.readouterr().err
    assert f"model.family='{family}'" in err and len(err.splitlines()) == 1
    if family != "ngram":
        assert "Families that fit: decoder, encoder" in err


def test_dpo_begins_at_log_two_and_needs_its_reference_once(home, stored, capfd):
    first = rows(home, "stored")[0]
    assert first["step"] == 1 and first["loss"] == pytest.approx(np.log(2), abs=1e-6)
    told = json.loads((stored / "result.json").read_text())
    assert set(told["metrics"]) == set(dpo.METRICS)
    files = list((home / "cache" / "reference").glob("*.npz"))
    assert len(files) == 1
    written = files[0].stat().st_mtime_ns
    # Another strength reads the stored values; another reference does not.
    run(home, "stronger", f"post/dpo.py:{home / 'base'}", **PAIRS, **{"objective.beta": "1.0"})
    assert files[0].stat().st_mtime_ns == written
    assert "rows computed" not in capfd.readouterr().out
    moved = run(
        home, "moved", f"post/dpo.py:{home / 'base'}", **PAIRS,
        **{"objective.reference": str(stored), "train.duration": "2 steps"},
    )  # fmt: skip
    assert moved["status"] == "done" and "rows computed" in capfd.readouterr().out
    assert rows(home, "moved")[0]["loss"] != pytest.approx(np.log(2), abs=1e-6)


@pytest.mark.slow
def test_dpo_of_adapters_takes_their_base_as_the_reference(home, base):
    lora = {"adapter.name": "lora", "adapter.rank": "2"}
    for name, stored in (("lora", "True"), ("lora_computed", "False")):
        keys = PAIRS | FAST | lora | {"objective.stored": stored}
        told = run(home, name, f"post/dpo.py:{base}", **keys)
        assert told["status"] == "done" and told["params_trained"]
    here, there = losses(home, "lora"), losses(home, "lora_computed")
    assert here[0] == pytest.approx(np.log(2), abs=1e-6)
    np.testing.assert_allclose(here, there, atol=1e-6)
    assert np.ptp(here) > 1e-4  # control: the loss moves


@pytest.mark.slow
def test_dpo_in_bfloat16_begins_at_log_two(home, base):
    """The reference is rounded as the policy is, though its run has another dtype."""
    keys = PAIRS | {"model.dtype": "bfloat16", "objective.beta": "1.0", "train.duration": "2 steps"}
    run(home, "half", f"post/dpo.py:{base}", **keys, **{"objective.stored": "False"})
    assert rows(home, "half")[0]["loss"] == pytest.approx(np.log(2), abs=1e-6)


def test_weights_of_another_chat_template_are_refused(home, base, tmp_path):
    config = config_file.load_config(f"configs/post/dpo.py:{base}", PAIRS)
    config.data.template = "{{ messages }}"
    require_template("objective.reference", tmp_path, config)  # of an unknown template
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}")
    require_template("objective.reference", tmp_path, config)
    (tmp_path / "chat_template.jinja").write_text("{{ bos_token }}")
    with pytest.raises(ValueError, match="was trained on another chat template"):
        require_template("objective.reference", tmp_path, config)
    require_template("train.init_from", tmp_path, config)  # a policy may change its template


def read(home: Path, base: Path, **keys) -> tuple:
    """(the dataset with stored values, the frozen parameters that are left) of a DPO run."""
    given = {"data.cache": f"{home}/other-cache"} | COMMON | PAIRS | keys
    given = {key: value for key, value in given.items() if key not in FROM_BASE}
    config = config_file.load_config(f"configs/post/dpo.py:{base}", given)
    dataset = prepare(config)
    resolved = resolve(config, dataset)
    found, begun = stored_values.with_stored(resolved, dataset.for_run(resolved), start(resolved))
    return found, begun.frozen


def test_a_row_keeps_its_value_and_only_new_rows_are_computed(home, base, capfd):
    short, frozen = read(home, base)
    n = len(short.table)  # rows of 4 steps and of the evaluation; a prompt may come twice
    assert f"{n} rows computed" in capfd.readouterr().out and 24 < n <= 48
    assert frozen == {}
    rows = short.batch("train", 0, 0)
    assert rows["chosen_reference"].dtype == np.float32 and (rows["chosen_reference"] < 0).all()
    assert short.spec().keys() == rows.keys()
    several = short.batches("train", 0, 0, 2)
    np.testing.assert_array_equal(several["rejected_reference"][0], rows["rejected_reference"])
    assert np.ptp(rows["rejected_reference"]) > 0  # control: rows differ
    whole, _ = read(home, base, **{"train.duration": "2 epochs", "train.batch_size": "4"})
    said = capfd.readouterr().out
    computed = int(said.split(" rows computed")[0].split()[-1])
    assert len(whole.table) == n + computed and 0 < computed < n
    assert {row: whole.table[row].tobytes() for row in short.table} == {
        row: value.tobytes() for row, value in short.table.items()
    }
    read(home, base, **{"seed": "3", "train.duration": "2 epochs"})
    assert "computed" not in capfd.readouterr().out  # nothing is new
    (file,) = (home / "other-cache" / "reference").glob("*.npz")
    file.write_bytes(file.read_bytes()[:-300])  # damaged
    again, _ = read(home, base)
    assert f"{n} rows computed" in capfd.readouterr().out
    assert again.table.keys() == short.table.keys()


@pytest.mark.slow
def test_stored_and_computed_log_probabilities_train_alike(home, base, stored):
    run(home, "computed", f"post/dpo.py:{base}", **PAIRS | FAST, **{"objective.stored": "False"})
    here, there = (losses(home, name) for name in ("computed", "stored"))
    np.testing.assert_allclose(here, there, atol=1e-6)
    assert np.ptp(here) > 1e-4  # control: the loss moves


@pytest.mark.slow
def test_a_student_is_trained_on_text_and_on_conversations(home, base):
    on_text = {"data.corpora": f"{home}/text.txt", "objective.teacher": str(base)}
    told = run(home, "student", "post/distill.py", **on_text, **{"model.d_model": "8"})
    assert told["metrics"]["divergence"]["value"] > 0
    assert told["metrics"]["teacher_loss"]["value"] < 5.6
    assert {"bits_per_byte", "loss"} <= set(told["metrics"])
    assert told["predicts"] == "the next token of text"
    before = hash_of(params(home, "base"))
    talk = {"data.kind": "conversations", "objective.teacher": str(base)}
    assert run(home, "talk", "post/distill.py", **PAIRS, **talk)["status"] == "done"
    assert hash_of(params(home, "base")) == before


def test_rewards_that_are_not_finite_stop_the_run(home, base, monkeypatch, capfd):
    monkeypatch.setattr(
        reward, "bradley_terry", lambda chosen, rejected, margin: np.nan * (chosen - rejected)
    )
    run(home, "nan", f"post/reward.py:{base}", 43, **PAIRS, **{"objective.centring": "0.25"})
    said = "".join(capfd.readouterr())
    assert "diverged" in said and "nan" in said


def test_weights_that_do_not_go_with_the_data_are_refused(home, base, capfd):
    on_text = {"data.corpora": f"{home}/text.txt"}
    of_text = run(home, "chars", "base.py", **on_text, **{"data.tokenizer": "chars"})
    assert of_text["status"] == "done"
    ngram = {"model.family": "ngram", "model.order": "2"}
    given = {key: value for key, value in COMMON.items() if key not in FROM_BASE[1:]}
    counted = config_file.load_config(
        "configs/base.py", given | on_text | ngram | {"data.cache": f"{home}/cache"}
    )
    assert trial.run(counted, home / "counted") == 0
    chars, teacher = {"objective.teacher": str(home / "chars")}, {"objective.teacher": str(base)}
    for keys, message in (
        ({}, "objective.teacher is empty; objective.name=distill reads it"),
        (chars, "chars has the tokenizer 'chars' of"),
        ({"objective.teacher": str(home / "counted")}, "of the family 'ngram', which is counted"),
        ({"objective.teacher": str(home / "none")}, "objective.teacher="),
        (teacher | {"model.context_length": "64"}, "has model.context_length=32, and the rows 64"),
        (
            teacher | {"model.vocab_size": "300"},
            "vocab_size=256, and the model that is trained 300",
        ),
    ):
        run(home, "refused", "post/distill.py", 2, **on_text | keys)
        said = capfd.readouterr().err
        assert message in said and said.count("isoflop:") == 1
    for config, keys in (
        (f"post/dpo.py:{base}", {"objective.reference": str(home / "chars")}),
        (f"post/dpo.py:{base}", {"objective.reference": str(home / "counted")}),
        ("post/dpo.py", {}),
    ):
        run(home, "refused", config, 2, **PAIRS | keys)
        assert "objective.reference" in capfd.readouterr().err
