"""Tests that the whole project works with families, objectives and batches from outside it.

tests/launch/toy.py registers them; no other file refers to them.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from launch.__main__ import main as isoflop
from launch.compile import frozen_models
from launch.config import combination, config_file
from launch.runners import RUNNERS
from launch.trial import run as trial
from launch.trial.identity import trial_id
from launch.trial.resolve import prepare, resolve, resolve_sizes
from launch.trial.start import hash_of
from launch.verbs.models import sweep
from launch.verbs.results import fit
from model.families import FAMILIES
from model.huggingface import weights
from tests.launch import toy
from tests.launch.inline import Inline
from train.ahead_of_time.compiled import abstract_chunk
from train.checkpoint import restore_params
from train.loop import Run
from train.objectives import OBJECTIVES
from train.objectives.metrics import Metric
from train.parallel.sharding import make_mesh

ROOT = Path(__file__).resolve().parents[3]
EIGHT = "--xla_force_host_platform_device_count=8"


@pytest.fixture(scope="module")
def home(text_folder, compiled_once) -> Path:
    return text_folder


def result(workdir: Path) -> dict:
    return json.loads((workdir / "result.json").read_text())


def rows(workdir: Path) -> list[dict]:
    return [json.loads(line) for line in open(workdir / "metrics.jsonl")]


def params(workdir: Path) -> dict:
    return restore_params(workdir / "checkpoints")[0]


def run(home: Path, name: str, **keys) -> dict:
    assert trial.run(toy.config(home, **keys), home / name) == 0
    return result(home / name)


def process(home: Path, name: str, *keys: str, xla_flags: str = "") -> int:
    environment = os.environ | ({"XLA_FLAGS": xla_flags} if xla_flags else {})
    command = [sys.executable, "-m", "tests.launch.toy", str(home / name), *keys]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True).returncode


@pytest.fixture(scope="module")
def whole(home) -> Path:
    """An uninterrupted trial of the toy family under the toy objective."""
    run(home, "whole")
    return home / "whole"


def test_it_trains_and_its_result_has_its_own_counts_and_metrics(whole):
    told = result(whole)
    assert (told["family"], told["objective"], told["status"]) == ("bag", "toy_focal", "done")
    assert told["params"] == {"embedding": 256 * 16, "head": 256 * 16}
    assert told["flops"]["6nd"] == 6 * sum(told["params"].values()) * told["tokens"]
    assert set(told["metrics"]) == {"loss", "bits_per_byte", "accuracy"}
    assert told["metrics"]["accuracy"]["better"] == "higher"
    assert 0 < told["metrics"]["accuracy"]["value"] < 1 and told["metrics"]["accuracy"]["se"] > 0
    trained = [row for row in rows(whole) if "loss" in row]
    assert all(0 < row["confidence"] < 1 for row in trained)
    assert trained[-1]["loss"] < trained[0]["loss"] - 0.3
    assert [row["step"] for row in rows(whole) if "eval_accuracy" in row] == [6, 12, 18, 24]


@pytest.mark.parametrize(
    "objective", ["toy_focal", pytest.param("own_samples", marks=pytest.mark.slow)]
)
def test_killed_and_resumed_it_ends_with_the_same_bits(home, whole, objective):
    """Batches that the objective makes from the parameters resume like any others."""
    straight, keys = whole, {"objective.name": objective}
    if objective == "own_samples":
        keys["train.chunk"] = "0"  # one step at a time: a batch depends on the last step
        run(home, "straight", **keys)
        straight = home / "straight"
    name = f"killed-{objective}"
    assert process(home, name, *(f"{k}={v}" for k, v in keys.items()), "kill_at=8") == -9
    assert not (home / name / "result.json").exists()
    run(home, name, **keys)
    assert hash_of(params(home / name)) == hash_of(params(straight))
    assert [r["loss"] for r in rows(home / name) if "loss" in r] == [
        r["loss"] for r in rows(straight) if "loss" in r
    ]
    if objective != "toy_focal":  # control: the rollout changes the batches
        assert hash_of(params(straight)) != hash_of(params(whole))


def test_batches_made_from_parameters_are_made_for_one_step_at_a_time(home, capsys):
    keys = {"objective.name": "own_samples", "train.chunk": "2"}
    assert trial.run(toy.config(home, **keys), home / "ahead") == 2
    assert "train.chunk=2, but objective.name='own_samples' makes" in capsys.readouterr().err


@pytest.mark.slow
def test_on_eight_devices_it_is_the_same_trial(home, whole):
    assert process(home, "eight", xla_flags=EIGHT) == 0
    assert result(home / "eight")["devices"] == 8
    assert result(home / "eight")["id"] == result(whole)["id"]
    assert result(home / "eight")["eval_loss"] == pytest.approx(
        result(whole)["eval_loss"], abs=1e-5
    )
    other = result(whole)["train_loss"] - result(home / "eight")["train_loss"]
    assert abs(other) < 1e-5
    assert process(home, "seed", "seed=1", xla_flags=EIGHT) == 0  # control
    assert abs(result(home / "seed")["eval_loss"] - result(whole)["eval_loss"]) > 1e-4


SWEEP = """
from tests.launch import toy
from pathlib import Path

def get_config(arg=None):
    keys = {{"eval.every": "50 %", "checkpoint.every": "0 steps"}}
    return toy.config(Path({home!r}), **keys)

def get_sweep(config):
    return [
        {{"name": f"d{{d}}", "model.d_model": d, "train.duration": f"{{steps}} steps"}}
        for d in (8, 16) for steps in (24, 48, 96, 192, 384)
    ] + [{{"name": "decoder", "model.family": "decoder", "model.n_layers": 1, "model.n_heads": 2}},
         {{"name": "counted", "model.family": "ngram", "model.order": 3,
           "objective.name": "next_token"}}]
"""


@pytest.mark.slow
def test_it_is_swept_beside_other_families_and_fitted(home, monkeypatch, capsys):
    monkeypatch.setitem(RUNNERS, "inline", Inline())
    (home / "sweep.py").write_text(SWEEP.format(home=str(home)))
    arguments = [f"--config={home}/sweep.py", f"--workdir={home}/sweep", "--on=inline", "--nofit"]
    assert sweep.main(arguments) == 0
    capsys.readouterr()
    results = {
        path.parent.name: json.loads(path.read_text()) for path in home.glob("sweep/*/result.json")
    }
    assert len(results) == 12
    families = sorted(one["family"] for one in results.values())
    assert families == ["bag"] * 10 + ["decoder", "ngram"]
    counted = next(one for one in results.values() if one["counted"])
    assert set(counted["params"]) == {"1-grams", "2-grams", "3-grams"}
    assert sweep.main(arguments) == 0  # finished already
    law = home / "law.json"
    assert (
        fit.main([f"--runs={home}/sweep", "--law=tokens_only", "--draws=20", f"--json={law}"]) == 0
    )
    found = json.loads(law.read_text())
    assert found["points"]["runs"] == 11 and found["parametric"]["n"] == 11
    assert [line["family"] for line in found["baselines"]] == ["ngram"]
    assert "bag" in capsys.readouterr().out  # warns that two families are fitted together


def test_it_is_stacked(home):
    from launch.sweep.groups import run as run_group

    trials = [
        (toy.config(home, **{"seed": str(seed), "name": f"lane{seed}"}), home / f"lane{seed}", {})
        for seed in (0, 1)
    ]
    assert run_group(trials) == 0
    assert "trained with 1 others" in (home / "lane1" / "log.txt").read_text()
    alone = run(home, "alone", seed="1")
    assert result(home / "lane1")["eval_loss"] == pytest.approx(alone["eval_loss"], abs=1e-5)
    assert abs(result(home / "lane0")["eval_loss"] - alone["eval_loss"]) > 1e-4


def test_its_program_is_described_without_any_data(home):
    config = resolve_sizes(toy.config(home, **{"model.vocab_size": "256"}), 1)
    _, state, batches, _ = abstract_chunk(
        config, make_mesh({"data": 1, "fsdp": 1}, jax.devices()[:1])
    )
    assert batches["tokens"].shape == (2, 8, 16)
    assert state.params["head"]["kernel"].shape == (16, 256)


def test_it_starts_from_the_weights_of_a_run(home, whole):
    started = run(home, "started", **{"train.init_from": str(whole), "seed": "5"})
    assert started["parent"] == {"init_from": str(whole), "init_hash": hash_of(params(whole))}
    first, fresh = rows(home / "started")[0], rows(whole)[0]
    assert first["step"] == fresh["step"] and first["loss"] < fresh["loss"] - 0.2
    assert first["learning_rate"] == fresh["learning_rate"]  # the schedule starts at step 0
    # The weights are part of the identity of the trial; their path is not.
    shutil.copytree(whole, home / "moved")
    at, dataset = {"train.init_from": str(whole)}, prepare(toy.config(home))
    moved = resolve(toy.config(home, **{"train.init_from": str(home / "moved")}), dataset)
    assert trial_id(moved) == trial_id(resolve(toy.config(home, **at), dataset))
    assert trial_id(moved) != trial_id(resolve(toy.config(home), dataset))
    other = resolve(toy.config(home, **{"train.init_from": str(home / "started")}), dataset)
    assert trial_id(moved) != trial_id(other)


def test_a_config_file_that_names_weights_gets_their_model(home, whole, capsys):
    (home / "tune.py").write_text(
        "from pathlib import Path\nfrom tests.launch import toy\n"
        f"def get_config(arg=None):\n    config = toy.config(Path({str(home)!r}))\n"
        f"    config.model.span = 2\n    config.train.init_from = {str(whole)!r}\n"
        "    return config\n"
    )
    config = config_file.load_config(str(home / "tune.py"), {"model.context_length": "8"})
    assert (config.model.span, config.model.context_length) == (4, 8)
    assert "brings its own model, without span=2" in capsys.readouterr().err


def test_weights_that_do_not_fit_are_refused(home, whole, capsys):
    keys = {"train.init_from": str(whole), "model.d_model": "8"}
    assert trial.run(toy.config(home, **keys), home / "narrow") == 2
    assert (
        "parameter embed/embedding has shape (256, 16); the model needs (256, 8)"
        in capsys.readouterr().err
    )
    stale = {"train.init_from": str(whole), "train.init_hash": "0" * 16}
    assert trial.run(toy.config(home, **stale), home / "stale") == 2
    assert "have the hash" in capsys.readouterr().err
    with pytest.raises(FileNotFoundError, match="holds no config"):
        toy.config(home, **{"train.init_from": str(home / "nowhere")})


@pytest.mark.slow
def test_frozen_parameters_are_read_and_never_updated(home, whole):
    keys = {"objective.name": "distil", "objective.teacher": str(whole), "seed": "3"}
    told = run(home, "student", **keys)
    again = {key: value for key, value in keys.items() if key != "seed"}
    assert told["eval_loss"] < 5.5 and told["objective"] == "distil"
    saved = sorted(p.name for p in (home / "student" / "checkpoints").iterdir())
    assert saved and "frozen" not in "".join(
        (home / "student" / "checkpoints" / saved[-1] / "_METADATA").read_text()
    )
    assert (
        process(home, "student-killed", *(f"{k}={v}" for k, v in keys.items()), "kill_at=8") == -9
    )
    run(home, "student-killed", **keys)
    assert hash_of(params(home / "student-killed")) == hash_of(params(home / "student"))
    # Other weights make another trial; the same weights in another folder do not.
    run(home, "other-teacher", seed="9")
    shutil.copytree(whole, home / "same-teacher")
    dataset = prepare(toy.config(home, **again))
    ids = [
        trial_id(resolve(toy.config(home, **again | {"objective.teacher": str(teacher)}), dataset))
        for teacher in (whole, home / "same-teacher", home / "other-teacher")
    ]
    assert ids[0] == ids[1] != ids[2]
    # To compile the program, the teacher's config.json is enough.
    sizes = resolve_sizes(toy.config(home, **keys, **{"model.vocab_size": "256"}), 1)
    shapes = jax.tree.map(lambda x: x.shape, frozen_models.start(sizes).frozen)
    assert shapes == {"teacher": jax.tree.map(lambda x: x.shape, params(whole))}


def test_a_loss_without_a_floor_may_fall_below_zero(home, monkeypatch):
    def shifted(*arguments):
        total, sums = toy.FOCAL.loss(*arguments)
        loss, weight = sums["loss"]
        return total, sums | {"loss": (loss - 10 * weight, weight)}

    keys = vars(toy.FOCAL) | {"loss": shifted}
    metrics = {"loss": Metric("nats/token", "nats", "weights")}
    monkeypatch.setitem(OBJECTIVES, "below", type(toy.FOCAL)(**keys | {"METRICS": metrics}))
    longer = {"train.duration": "60 steps", "objective.name": "below"}
    assert run(home, "below", **longer)["train_loss"] < 0
    floor = {"loss": Metric("nats/token", "nats", "weights", floor=0.0)}  # control
    monkeypatch.setitem(OBJECTIVES, "floor", type(toy.FOCAL)(**keys | {"METRICS": floor}))
    config = toy.config(home, **longer | {"objective.name": "floor"})
    assert trial.run(config, home / "below-floor") == 43


def test_a_parameter_that_the_family_does_not_count_is_named(home, monkeypatch, capfd):
    def extra(cfg, key):
        return toy.BAG.init(cfg, key) | {"gate": {"kernel": jax.numpy.ones((3, 7))}}

    axes = (*toy.BAG.PARAMETER_AXES, (r"^gate/kernel$", (None, None)))
    changed = type(toy.BAG)(**vars(toy.BAG) | {"init": extra, "PARAMETER_AXES": axes})
    monkeypatch.setitem(FAMILIES, "bag", changed)
    # Another width, because the shapes of a family's parameters are found once per config.
    config = toy.config(home, **{"model.d_model": "12"})
    message = r"6,165 parameters, .* counts 6,144.* size of gate/kernel"
    with pytest.raises(ValueError, match=message):
        Run(resolve(config, prepare(config)), None, home / "uncounted")


def test_what_does_not_fit_together_is_refused_by_fields_with_what_would(home, monkeypatch):
    config = toy.config(home)
    monkeypatch.setitem(
        FAMILIES, "bag", type(toy.BAG)(**vars(toy.BAG) | {"INPUTS": ("source", "tokens")})
    )
    with pytest.raises(
        ValueError,
        match=r"needs the batch fields source, tokens, targets, weights; data.kind='text' has no "
        r"source. Kinds that fit: pairs, spans",
    ):
        combination.check(config)
    monkeypatch.undo()
    headless = {key: value for key, value in vars(toy.BAG).items() if key != "logits"}
    monkeypatch.setitem(FAMILIES, "bag", type(toy.BAG)(**headless))
    with pytest.raises(
        ValueError, match=r"model.family='bag' has no logits. Families that fit: decoder"
    ):
        combination.check(config)
    monkeypatch.undo()
    combination.check(config)
    assert np.all([name in OBJECTIVES for name in ("toy_focal", "distil")])


@pytest.mark.parametrize("converted", [False, True])
def test_published_weights_can_be_trained(home, converted):
    """From a Hugging Face folder, or from the run that `isoflop convert` makes from one."""
    folder = ROOT / "tests" / "golden" / "hf" / "llama"
    source = folder
    if converted:
        source = home / "llama"
        assert isoflop(["convert", f"--from_hf={folder}", f"--to={source}"]) == 0
    keys = {"data.tokenizer": "chars", "train.duration": "6 steps", "optimizer.learning_rate": "0"}
    config = toy.config(
        home, **keys | {"model.family": "decoder", "objective.name": "next_token"},
        **{"train.init_from": str(source), "model.d_model": "36"},
    )  # fmt: skip
    published, loaded = weights.load(folder)
    assert config.model.norm == published.norm == "rmsnorm"  # the section comes from the weights
    assert trial.run(config, home / f"tuned-{converted}") == 0
    kept = params(home / f"tuned-{converted}")
    assert hash_of(kept) == hash_of(jax.tree.map(np.asarray, loaded))  # a rate of 0 changes nothing
    ids = {result(home / name)["id"] for name in ("tuned-False", f"tuned-{converted}")}
    assert len(ids) == 1  # the same weights, from different paths
