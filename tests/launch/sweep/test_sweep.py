import functools
import json
import os
import random
import signal
import threading

import numpy as np
import pytest

from launch.errors import BadInput
from launch.runners import RUNNERS, local
from launch.runners.tasks import Slot
from launch.sweep import dry_run, execution, expand
from launch.verbs.models import sweep
from scaling.design import prediction
from scaling.settings import Settings
from tests.launch import fake
from tests.launch.inline import Inline
from train.flatten import difference, flatten


@pytest.fixture
def config(tmp_path, monkeypatch):
    """The path of a sweep of 15 fake trials and a held-out one; fakes trials in every module."""
    for name in ("resolve", "trial_id", "describe"):
        monkeypatch.setattr(expand, name, getattr(fake, name))
    monkeypatch.setattr(expand, "prepare", lambda config: None)
    monkeypatch.setattr(expand, "former_ids", lambda resolved: [])
    monkeypatch.setattr(execution, "TRIAL", "tests.launch.fake:run_config")
    quick = functools.partial(prediction.write_prediction, settings=Settings(draws=50))
    monkeypatch.setattr(prediction, "write_prediction", quick)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.py").write_text(fake.SWEEP)
    return "s.py"


def run(config, *more, workers=3, fit=False):
    flags = [f"--config={config}", "--workdir=runs/s", f"--workers={workers}"]
    return sweep.main([*flags, *([] if fit else ["--nofit"]), *more])


def results(folder):
    """The result.json of every trial, by id."""
    files = folder.glob("runs/s/*/result.json")
    return {file.parent.name: json.loads(file.read_text()) for file in files}


def ran(folder):
    """The ids of the trials that completed, repeated if they completed more than once."""
    return sorted((folder / "runs/s/runs").read_text().split())


def listed(folder):
    return json.loads((folder / "runs/s/sweep.json").read_text())["trials"]


def test_a_sweep_runs_every_trial_once_and_again_does_nothing(config, tmp_path, capfd):
    assert run(config) == 0
    found = results(tmp_path)
    assert len(found) == 16 and set(found) == set(listed(tmp_path))
    assert {result["status"] for result in found.values()} == {"done"}
    assert ran(tmp_path) == sorted(found)
    capfd.readouterr()
    assert run(config) == 0
    assert ran(tmp_path) == sorted(found)
    assert "16 of 16 trials are finished already" in capfd.readouterr().err


def test_the_held_out_trial_is_predicted_before_it_starts_and_lands_there(config, tmp_path):
    assert run(config) == 0
    record = json.loads((tmp_path / "runs/s/prediction.json").read_text())
    (held_out,) = [key for key, trial in listed(tmp_path).items() if trial["holdout"]]
    assert record["target"]["run"] == held_out and record["points"]["n"] == 15
    assert held_out not in record["points"]["runs"]
    began = (tmp_path / "runs/s" / held_out / "log.txt").stat().st_mtime_ns
    assert (tmp_path / "runs/s/prediction.json").stat().st_mtime_ns < began
    # The fake losses have only 0.05 % of noise, so a correct prediction is this close.
    outcome = results(tmp_path)[held_out]["eval_loss"]
    assert outcome == pytest.approx(record["loss"]["value"], rel=0.01)


def test_the_held_out_trial_runs_last_and_owns_all_cores(config, tmp_path):
    run(config, workers=2)
    (held_out,) = [key for key, trial in listed(tmp_path).items() if trial["holdout"]]
    assert (tmp_path / "runs/s/runs").read_text().split()[-1] == held_out
    seen = fake.environment(tmp_path / "runs/s", held_out)
    assert len(seen["affinity"]) == min(2, os.cpu_count())
    assert seen["OMP_NUM_THREADS"] == str(len(seen["affinity"]))


def test_trials_that_cannot_carry_a_fit_say_so_and_the_sweep_goes_on(config, tmp_path, capfd):
    (tmp_path / "few.py").write_text(
        fake.CONFIG + "\ndef get_sweep(c): return [{'seed': 1}, {'seed': 2, 'holdout': True}]\n"
    )
    assert run("few.py") == 0
    assert len(results(tmp_path)) == 2 and not (tmp_path / "runs/s/prediction.json").exists()
    assert "No prediction of t-" in capfd.readouterr().err


def test_random_kills_of_three_workers_leave_twenty_results_none_twice(config, tmp_path):
    (tmp_path / "twenty.py").write_text(
        fake.CONFIG
        + "\ndef get_sweep(c): return [{'seed': i, 'seconds': 0.3} for i in range(20)]\n"
    )
    over, killed, folder = threading.Event(), [], tmp_path / "runs/s"

    def kill():
        """Kills the processes of random trials at random moments, but no trial more than twice."""
        generator = random.Random(1)
        while len(killed) < 8 and not over.wait(generator.uniform(0.1, 0.4)):
            may = [name for name in fake.under_way(folder) if killed.count(name) < 2]
            name = generator.choice(may) if may else None
            if name and fake.alive(process := fake.environment(folder, name)["pid"]):
                os.kill(process, signal.SIGKILL)
                killed.append(name)

    thread = threading.Thread(target=kill)
    thread.start()
    code = run("twenty.py")
    over.set()
    thread.join()
    assert code == 0 and len(killed) >= 3
    assert {result["status"] for result in results(tmp_path).values()} == {"done"}
    assert ran(tmp_path) == sorted(results(tmp_path)) and len(ran(tmp_path)) == 20


def test_ctrl_c_exits_42_and_the_same_command_goes_on(config, tmp_path, capfd):
    folder = tmp_path / "runs/s"
    (tmp_path / "six.py").write_text(
        fake.CONFIG + "\ndef get_sweep(c): return [{'seed': i, 'seconds': 1.0} for i in range(6)]\n"
    )
    fake.when(
        lambda: len(results(tmp_path)) > 1 and fake.under_way(folder),
        os.kill,
        *(os.getpid(), signal.SIGINT),
    )
    assert run("six.py", workers=2) == 42
    shown = capfd.readouterr().err
    assert "Stopping: trials save a checkpoint" in shown and "goes on from here" in shown
    before = results(tmp_path)
    assert 0 < len(before) < 6
    assert any(0 < int(file.read_text()) < 10 for file in folder.glob("*/step"))
    assert run("six.py", workers=2) == 0
    assert len(results(tmp_path)) == 6 and ran(tmp_path) == sorted(results(tmp_path))


def test_a_failing_trial_is_recorded_the_rest_go_on_and_it_is_tried_again(config, tmp_path, capfd):
    (tmp_path / "f.py").write_text(
        fake.CONFIG
        + "\ndef get_sweep(c): return [{'seed': 1}, {'seed': 2, 'behaviour': 'raise'}, "
        + "{'seed': 3}, {'seed': 4, 'behaviour': 'diverge'}]\n"
    )
    assert run("f.py") == 1
    status = sorted(result["status"] for result in results(tmp_path).values())
    assert status == ["done", "done", "done", "failed"]
    (failed,) = [r for r in results(tmp_path).values() if r["status"] == "failed"]
    assert failed["attempts"] == 3 and failed["overrides"] == {"seed": 2, "behaviour": "raise"}
    assert failed["log"][-1] == "RuntimeError: a bug in the trial"
    shown = capfd.readouterr().err
    assert f"{failed['id']} failed; its last words are in" in shown
    assert shown.count("trying again") == 2
    log = tmp_path / "runs/s" / failed["id"] / "log.txt"
    assert log.read_text().count("trial t-") == 3
    assert run("f.py") == 1  # three more attempts
    assert log.read_text().count("trial t-") == 6


def test_equal_trials_run_once(config, tmp_path):
    (tmp_path / "d.py").write_text(
        fake.CONFIG + "\ndef get_sweep(c): return [{'seed': 0}, {'lr': 1e-3}, {}, {'seed': 1}]\n"
    )
    assert run("d.py") == 0
    assert len(results(tmp_path)) == 2


def test_the_table_of_a_dry_run_fits_100_columns(config, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    (tmp_path / "long.py").write_text(
        f"{fake.CONFIG}\ndef get_sweep(c): return [{{'name': 't' * 40, 'corpora': ['x' * 99]}}]\n"
    )
    assert run("long.py", "--dry_run") == 0
    head, row, last = capsys.readouterr().out.splitlines()
    assert len(head) == len(row) == 100 and len(last) < 100
    (trial,) = expand.plan("long.py", {}).trials
    assert row.startswith(f"{trial.id} ") and row.endswith("…")  # no number is cut off
    assert f"{trial.about['steps']:,}" in row and "cor…" in row


def test_compiled_code_is_kept_where_the_config_says(config, tmp_path, monkeypatch):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    text = f"{fake.CONFIG}\ndef get_sweep(c): return [{{}}]\n"
    named = text.replace('dict(text="none")', 'dict(text="none", cache="mine")')
    seen, runner = [], Inline()
    runner.slots = lambda n, resources: seen.append(resources) or local.slots(n, resources)
    monkeypatch.setitem(RUNNERS, "seen", runner)
    for name, content, folder in (("a", text, "cache"), ("b", named, "mine")):
        (tmp_path / f"{name}.py").write_text(content)
        assert run(f"{name}.py", "--on=seen", f"--workdir=runs/{name}") == 0
        (slot,) = local.slots(1, seen[-1])
        assert slot.environment["JAX_COMPILATION_CACHE_DIR"] == str(tmp_path / folder / "compiled")


def test_dry_run_prints_the_trials_and_writes_nothing(config, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    assert run(config, "--dry_run", "--json=plan.json") == 0
    shown = capsys.readouterr().out
    assert shown.count("t-") == 16 and "held out" in shown
    assert "width=128, tokens=1600" in shown and "holdout=" not in shown
    assert "16 trials (0 finished, 0 duplicates dropped)" in shown and "(assumed)" in shown
    assert not (tmp_path / "runs").exists()
    planned = json.loads((tmp_path / "plan.json").read_text())
    assert len(planned["trials"]) == 16 and planned["trials"][0]["params"] == {"mlp": 128_000}
    flops = [trial["flops"]["6nd"] for trial in planned["trials"]]
    assert flops == sorted(flops, reverse=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config=no.py", "--workdir=w"], "there is no config file no.py"),
        (["--workdir=w"], "config"),
        (["--config=s.py"], "workdir"),
        (["--config=s.py", "--workdir=w", "--config.lrr=1"], "did you mean config.lr?"),
        (["--config=plain.py", "--workdir=w"], "no get_sweep"),
        (["--config=empty.py", "--workdir=w"], "returns no trials"),
        (["--config=dict.py", "--workdir=w"], "get_sweep returns a dict; return a list of dicts"),
        (["--config=none.py", "--workdir=w"], "get_sweep returns a NoneType"),
        (["--config=pairs.py", "--workdir=w"], r"trial 0 is \('seed', 1\); write"),
        (["--config=bad.py", "--workdir=w"], r"trial 1 of bad.py .*width=12 is not divisible"),
        (["--config=typo.py", "--workdir=w"], r"trial 0 of typo.py .*did you mean config.seed"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(config, tmp_path, arguments, message):
    (tmp_path / "plain.py").write_text(fake.CONFIG)
    for name, body in {
        "empty": "[]",
        "dict": "{'seed': 1}",
        "none": "None",
        "pairs": "[('seed', 1)]",
        "bad": "[{}, {'model.width': 12}]",
        "typo": "[{'sede': 1}]",
    }.items():
        text = f"{fake.CONFIG}\ndef get_sweep(c): return {body}\n"
        (tmp_path / f"{name}.py").write_text(text)
    with pytest.raises(BadInput, match=message):
        sweep.main(arguments)
    assert not (tmp_path / "w").exists()


def test_numpy_numbers_and_generators_give_the_trials_of_plain_lists(config, tmp_path):
    plain = "[{'seed': 1, 'lr': 0.003}, {'seed': 2, 'lr': 0.01}]"
    with_numpy = (
        "({np.str_('seed'): np.int64(i), 'lr': rate} "
        "for i, rate in zip(np.arange(1, 3), np.array([3e-3, 1e-2])))"
    )
    for name, body in {"plain": plain, "numpy": with_numpy}.items():
        text = f"import numpy as np\n{fake.CONFIG}\ndef get_sweep(c): return {body}\n"
        (tmp_path / f"{name}.py").write_text(text)
    one, other = (expand.plan(f"{name}.py", {}) for name in ("plain", "numpy"))
    assert [p.id for p in one.trials] == [p.id for p in other.trials] and one.duplicates == 0
    assert [p.overrides for p in one.trials] == [p.overrides for p in other.trials]
    text = json.dumps([p.overrides for p in other.trials])  # numbers, not strings such as "1"
    assert sorted(trial["seed"] for trial in json.loads(text)) == [1, 2]
    nested = expand.plain({"x": np.float32(0.5)}["x"]), expand.plain((np.int8(1), [np.bool_(1)]))
    assert nested == (0.5, (1, [True])) and type(nested[1][1][0]) is bool


def test_overrides_reach_the_terminal_escaped():
    shown = dry_run.listed({"data.text_key": "\x1b[31m[/bold]\u202e"})
    assert "\x1b" not in shown and "\u202e" not in shown
    assert shown == "text_key=\\x1b[31m[/bold]\\u202e"


def test_a_folder_of_another_base_config_is_refused_and_kept(config, tmp_path):
    assert run(config) == 0
    before = (tmp_path / "runs/s/sweep.json").read_text()
    with pytest.raises(
        BadInput, match=r"config.lr is 0.001 there and 0.01 here; use another folder"
    ):
        run(config, "--config.lr=0.01")
    assert (tmp_path / "runs/s/sweep.json").read_text() == before
    # The same base with one more trial extends the sweep.
    more = fake.SWEEP.replace("return [*sizes,", "return [*sizes, {'seed': 9},")
    (tmp_path / "s.py").write_text(more)
    assert run(config) == 0
    assert len(listed(tmp_path)) == 17 == len(results(tmp_path))


def test_a_key_younger_than_the_folder_had_its_default_there(config, tmp_path):
    usual = {"checkpoint.keep_at": [], "checkpoint.every": "20 %", "seed": 0}

    def compared(there: dict, here: dict) -> str:
        return difference(usual | flatten(there), usual | flatten(here))

    old, same = {"checkpoint": {"every": "9 %"}}, {"checkpoint": {"every": "9 %", "keep_at": []}}
    assert compared(old, same | {"seed": 0}) == ""
    assert "config.seed is 0 there and 1 here" in compared(old, same | {"seed": 1})
    other = {"checkpoint": {"every": "9 %", "keep_at": ["1 steps"]}}
    assert "config.checkpoint.keep_at is [] there" in compared(old, other)
    # A removed key, or a key without a default, counts as a difference.
    assert "config.every is 1 there and None here" in compared({"every": 1}, {})
    assert "config.lr is None there and 1 here" in compared({}, {"lr": 1})
    # The same for a sweep's folder, whose sweep.json lacks a key that was added later.
    sweep_ = expand.plan(config, {})
    expand.record(sweep_, tmp_path)
    recorded = json.loads((tmp_path / "sweep.json").read_text())
    del recorded["base"]["checkpoint"]["share_trunks"]
    (tmp_path / "sweep.json").write_text(json.dumps(recorded))
    expand.record(sweep_, tmp_path)
    recorded["base"]["checkpoint"]["share_trunks"] = True
    (tmp_path / "sweep.json").write_text(json.dumps(recorded))
    with pytest.raises(ValueError, match="share_trunks is True there and False here"):
        expand.record(sweep_, tmp_path)


def test_seeds_add_trials_and_rename_none(config):
    one, three = (expand.plan(config, {"seed": "4"}, seeds=n).trials for n in (1, 3))
    assert {planned.id for planned in one} < {planned.id for planned in three}
    assert sorted(planned.config.seed for planned in three) == sorted([4, 5, 6] * len(one))
    for planned in one:
        assert "seed" not in planned.overrides
    # Those that are held out are repeated as well.
    assert [planned.holdout for planned in three].count(True) == 3


def test_a_sweep_of_seeds_predicts_each_held_out_trial_and_ranks_the_rest(config, tmp_path, capfd):
    assert run(config, "--seeds=2", "--config.seconds=0.01") == 0
    found, out = results(tmp_path), capfd.readouterr()
    held = [key for key, result in found.items() if result["holdout"]]
    assert len(found) == 32 and len(held) == 2
    predictions = sorted((tmp_path / "runs/s").glob("prediction*.json"))
    targets = [json.loads(file.read_text())["target"]["run"] for file in predictions]
    assert sorted(targets) == sorted(held)
    ranking = json.loads((tmp_path / "runs/s/report/ranking.json").read_text())
    assert len(ranking["configurations"]) == 15
    assert all(row["seeds"] == [0, 1] for row in ranking["configurations"])
    assert {entry["reason"] for entry in ranking["not_ranked"]} == {"held out"}
    assert ranking["best"]["verdict"] in out.out


def test_makespan_packs_the_largest_first():
    trials = [
        expand.Planned(str(f), {}, None, {"flops": {expand.CONVENTION: f}})
        for f in (4e10, 3e10, 3e10)
    ]
    two = [Slot((0,), {}), Slot((1,), {})]
    # At 1e10 FLOP/s: 4 s on one core, 3 + 3 s on the other, plus one start per trial.
    assert expand.makespan(trials, two, 1e10) == pytest.approx(6 + 2 * expand.START_SECONDS)
    assert expand.makespan(trials, [Slot((0, 1), {})], 1e10) == pytest.approx(
        5 + 3 * expand.START_SECONDS
    )


@pytest.mark.slow
def test_a_runner_that_a_file_adds_runs_a_whole_sweep(config, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(RUNNERS, "inline", Inline())
    assert run(config, "--on=inline", "--dry_run") == 0
    one_slot = capsys.readouterr().out.splitlines()[-1]
    assert run(config, "--dry_run", workers=1) == 0
    assert one_slot == capsys.readouterr().out.splitlines()[-1]  # it uses the runner's slots
    assert run(config, "--on=inline") == 0
    found = results(tmp_path)
    assert len(found) == 16 and {result["status"] for result in found.values()} == {"done"}
    seen = {fake.environment(tmp_path / "runs/s", name)["pid"] for name in found}
    assert seen == {os.getpid()}
    assert (tmp_path / "runs/s/prediction.json").exists()


def test_an_unknown_runner_is_refused_with_the_known_ones(config, tmp_path):
    with pytest.raises(BadInput, match="on=kube is unknown; use one of local, ray"):
        run(config, "--on=kube")
    assert not (tmp_path / "runs").exists()


def test_a_sweep_file_trains_what_the_same_sweep_in_python_trains(config, tmp_path):
    trials = [{"seed": 1}, {"seed": 2, "model.width": 8}]
    text = f"{fake.CONFIG}\ndef get_sweep(c): return {trials}\n"
    (tmp_path / "two.py").write_text(text)
    assert run("two.py", "--config.lr=0.5", "--on=local") == 0
    of_python = ran(tmp_path)
    content = {"config": "two.py", "overrides": {"lr": "0.5"}, "trials": trials}
    (tmp_path / "two.json").write_text(json.dumps(content))
    assert run("two.json") == 0  # the same folder: the same base and the same trials
    assert ran(tmp_path) == of_python and len(of_python) == 2
    content["trials"] = [{"model.wdith": 8}]
    (tmp_path / "two.json").write_text(json.dumps(content))
    with pytest.raises(BadInput, match=r"trial 0 of two.json .*did you mean config.model.width"):
        run("two.json")
