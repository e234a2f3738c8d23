"""Runs for other people's viewers: what each target receives, once, and what is refused."""

import csv
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from launch import __main__
from launch.export import TARGETS, runs


def make_sweep(folder: Path) -> Path:
    """A sweep of three trials: done, diverged and not started."""
    base = {"name": "t", "seed": 0, "optimizer": {"learning_rate": 0.001}, "log": {"prompts": [""]}}
    plan = {"a": 0.001, "b": 0.1, "c": 1.0}
    overrides = {
        key: {"overrides": {"optimizer.learning_rate": rate}} for key, rate in plan.items()
    }
    folder.mkdir(parents=True)
    (folder / "sweep.json").write_text(
        json.dumps({"config": "x.py", "base": base, "trials": overrides})
    )
    for key, status in (("a", "done"), ("b", "diverged")):
        run = folder / key
        run.mkdir()
        config = base | {"optimizer": {"learning_rate": plan[key]}, "code": {"fingerprint": "f"}}
        (run / "config.json").write_text(json.dumps(config | {"imports": ["my_lab.py", "b.py"]}))
        rows = [
            {"step": 1, "tokens": 32, "loss": 5.0, "seconds": 1.0, "mfu": None},
            {"step": 2, "tokens": 64, "loss": 4.0, "seconds": 2.0},
            {"step": 2, "tokens": 64, "eval_loss": 4.5, "eval_loss_se": 0.1},
        ]
        rows += [{"step": 3, "diverged": "loss is not finite"}] if status == "diverged" else []
        (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        loss = 4.5 if status == "done" else None
        metric = {"value": loss, "se": 0.1, "unit": "nats", "better": "lower"}
        result = {"status": status, "eval_loss": loss, "tokens": 64, "params": {"a": 3, "b": 4}}
        result |= {"metrics": {"loss": metric}, "flops": {"6nd": 1e9}, "dataset": "=HYPERLINK()"}
        (run / "result.json").write_text(json.dumps(result))
    sample = {"step": 2, "tokens": 64, "prompt": "to ", "text": "be"}
    (folder / "a" / "samples.jsonl").write_text(json.dumps(sample) + "\n")
    return folder


@pytest.fixture
def sweep(tmp_path) -> Path:
    return make_sweep(tmp_path / "lr")


def export(*arguments: object) -> int:
    return __main__.main(["export", *map(str, arguments)])


def test_a_run_has_its_config_summary_and_curve(sweep):
    found, waiting = runs.read(sweep)
    assert [run.key for run in found] == ["lr-a", "lr-b"] and waiting == 1
    one, other = found
    assert one.settings["optimizer.learning_rate"] == 0.001
    assert one.settings["imports"] == "my_lab.py,b.py" and "code.fingerprint" not in one.settings
    assert one.summary | {"status": "done", "eval_loss": 4.5, "params": 7, "flops_6nd": 1e9} == (
        one.summary
    )
    first = {"step": 1, "tokens": 32, "loss": 5.0, "seconds": 1.0}
    second = {"step": 2, "tokens": 64, "loss": 4.0, "seconds": 2.0}
    assert one.curve == [first, second | {"eval_loss": 4.5, "eval_loss_se": 0.1}]
    assert one.clock(one.curve[0]) == one.time - 1
    assert other.summary["status"] == "diverged" and "eval_loss" not in other.summary
    assert one.texts[0]["text"] == "be"


def test_csv_files_are_written_once_and_read_back(sweep, capsys):
    assert export(sweep, "--to=csv") == 0
    printed = capsys.readouterr().out
    assert "2 runs written (0 again), 0 unchanged" in printed and "1 have not started" in printed
    with open(sweep / "csv" / "runs.csv") as file:
        table = list(csv.DictReader(file))
    assert [row["config.optimizer.learning_rate"] for row in table] == ["0.001", "0.1"]
    assert table[0]["eval_loss"] == "4.5" and table[1]["eval_loss"] == ""
    assert table[0]["dataset"] == "'=HYPERLINK()"  # no formula in a spreadsheet
    with open(sweep / "csv" / "curves.csv") as file:
        assert [(row["run"], row["step"]) for row in csv.DictReader(file)][:2] == [
            ("a", "1"),
            ("a", "2"),
        ]
    content = (sweep / "csv" / "runs.csv").read_bytes()
    assert export(sweep, "--to=csv") == 0
    assert "all 2 runs are there already" in capsys.readouterr().out
    assert (sweep / "csv" / "runs.csv").read_bytes() == content
    # A run that has changed is written in place of the old one.
    with open(sweep / "a" / "metrics.jsonl", "a") as file:
        file.write(json.dumps({"step": 3, "tokens": 96, "loss": 3.0}) + "\n")
    assert export("--runs", sweep, "--to=csv") == 0
    assert "1 run written (1 again), 1 unchanged" in capsys.readouterr().out
    with open(sweep / "csv" / "curves.csv") as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["1", "2", "3", "1", "2", "3"]


class FakeWandb(ModuleType):
    """What the export calls of wandb: offline runs that are folders."""

    Settings = staticmethod(lambda **settings: settings)
    Table = staticmethod(lambda columns, data: ("table", columns, data))

    def __init__(self):
        super().__init__("wandb")
        self.count = 0

    def init(self, id, project, group, name, config, dir, mode, settings):
        assert mode == "offline"
        self.count += 1
        folder = Path(dir) / "wandb" / f"offline-run-{self.count}-{id}"
        folder.mkdir(parents=True)
        logged, summary = [], {}

        def finish(exit_code):
            about = dict(config=config, logged=logged, summary=summary, exit_code=exit_code)
            (folder / "run.json").write_text(json.dumps(about | {"group": group, "name": name}))

        return SimpleNamespace(
            log=lambda row, step=None: logged.append([step, row]), summary=summary, finish=finish
        )


def test_wandb_receives_offline_runs_that_are_replaced(sweep, monkeypatch, capsys):
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    for _ in range(2):
        assert export(sweep, "--to=wandb") == 0
    assert fake.count == 2  # the second time nothing is written
    one, other = sorted((sweep / "wandb" / "wandb").glob("*"))
    written = json.loads((one / "run.json").read_text())
    assert written["config"]["optimizer.learning_rate"] == 0.001 and written["group"] == "lr"
    steps = [step for step, _ in written["logged"]]
    assert steps == [1, 2, None] and written["logged"][1][1]["eval_loss"] == 4.5
    assert written["logged"][2][1]["samples"][2] == [[2, 64, "to ", "be"]]
    assert written["summary"]["eval_loss"] == 4.5 and written["exit_code"] == 0
    assert json.loads((other / "run.json").read_text())["exit_code"] == 1
    (sweep / "a" / "samples.jsonl").unlink()
    assert export(sweep, "--to=wandb") == 0
    names = sorted(path.name for path in (sweep / "wandb" / "wandb").glob("*"))
    assert names == ["offline-run-2-lr-b", "offline-run-3-lr-a"]
    assert "wandb sync" in capsys.readouterr().out


def test_trackio_receives_each_run_once(sweep, monkeypatch):
    stored, deleted = {}, []

    class Storage:
        delete_run = staticmethod(lambda project, name, run_id: deleted.append(run_id))
        bulk_log = staticmethod(lambda run_id, **about: stored.update({run_id: about}))

    module = ModuleType("trackio.sqlite_storage")
    module.SQLiteStorage = Storage
    monkeypatch.setitem(sys.modules, "trackio", ModuleType("trackio"))
    monkeypatch.setitem(sys.modules, "trackio.sqlite_storage", module)
    monkeypatch.setenv("TRACKIO_DIR", "elsewhere")
    for _ in range(2):
        assert export(sweep, "--to=trackio", "--project=my lab") == 0
    assert deleted == ["lr-a", "lr-b"] == list(stored)
    one = stored["lr-a"]
    assert one["project"] == "my-lab" and one["steps"] == [1, 2]
    assert one["metrics_list"][1]["eval_loss"] == 4.5 and "step" not in one["metrics_list"][0]
    assert one["config"]["_Group"] == "lr" and one["config"]["summary.eval_loss"] == 4.5
    assert one["timestamps"][0] < one["timestamps"][1]


def test_mlflow_receives_runs_that_are_replaced(sweep, monkeypatch):
    made, dropped = [], []

    class Client:
        def __init__(self, tracking_uri):
            assert tracking_uri == f"sqlite:///{sweep}/mlflow/mlflow.db"

        def get_experiment_by_name(self, name):
            return SimpleNamespace(experiment_id=name) if made else None

        def create_experiment(self, name, artifact_location):
            assert artifact_location.startswith("file:///")
            return name

        def search_runs(self, numbers, condition):
            assert len(numbers) == 1
            return [run for run in made if condition == f"tags.`isoflop.key` = '{run.key}'"]

        def delete_run(self, number):
            dropped.append(number)

        def create_run(self, number, start, tags, run_name):
            run = SimpleNamespace(
                info=SimpleNamespace(run_id=len(made)), key=tags["isoflop.key"], name=run_name,
                start=start, params={}, metrics=[],
            )  # fmt: skip
            made.append(run)
            return run

        def log_batch(self, number, params=(), metrics=()):
            assert len(params) <= 100 and len(metrics) <= 1000
            made[number].params.update(params)
            made[number].metrics.extend(metrics)

        def set_terminated(self, number, state, end):
            made[number].state, made[number].end = state, end

    entities = ModuleType("mlflow.entities")
    entities.Param, entities.Metric = (lambda k, v: (k, v)), (lambda *values: values)
    tracking = ModuleType("mlflow.tracking")
    tracking.MlflowClient = Client
    monkeypatch.setitem(sys.modules, "mlflow", ModuleType("mlflow"))
    monkeypatch.setitem(sys.modules, "mlflow.entities", entities)
    monkeypatch.setitem(sys.modules, "mlflow.tracking", tracking)
    for _ in range(2):
        assert export(sweep, "--to=mlflow") == 0
    assert [(run.name, run.state) for run in made] == [("a", "FINISHED"), ("b", "FAILED")]
    one = made[0]
    assert one.params["optimizer.learning_rate"] == "0.001" and one.end - one.start == 2000
    values = {name: (value, step) for name, value, _, step in one.metrics}
    assert values["loss"] == (4.0, 2) and values["eval_loss"] == (4.5, 2)
    assert values["params"] == (7.0, 2)  # of the summary alone, at the last step
    (sweep / "mlflow" / "exported.json").unlink()
    assert export(sweep, "--to=mlflow") == 0
    assert dropped == [0, 1] and len(made) == 4


@pytest.mark.parametrize("target", [name for name in TARGETS if name != "csv"])
def test_a_missing_library_is_one_line_with_the_extra(target, sweep, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, target, None)
    assert export(sweep, f"--to={target}") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"pip install -e '.[{target}]' adds it" in line
    assert not (sweep / target / "exported.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to=tensorbord"], "use one of csv, mlflow, trackio, wandb"),
        ([], "--to is not given"),
        (["--to=csv", "--out=/proc/none"], "--out=/proc/none cannot be written"),
    ],
)
def test_what_cannot_be_exported_is_refused(arguments, message, sweep, capsys):
    assert export(sweep, *arguments) == 2
    assert message in capsys.readouterr().err


def test_a_folder_without_runs_is_refused(tmp_path, capsys):
    assert export(tmp_path, "--to=csv") == 2
    assert "holds no run" in capsys.readouterr().err
