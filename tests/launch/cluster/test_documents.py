"""Tests of manifests and scripts: equal to the golden files, valid by their schemas."""

import copy
import json
import subprocess
from dataclasses import fields

import pytest
import yaml

from launch import flags
from launch.cluster import boot
from launch.cluster.accelerators import accelerator
from launch.cluster.kubernetes import manifests
from launch.cluster.request import AGAIN, request_of
from launch.runners import ray_cluster
from launch.runners.ray_slices import Node
from launch.runners.tasks import Cluster, Resources
from launch.verbs.models import sweep
from tests.golden.cluster.cases import CASES, FOLDER, files

jsonschema = pytest.importorskip("jsonschema")


@pytest.fixture(scope="module")
def schemas():
    return json.loads((FOLDER / "schemas.json").read_text())


def objects(case):
    """The Kubernetes objects of a case."""
    texts = (text for name, text in files(case).items() if name.endswith(".yaml"))
    return [made for text in texts for made in yaml.safe_load_all(text)]


def errors(made, schemas):
    """What the schema of its kind finds wrong with an object, as paths and messages."""
    schema = {**schemas["kinds"][made["kind"]], "$defs": schemas["$defs"]}
    found = jsonschema.Draft202012Validator(schema).iter_errors(made)
    return [f"{'.'.join(map(str, error.path))}: {error.message[:200]}" for error in found]


@pytest.mark.parametrize("case", CASES)
def test_documents_are_the_golden_files(case):
    golden = {file.name: file.read_text() for file in (FOLDER / case).iterdir()}
    assert files(case) == golden


@pytest.mark.parametrize("case", [case for case in CASES if case.startswith("gke")])
def test_manifests_are_valid_by_the_schemas_of_their_operators(case, schemas):
    kinds = {made["kind"] for made in objects(case)}
    assert kinds and [errors(made, schemas) for made in objects(case)] == [[]] * len(objects(case))


@pytest.mark.parametrize(
    ("case", "kind", "path", "value"),
    [
        ("gke-train", "JobSet", "spec.replicatedJobs.0.template.spec.backofLimit", 0),
        ("gke-train", "JobSet", "spec.failurePolicy.rules.0.action", "Restart"),
        ("gke-train", "JobSet", "spec.replicatedJobs.0.replicas", "two"),
        ("gke-sweep", "RayCluster", "spec.workerGroupSpecs.0.template.spec.nodeSelecter", {}),
        ("gke-sweep", "Job", "spec.podFailurePolicy.rules.0.onExitCodes", {"values": [1]}),
        ("gke-sweep", "ClusterQueue", "spec.resourceGroups.0.flavors.0.resources", {}),
        ("gke-sweep", "LocalQueue", "spec.clusterqueue", "q"),
    ],
)
def test_a_mistake_in_a_manifest_is_found(case, kind, path, value, schemas):
    (made,) = [copy.deepcopy(made) for made in objects(case) if made["kind"] == kind]
    node, (*parents, leaf) = made, path.split(".")
    for part in parents:
        node = node[int(part) if part.isdecimal() else part]
    node[leaf] = value
    assert len(errors(made, schemas)) == 1


@pytest.mark.parametrize("case", [case for case in CASES if case.startswith("sky")])
def test_tasks_are_valid_by_skypilots_own_schemas(case):
    schemas = json.loads((FOLDER / "sky.json").read_text())
    for made in objects(case):
        jsonschema.validate(made, schemas["task"])
        jsonschema.validate(made["resources"], schemas["resources"])
        wrong = made["resources"] | {"use_spots": True}
        with pytest.raises(jsonschema.ValidationError, match="use_spots"):
            jsonschema.validate(wrong, schemas["resources"])


@pytest.mark.parametrize("case", [case for case in CASES if case.startswith("slurm")])
def test_batch_scripts_are_valid_bash_and_their_options_come_first(case):
    for text in files(case).values():
        assert subprocess.run(["bash", "-n"], input=text, text=True).returncode == 0
        lines = text.splitlines()
        last = max(n for n, line in enumerate(lines) if line.startswith("#SBATCH"))
        assert lines[0] == "#!/bin/bash" and all(line[:1] == "#" for line in lines[:last])
        assert {"#SBATCH --requeue", "#SBATCH --signal=B:TERM@120"} <= set(lines)
        assert max(map(len, lines)) < 200
    assert subprocess.run(["bash", "-n"], input="if", text=True, stderr=-3).returncode != 0


@pytest.mark.parametrize("case", [case for case in CASES if case.startswith("tpu")])
def test_requests_are_messages_of_the_api(case):
    tpu = pytest.importorskip("google.cloud.tpu_v2")
    for name, text in files(case).items():
        body = tpu.QueuedResource(json.loads(text))
        script = body.tpu.node_spec[0].node.metadata["startup-script"]
        assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0, name
        with pytest.raises(ValueError, match="Unknown field"):
            tpu.QueuedResource(json.loads(text) | {"spots": {}})


def test_a_run_is_started_again_only_after_42_and_from_127_on():
    assert AGAIN[0] == 42 and AGAIN[1:] == list(range(127, 256))
    (made,) = [made for made in objects("gke-train") if made["kind"] == "JobSet"]
    (job,) = made["spec"]["replicatedJobs"]
    spec = job["template"]["spec"]
    # Any other code fails the Job for that reason, on which the JobSet fails; a pod that ends with
    # these, or loses its node, exceeds the limit of 0 and starts all again.
    (rule,) = spec["podFailurePolicy"]["rules"]
    assert rule["action"] == "FailJob" and rule["onExitCodes"]["operator"] == "NotIn"
    assert rule["onExitCodes"]["values"] == AGAIN and spec["backoffLimit"] == 0
    actions = {
        reason: rule["action"]
        for rule in made["spec"]["failurePolicy"]["rules"]
        for reason in rule["onJobFailureReasons"]
    }
    assert actions == {
        "PodFailurePolicy": "FailJobSet",
        "BackoffLimitExceeded": "RestartJobSetAndIgnoreMaxRestarts",
    }
    pod = spec["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] >= 30 and pod["restartPolicy"] == "Never"


@pytest.mark.parametrize(
    ("name", "hosts", "chips", "api", "topology"),
    [
        ("v5e-1", 1, 1, "v5litepod-1", "1x1"),
        ("v5e-8", 1, 8, "v5litepod-8", "2x4"),
        ("v5e-16", 4, 4, "v5litepod-16", "4x4"),
        ("v5e:16x16", 64, 4, "v5litepod-256", "16x16"),
        ("v5p-8", 1, 4, "v5p-8", "2x2x1"),
        ("v4-32", 4, 4, "v4-32", "2x2x4"),
        ("v6e-4", 1, 4, "v6e-4", "2x2"),
        ("tpu7x:2x2x4", 4, 4, "-32", "2x2x4"),
    ],
)
def test_hosts_and_names_of_slices(name, hosts, chips, api, topology):
    """Against Google's tables of types and topologies, written down by hand."""
    found = accelerator(name)
    assert (found.hosts, found.chips_of_a_host) == (hosts, chips)
    assert (found.api, found.topology) == (api, topology)


@pytest.mark.parametrize("name", ["v5e-3", "v5e:1x2", "h100-3", "2*v5e:4x4", "v9-8", "v5p-7"])
def test_what_is_no_slice_is_refused(name):
    with pytest.raises(ValueError, match=r"accelerator=.*(use one of|write)"):
        accelerator(name)


@pytest.mark.parametrize("accelerator", ["v5e-16", "h100-8"])
@pytest.mark.parametrize("cpus", [0, 4])
def test_a_driver_that_is_alone_at_first_trains_on_what_was_rented(accelerator, cpus):
    """The head of sky has four cores, that of gke none."""
    given = {"accelerator": accelerator, "config": "c.py", "workdir": "/w"}
    rented, alone = asked(request_of("l", "a", given)), [Node("h", "h", {"CPU": cpus}, {})]
    platform = "tpu" if accelerator.startswith("v") else "gpu"
    found = Resources(ray_cluster.platform(alone, rented), cluster=rented)
    ray_cluster.require_room(alone, found)
    assert found.platform == platform and ray_cluster.reservations(alone, 9, found) == []
    worker = Node("w", "w", {"CPU": 8, platform.upper(): 4}, {})
    assert len(ray_cluster.reservations([*alone, worker], 9, found)) == 4
    # The control: what the machines have at the start is the head's.
    assert ray_cluster.platform(alone, Cluster()) == "cpu"
    chosen = asked(request_of("l", "a", given | {"flags": ["--cores=2"]}))
    assert chosen.platform == "" and ray_cluster.platform(alone, chosen) == "cpu"


def asked(request):
    """What the sweep that the head starts asks of Ray."""
    values = sweep.make_flags()
    flags.parse(values, boot.driver(request)[2:], "")
    return Cluster(**{one.name: values[one.name].value for one in fields(Cluster)})


@pytest.mark.parametrize(
    ("cluster", "line"),
    [
        (Cluster(platform="npu"), "platform=npu is unknown; use cpu, gpu or tpu"),
        (Cluster(platform="tpu", cores=2), "platform=tpu and cores=2 ask for different devices"),
        (Cluster(platform="cpu", slice="v5litepod-8"), "platform=cpu and slice=v5litepod-8 ask"),
    ],
)
def test_a_platform_that_contradicts_the_other_flags_is_refused(cluster, line):
    with pytest.raises(ValueError, match=line):
        ray_cluster.platform([], cluster)


def test_hosts_with_gpus_are_told_where_the_first_is():
    request = request_of("l", "0a1b2c", CASES["gke-gpu"][1])
    made = manifests.jobset(request)
    (job,) = made["spec"]["replicatedJobs"]
    text = job["template"]["spec"]["template"]["spec"]["containers"][0]["command"][-1]
    assert job["replicas"] == 1 and job["template"]["spec"]["completions"] == request.slices
    assert "--coordinator=l-0a1b2c-slice-0-0.l-0a1b2c:8476 --processes=2" in text
    assert text.endswith('--process="$JOB_COMPLETION_INDEX"')
