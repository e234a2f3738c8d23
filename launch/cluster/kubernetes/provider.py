"""GKE as the provider of `isoflop cluster --on=gke`: manifests that kubectl creates."""

import dataclasses
import json
from collections.abc import Callable
from typing import Any

from launch.cluster import tools
from launch.cluster.accelerators import hourly
from launch.cluster.kubernetes import manifests
from launch.cluster.record import Record
from launch.cluster.request import Plan, Request, to_yaml

USES = {
    *("accelerator", "slices", "context", "spot", "image", "workdir", "job", "config"),
    *("queue", "priority"),
}
NEEDS = ("accelerator", "image", "workdir")
JOBS = ("sweep", "train")
CARRIES_CODE = True
ENDS = False
INSTALL = (
    "install it: https://cloud.google.com/kubernetes-engine/docs/how-to/cluster-access-for-kubectl"
)

# Kind -> what to install where the cluster does not know it.
OPERATORS = {
    "RayCluster": "KubeRay: gcloud container clusters update CLUSTER --enable-ray-operator",
    "JobSet": "JobSet: https://jobset.sigs.k8s.io/docs/installation",
    "LocalQueue": "Kueue: https://kueue.sigs.k8s.io/docs/installation",
}


def check(request: Request) -> None:
    """ValueError for what the manifests cannot say; asks nobody."""
    if request.priority and not request.queue:
        raise ValueError(
            f"priority={request.priority} is a priority of Kueue's, which needs --queue=…"
        )
    if len(f"{request.name}-{request.id}") > 47:  # KubeRay and JobSet add to it, within 63
        raise ValueError(f"name={request.name} is too long for Kubernetes; use up to 40 letters")


def preflight(request: Request) -> None:
    """Lets the cluster judge the manifests, without creating anything."""
    tools.require("kubectl", "gke", INSTALL)
    objects = [made for objects in _documents(request).values() for made in objects]
    missing = [made for made in objects if _owner(request, _resource(made)) != request.id]
    if missing:
        _kubectl(request, ["create", "--dry-run=server", "-f", "-"], _as_list(missing))


def plan(request: Request) -> Plan:
    """The manifests as files; with --queue also those of a queue, if no queue has that name."""
    files = {name: to_yaml(objects) for name, objects in manifests.documents(request).items()}
    if request.queue:
        files = {"kueue.yaml": to_yaml(manifests.queue(request, "NAMESPACE")), **files}
    kinds = [
        f"{made['kind']} {made['metadata']['name']}"
        for objects in manifests.documents(request).values()
        for made in objects
    ]
    tier = "spot" if request.spot else "on demand"
    lines = (
        f"creates {', '.join(kinds)} in {_place(request)}",
        f"{request.slices} × {request.accelerator} ({tier}): "
        f"{hourly(request.accelerator, request.slices)}",
        "GKE needs a node pool with this accelerator and topology, or node auto-provisioning",
    )
    if request.queue:
        lines += (f"kueue.yaml is created only if there is no LocalQueue {request.queue}",)
    return Plan(lines, files)


def resolve(request: Request) -> dict[str, str]:
    """The context and its namespace: `down` looks there, whatever is current then."""
    tools.require("kubectl", "gke", INSTALL)
    context = request.context or _kubectl(request, ["config", "current-context"]).strip()
    view = ["config", "view", "--minify", "-o", "jsonpath={..namespace}"]
    namespace = _kubectl(dataclasses.replace(request, context=context), view).strip()
    return {"context": context, "namespace": namespace or "default"}


def create(request: Request, record: Record, say: Callable[[str], None]) -> None:
    """Creates what does not exist yet. Each object is recorded before, and noted as created."""
    for objects in _documents(request).values():
        for made in objects:
            resource = _resource(made)
            known = [r for r in record.resources if resource.items() <= r.items()]
            if not known:
                known = [resource]
                record.resources.append(resource)
                record.save()
            if _owner(request, resource) != record.id:
                _kubectl(request, ["create", "-f", "-"], _as_list([made]))
                say(f"created {made['kind']} {made['metadata']['name']}")
            known[0]["created"] = True
            record.save()


def follow(
    request: Request, record: Record, say: Callable[[str], None], stopped: Callable[[], bool]
) -> int | None:
    """The operators in the cluster replace what is lost; there is nothing to do here."""
    return 0


def state(request: Request, record: Record) -> list[str]:
    """What kubectl shows of the objects and their pods."""
    tools.require("kubectl", "gke", INSTALL)
    kinds = sorted({resource["kind"].lower() for resource in record.resources} | {"pod"})
    selector = f"isoflop-cluster-id={record.id}"
    return _kubectl(request, ["get", ",".join(kinds), "-l", selector]).splitlines()


def delete(request: Request, record: Record, say: Callable[[str], None]) -> list[str]:
    """Deletes the recorded objects that carry the id of this cluster, the last first."""
    tools.require("kubectl", "gke", INSTALL)
    lost = []
    for resource in record.resources[::-1]:
        owner, shown = _owner(request, resource), f"{resource['kind']} {resource['name']}"
        if owner == record.id:
            _kubectl(request, ["delete", resource["kind"], resource["name"], "--wait=false"])
            say(f"deleted {shown}")
        elif owner is not None:
            say(f"{shown} carries no label of this cluster; it is left alone")
        elif resource.get("created"):
            lost.append(f"{shown} is not in {_place(request)}")
            continue
        record.resources.remove(resource)
        record.save()
    return lost


def _place(request: Request) -> str:
    """Where the objects are, in words."""
    context = f"context {request.context}" if request.context else "the current context of kubectl"
    return f"namespace {request.namespace or '(the current one)'} of {context}"


def _documents(request: Request) -> dict[str, list[dict[str, Any]]]:
    """The manifests to create. A queue that exists is used as it is."""
    files = manifests.documents(request)
    if request.queue:
        queue = {"kind": "LocalQueue", "name": request.queue}
        owner = _owner(request, queue)
        if owner is None or owner == request.id:
            files = {"kueue.yaml": manifests.queue(request, request.namespace), **files}
    return files


def _owner(request: Request, resource: dict[str, str]) -> str | None:
    """The cluster id that an object carries, '' without one; None if there is no such object."""
    get = ["get", resource["kind"], resource["name"], "--ignore-not-found", "-o", "json"]
    found = _kubectl(request, get).strip()
    if not found:
        return None
    labels = json.loads(found)["metadata"].get("labels") or {}
    return labels.get("isoflop-cluster-id", "")


def _resource(made: dict[str, Any]) -> dict[str, str]:
    """How a record names an object."""
    return {"kind": made["kind"], "name": made["metadata"]["name"]}


def _as_list(objects: list[dict[str, Any]]) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})


def _kubectl(request: Request, argv: list[str], stdin: str = "") -> str:
    where = {"context": request.context, "namespace": request.namespace}
    flags = [f"--{name}={value}" for name, value in where.items() if value]
    try:
        return tools.run(["kubectl", *flags, *argv], stdin)
    except ValueError as error:
        for kind, remedy in OPERATORS.items():
            unknown = f'the server doesn\'t have a resource type "{kind}"', f'kind "{kind}"'
            if any(text in str(error) for text in unknown):
                raise ValueError(f"on=gke: the cluster knows no {kind}; install {remedy}") from None
        raise ValueError(f"on=gke: {error}") from None
