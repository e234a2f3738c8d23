"""SkyPilot as the provider of `isoflop cluster --on=sky`: spot TPUs and GPUs in any zone.

Every slice is a managed job, which SkyPilot starts again elsewhere when it is preempted. Ray's head
and the sweep's driver are a managed job of their own on a small machine that is not preemptible.
"""

from collections.abc import Callable
from typing import Any

import yaml

from launch.checkout import ROOT
from launch.cluster import boot
from launch.cluster.accelerators import hourly
from launch.cluster.record import Record
from launch.cluster.request import AGAIN, Plan, Request, to_yaml

USES = {"accelerator", "slices", "zone", "spot", "image", "workdir", "job", "config"}
NEEDS = ("accelerator", "workdir")
JOBS = ("sweep", "train")
CARRIES_CODE = False  # SkyPilot copies the checkout itself
ENDS = False
INSTALL = "on=sky needs SkyPilot; pip install 'isoflop[sky]' and 'skypilot[gcp]', then `sky check`"
HEAD_CPUS = "4+"


def check(request: Request) -> None:
    """ValueError for what SkyPilot cannot do; asks nobody."""
    if request.accelerator.tpu and not request.accelerator.tpu.api:
        raise ValueError(
            f"accelerator={request.accelerator.slice.name} is not in SkyPilot's catalogue; use "
            "v4, v5e, v5p or v6e, or --on=gke"
        )
    if request.job == "train" and request.slices > 1:
        raise ValueError(
            f"slices={request.slices}: SkyPilot joins no slices into one run; use --on=tpu or "
            "--on=gke, or --slices=1"
        )
    clouds = sorted({_infra(zone).partition("/")[0] for zone in request.zones})
    if request.job == "sweep" and len(clouds) != 1 and not (request.accelerator.tpu and not clouds):
        raise ValueError(
            f"zone={','.join(request.zones)}: the machines of a sweep reach each other only within "
            "one cloud; name zones of one, such as us-central1-a,us-east5-b or aws/us-east-1"
        )


def preflight(request: Request) -> None:
    """ValueError where SkyPilot is not installed, or does not accept a task."""
    sky = library()
    for text in plan(request).documents.values():
        try:
            sky.Task.from_yaml_config(yaml.safe_load(text))
        except Exception as error:  # SkyPilot's own errors have no common class
            raise ValueError(f"on=sky: SkyPilot refuses the task: {_line(error)}") from None


def plan(request: Request) -> Plan:
    """One managed job for each slice, and one for the head of a sweep."""
    tasks = [_slice(request, index) for index in range(request.slices)]
    if request.job == "sweep":
        tasks.insert(0, _head(request))
    shown = tasks if len(tasks) < 3 else [*tasks[:2], tasks[-1]]
    zones = ", ".join(request.zones) or "any zone that `sky check` lists"
    tier = "spot" if request.spot else "on demand"
    lines = (
        f"{len(tasks)} managed jobs: {tasks[0]['name']} to {tasks[-1]['name']}, in {zones}",
        f"{request.slices} × {request.accelerator} ({tier}): "
        f"{hourly(request.accelerator, request.slices)}",
        "SkyPilot's controller for managed jobs, one machine of your account, starts if it does "
        "not run yet; it belongs to all your jobs, and `isoflop cluster down` leaves it",
    )
    resources = tuple({"job": task["name"]} for task in tasks)
    return Plan(lines, {f"{task['name']}.yaml": to_yaml([task]) for task in shown}, resources)


def resolve(request: Request) -> dict[str, str]:
    """SkyPilot's own server knows where its jobs are."""
    return {}


def create(request: Request, record: Record, say: Callable[[str], None]) -> None:
    """Launches the jobs that do not exist yet."""
    sky = library()
    there = {job["job_name"] for job in _jobs(sky, record)}
    tasks = [_slice(request, index) for index in range(request.slices)]
    if request.job == "sweep":
        tasks.insert(0, _head(request))
    for task in tasks:
        if task["name"] not in there:
            asked = sky.jobs.launch(sky.Task.from_yaml_config(task), name=task["name"])
            _answer(sky, asked, f"launching {task['name']}")
            say(f"launched {task['name']}")
        for resource in record.resources:
            if resource["job"] == task["name"] and not resource.get("created"):
                resource["created"] = True
                record.save()


def follow(
    request: Request, record: Record, say: Callable[[str], None], stopped: Callable[[], bool]
) -> int | None:
    """SkyPilot's controller recovers the jobs; there is nothing to do here."""
    return 0


def state(request: Request, record: Record) -> list[str]:
    """One line for each job."""
    found = {job["job_name"]: job for job in _jobs(library(), record)}
    lines = []
    for resource in record.resources:
        job = found.get(resource["job"])
        status = "not launched" if job is None else _status(job)
        again = (
            f", recovered {job['recovery_count']} times" if job and job["recovery_count"] else ""
        )
        lines.append(f"{resource['job']}: {status}{again}")
    return lines


def delete(request: Request, record: Record, say: Callable[[str], None]) -> list[str]:
    """Cancels the jobs by their numbers; SkyPilot then deletes their machines."""
    sky = library()
    found = _jobs(sky, record)
    ids = [job["job_id"] for job in found if not _over(job)]
    if ids:
        _answer(sky, sky.jobs.cancel(job_ids=ids), f"cancelling {len(ids)} jobs")
    say(f"cancelled {len(ids)} managed jobs")
    there = {job["job_name"] for job in found}
    made = [resource["job"] for resource in record.resources if resource.get("created")]
    return [f"SkyPilot here knows no job {name}" for name in made if name not in there]


def library() -> Any:
    """The module `sky`; ValueError where it is not installed."""
    try:
        import sky
    except ImportError:
        raise ValueError(INSTALL) from None
    return sky


def _head(request: Request) -> dict[str, Any]:
    place = _infra(request.zones[0]).rpartition("/")[0] if request.zones else "gcp"
    # Trials would share the head's few cores with the driver, so Ray is told of none.
    name, more = f"{request.name}-{request.id}-head", "--num_cpus=0"
    task = _task(request, name, boot.driver(request), "head", more)
    recovery = {"max_restarts_on_errors": 0, "recover_on_exit_codes": AGAIN}
    task["resources"] = {"infra": place, "cpus": HEAD_CPUS, "use_spot": False}
    task["resources"]["job_recovery"] = recovery
    return task


def _slice(request: Request, index: int) -> dict[str, Any]:
    role, command = "worker", []
    if request.job == "train":
        role, command = "train", request.command("train")
    task = _task(request, f"{request.name}-{request.id}-{index}", command, role)
    found = request.accelerator
    resources: dict[str, Any] = {"accelerators": found.sky, "use_spot": request.spot}
    if found.tpu:
        runtime = request.image or found.tpu.runtime
        resources["accelerator_args"] = {"runtime_version": runtime, "tpu_vm": True}
    elif request.image:
        resources["image_id"] = request.image
    if request.zones:
        resources["any_of"] = [{"infra": _infra(zone)} for zone in request.zones]
    elif found.tpu:
        resources["infra"] = "gcp"
    resources["job_recovery"] = {
        "strategy": "EAGER_NEXT_REGION",
        "max_restarts_on_errors": 0,
        "recover_on_exit_codes": AGAIN,
    }
    task["resources"] = resources
    return task


def _task(request: Request, name: str, command: list[str], role: str, *more: str) -> dict[str, Any]:
    return {
        "name": name,
        "workdir": str(ROOT),
        "num_nodes": 1,
        "setup": boot.install(request, "."),
        "run": 'export PATH="$PWD/.venv/bin:$PATH"\nexec '
        + boot.node(request, role, command, *more)
        + "\n",
    }


def _infra(zone: str) -> str:
    """SkyPilot's name of a place: 'us-central1-a' of Google; 'aws/us-east-1' as it is."""
    return zone if "/" in zone else f"gcp/{zone.rpartition('-')[0]}/{zone}"


def _jobs(sky: Any, record: Record) -> list[dict[str, Any]]:
    """SkyPilot's records of the jobs of this cluster, the newest of each name."""
    names = {resource["job"] for resource in record.resources}
    found = _answer(sky, sky.jobs.queue(refresh=True), "listing managed jobs")
    newest: dict[str, dict[str, Any]] = {}
    for job in found:
        job = job if isinstance(job, dict) else job.model_dump()
        if job["job_name"] in names:
            known = newest.setdefault(job["job_name"], job)
            if job["job_id"] > known["job_id"]:
                newest[job["job_name"]] = job
    return list(newest.values())


def _status(job: dict[str, Any]) -> str:
    status = job["status"]
    return str(getattr(status, "value", status)).lower()


def _over(job: dict[str, Any]) -> bool:
    status = _status(job)
    return status in ("succeeded", "cancelled") or status.startswith("failed")


def _answer(sky: Any, asked: Any, doing: str) -> Any:
    """The result of a request; ValueError in one line if it fails."""
    try:
        return sky.get(asked)
    except Exception as error:  # SkyPilot's own errors have no common class
        if type(error).__name__ == "ClusterNotUpError" and doing.startswith("listing"):
            return []
        raise ValueError(f"on=sky: {doing} failed: {_line(error)}") from None


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:400] or type(error).__name__
