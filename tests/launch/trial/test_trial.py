"""Tests of trials: resolved configs, ids, results and bad input."""

import errno
import json
import shutil
from pathlib import Path

import pytest

from configs import base
from data.kinds import text
from launch import __main__ as command_line
from launch.files import read_json
from launch.trial import run as trial
from launch.trial.identity import identity, trial_id
from launch.trial.resolve import describe, resolve
from model.families import CONVENTIONS
from tests import disks
from train import checkpoint

ROOT = Path(__file__).resolve().parents[3]
TINY = {
    "model.n_layers": 1, "model.d_model": 16, "model.n_heads": 2, "model.context_length": 16,
    "train.batch_size": 4, "train.duration": "40 steps", "eval.sequences": 16, "seed": 3,
    "train.chunk": 4,
}  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory, compiled_once) -> Path:
    folder = tmp_path_factory.mktemp("trials")
    lines = [
        f"Paragraph {i} says something of its own, {i * i % 97} times.\n\n" for i in range(4000)
    ]
    (folder / "text.txt").write_text("".join(lines))
    return folder


@pytest.fixture(scope="module")
def dataset(home) -> text.Dataset:
    return text.prepare(config(home).data, progress=False)


def config(home: Path, **changes):
    keys = {"data.corpora": (f"{home}/text.txt",), "data.cache": f"{home}/cache"} | TINY | changes
    made = base.get_config()
    made.update_from_flattened_dict(keys)
    return made


def run(home: Path, capsys, workdir: Path, *flags: str) -> tuple[int, str]:
    """Exit code and stderr of `isoflop train`."""
    keys = {"data.corpora": f"{home}/text.txt", "data.cache": f"{home}/cache"} | TINY
    names = [flag.split("=")[0] for flag in flags]
    given = [f"--config.{k}={v}" for k, v in keys.items() if f"--config.{k}" not in names]
    if "--config" not in names:
        given.append("--config=configs/base.py")
    code = command_line.main(["train", f"--workdir={workdir}", *given, *flags])
    return code, capsys.readouterr().err


def test_resolve_makes_everything_explicit_and_is_idempotent(home, dataset):
    resolved = resolve(config(home, **{"train.duration": "2e4 tokens"}), dataset)
    assert resolved.train.duration == "312 steps"  # 2e4 / (4 x 16) = 312.5
    assert resolved.schedule.warmup == "6 steps" and resolved.schedule.decay == "62 steps"
    assert resolved.model.vocab_size == 256 and resolved.model.d_ff == 64
    assert resolved.model.head_dim == 8 and resolved.model.n_kv_heads == 2
    assert resolved.data.hash == dataset.hash
    assert resolve(resolved, dataset).to_json() == resolved.to_json()


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_a_duration_in_flops_costs_that_many(home, dataset, convention):
    changes = {"train.duration": "3e9 flops", "train.flops_convention": convention}
    about = describe(resolve(config(home, **changes), dataset), dataset)
    assert about["flops"][convention] == pytest.approx(3e9, rel=0.01)
    assert about["tokens"] == about["steps"] * about["batch"]


def test_rows_that_devices_cannot_share_are_refused_with_the_nearest_that_can(home, dataset):
    with pytest.raises(ValueError, match=r"train.batch_size=4 is no multiple of 8.*; use 8$"):
        resolve(config(home), dataset, devices=8)
    with pytest.raises(ValueError, match=r"=12 is no multiple of 8, .* 4 devices times .*=2 need"):
        changes = {"train.batch_size": 12, "train.accumulation": 2}
        resolve(config(home, **changes), dataset, devices=4)
    with pytest.raises(ValueError, match=r"eval.batch_size=12 is no multiple of 8.*; use 8 or 16"):
        changes = {"train.batch_size": 8, "eval.batch_size": 12}
        resolve(config(home, **changes), dataset, devices=8)


def test_a_bug_is_not_called_bad_input(home, tmp_path, monkeypatch):
    def buggy(*args, **keywords):
        raise ValueError("a bug in the model")

    monkeypatch.setattr("train.loop.Run", buggy)
    with pytest.raises(ValueError, match="a bug in the model"):
        trial.run(config(home), tmp_path / "run")


# The disk is full when the run logs, before its first checkpoint, and before its second one.
@pytest.mark.parametrize("size", ["12k", "160k", "1500k"])
def test_a_disk_that_is_really_full_is_one_line(home, tmp_path, capfd, caplog, size):
    with disks.small(tmp_path / "small", size) as small:
        code, error = run(home, capfd, small / "run", "--config.checkpoint.every=10 steps")
        found = checkpoint.finished(small / "run/checkpoints")
        (line,) = [line for line in error.splitlines() if not line.startswith("trial: step ")]
        assert code == 2 and f"no space left in {small}/run; " in line
        assert ("last good checkpoint is kept" in line) == bool(found)
        assert bool(found) == (size == "1500k") and "ERROR" not in caplog.text
        assert [checkpoint.damage(path) for path in found] == [None] * len(found)


def test_batch_per_device_is_multiplied_once(home, dataset):
    resolved = resolve(config(home, **{"train.batch_per_device": 3}), dataset, devices=8)
    assert resolved.train.batch_size == 24
    assert resolve(resolved, dataset, devices=8).train.batch_size == 24


def test_the_id_follows_the_numbers_and_nothing_else(home, dataset, tmp_path):
    plain = trial_id(resolve(config(home), dataset))
    for key, value in {
        "checkpoint.keep_last": 7, "log.every": "1 steps", "train.chunk": 3, "eval.batch_size": 5,
    }.items():  # fmt: skip
        assert trial_id(resolve(config(home, **{key: value}), dataset)) == plain
    for key, value in {
        "seed": 4, "model.d_model": 18, "optimizer.learning_rate": 2e-3, "schedule.warmup": "4 %",
        "train.batch_size": 5, "eval.sequences": 15, "data.validation": 0.3,
    }.items():  # fmt: skip
        changed = config(home, **{key: value})
        other = text.prepare(changed.data, progress=False)
        assert trial_id(resolve(changed, other)) != plain, key
    # Moving the text does not change the id.
    shutil.copy(home / "text.txt", tmp_path / "moved.txt")
    moved = config(home, **{"data.corpora": (f"{tmp_path}/moved.txt",)})
    assert trial_id(resolve(moved, text.prepare(moved.data, progress=False))) == plain


def test_keys_at_their_defaults_leave_the_id_alone(home, dataset):
    plain = resolve(config(home), dataset)
    assert {"model.family", "model.norm", "objective.name"}.isdisjoint(identity(plain))
    assert identity(plain)["model.d_model"] == TINY["model.d_model"]
    unused = resolve(config(home, **{"model.base_width": 8}), dataset)
    assert trial_id(unused) == trial_id(plain)
    used = {"model.parametrization": "mup", "model.base_width": 8, "model.base_head_dim": 8}
    assert trial_id(resolve(config(home, **used), dataset)) != trial_id(plain)


BAD_KEYS = {
    "--config.model.parametrization=mup": "model.base_width=0, but model.parametrization='mup'",
    "--config.model.n_heads=3": "model.n_heads=3 does not divide model.d_model=16; use 1, 2",
    "--config.modle.d_model=3": "config.modle.d_model",
    "--config.model.d_modle=3": "did you mean config.model.d_model",
    "--config.model.d_model=wide": "config.model.d_model=wide is not a",
    "--config.model.norm=batch": "model.norm='batch' is unknown; use one of layernorm, rmsnorm",
    "--config.optimizer.name=adam": "optimizer.name='adam' is unknown; use one of adamw",
    "--config.schedule.name=cos": "schedule.name='cos' is unknown; use one of constant",
    "--config.train.duration=5": "train.duration='5' is not a duration",
    "--config.train.duration=1e3 flops": "too small for one step",
    "--config.schedule.warmup=41 steps": "longer than the run of 40 steps",
    "--config.train.batch_size=0": "train.batch_size=0 is too small",
    "--config.train.accumulation=3": "train.accumulation=3 does not divide train.batch_size=4",
    "--config.train.batch_size=99999": "a batch needs train.batch_size=99999",
    "--config.model.vocab_size=100": "model.vocab_size=100 is smaller than the 256 tokens",
    "--config.model.context_length=10000000": "one sequence needs model.context_length=10000000",
    "--config.data.corpora=/no/such/place": "/no/such/place",
    "--config.data.hash=abc": "data.hash='abc'",
    "--config.name=../../x": "name='../../x' is not valid; use 1 to 200 letters, digits and",
    "--config.name=.x": "name='.x' is not valid",
    "--config.name=": "name='' is not valid",
    "--config.name=a\x1b[2Jb": r"name='a\x1b[2Jb' is not valid",
    f"--config.name={'x' * 201}": "is not valid; use 1 to 200",
    "--config.mesh.data=7": "mesh.data=7",
    "--config.seed=4294967296": "seed=4294967296 must be below 4294967296",
    "--config.train.duration=1e400 tokens": "train.duration='1e400 tokens' is not a duration",
    "--config=configs/nothing.py": "there is no config file configs/nothing.py",
}


def test_a_corpus_of_a_mixture_without_validation_text_is_refused(home):
    """The only file of the folder is one document, and it is in the training split."""
    folder = home / "folder"
    folder.mkdir()
    (folder / "one.txt").write_text("no line of this is held out. " * 400)
    corpora = (f"{home}/text.txt", str(folder))
    mixed = config(home, **{"data.corpora": corpora, "data.weights": (1.0, 1.0)})
    mixture = text.prepare(mixed.data, progress=False)
    with pytest.raises(ValueError, match="has 0 validation tokens in 0 documents"):
        resolve(mixed, mixture)


@pytest.mark.parametrize("flag, message", BAD_KEYS.items())
def test_bad_input_is_one_line_and_exit_2(home, tmp_path, capsys, flag, message):
    code, error = run(home, capsys, tmp_path / "run", flag)
    line = error.strip().splitlines()[-1]
    assert code == 2 and message in line, error
    assert "Traceback" not in error
    assert not list(tmp_path.glob("run/*json*"))


@pytest.mark.parametrize("content, message", [(b"", "empty"), (b"a\0b" * 99, "binary")])
def test_empty_and_binary_text_is_refused(home, tmp_path, capsys, content, message):
    (tmp_path / "bad.txt").write_bytes(content)
    code, error = run(home, capsys, tmp_path / "run", f"--config.data.corpora={tmp_path}/bad.txt")
    assert code == 2 and message in error and "bad.txt" in error


def test_a_workdir_with_another_run_is_refused_and_untouched(home, tmp_path, capsys):
    assert run(home, capsys, tmp_path / "run")[0] == 0
    before = {p: p.stat().st_mtime for p in (tmp_path / "run").rglob("*")}
    code, error = run(home, capsys, tmp_path / "run", "--config.seed=4")
    assert code == 2 and "config.seed is 3 there and 4 here; choose another --workdir" in error
    assert {p: p.stat().st_mtime for p in (tmp_path / "run").rglob("*")} == before
    result = read_json(tmp_path / "run/result.json")
    for key in (
        *("id", "status", "sweep", "overrides", "holdout", "params", "tokens", "steps", "batch"),
        *("context_length", "epochs_of_data", "flops", "train_loss", "eval_loss", "eval_loss_se"),
        *("bits_per_byte", "seconds", "compile_seconds", "tokens_per_second", "mfu", "seed"),
        *("hyperparameters", "dataset", "versions", "device", "curve"),
    ):
        assert key in result, key
    assert result["status"] == "done" and result["seed"] == 3 and result["mfu"] is None


def test_damage_is_refused_by_name(home, tmp_path, capsys):
    """First every checkpoint, then a shard; no file is deleted."""
    cache = f"--config.data.cache={tmp_path}/cache"
    longer = "--config.checkpoint.every=10 steps"
    assert run(home, capsys, tmp_path / "run", cache, longer)[0] == 0
    (tmp_path / "run/result.json").unlink()
    for path in (tmp_path / "run/checkpoints").iterdir():
        data = max((p for p in path.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
        data.write_bytes(data.read_bytes()[:-1] + b"!")
    before = sorted((tmp_path / "run/checkpoints").rglob("*"))
    code, error = run(home, capsys, tmp_path / "run", cache, longer)
    assert code == 2 and "every checkpoint in" in error and "delete the folder" in error
    assert sorted((tmp_path / "run/checkpoints").rglob("*")) == before
    shard = next((tmp_path / "cache").rglob("*.bin"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(bytes(content))
    code, error = run(home, capsys, tmp_path / "run2", cache)
    assert code == 2 and shard.name in error


def test_a_full_disk_is_one_line_and_keeps_the_last_checkpoint(home, tmp_path, capsys, monkeypatch):
    write, calls = checkpoint.write_manifest, []

    def full_the_second_time(*args):
        calls.append(args)
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, "No space left on device", str(args[0]))
        write(*args)

    monkeypatch.setattr(checkpoint, "write_manifest", full_the_second_time)
    code, error = run(home, capsys, tmp_path / "run", "--config.checkpoint.every=10 steps")
    assert code == 2 and "no space left" in error and "last good checkpoint is kept" in error
    assert [p.name for p in checkpoint.finished(tmp_path / "run/checkpoints")] == ["10"]
    monkeypatch.undo()
    assert run(home, capsys, tmp_path / "run", "--config.checkpoint.every=10 steps")[0] == 0


def test_a_metrics_row_is_json_a_line(home, tmp_path, capsys):
    assert run(home, capsys, tmp_path / "run")[0] == 0
    for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines():
        assert json.loads(line)["step"] > 0
