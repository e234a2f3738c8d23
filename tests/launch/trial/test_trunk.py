"""Tests of trunks: branched runs equal direct runs bit for bit; unsuitable trunks are refused."""

import itertools
import json
import re
from pathlib import Path

import jax
import numpy as np
import pytest

from configs import base
from launch.amounts import flops
from launch.errors import DIVERGED, BadInput
from launch.files import read_json
from launch.runners import RUNNERS
from launch.sweep import expand as plan
from launch.trial import run as trial
from launch.trial import trunk
from launch.trial.identity import trial_id
from launch.trial.resolve import prepare, resolve
from launch.verbs.models import sweep
from tests.launch.inline import Inline
from train import checkpoint, metrics, record

# Dropout, clipping and an optimiser that counts steps: everything that could depend on the step.
TINY = {
    "model.n_layers": 1, "model.d_model": 16, "model.n_heads": 2, "model.context_length": 16,
    "model.dropout": 0.1, "train.batch_size": 4, "train.duration": "150 steps", "train.chunk": 16,
    "schedule.name": "wsd", "schedule.warmup": "10 steps", "schedule.decay": "20 %",
    "eval.sequences": 16, "eval.batch_size": 8, "log.tensorboard": False, "log.every": "10 steps",
    "eval.every": "25 steps", "checkpoint.every": "0 steps", "checkpoint.keep_last": 1,
    "checkpoint.keep_best": 0, "seed": 3,
}  # fmt: skip
CLOCK = {
    *(
        "seconds",
        "goodput",
        "compile_seconds",
        "tokens_per_second",
        "model_flops_per_second",
        "mfu",
    ),
    *("branched_at", "branched_from", "sweep"),
}
SHORT = {"train.duration": "100 steps"}  # decays from step 80 on


@pytest.fixture(scope="module")
def home(text_folder, compiled_once) -> Path:
    return text_folder


def config(home: Path, **changes):
    keys = {"data.corpora": (f"{home}/text.txt",), "data.cache": f"{home}/cache"} | TINY | changes
    made = base.get_config()
    made.update_from_flattened_dict(keys)
    return made


def train(home: Path, name: str, **changes) -> Path:
    assert trial.run(config(home, **changes), home / name) == 0
    return home / name


@pytest.fixture(scope="module")
def whole(home) -> Path:
    """A run of 150 steps that decays over the last 30 and keeps some checkpoints."""
    return train(home, "whole", **{"checkpoint.keep_at": ("75 steps", "80 steps", "80 %")})


@pytest.fixture(scope="module")
def direct(home) -> Path:
    return train(home, "direct", **SHORT)


def numbers(run: Path) -> tuple[dict, list[dict]]:
    """The result.json and metrics of a run, without times and origin."""
    timeless = lambda row: {k: v for k, v in row.items() if k not in CLOCK}  # noqa: E731
    rows = metrics.read(run / "metrics.jsonl")
    return timeless(read_json(run / "result.json")), [timeless(row) for row in rows]


def state(run: Path, step: int) -> dict[str, bytes]:
    """Every array of a checkpoint."""
    reader = checkpoint.ocp.StandardCheckpointer()
    path = run / "checkpoints" / str(step)
    shapes = reader.metadata(path.absolute()).item_metadata
    like = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), shapes)
    leaves = jax.tree_util.tree_leaves_with_path(reader.restore(path.absolute(), like))
    return {jax.tree_util.keystr(name): np.asarray(leaf).tobytes() for name, leaf in leaves}


def assert_same(one: Path, other: Path, step: int) -> None:
    assert state(one, step) == state(other, step)
    assert numbers(one) == numbers(other)


def assert_other_parameters(one: Path, other: Path, step: int) -> None:
    """Asserts that all kernels and the loss differ, not just the saved state of the schedule."""
    ours, theirs = state(one, step), state(other, step)
    kernels = [name for name in ours if "params" in name and "kernel" in name]
    assert kernels and all(ours[name] != theirs[name] for name in kernels)
    assert numbers(one)[0]["eval_loss"] != numbers(other)[0]["eval_loss"]


def test_a_branched_run_is_the_run_itself_bit_for_bit(home, whole, direct):
    branch = train(home, "branch", **SHORT, **{"checkpoint.trunk": str(whole)})
    result = read_json(branch / "result.json")
    assert (result["branched_at"], result["branched_from"]) == (80, "whole")
    assert result["steps"] == 100 and result["tokens"] == 100 * 4 * 16
    assert read_json(direct / "result.json")["branched_at"] == 0
    assert_same(branch, direct, 100)


@pytest.mark.slow
def test_so_it_is_with_muon(home):
    """The state of Muon has other parts, and its own step counts."""
    muon = {"optimizer.name": "muon"}
    long = train(home, "long-muon", **muon, **{"checkpoint.keep_at": ("80 steps",)})
    branch = train(home, "branch-muon", **muon, **SHORT, **{"checkpoint.trunk": str(long)})
    assert read_json(branch / "result.json")["branched_at"] == 80
    assert_same(branch, train(home, "direct-muon", **muon, **SHORT), 100)


def test_control_a_branch_at_another_step_is_another_run(home, whole, direct):
    """The same length and trunk, but the decay begins five steps earlier."""
    early = {"checkpoint.trunk": str(whole), "schedule.decay": "25 steps"}
    branch = train(home, "early", **SHORT, **early)
    assert read_json(branch / "result.json")["branched_at"] == 75
    assert_other_parameters(branch, direct, 100)


def test_control_a_state_from_within_the_decay_gives_another_run(home, whole, monkeypatch):
    """`branch_until` excludes such states: here that of the trunk after 145 of 150 steps."""
    train(home, "late", **{"checkpoint.keep_at": ("145 steps",)})
    long = {"train.duration": "200 steps"}
    direct = train(home, "long", **long)
    monkeypatch.setattr(trunk, "branch_until", lambda *_: 145)
    branch = train(home, "wrong", **long, **{"checkpoint.trunk": str(home / "late")})
    assert read_json(branch / "result.json")["branched_at"] == 145
    assert_other_parameters(branch, direct, 200)


def test_an_earlier_state_will_do_and_a_longer_run_may_start_there_too(home, whole):
    """The run decays from step 160 on, the trunk from 120 on, where it has a checkpoint."""
    long = {"train.duration": "200 steps"}
    branch = train(home, "longer", **long, **{"checkpoint.trunk": str(whole), "train.chunk": 7})
    assert read_json(branch / "result.json")["branched_at"] == 120
    assert_same(branch, train(home, "long", **long), 200)


def test_a_branch_stopped_and_resumed_needs_no_trunk_any_more(home, whole, direct, monkeypatch):
    changes = SHORT | {"checkpoint.trunk": str(whole), "checkpoint.every": "10 steps"}
    stop_at(monkeypatch, 95)
    with pytest.raises(Killed):
        train(home, "again", **changes)
    monkeypatch.undo()
    branch = train(home, "again", **changes | {"checkpoint.trunk": str(home / "gone")})
    assert read_json(branch / "result.json")["branched_at"] == 80
    assert_same(branch, direct, 100)


class Killed(Exception):
    """Simulates a process that dies."""


def stop_at(monkeypatch, step: int) -> None:
    after = record.Record.after_chunk

    def killed(self, *args):
        if self.step >= step:
            self.checkpoints.wait()
            raise Killed
        return after(self, *args)

    monkeypatch.setattr(record.Record, "after_chunk", killed)


@pytest.mark.slow
def test_a_killed_trunk_resumes_and_keeps_what_it_keeps(home, whole, direct, monkeypatch):
    changes = {"checkpoint.keep_at": ("80 steps",), "checkpoint.every": "30 steps"}
    stop_at(monkeypatch, 70)
    with pytest.raises(Killed):
        train(home, "killed", **changes)
    monkeypatch.undo()
    killed = train(home, "killed", **changes)
    kept = [int(path.name) for path in checkpoint.finished(killed / "checkpoints")]
    assert kept == [150, 80]
    assert_same(killed, whole, 150)
    branch = train(home, "from-killed", **SHORT, **{"checkpoint.trunk": str(killed)})
    assert_same(branch, direct, 100)


def test_a_damaged_state_of_the_trunk_is_passed_over_and_left_alone(home, direct):
    keep = {"checkpoint.keep_at": ("40 steps", "80 steps")}
    damaged = train(home, "damaged", **keep)
    victim = next(
        p for p in (damaged / "checkpoints/80").rglob("*") if p.is_file() and p.stat().st_size
    )
    victim.write_bytes(victim.read_bytes()[:-1] + b"!")
    branch = train(home, "from-damaged", **SHORT, **{"checkpoint.trunk": str(damaged)})
    assert read_json(branch / "result.json")["branched_at"] == 40
    assert victim.exists()
    assert_same(branch, direct, 100)


REFUSED = {
    "model.dropout": (0.2, "config.model.dropout is 0.1 there and 0.2 here"),
    "optimizer.learning_rate": (2e-3, "config.optimizer.learning_rate is 0.001 there and 0.002"),
    "optimizer.name": ("lion", "config.optimizer.name is 'adamw' there and 'lion' here"),
    "seed": (4, "config.seed is 3 there and 4 here"),
    "train.batch_size": (8, "config.train.batch_size is 4 there and 8 here"),
    "schedule.warmup": ("11 steps", "config.schedule.warmup is '10 steps' there and '11 steps'"),
    "data.max_bytes": (50_000, "config.data.max_bytes is 0 there and 50000 here"),
    "schedule.name": ("cosine", "needs schedule.name='wsd', not 'cosine'"),
    "checkpoint.trunk": ("no/such/run", "checkpoint.trunk='no/such/run' holds no run"),
    "train.duration": (
        "90 steps",
        "has no checkpoint up to step 72, .* checkpoint.keep_at='72 steps'",
    ),
}


@pytest.mark.parametrize("key", [*REFUSED, "percent"])
def test_another_run_is_no_trunk_and_the_key_is_named(home, whole, tmp_path, capsys, key):
    changes = {"checkpoint.trunk": str(whole)} | SHORT
    value, message = REFUSED.get(key, ("5 %", "not schedule.warmup='5 %'; use '100 steps'"))
    changes["schedule.warmup" if key == "percent" else key] = value
    assert trial.run(config(home, **changes), tmp_path / "run") == 2
    error = capsys.readouterr().err.strip()
    assert "\n" not in error and "checkpoint.trunk" in error
    assert re.search(message, error), error
    assert not (tmp_path / "run").exists()


def test_steps_to_keep_lie_within_the_run(home, tmp_path, capsys):
    wrong = config(home, **{"checkpoint.keep_at": ("10 steps", "151 steps")})
    assert trial.run(wrong, tmp_path / "run") == 2
    assert "is steps [10, 151], outside the run of 150 steps" in capsys.readouterr().err


def test_trunks_are_not_part_of_the_id(home):
    changes = {"checkpoint.keep_at": ("80 steps",), "checkpoint.trunk": "x"}
    plain, other = config(home), config(home, **changes, **{"checkpoint.share_trunks": True})
    dataset = prepare(plain, progress=False)
    ids = {trial_id(resolve(c, dataset)) for c in (plain, other)}
    assert len(ids) == 1


SWEEP = """
from tests.launch.trial.test_trunk import Path, config

def get_config(arg=None):
    keys = {{"checkpoint.share_trunks": {share}, "eval.every": "25 %", "log.every": "2 %"}}
    return config(Path({home!r}), **keys).lock()

def get_sweep(c):
    lengths = [{{"train.duration": f"{{n}} steps"}} for n in (60, 100, 150)]
    return [*lengths, {{"seed": 5, "train.duration": "60 steps"}},
            {{"train.duration": "200 steps", "holdout": True}}]
"""


@pytest.fixture(scope="module")
def sweeps(home):
    """The folder of the same sweep run with shared trunks and without."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(RUNNERS, "local", Inline())
        for share in (True, False):
            name = "shared" if share else "separate"
            (home / f"{name}.py").write_text(SWEEP.format(share=share, home=str(home)))
            flags = [f"--config={home}/{name}.py", f"--workdir={home}/{name}", "--nofit"]
            assert sweep.main(flags) == 0
    return home


@pytest.mark.slow
def test_a_sweep_with_shared_trunks_has_the_results_of_one_without(sweeps):
    found = {p.parent.name: p.parent for p in sweeps.glob("shared/*/result.json")}
    others = {p.parent.name for p in sweeps.glob("separate/*/result.json")}
    assert found.keys() == others and len(found) == 5
    branched = {}
    for key, run in found.items():
        (ours, rows), (theirs, direct) = numbers(run), numbers(sweeps / "separate" / key)
        origin = read_json(run / "result.json")
        branched[key] = origin["branched_at"]
        # Evaluations before the branch are those of the trunk, at the steps of the trunk.
        curves = [[p for p in r.pop("curve") if p[0] > branched[key]] for r in (ours, theirs)]
        assert curves[0] == curves[1] and ours == theirs
        after = [[row for row in part if row["step"] > branched[key]] for part in (rows, direct)]
        assert after[0] == after[1] and after[0]
    # The held-out run branches where the longest fitted trial begins to decay: 120 of 150.
    assert sorted(branched.values()) == [0, 0, 48, 80, 120]
    assert all(read_json(p)["branched_at"] == 0 for p in sweeps.glob("separate/*/result.json"))


@pytest.mark.slow
def test_control_the_sweep_s_numbers_do_depend_on_what_they_are_compared_with(sweeps):
    results = [read_json(p) for p in sweeps.glob("shared/*/result.json")]
    for one, other in itertools.combinations(results, 2):
        assert one["eval_loss"] != other["eval_loss"]


def test_the_plan_says_what_is_saved(sweeps, capsys):
    flags = [f"--config={sweeps}/shared.py", "--workdir=w", "--dry_run", f"--json={sweeps}/j.json"]
    assert sweep.main(flags) == 0
    shown = capsys.readouterr().out
    planned = plan.plan(f"{sweeps}/shared.py", {})
    assert shown.count("held out, from step 120 of") == 1 and shown.count("from step") == 3
    steps = {
        p["id"]: p["branched_at"] for p in json.loads((sweeps / "j.json").read_text())["trials"]
    }
    spared = sum(p.flops * steps[p.id] / p.about["steps"] for p in planned.trials)
    whole = sum(p.flops for p in planned.trials)
    cost = f"{flops(whole - spared)} FLOPs in place of {flops(whole)}"
    assert f"3 trials branch from longer ones: {cost}" in shown
    assert f"{spared / whole:.0%} saved" in shown and 0.2 < spared / whole < 0.5
    assert [len(stage) for stage in planned.stages] == [2, 2, 1]
    (keep_at,) = [k for p in planned.trials if (k := p.config.checkpoint.keep_at)]
    assert keep_at == ("48 steps", "80 steps", "120 steps")


@pytest.mark.slow
def test_a_sweep_whose_trunk_ends_badly_trains_its_branches_from_the_start(
    home, sweeps, monkeypatch, capfd
):
    """The longest trials diverge; the others reach the same numbers as without trunks."""

    def badly(config, *others):
        return DIVERGED if config.checkpoint.keep_at else trial.run(config, *others)

    monkeypatch.setitem(RUNNERS, "local", Inline(badly))
    flags = [f"--config={home}/shared.py", f"--workdir={home}/badly", "--nofit"]
    assert sweep.main(flags) == 0
    assert capfd.readouterr().err.count("starts from step 0") == 3
    for path in home.glob("badly/*/result.json"):
        assert read_json(path)["branched_at"] == 0
        theirs = read_json(home / "separate" / path.parent.name / "result.json")
        assert read_json(path)["eval_loss"] == theirs["eval_loss"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("--config.schedule.name=cosine", "share_trunks=True needs schedule.name='wsd'"),
        ("--config.schedule.warmup=2 %", "share_trunks=True needs a warmup that is the same"),
    ],
)
def test_a_sweep_that_cannot_share_trunks_says_so(sweeps, change, message):
    with pytest.raises(BadInput, match=message):
        sweep.main([f"--config={sweeps}/shared.py", "--workdir=w", change])
