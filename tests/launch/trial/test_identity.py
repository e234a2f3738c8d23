"""Tests of trial ids: the current rule, and folders whose ids follow an older rule."""

import json
import tarfile
from pathlib import Path

import pytest

from configs import base
from launch.__main__ import main as isoflop
from launch.sweep import expand
from launch.trial.identity import trial_id
from scaling.runs import read_runs
from train.checkpoint import finished, restore_params

# A sweep of three tiny trials from the last version with rule 1 (commit c92856e): one done, one
# stopped after 6 of its 12 steps, one not started.
ARCHIVE = Path(__file__).parents[2] / "reference" / "rule1.tar.xz"
DONE, STOPPED, FRESH = "done-3fce7b46", "stopped-b91d2aee", "fresh-17e8c0f5"
# The losses that the same version reached.
LOSSES = {DONE: 5.216500520706177, STOPPED: 5.364671528339386, FRESH: 5.358708083629608}


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    # The losses are those of programs that are compiled as outside the tests.
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "0")
    monkeypatch.delenv("XLA_FLAGS")
    return tmp_path / "runs"


@pytest.mark.slow
def test_a_sweep_of_rule_1_keeps_its_ids_and_resumes_bit_for_bit(folder, capfd):
    before = (folder / DONE / "result.json").read_bytes()
    sweep = ["sweep", "--config=sweep.py", f"--workdir={folder}", "--nofit", "--workers=1"]
    assert isoflop(sweep) == 0
    assert "1 of 3 trials are finished already" in capfd.readouterr().err
    assert (folder / DONE / "result.json").read_bytes() == before
    results = {p.parent.name: json.loads(p.read_text()) for p in folder.glob("*/result.json")}
    assert {key: result["eval_loss"] for key, result in results.items()} == LOSSES
    assert all(result["id"] == key for key, result in results.items())
    rows = [json.loads(line) for line in open(folder / STOPPED / "metrics.jsonl")]
    assert [row["step"] for row in rows if "loss" in row] == [2, 4, 6, 8, 10, 12]  # it resumed
    assert set(json.loads((folder / "sweep.json").read_text())["trials"]) == set(LOSSES)


def test_trials_of_another_config_are_not_taken_for_older_ones(folder):
    other = {"optimizer.b1": "0.8"}
    planned = expand.plan("sweep.py", other, folder)
    assert not {DONE, STOPPED, FRESH} & {trial.id for trial in planned.trials}
    assert {DONE, STOPPED, FRESH} == {t.id for t in expand.plan("sweep.py", {}, folder).trials}
    assert not {DONE, STOPPED, FRESH} & {t.id for t in expand.plan("sweep.py", {}).trials}


def test_results_of_an_older_version_are_points_of_a_law(folder):
    """They have no family, objective or metrics."""
    old = json.loads((folder / DONE / "result.json").read_text())
    assert "family" not in old and "metrics" not in old
    for times in (1000, 2000):  # 768 tokens are too few for a table
        found = old | {"id": f"x{times}", "tokens": times * old["tokens"]}
        found["flops"] = {name: times * flops for name, flops in old["flops"].items()}
        (folder / f"x{times}").mkdir()
        (folder / f"x{times}" / "result.json").write_text(json.dumps(found))
    (folder / DONE / "result.json").unlink()
    points = read_runs(folder)
    assert list(points.loss) == [old["eval_loss"]] * 2 and list(points.run) == ["x1000", "x2000"]
    assert list(points.params) == [sum(old["params"].values())] * 2


def test_the_checkpoint_of_an_older_version_is_read(folder):
    params, meta = restore_params(folder / STOPPED / "checkpoints")
    assert meta["step"] == 6 and params["embed"]["embedding"].shape == (256, 16)
    assert [path.name for path in finished(folder / DONE / "checkpoints")] == ["12"]


def test_the_rows_of_an_evaluation_count_where_they_say_which_windows_are_scored():
    def ids(carry_state):
        config = base.get_config(family="recurrent")
        config.model.carry_state = carry_state
        found = [trial_id(config)]
        config.eval.batch_size *= 2
        return [*found, trial_id(config)]

    carried, reset = ids(True), ids(False)
    assert carried[0] != carried[1] and reset[0] == reset[1]
