"""Cloud TPU's API for queued resources: requests, and its answers as one line for each error."""

import concurrent.futures
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from launch.cluster.request import Request

INSTALL = "on=tpu needs google-cloud-tpu; pip install 'isoflop[queued]'"
SCOPE = "https://www.googleapis.com/auth/cloud-platform"
LOGIN = "run `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS"
ACCEPTED = 30.0  # seconds to wait for the answer to a request; slices take longer, and are watched
TIMEOUT = 120.0  # seconds for a call with its retries, where the service is unavailable

# Generation -> its name in AcceleratorConfig, for topologies that are not the usual one of their
# number of chips.
CONFIG_TYPES = {"v4": "V4", "v5e": "V5LITE_POD", "v5p": "V5P", "v6e": "V6E"}


class Unanswered(ValueError):
    """The API gave no answer that counts: it is away, busy, or not reached. A later one may."""


@dataclass(frozen=True)
class Seen:
    """A queued resource as the API describes it. `state` is '' if no resource has that name;
    `by_user` says that a person suspended it; `reason` and `code` are those of a failure."""

    state: str = ""
    by_user: bool = False
    reason: str = ""
    code: int = 0
    id: str = ""  # of the cluster that created it


class Api:
    """The queued resources of one project and zone."""

    def __init__(self, project: str, zone: str):
        self.tpu = library()
        self.zone, self.project = zone, project
        self.parent = f"projects/{project}/locations/{zone}"
        self.client = self.tpu.TpuClient(**connection(project))

    def name(self, resource: str) -> str:
        return f"{self.parent}/queuedResources/{resource}"

    def create(self, resource: str, body: dict[str, Any]) -> None:
        """Asks for a queued resource; one of that name that is there already is left as it is."""
        from google.api_core import exceptions

        with self.answers(f"creating {resource}"), contextlib.suppress(exceptions.AlreadyExists):
            asked = self.client.create_queued_resource(
                request={
                    "parent": self.parent,
                    "queued_resource_id": resource,
                    "queued_resource": body,
                },
                retry=retry(),
                timeout=TIMEOUT,
            )
            with contextlib.suppress(concurrent.futures.TimeoutError):
                asked.result(timeout=ACCEPTED)  # raises what the service finds wrong with it

    def get(self, resource: str) -> Seen:
        from google.api_core import exceptions

        with self.answers(f"looking at {resource}"):
            try:
                found = self.client.get_queued_resource(
                    name=self.name(resource), retry=retry(), timeout=TIMEOUT
                )
            except exceptions.NotFound:
                return Seen()
        return seen(self.tpu, found)

    def delete(self, resource: str) -> None:
        """Deletes a queued resource with its nodes. One that is gone or going is no error."""
        from google.api_core import exceptions

        with self.answers(f"deleting {resource}"), contextlib.suppress(exceptions.NotFound):
            self.client.delete_queued_resource(
                request={"name": self.name(resource), "force": True},
                retry=retry(),
                timeout=TIMEOUT,
            )

    def accelerator_types(self) -> list[str]:
        """What the zone offers. ValueError, with the zones that have TPUs, for an unknown zone."""
        with self.answers(f"zone={self.zone}", self._zones):
            pages = self.client.list_accelerator_types(
                parent=self.parent, retry=retry(), timeout=TIMEOUT
            )
            return sorted(found.type_ for found in pages)

    def _zones(self) -> str:
        """The zones that the API knows, to follow an error about one; '' if it does not say."""
        try:
            request = {"name": f"projects/{self.project}"}
            found = self.client.list_locations(request=request, timeout=TIMEOUT).locations
        except Exception:  # the first error is the one to show
            return ""
        zones = sorted(location.location_id for location in found)
        return "" if self.zone in zones else f"; zones with TPUs: {', '.join(zones)}"

    @contextlib.contextmanager
    def answers(self, doing: str, more: Any = lambda: "") -> Iterator[None]:
        """Turns the API's errors into a ValueError of one line, which `more()` follows; Unanswered
        where another attempt may succeed."""
        from google.api_core import exceptions
        from google.auth.exceptions import GoogleAuthError, TransportError

        away = (
            *(exceptions.RetryError, exceptions.ServerError, exceptions.Aborted),
            *(exceptions.Cancelled, exceptions.TooManyRequests),
        )
        permanent = (exceptions.MethodNotImplemented, exceptions.DataLoss)
        try:
            yield
        except GoogleAuthError as error:
            if isinstance(error, TransportError) or error.retryable:
                raise Unanswered(
                    f"{doing}: Google's credentials service is not reached ({_line(error)})"
                ) from None
            raise ValueError(f"on=tpu: the credentials are refused ({error}); {LOGIN}") from None
        except exceptions.ResourceExhausted as error:
            kind = ValueError if doing.startswith("creating") else Unanswered  # else a rate
            raise kind(f"{doing}: {quota(error)}") from None
        except exceptions.PermissionDenied as error:
            raise ValueError(
                f"{doing}: permission denied in project={self.project} ({error.message}); ask for "
                f"the role roles/tpu.admin, and enable tpu.googleapis.com there{more()}"
            ) from None
        except (exceptions.GoogleAPICallError, exceptions.RetryError) as error:
            if isinstance(error, away) and not isinstance(error, permanent):
                cause = getattr(error, "cause", None) or error
                raise Unanswered(
                    f"{doing}: Cloud TPU's API is unavailable ({_line(cause)}); run it again"
                ) from None
            raise ValueError(f"{doing}: Cloud TPU's API refuses: {error.message}{more()}") from None


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())


def library() -> Any:
    """google.cloud.tpu_v2; ValueError where it is not installed."""
    try:
        from google.cloud import tpu_v2
    except ImportError:
        raise ValueError(INSTALL) from None
    return tpu_v2


def connection(project: str) -> dict[str, Any]:
    """How the client reaches the API: with the user's own credentials."""
    import google.auth
    from google.auth.exceptions import DefaultCredentialsError

    try:
        credentials, _ = google.auth.default(scopes=[SCOPE], quota_project_id=project)
    except DefaultCredentialsError:
        raise ValueError(f"on=tpu finds no Google credentials; {LOGIN}") from None
    return {"credentials": credentials}


def default_project() -> str:
    """The project of the user's credentials; '' if they name none."""
    import google.auth
    from google.auth.exceptions import DefaultCredentialsError

    try:
        return google.auth.default()[1] or ""
    except DefaultCredentialsError:
        raise ValueError(f"on=tpu finds no Google credentials; {LOGIN}") from None


def retry() -> Any:
    """Tries again with growing pauses where the service is unavailable or too busy to say more."""
    from google.api_core import exceptions
    from google.api_core.retry import Retry, if_exception_type

    busy = if_exception_type(
        exceptions.ServiceUnavailable, exceptions.DeadlineExceeded, exceptions.InternalServerError
    )
    return Retry(predicate=busy, initial=0.2, maximum=20.0, multiplier=2.0, timeout=TIMEOUT)


def quota(error: Any) -> str:
    """What an answer of RESOURCE_EXHAUSTED says, with the metric of the quota if it names one."""
    metrics = []
    for detail in getattr(error, "details", ()):
        metadata = dict(getattr(detail, "metadata", {}) or {})
        metric = metadata.get("quota_metric") or metadata.get("quota_limit")
        metrics += [metric] if metric else []
        for violation in getattr(detail, "violations", ()):
            metrics.append(f"{violation.subject} {violation.description}".strip())
    said = f" (metric {', '.join(metrics)})" if metrics else ""
    return (
        f"quota: {error.message}{said}; ask for more at "
        "https://console.cloud.google.com/iam-admin/quotas, or use fewer --slices or another --zone"
    )


def seen(tpu: Any, found: Any) -> Seen:
    """What matters of a QueuedResource."""
    state = found.state
    nodes = found.tpu.node_spec
    labels = dict(nodes[0].node.labels) if nodes else {}
    failure = state.failed_data.error
    by_user = state.state_initiator == tpu.QueuedResourceState.StateInitiator.USER
    return Seen(
        state.state.name,
        by_user,
        failure.message,
        failure.code,
        labels.get("isoflop-cluster-id", ""),
    )


def body(request: Request, parent: str, resource: str, script: str) -> dict[str, Any]:
    """The QueuedResource to create: one slice, or with --job=train all slices as one multislice."""
    found = request.accelerator
    node: dict[str, Any] = {
        "runtime_version": request.image or found.tpu.runtime,
        "network_config": {"enable_external_ips": True},
        "service_account": {"scope": [SCOPE]},
        "labels": request.labels,
        "metadata": {"startup-script": script},
        "description": f"isoflop cluster {request.name}",
    }
    if found.topology in found.slice.chip.slices:
        node["accelerator_type"] = found.api
    else:
        config_type = CONFIG_TYPES[found.kind]
        node["accelerator_config"] = {"type_": config_type, "topology": found.topology}
    if request.reservation:
        node["scheduling_config"] = {"reserved": True}
    spec: dict[str, Any] = {"parent": parent, "node": node}
    if request.job == "train" and request.slices > 1:
        spec["multislice_params"] = {"node_count": request.slices, "node_id_prefix": resource}
    else:
        spec["node_id"] = resource
    made: dict[str, Any] = {"tpu": {"node_spec": [spec]}}
    if request.spot:
        made["spot"] = {}
    if request.reservation:
        place = request.reservation
        if "/" not in place:
            place = f"{parent}/reservations/{place}"
        made |= {"guaranteed": {}, "reservation_name": place}
    if request.valid_until:
        made["queueing_policy"] = {
            "valid_until_duration": {"seconds": seconds(request.valid_until)}
        }
    return made


_UNITS = {"m": 60, "h": 3600, "d": 86_400}


def seconds(text: str) -> int:
    """The seconds of '30m', '6h' or '2d'; ValueError for anything else."""
    number, unit = text[:-1], text[-1:]
    if not number.isdecimal() or int(number) < 1 or unit not in _UNITS:
        raise ValueError(f"valid_until={text} is no duration; write 30m, 6h or 2d")
    return int(number) * _UNITS[unit]
