"""Tests of train.on_spike: a NaN batch and a loss of 100 times its median, under each policy."""

import contextlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from launch.__main__ import main as isoflop
from tests import spawn
from tests.faults.training import bad_batches
from train import metrics
from train.checkpoint import finished, restore_params
from train.recovery import spikes

TINY = {
    "model.n_layers": 1, "model.d_model": 16, "model.n_heads": 2, "model.context_length": 16,
    "train.batch_size": 4, "train.duration": "96 steps", "train.chunk": 8, "eval.sequences": 16,
    "eval.batch_size": 8, "eval.every": "48 steps", "checkpoint.every": "16 steps",
    "log.every": "8 steps", "log.tensorboard": "false",
}  # fmt: skip
NAN, SPIKE, BOTH = {60: "nan"}, {60: "spike"}, {60: "nan", 75: "spike"}


@pytest.fixture(scope="module")
def home(text_folder, compiled_once) -> Iterator[Path]:
    jax.clear_caches()  # programs with the objective's own loss, and then those with the test's
    yield text_folder
    jax.clear_caches()


@pytest.fixture
def train(home, monkeypatch):
    """Trains a run with bad batches: (its exit code, output, folder, the steps of data it read)."""

    def run(name: str, bad: dict, **overrides) -> tuple[int, str, Path, list[int]]:
        read = bad_batches.patched(monkeypatch.setattr, bad)
        keys = TINY | {f"train.{k}": v for k, v in overrides.items() if "." not in k}
        keys |= {k: v for k, v in overrides.items() if "." in k}
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(out):
            code = isoflop(spawn.arguments(home, name, keys))
        return code, out.getvalue(), home / name, read

    return run


def result(folder: Path) -> dict:
    return json.loads((folder / "result.json").read_text(), parse_constant=pytest.fail)


def parameters(folder: Path) -> list[bytes]:
    return [leaf.tobytes() for leaf in jax.tree.leaves(restore_params(folder / "checkpoints")[0])]


@pytest.mark.slow
@pytest.mark.parametrize("bad", [NAN, SPIKE], ids=["nan", "spike"])
def test_by_default_a_spike_ends_the_run(train, bad):
    code, output, folder, _ = train(f"stop-{bad[60]}", bad)
    assert code == 43 and result(folder)["status"] == "diverged", output
    assert "spikes" not in result(folder)


@pytest.mark.parametrize("accumulation", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_skipped_update_changes_nothing_but_the_step(train, accumulation):
    code, output, folder, read = train(
        f"skip-{accumulation}", BOTH, on_spike="skip", accumulation=accumulation
    )
    assert code == 0, output
    noted = result(folder)["spikes"]
    assert [(spike["step"], spike["skipped"]) for spike in noted] == [(60, True), (75, True)]
    assert "at step 60; its update is skipped" in output and "at step 75" in output
    assert read[:96] == list(range(96))  # no data are shifted
    losses = [row["loss"] for row in metrics.read(folder / "metrics.jsonl") if "loss" in row]
    assert len(losses) == 12 and max(losses[6:]) < 4.5  # of the other steps
    clean = train(f"clean-{accumulation}", {}, on_spike="skip", accumulation=accumulation)
    assert result(clean[2])["spikes"] == [] and parameters(clean[2]) != parameters(folder)
    assert result(folder)["eval_loss"] == pytest.approx(result(clean[2])["eval_loss"], rel=0.03)


@pytest.mark.slow
def test_skipping_does_not_depend_on_the_chunks(train):
    one = train("chunks-8", BOTH, on_spike="skip", chunk=8)
    other = train("chunks-3", BOTH, on_spike="skip", chunk=3)
    assert one[0] == other[0] == 0 and parameters(one[2]) == parameters(other[2])
    assert result(one[2])["spikes"] == result(other[2])["spikes"]


@pytest.mark.slow
def test_without_spikes_the_policy_changes_no_bit(train):
    runs = [train(f"none-{policy}", {}, on_spike=policy)[2] for policy in spikes.POLICIES]
    assert len({tuple(parameters(folder)) for folder in runs}) == 1
    control = train("none-other", {}, batch_size=8)[2]
    assert parameters(control) != parameters(runs[0])


@pytest.mark.slow
def test_a_rewind_leaves_out_the_data_of_the_spike(train):
    code, output, folder, read = train("rewind", BOTH, on_spike="rewind")
    assert code == 0, output
    noted = result(folder)["spikes"]
    assert [(spike["step"], spike["back_to"], spike["left_out"]) for spike in noted] == [
        (60, 48, [59, 61]),
        (73, 64, [72, 74]),  # step 73 reads the data of step 75
    ]
    said = " is not finite at step 60; back to step 48, without the data of steps 59 to 60"
    assert said in output
    last = read[len(read) - 32 :]
    assert 60 not in last and 75 not in last and last[-1] == 99
    rows = metrics.read(folder / "metrics.jsonl")
    steps = [row["step"] for row in rows if "loss" in row]
    assert steps == list(range(8, 97, 8)) and all(np.isfinite(row.get("loss", 0)) for row in rows)
    assert result(folder)["steps"] == 96 and result(folder)["goodput"]["seconds"]["rewound"] > 0


@pytest.mark.slow
def test_a_rewind_is_training_without_those_data(train):
    """The parameters are those of a run whose data never had the steps that are left out."""
    _, _, folder, _ = train("left-out", NAN, on_spike="rewind")
    with pytest.MonkeyPatch.context() as patch:
        keep = lambda step: step + 2 * (step >= 59)  # noqa: E731
        whole = bad_batches.READ

        def read(config, dataset, step, count, rows=None):
            parts = [whole(config, dataset, keep(step + i), 1, rows) for i in range(count)]
            joined = {k: np.concatenate([p[k][:1] for p in parts]) for k in parts[0]}
            return {
                k: np.pad(v, [(0, config.train.chunk - count)] + [(0, 0)] * (v.ndim - 1))
                for k, v in joined.items()
            }

        patch.setattr(bad_batches, "READ", read)
        other = train("never-had", {}, on_spike="rewind")
    assert other[0] == 0 and parameters(other[2]) == parameters(folder)
    assert parameters(train("had", {}, on_spike="rewind")[2]) != parameters(folder)  # control


def test_a_spike_right_after_a_checkpoint_goes_back_to_the_one_before(train):
    """The update before the checkpoint may be the cause."""
    code, output, folder, _ = train("early", {64: "nan"}, on_spike="rewind")
    assert code == 0, output
    spike = result(folder)["spikes"][0]
    assert (spike["step"], spike["back_to"], spike["left_out"]) == (64, 48, [63, 65])


@pytest.mark.slow
def test_before_the_first_checkpoint_it_starts_anew(train):
    code, output, folder, _ = train("first", {0: "nan"}, on_spike="rewind")
    assert code == 0, output
    assert result(folder)["spikes"][0]["back_to"] == 0
    assert result(folder)["spikes"][0]["left_out"] == [0, 1]


@pytest.mark.slow
@pytest.mark.parametrize("policy, spent", [("skip", 3), ("rewind", 2)])
def test_after_max_spikes_the_run_has_diverged(train, policy, spent):
    bad = dict.fromkeys(range(50, 90, 5), "nan")
    code, output, folder, _ = train(f"most-{policy}", bad, on_spike=policy, max_spikes=2)
    assert code == 43 and result(folder)["status"] == "diverged", output
    assert len(result(folder)["spikes"]) == spent
    assert (folder / "diverged/diverged.json").exists()


@pytest.mark.slow
def test_a_run_stopped_between_spikes_goes_on_with_the_same_bits(train):
    whole = train("uncut", BOTH, on_spike="rewind")[2]
    for stop_at in ("50 steps", "64 steps", "70 steps", ""):
        code, output, folder, _ = train(
            "cut", BOTH, on_spike="rewind", **{"checkpoint.stop_at": stop_at}
        )
        assert code == 0, output
    assert parameters(folder) == parameters(whole)
    assert len(finished(folder / "checkpoints")) >= 2


@pytest.mark.parametrize(
    "left_out, first, end, expected",
    [
        ((), 3, 5, ((3, 5),)),
        ((), 3, 3, ()),
        (((3, 5),), 3, 5, ((3, 7),)),  # steps 3 and 4 read the data of steps 5 and 6
        (((3, 5),), 1, 2, ((1, 2), (3, 5))),
        (((3, 5),), 8, 10, ((3, 5), (10, 12))),
        (((3, 5),), 2, 4, ((2, 6),)),
    ],
)
def test_data_that_are_left_out(left_out, first, end, expected):
    found = spikes.without(left_out, first, end)
    assert found == expected
    gone = {step for pair in found for step in range(*pair)}
    rest = [step for step in range(40) if step not in gone]
    assert [spikes.data_step(step, found)[0] for step in range(20)] == rest[:20]
    for step in range(20):
        data, follow = spikes.data_step(step, found)
        assert follow == min((pair[0] - data for pair in found if pair[0] > data), default=np.inf)


@pytest.mark.parametrize(
    "keys, message",
    [
        ({"train.on_spike": "wait"}, "train.on_spike='wait' is unknown; use one of stop, skip"),
        ({"train.max_spikes": 0}, "train.max_spikes=0 is too small; use 1 or more"),
        (
            {"train.on_spike": "skip", "optimizer.offload": "true"},
            "optimizer.offload=True moves to the host; use stop or rewind",
        ),
    ],
)
def test_what_is_refused(home, capsys, keys, message):
    assert isoflop(spawn.arguments(home, "refused", TINY | keys)) == 2
    assert message in capsys.readouterr().err


def test_a_spike_without_data_to_leave_out_cannot_be_avoided():
    """Back at the step whose evaluation showed it, a run would repeat itself."""
    config = SimpleNamespace(train={"on_spike": "rewind", "max_spikes": 5})
    for now, step, expected in ((64, 64, True), (64, 63, False), (65, 64, False), (64, 48, False)):
        found = spikes.Spikes(config, {})
        found.found("eval_loss is not finite", 64, now)
        assert found.unavoidable(step) is expected
        if not expected:
            found.rewound(step)
            assert found.left_out


def test_a_run_that_can_leave_out_nothing_has_diverged(train, monkeypatch):
    monkeypatch.setattr(spikes.Spikes, "unavoidable", lambda self, step: step == 48)
    code, output, folder, _ = train("unavoidable", NAN, on_spike="rewind")
    assert code == 43 and result(folder)["status"] == "diverged", output
    assert "no earlier checkpoint is left" in output and "; back to step" not in output
    assert result(folder)["spikes"] == []
    assert metrics.read(folder / "metrics.jsonl")[-1]["step"] == 48
    assert (folder / "diverged/diverged.json").exists()
