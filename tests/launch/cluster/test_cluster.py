"""Tests of `isoflop cluster` on GKE and SLURM with fake tools, and of what it refuses."""

import json
import os
import signal
import subprocess
import time

import pytest

from launch.cluster import bundle
from launch.cluster.record import Record
from tests.golden.cluster.cases import files
from tests.launch.cluster import tools

GKE = (
    *("up", "--on=gke", "--name=l", "--accelerator=v5e-16", "--image=i:1", "--slices=2"),
    *("--workdir=gs://bkt/l", "--config=configs/quickstart.py"),
)
CONTROL = "#!/bin/bash\necho scontrol $@ >>%s/calls\n[ $1 = show ] && echo node1; exit 0\n"
PASS = '#!/bin/bash\nwhile [ "${1#-}" != "$1" ]; do shift; done\nexec "$@"\n'


@pytest.fixture
def kubectl(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", tools.path_with(tools.install(tmp_path, kubectl=tools.KUBECTL)))
    return tmp_path


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    place = tools.install(tmp_path, **dict.fromkeys(("sbatch", "squeue", "scancel"), tools.SLURM))
    monkeypatch.setenv("PATH", tools.path_with(place))
    return tmp_path


def there(folder):
    return json.loads((folder / "objects.json").read_text())


def test_manifests_are_judged_created_and_deleted(cluster, kubectl):
    done = cluster(*GKE, "--queue=q", "--context=c")
    assert done.code == 0, done.err
    names = ["ResourceFlavor/l-aaaaaa", "ClusterQueue/l-aaaaaa", "LocalQueue/q"]
    names += ["RayCluster/l-aaaaaa", "Job/l-aaaaaa-driver"]
    assert list(there(kubectl)) == names
    verbs = [call[2:4] for call in tools.calls(kubectl) if call[2] == "create"]
    judged = verbs.count(["create", "--dry-run=server"])
    assert judged == 1 and verbs[:judged] == [["create", "--dry-run=server"]] * judged
    where = ["--context=c", "--namespace=team"]
    assert all(call[0] == where[0] for call in tools.calls(kubectl))
    assert all(call[:2] == where for call in tools.calls(kubectl) if call[1] != "config")
    assert there(kubectl)["LocalQueue/q"]["metadata"]["namespace"] == "team"
    # The same command again creates nothing.
    before = there(kubectl)
    done = cluster(*GKE, "--queue=q", "--context=c")
    assert done.code == 0 and "l exists since" in done.err and there(kubectl) == before
    assert "RayCluster/l-aaaaaa" in cluster("status", "--name=l").out
    # An object that somebody made anew under one of the names is left alone.
    before["Job/l-aaaaaa-driver"]["metadata"]["labels"] = {}
    before["JobSet/other"] = before["RayCluster/l-aaaaaa"]
    (kubectl / "objects.json").write_text(json.dumps(before))
    done = cluster("down", "--name=l")
    assert done.code == 0 and "Job l-aaaaaa-driver carries no label of this cluster" in done.err
    assert list(there(kubectl)) == ["Job/l-aaaaaa-driver", "JobSet/other"]


@pytest.mark.slow
def test_a_queue_that_exists_is_used_and_not_deleted(cluster, kubectl):
    queue = {"LocalQueue/q": {"kind": "LocalQueue", "metadata": {"name": "q"}}}
    (kubectl / "objects.json").write_text(json.dumps(queue))
    assert cluster(*GKE, "--queue=q").code == 0
    assert "ClusterQueue/l-aaaaaa" not in there(kubectl) and len(there(kubectl)) == 3
    assert cluster("down", "--name=l").code == 0 and there(kubectl) == queue


def test_down_looks_where_up_created_and_keeps_what_it_does_not_find(cluster, kubectl):
    """The current context changes in between."""
    assert cluster(*GKE).code == 0
    (kubectl / "current").write_text("other")
    assert cluster(*GKE).code == 0 and not (kubectl / "objects-other.json").exists()
    (kubectl / "objects.json").write_text("{}")  # as where somebody else's cluster has the name
    done = cluster("down", "--name=l")
    assert done.code == 2 and done.err.count("\n") == 1 and cluster.record("l")["resources"]
    assert "RayCluster l-aaaaaa is not in namespace team of context c" in done.err
    assert cluster("down", "--name=l", "--forget").code == 0
    assert not list(cluster.folder.iterdir())


def test_an_up_that_is_killed_leaves_nothing_unrecorded(cluster, kubectl, monkeypatch):
    from launch.cluster.kubernetes import provider as gke

    create = gke._kubectl

    def dies(request, argv, stdin=""):
        found = create(request, argv, stdin)
        if argv[0] == "create" and "--dry-run=server" not in argv:
            raise KeyboardInterrupt
        return found

    monkeypatch.setattr(gke, "_kubectl", dies)
    assert cluster(*GKE).code == 42
    monkeypatch.setattr(gke, "_kubectl", create)
    assert list(there(kubectl)) == ["RayCluster/l-aaaaaa"]
    assert cluster("down", "--name=l").code == 0 and there(kubectl) == {}


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ('no matches for kind "RayCluster" in version "ray.io/v1"', "knows no RayCluster; install"),
        ("error: current-context is not set", "current-context is not set"),
        ('Error from server (Forbidden): User "u" cannot create resource', "Forbidden"),
    ],
)
def test_what_kubectl_refuses_is_one_line_and_nothing_is_created(said, line, cluster, kubectl):
    (kubectl / "denied").write_text(said)
    done = cluster(*GKE)
    assert done.code == 2 and line in done.err and done.err.count("\n") == 1
    assert not (kubectl / "objects.json").exists() and not cluster.folder.exists()


SLURM = ("up", "--on=slurm", "--name=l", "--nodes=3", "--config=configs/quickstart.py")


def test_scripts_are_submitted_one_after_the_other_and_cancelled(cluster, slurm):
    done = cluster(*SLURM, f"--workdir={slurm}/w", "--job=parts")
    assert done.code == 0, done.err
    home = slurm / "w/machines/l-aaaaaa"
    assert [call[1:] for call in tools.calls(slurm)] == [
        ["--parsable", f"{home}/parts.sh"],
        ["--parsable", "--dependency=afterany:100", f"{home}/last.sh"],
    ]
    assert '--part="$SLURM_ARRAY_TASK_ID/3"' in (home / "parts.sh").read_text()
    assert "PreemptMode=REQUEUE" in done.out and "--part" not in (home / "last.sh").read_text()
    assert cluster(*SLURM, f"--workdir={slurm}/w", "--job=parts").code == 0
    assert sum(call[0] == "sbatch" for call in tools.calls(slurm)) == 2
    assert "parts.sh: 100 RUNNING" in cluster("status", "--name=l").out
    # The number of a job that has ended went to a job of somebody else.
    jobs = json.loads((slurm / "jobs.json").read_text())
    (slurm / "jobs.json").write_text(json.dumps(jobs | {"101": "theirs"}))
    done = cluster("down", "--name=l")
    assert done.code == 0 and "job 101 is called theirs; it is left alone" in done.err
    assert json.loads((slurm / "jobs.json").read_text()) == {"101": "theirs"}


def test_a_job_that_was_submitted_just_before_a_kill_is_not_submitted_again(
    cluster, slurm, monkeypatch
):
    from launch.cluster import slurm as provider

    run = provider.tools.run

    def dies(argv, *more):
        found = run(argv, *more)
        if argv[0] == "sbatch" and argv[-1].endswith("last.sh"):
            raise KeyboardInterrupt
        return found

    parts = *SLURM, f"--workdir={slurm}/w", "--job=parts"
    monkeypatch.setattr(provider.tools, "run", dies)
    assert cluster(*parts).code == 42
    monkeypatch.setattr(provider.tools, "run", run)
    known = [resource["job"] for resource in cluster.record("l")["resources"]]
    assert known == ["100", ""] and len(json.loads((slurm / "jobs.json").read_text())) == 2
    assert "last.sh: 101 RUNNING" in cluster("status", "--name=l").out
    assert cluster(*parts).code == 0
    assert [resource["job"] for resource in cluster.record("l")["resources"]] == ["100", "101"]
    assert sum(call[0] == "sbatch" for call in tools.calls(slurm)) == 2
    assert cluster("down", "--name=l").code == 0
    assert json.loads((slurm / "jobs.json").read_text()) == {}


def test_flags_after_two_dashes_reach_the_command_of_the_machines(cluster):
    more = "--seeds=3", "--stop=asha", "--slice=v5e-16"
    done = cluster(*GKE, "--dry_run", "--", *more)
    text = " ".join(["--address=auto", "--wait_for_nodes", *more])
    assert done.code == 0 and text in done.out and "--platform" not in done.out
    assert "--wait_for_nodes --platform=tpu" in cluster(*GKE, "--dry_run").out
    wrong = cluster(*GKE, "--dry_run", "--", "--slice=v5litepod-16")
    assert wrong.code == 2 and "slice=v5litepod-16" in wrong.err
    train = cluster(*GKE, "--job=train", "--dry_run", "--", "--wait=60")
    assert train.code == 0 and "--wait=1800 --wait=60" in train.out  # the last one counts


@pytest.mark.parametrize(("code", "requeued"), [(0, 0), (1, 0), (42, 1), (127, 0), (137, 1)])
def test_a_batch_script_asks_to_run_again_after_preemption_only(code, requeued, tmp_path):
    done = run_script(tmp_path, f"exit {code}")
    assert done.wait(20) == code
    assert "scontrol requeue 7" in (tmp_path / "calls").read_text() or not requeued
    assert (tmp_path / "calls").read_text().count("requeue") == requeued


def test_a_batch_script_passes_sigterm_on_and_waits(tmp_path):
    trap = f"trap 'sleep 0.5; touch {tmp_path}/saved; exit 42' TERM; touch {tmp_path}/runs"
    done = run_script(tmp_path, f"{trap}; while :; do sleep 0.05; done")
    until = time.monotonic() + 20
    while not (tmp_path / "runs").exists() and time.monotonic() < until:
        time.sleep(0.02)
    os.kill(done.pid, signal.SIGTERM)  # only the batch shell, as `--signal=B:` does
    assert done.wait(20) == 42 and (tmp_path / "saved").exists()
    assert "scontrol requeue 7" in (tmp_path / "calls").read_text()


def run_script(folder, program):
    """The golden script of a sweep, started where `isoflop` is a shell program."""
    place = tools.install(
        folder,
        srun=PASS,
        scontrol=CONTROL % folder,
        ray='#!/bin/bash\n[ "$1" = status ] || sleep 0.2\n',
        isoflop=f"#!/bin/bash\necho $@ >>{folder}/calls\n{program}\n",
    )
    text = files("slurm-sweep")["sweep.sh"].replace("/shared/isoflop/.venv/bin", str(place))
    file = folder / "sweep.sh"
    file.write_text(text.replace("cd /shared/isoflop", f"cd {folder}"))
    environment = os.environ | {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "node[1-4]"}
    environment |= {"SLURM_JOB_NUM_NODES": "4"}
    return subprocess.Popen(["bash", file], env=environment, stderr=subprocess.DEVNULL)


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (("raise",), "--action=raise is unknown; use one of up, status, down"),
        (("up",), "--on is not given; use one of sky, gke, slurm, tpu"),
        (("up", "--on=aws"), "--on=aws is unknown; use one of sky, gke, slurm, tpu"),
        (GKE[:2], "--name is not given; --on=gke needs --name and --accelerator and --image"),
        ((*GKE, "--name=Upper"), "--name='Upper' is not valid; use up to 40"),
        ((*GKE, "--time=1:00"), "--time=1:00 means nothing with --on=gke; drop it"),
        (
            (*GKE, "--job=parts"),
            "--job=parts is not offered with --on=gke; use one of sweep, train",
        ),
        ((*GKE, "--workdir=/tmp/x"), "--workdir=/tmp/x is on this machine"),
        ((*GKE, "--config=nothing.py"), "--config=nothing.py does not exist"),
        ((*GKE, "--config=/etc/hosts"), "--config=/etc/hosts is outside the checkout"),
        ((*GKE, "--accelerator=v5e-3"), "--accelerator=v5e-3 is no slice that Cloud TPU offers"),
        (
            (*GKE, "--priority=high"),
            "--priority=high is a priority of Kueue's, which needs --queue",
        ),
        ((*GKE, "--", "--seedz=3"), "after --, for isoflop sweep: unknown flag --seedz"),
        ((*GKE, "--", "--seeds=0"), "after --, for isoflop sweep: "),
        ((*GKE, "--", "--config.seed=1"), "--config.seed follows --; give it before, or drop it"),
        ((*GKE, "--", "--on=local"), "--on follows --; give it before, or drop it"),
        (("down", "--name=l", "--", "--seeds=2"), "--seeds=2 follows --, which only `cluster up`"),
        (
            (
                "up",
                "--on=tpu",
                "--name=l",
                "--accelerator=v5e-16",
                "--zone=z",
                "--workdir=s3://bkt/w",
            ),
            "--workdir=s3://bkt/w: the VMs of Cloud TPU have credentials for gs://… only",
        ),
        ((*SLURM, "--workdir=w"), "--workdir=w is relative"),
        ((*SLURM, "--workdir=gs://bkt/w"), "--workdir=gs://bkt/w is a bucket"),
        ((*SLURM, "--workdir=/w", "--accelerator=v5e-8"), "SLURM gives nodes with GPUs"),
        (("down",), "--name is not given; there are no clusters"),
        (("down", "--name=none"), "--name=none has no record in --records="),
        (("status", "--name=none"), "--name=none has no record in --records="),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_created(argv, line, cluster, kubectl, slurm):
    done = cluster(*argv)
    assert done.code == 2 and line in done.err and done.err.count("\n") == 1
    assert not tools.calls(kubectl) and not cluster.folder.exists()


@pytest.mark.parametrize(("argv", "tool"), [(GKE, "kubectl"), ((*SLURM, "--workdir=/w"), "sbatch")])
def test_a_missing_tool_is_one_line(argv, tool, cluster, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    done = cluster(*argv)
    assert done.code == 2 and f"needs {tool}, which is not on the PATH" in done.err
    assert done.err.count("\n") == 1 and not cluster.folder.exists()


def test_another_cluster_of_the_name_is_refused_with_the_first_difference(cluster, kubectl):
    assert cluster(*GKE).code == 0
    done = cluster(*GKE, "--slices=3")
    assert done.code == 2 and "l is a cluster with --slices=2, not 3; choose another" in done.err
    assert cluster("down", "--name=l", "--on=slurm").code == 2
    assert cluster("status").out.startswith("l: on gke, id aaaaaa, created ")
    assert "would delete what" in cluster("down", "--name=l", "--dry_run").out
    assert len(there(kubectl)) == 2


def test_a_damaged_record_is_one_line(cluster):
    Record(cluster.folder, "l", "aaaaaa", "gke", {}).save()
    file = cluster.folder / "l.json"
    for text in ("{", "[]", "{}", file.read_text().replace('"id"', '"ids"')):
        file.write_text(text)
        done = cluster("down", "--name=l")
        assert done.code == 2 and "delete that by hand" in done.err and file.exists()


def test_equal_checkouts_give_equal_archives(tmp_path):
    git = ["git", "-C", str(tmp_path)]
    subprocess.run([*git, "init", "-q"], check=True)
    (tmp_path / ".gitignore").write_text("runs\n")
    (tmp_path / "a.py").write_text("1")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/big").write_text("x")
    first = bundle.archive(tmp_path)
    assert bundle.files(tmp_path) == [".gitignore", "a.py"]
    os.utime(tmp_path / "a.py", (1, 1))
    assert bundle.archive(tmp_path) == first
    (tmp_path / "a.py").write_text("2")
    assert bundle.place("gs://b/w/", bundle.archive(tmp_path)) != bundle.place("gs://b/w", first)
    target = bundle.place(str(tmp_path / "w"), first)
    bundle.upload(target, first)
    assert open(target, "rb").read() == first


def test_records_are_replaced_whole(tmp_path, monkeypatch):
    found = Record(tmp_path, "l", "0a1b2c", "tpu", {})
    found.save()
    before = found.file.read_text()
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    found.resources.append({"base": "x"})
    with pytest.raises(KeyboardInterrupt):
        found.save()
    assert found.file.read_text() == before
