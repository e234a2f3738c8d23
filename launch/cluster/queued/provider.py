"""Cloud TPU queued resources as the provider of `isoflop cluster --on=tpu`."""

import functools
import json
from collections.abc import Callable, Mapping
from typing import Any

from data.files import to_path
from launch.cluster import boot, meeting
from launch.cluster.accelerators import hourly
from launch.cluster.queued.api import Api, body, default_project, library, seconds
from launch.cluster.queued.watch import MOST_FAILURES, Watch, next_name, slice_resource, summary
from launch.cluster.record import Record
from launch.cluster.request import Plan, Request

USES = {
    *("accelerator", "slices", "zone", "project", "spot", "reservation", "valid_until", "image"),
    *("workdir", "job", "config"),
}
NEEDS = ("accelerator", "zone", "workdir")
JOBS = ("sweep", "train")
CARRIES_CODE = True  # the machines install the checkout from the shared folder
ENDS = True
POLL = 20.0  # seconds between looks at the slices


def check(request: Request) -> None:
    """ValueError for what Cloud TPU cannot do; asks nobody."""
    if not request.accelerator.tpu or not request.accelerator.tpu.api:
        raise ValueError(
            f"accelerator={request.accelerator.slice.name} is not offered as a queued resource; "
            "use v4, v5e, v5p or v6e, or --on=gke"
        )
    if len(request.zones) != 1:
        raise ValueError(f"zone={','.join(request.zones)}: name one zone, such as us-central1-a")
    if request.spot and request.reservation:
        raise ValueError(
            f"spot=True and reservation={request.reservation} exclude each other; drop one"
        )
    if not request.workdir.startswith("gs://"):
        raise ValueError(
            f"workdir={request.workdir}: the VMs of Cloud TPU have credentials for gs://… only; "
            "give a folder there"
        )
    if request.valid_until:
        seconds(request.valid_until)


def resolve(request: Request) -> dict[str, str]:
    """The project of the credentials: `down` looks there, whatever they name then."""
    library()  # says what to install before credentials are looked for
    return {"project": request.project or _project()}


def preflight(request: Request) -> None:
    """Asks the API whether the zone offers the slice; ValueError with what it does offer."""
    wanted, offered = request.accelerator.api, _api(request).accelerator_types()
    if wanted in offered:
        return
    family = wanted.partition("-")[0]
    same = [name for name in offered if name.partition("-")[0] == family]
    use = same or sorted({name.partition("-")[0] + "-…" for name in offered})
    raise ValueError(
        f"accelerator={request.accelerator.slice.name} ({wanted}) is not offered in "
        f"zone={request.zones[0]}; it offers {', '.join(use) or 'no TPU'}"
    )


def plan(request: Request) -> Plan:
    """The queued resources: one a slice, so that each is replaced alone; one for a multislice."""
    together = request.job == "train" and request.slices > 1
    base = f"{request.name}-{request.id}"
    names = [base] if together else [f"{base}-{index}" for index in range(request.slices)]
    resources = tuple(slice_resource(name, index) for index, name in enumerate(names))
    parent = f"projects/{request.project or 'PROJECT'}/locations/{request.zones[0]}"
    tier = "spot" if request.spot else "reserved" if request.reservation else "on demand"
    does = (
        "runs the command until it ends; then the slices are deleted"
        if request.config
        else "waits for work on Ray"
    )
    first, *others = names
    documents = {f"{first}.json": _document(request, parent, resources[0])}
    if others:
        documents[f"{others[-1]}.json"] = _document(request, parent, resources[-1])
    lines = (
        f"{len(names)} queued resources ({tier}) in {parent}: {first}"
        + (f" to {others[-1]}" if others else ""),
        f"{request.slices} × {request.accelerator}: {hourly(request.accelerator, request.slices)}",
        f"each host installs {request.code} and {does}",
        "a slice that is preempted is asked for again for as long as this command runs",
    )
    return Plan(lines, documents, resources)


def create(request: Request, record: Record, say: Callable[[str], None]) -> None:
    """Asks for every slice once."""
    say(summary(_watch(request, record, say).look()))


def follow(
    request: Request, record: Record, say: Callable[[str], None], stopped: Callable[[], bool]
) -> int | None:
    """Replaces preempted slices until the command has ended, or until `stopped`: None."""
    say("watching the slices; Ctrl-C stops the watch, and they stay")
    return _watch(request, record, say).follow(stopped, POLL)


def state(request: Request, record: Record) -> list[str]:
    """One line for each slice."""
    api, lines = _api(request), []
    for resource in record.resources:
        name = next_name(resource)
        seen = api.get(name)
        shown = seen.state or ("deleted" if resource["requested"] else "not asked for yet")
        again = f", preempted {resource['attempt']} times" if resource["attempt"] else ""
        lines.append(
            f"{name}: {shown.lower()}{again}" + (f": {seen.reason}" if seen.reason else "")
        )
    ended = meeting.read(to_path(request.home), meeting.EXIT)
    return [*lines, f"the command ended with {ended['code']}"] if ended else lines


def delete(request: Request, record: Record, say: Callable[[str], None]) -> list[str]:
    """Deletes the slices that carry the id of this cluster."""
    api, lost = _api(request), []
    for resource in list(record.resources):
        for name in (*resource["old"], next_name(resource)):
            seen = api.get(name)
            if not seen.state:
                continue
            if seen.id != record.id:
                say(f"{name} carries no label of this cluster; it is left alone")
                continue
            api.delete(name)
            say(f"deleted {name}")
        # `seen` is that of the last request. The watch has said it where somebody deleted that.
        if not seen.state and resource["requested"] and not resource["missing"]:
            lost.append(f"{name} is not in {api.parent}")
            continue
        record.resources.remove(resource)
        record.save()
    return lost


def _api(request: Request) -> Api:
    library()  # says what to install before credentials are looked for
    return Api(request.project or _project(), request.zones[0])


def _project() -> str:
    found = default_project()
    if not found:
        raise ValueError("project is not given and the credentials name none; add --project=…")
    return found


def _watch(request: Request, record: Record, say: Callable[[str], None]) -> Watch:
    api = _api(request)

    def asked(resource: Mapping[str, Any], name: str) -> dict[str, Any]:
        return body(request, api.parent, name, boot.tpu_vm(request, resource["index"]))

    # A request that may wait only so long has failed for good when that time is over.
    most = 1 if request.valid_until else MOST_FAILURES
    return Watch(api, record, asked, say, functools.partial(_ended, request), most)


def _ended(request: Request) -> int | None:
    """The exit code of the cluster's command; None while there is none."""
    found = meeting.read(to_path(request.home), meeting.EXIT) if request.config else None
    return None if found is None else int(found["code"])


def _document(request: Request, parent: str, resource: Mapping[str, Any]) -> str:
    script = boot.tpu_vm(request, resource["index"])
    return json.dumps(body(request, parent, resource["base"], script), indent=1) + "\n"
