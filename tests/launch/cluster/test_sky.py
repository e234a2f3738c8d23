"""Tests of SkyPilot as a provider, with a fake of the parts of its Python API that are called."""

import sys
from types import SimpleNamespace

import pytest
import yaml

UP = (
    *("up", "--on=sky", "--name=l", "--accelerator=v5e-16", "--slices=2", "--spot"),
    *("--zone=us-central1-a,us-east5-b", "--workdir=gs://bkt/l", "--config=configs/quickstart.py"),
)


class Sky(SimpleNamespace):
    """Requests are answered by `get`, as SkyPilot's are. `rows` are its managed jobs."""

    def __init__(self):
        self.rows, self.tasks, self.cancelled, self.fails = [], [], [], None
        super().__init__(
            Task=SimpleNamespace(from_yaml_config=self.task),
            jobs=SimpleNamespace(launch=self.launch, queue=self.queue, cancel=self.cancel),
        )

    def task(self, config):
        if config["name"].endswith("bad"):
            raise ValueError("Invalid task YAML:\n name")
        return config

    def launch(self, task, name):
        self.tasks.append(task)
        row = {"job_id": len(self.rows) + 1, "job_name": name, "status": "RUNNING"}
        return lambda: self.rows.append(row | {"recovery_count": 0})

    def queue(self, refresh):
        return lambda: self.rows

    def cancel(self, job_ids):
        return lambda: self.cancelled.extend(job_ids)

    def get(self, request):
        if self.fails:
            raise self.fails
        return request()


@pytest.fixture
def sky(monkeypatch):
    fake = Sky()
    monkeypatch.setitem(sys.modules, "sky", fake)
    return fake


def test_a_job_for_each_slice_and_one_for_the_head(cluster, sky):
    done = cluster(*UP)
    assert done.code == 0, done.err
    names = ["l-aaaaaa-head", "l-aaaaaa-0", "l-aaaaaa-1"]
    assert [row["job_name"] for row in sky.rows] == names
    head, slice_, _ = (task["resources"] for task in sky.tasks)
    assert head["use_spot"] is False and slice_["use_spot"] is True
    assert slice_["accelerators"] == "tpu-v5litepod-16:1"
    assert [place["infra"] for place in slice_["any_of"]] == [
        "gcp/us-central1/us-central1-a",
        "gcp/us-east5/us-east5-b",
    ]
    assert "node head" in sky.tasks[0]["run"] and "node worker" in sky.tasks[1]["run"]
    assert cluster(*UP).code == 0 and len(sky.rows) == 3  # the same command launches nothing


def test_status_and_down_know_only_the_jobs_of_the_cluster(cluster, sky):
    other = {"job_id": 7, "job_name": "theirs", "status": "RUNNING", "recovery_count": 0}
    sky.rows.append(other)
    assert cluster(*UP).code == 0
    sky.rows[1]["recovery_count"], sky.rows[2]["status"] = 4, "SUCCEEDED"
    shown = cluster("status", "--name=l").out
    assert "l-aaaaaa-head: running, recovered 4 times" in shown and "theirs" not in shown
    assert "l-aaaaaa-0: succeeded" in shown
    assert cluster("down", "--name=l").code == 0 and sky.cancelled == [2, 4]


def test_a_launch_that_fails_is_one_line_and_the_same_command_goes_on(cluster, sky):
    launch = sky.launch
    sky.jobs.launch = lambda task, name: (
        launch(task, name) if name.endswith("head") else sky.refused
    )

    def refused():
        raise RuntimeError("ResourcesUnavailableError:\n no quota in us-central1")

    sky.refused = refused
    done = cluster(*UP)
    assert done.code == 2 and done.err.count("\n") == 2  # what was launched, and the error
    assert "launching l-aaaaaa-0 failed: ResourcesUnavailableError: no quota" in done.err
    sky.jobs.launch = launch
    assert cluster(*UP).code == 0 and len(sky.rows) == 3


def test_a_large_run_is_one_job_without_a_head(cluster, sky):
    argv = [part for part in UP if not part.startswith("--slices")]
    assert cluster(*argv, "--job=train").code == 0
    (task,) = sky.tasks
    assert "node train" in task["run"] and "isoflop train --config=configs/quick" in task["run"]
    done = cluster(*UP, "--job=train", "--name=m")
    assert done.code == 2 and "SkyPilot joins no slices into one run" in done.err


def test_machines_of_two_clouds_do_not_make_a_cluster(cluster, sky):
    done = cluster(*UP, "--zone=us-central1-a,aws/us-east-1")
    assert done.code == 2 and "reach each other only within one cloud" in done.err and not sky.tasks


def test_without_skypilot_one_line_says_what_to_install(cluster, monkeypatch):
    monkeypatch.setitem(sys.modules, "sky", None)
    done = cluster(*UP)
    assert done.code == 2 and "pip install 'isoflop[sky]'" in done.err
    assert done.err.count("\n") == 1 and not cluster.folder.exists()
    shown = cluster(*UP, "--dry_run")  # needs no SkyPilot
    assert shown.code == 0
    text = shown.out.partition("--- l-aaaaab-head.yaml\n")[2].partition("\n--- ")[0]
    assert yaml.safe_load(text)["name"].endswith("-head")
