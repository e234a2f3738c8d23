"""Kubernetes manifests for GKE: a Ray cluster for sweeps, a JobSet for one large run, a queue."""

import shlex
from typing import Any

from launch.cluster import boot
from launch.cluster.accelerators import GPUS
from launch.cluster.request import AGAIN, Request

GRACE = 60  # seconds between SIGTERM and SIGKILL; a preempted spot node gives 15 by default
FOLDER = "/tmp/isoflop"
RAY_VERSION = "2.52.0"  # KubeRay asks only whether it is this or later, for tokens
RAY_PORT, TRAIN_PORT = 6379, 8476
# Seconds that the pods of a run wait for each other. A restart, which follows, creates all of them
# again, also those whose node is still on its way.
WAIT = "--wait=1800"


def documents(request: Request) -> dict[str, list[dict[str, Any]]]:
    """The manifests by file name, in the order of their creation."""
    if request.job == "train":
        return {"jobset.yaml": [jobset(request)]}
    files = {"raycluster.yaml": [ray_cluster(request)]}
    return files | ({"driver.yaml": [driver(request)]} if request.config else {})


def full_name(request: Request) -> str:
    return f"{request.name}-{request.id}"


def ray_cluster(request: Request) -> dict[str, Any]:
    """A KubeRay RayCluster: a head without accelerators, and a group of workers with one replica a
    slice."""
    found = request.accelerator
    spec = {
        "rayStartParams": {"num-cpus": "0"},
        "template": _template(request, "ray-head", [], _resources(4, 16)),
    }
    group = {
        "groupName": "slices",
        "replicas": request.slices,
        "minReplicas": 0,
        "maxReplicas": request.slices,
        "numOfHosts": found.hosts,
        "rayStartParams": {},
        "template": _on_accelerator(request, "ray-worker", []),
    }
    made = {
        "authOptions": {"mode": "token"},
        "rayVersion": RAY_VERSION,
        "headGroupSpec": spec,
        "workerGroupSpecs": [group],
    }
    return _object("ray.io/v1", "RayCluster", request, made, queued=True)


def driver(request: Request) -> dict[str, Any]:
    """A Job that runs the sweep's driver in a pod of its own, which joins Ray without resources. It
    is started again after 42 and after a lost node, never after a failure."""
    address = f"{full_name(request)}-head-svc:{RAY_PORT}"
    join = f"ray start --address={address} --num-cpus=0"
    template = _template(
        request, "driver", _shell(request, boot.driver(request), join), _resources(2, 8)
    )
    (container,) = template["spec"]["containers"]
    secret = {"name": full_name(request), "key": "auth_token"}  # which KubeRay makes
    container["env"] = [
        {"name": "RAY_AUTH_MODE", "value": "token"},
        {"name": "RAY_AUTH_TOKEN", "valueFrom": {"secretKeyRef": secret}},
    ]
    rules = [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {"action": "Ignore", "onExitCodes": _codes("In")},
        {"action": "FailJob", "onExitCodes": _codes("NotIn")},
    ]
    spec = {"backoffLimit": 6, "podFailurePolicy": {"rules": rules}, "template": template}
    made = _object("batch/v1", "Job", request, spec)
    made["metadata"]["name"] += "-driver"
    return made


def jobset(request: Request) -> dict[str, Any]:
    """A JobSet for one run over all slices: a Job a slice, a pod a host. All of it is created again
    if a pod ends with 42 or by a signal, or loses its node; any other failure ends it."""
    found, command = request.accelerator, request.command("train", WAIT)
    # A TPU's hosts find each other by what GKE tells them; hosts with GPUs are told here.
    jobs, hosts = (request.slices, found.hosts) if found.tpu else (1, request.slices)
    shell = _shell(request, command, after="" if found.tpu else _processes(request))
    job = {
        "parallelism": hosts,
        "completions": hosts,
        "completionMode": "Indexed",
        "backoffLimit": 0,
        "podFailurePolicy": {"rules": [{"action": "FailJob", "onExitCodes": _codes("NotIn")}]},
        "template": _on_accelerator(request, "run", shell),
    }
    policy = {
        "maxRestarts": 0,
        "rules": [
            {
                "name": "failed",
                "action": "FailJobSet",
                "onJobFailureReasons": ["PodFailurePolicy"],
            },
            {
                "name": "preempted",
                "action": "RestartJobSetAndIgnoreMaxRestarts",
                "onJobFailureReasons": ["BackoffLimitExceeded"],
            },
        ],
    }
    replicated = {"name": "slice", "replicas": jobs, "template": {"spec": job}}
    spec = {"failurePolicy": policy, "replicatedJobs": [replicated]}
    made = _object("jobset.x-k8s.io/v1alpha2", "JobSet", request, spec, queued=True)
    if found.tpu:  # each Job on a slice of its own
        made["metadata"]["annotations"] = {
            "alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"
        }
    return made


def _processes(request: Request) -> str:
    """How hosts with GPUs find each other: process 0 is the first pod, by its name in DNS."""
    name = full_name(request)
    return (
        f"--coordinator={name}-slice-0-0.{name}:{TRAIN_PORT} --processes={request.slices} "
        '--process="$JOB_COMPLETION_INDEX"'
    )


def queue(request: Request, namespace: str) -> list[dict[str, Any]]:
    """Kueue's ResourceFlavor, ClusterQueue and LocalQueue --queue, with room for this cluster."""
    found, name = request.accelerator, full_name(request)
    resource = "google.com/tpu" if found.tpu else "nvidia.com/gpu"
    hosts = found.hosts * request.slices
    small = {"cpu": 8 * hosts + 8, "memory": f"{32 * hosts + 32}Gi"}
    quotas = {**small, resource: found.chips * request.slices}
    covered = {
        "coveredResources": list(quotas),
        "flavors": [
            {
                "name": name,
                "resources": [
                    {"name": key, "nominalQuota": value} for key, value in quotas.items()
                ],
            }
        ],
    }
    version = "kueue.x-k8s.io/v1beta1"
    flavor = _object(version, "ResourceFlavor", request, {})
    cluster = _object(
        version, "ClusterQueue", request, {"namespaceSelector": {}, "resourceGroups": [covered]}
    )
    local = _object(version, "LocalQueue", request, {"clusterQueue": name})
    local["metadata"] |= {"name": request.queue, "namespace": namespace}
    return [flavor, cluster, local]


def _object(
    version: str, kind: str, request: Request, spec: dict[str, Any], queued: bool = False
) -> dict[str, Any]:
    labels = dict(request.labels)
    if queued and request.queue:
        labels["kueue.x-k8s.io/queue-name"] = request.queue
    if queued and request.priority:
        labels["kueue.x-k8s.io/priority-class"] = request.priority
    metadata = {"name": full_name(request), "labels": labels}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}


def _codes(operator: str) -> dict[str, Any]:
    return {"operator": operator, "values": AGAIN}


def _shell(request: Request, command: list[str], before: str = "", after: str = "") -> list[str]:
    """Unpacks the checkout and becomes the command, which so receives SIGTERM. `before` is a shell
    command, `after` the text of more arguments."""
    unpack = (
        "import fsspec, tarfile; "
        f"tarfile.open(fileobj=fsspec.open({request.code!r}).open()).extractall({FOLDER!r})"
    )
    steps = [
        f"python -c {shlex.quote(unpack)}",
        f"cd {FOLDER}",
        f"export PYTHONPATH={FOLDER}",
        *([before] if before else []),
        f"exec python -m launch.{shlex.join(['__main__', *command[1:]])} {after}".rstrip(),
    ]
    return ["/bin/bash", "-c", " &&\n".join(steps)]


def _resources(cpus: int, gibibytes: int, **more: Any) -> dict[str, Any]:
    amounts = {"cpu": cpus, "memory": f"{gibibytes}Gi"}
    return {"requests": amounts | more, "limits": dict(more) or {"memory": f"{gibibytes}Gi"}}


def _on_accelerator(request: Request, name: str, command: list[str]) -> dict[str, Any]:
    """The pod of one host of a slice."""
    found = request.accelerator
    if found.tpu:
        resource = {"google.com/tpu": found.chips_of_a_host}
        where = {
            "cloud.google.com/gke-tpu-accelerator": found.tpu.gke,
            "cloud.google.com/gke-tpu-topology": found.topology,
        }
        tolerations = [{"key": "google.com/tpu", "operator": "Exists", "effect": "NoSchedule"}]
    else:
        resource = {"nvidia.com/gpu": found.chips}
        where = {"cloud.google.com/gke-accelerator": GPUS[found.kind].gke}
        tolerations = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    if request.spot:
        where["cloud.google.com/gke-spot"] = "true"
        tolerations.append(
            {
                "key": "cloud.google.com/gke-spot",
                "operator": "Equal",
                "value": "true",
                "effect": "NoSchedule",
            }
        )
    made = _template(request, name, command, _resources(8, 32, **resource))
    made["spec"] |= {"nodeSelector": where, "tolerations": tolerations}
    return made


def _template(
    request: Request, name: str, command: list[str], resources: dict[str, Any]
) -> dict[str, Any]:
    container: dict[str, Any] = {"name": name, "image": request.image, "resources": resources}
    if command:
        container["command"] = command
    spec: dict[str, Any] = {
        "terminationGracePeriodSeconds": GRACE,
        "containers": [container],
    }
    if not name.startswith("ray-"):  # KubeRay sets the policy of its own pods
        spec["restartPolicy"] = "Never"
    return {"metadata": {"labels": dict(request.labels)}, "spec": spec}
