"""Tests of Cloud TPU queued resources against a fake of the API: states, errors, deletion."""

import itertools

import grpc
import pytest

from launch.cluster import meeting
from launch.cluster.queued import api, provider
from launch.cluster.queued.watch import Watch
from launch.cluster.record import Record
from tests.launch.cluster import fake_tpu

UP = (
    *("up", "--on=tpu", "--name=l", "--accelerator=v5e-16", "--zone=us-central1-a", "--spot"),
    *("--workdir=gs://bkt/l", "--project=p", "--config=configs/quickstart.py"),
)


@pytest.fixture
def ended(monkeypatch):
    """How the cluster's command ended, by the look: None while it runs, the last one stays."""
    codes = [None, None, 0]
    read = lambda home, name: (  # noqa: E731
        None if (code := codes.pop(0) if len(codes) > 1 else codes[0]) is None else {"code": code}
    )
    monkeypatch.setattr(meeting, "read", read)
    return codes


def test_slices_are_asked_for_once_watched_and_deleted_at_the_end(cluster, tpu, ended):
    tpu.states = lambda name: ["ACCEPTED", "WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"]
    ended[:] = [None] * 6 + [0]
    done = cluster(*UP, "--slices=3")
    assert done.code == 0, done.err
    names = ["l-aaaaaa-0", "l-aaaaaa-1", "l-aaaaaa-2"]
    assert tpu.created == names and sorted(tpu.deleted) == names and not tpu.there
    assert "0 of 3 slices active, 3 waiting_for_resources" in done.err
    assert "3 of 3 slices active" in done.err and "the command ended with 0" in done.err
    assert not list(cluster.folder.iterdir())
    body = tpu.bodies["l-aaaaaa-1"]
    (spec,) = body.tpu.node_spec
    assert spec.node.accelerator_type == "v5litepod-16" and spec.node_id == "l-aaaaaa-1"
    assert spec.node.runtime_version == "v2-alpha-tpuv5-lite" and "spot" in body
    assert dict(spec.node.labels) == {"isoflop-cluster": "l", "isoflop-cluster-id": "aaaaaa"}
    assert "launch.cluster.node worker" in spec.node.metadata["startup-script"]
    first = tpu.bodies["l-aaaaaa-0"].tpu.node_spec[0].node.metadata["startup-script"]
    assert "launch.cluster.node head" in first and "isoflop sweep --config=configs/quick" in first


@pytest.mark.parametrize("state", list(fake_tpu.State.__members__))
def test_every_state_is_acted_on(state, cluster, tpu, ended):
    ended[:] = [None, None, None, 0]
    again = {"SUSPENDED", "FAILED"}
    seen = ("FAILED", 13, "internal") if state == "FAILED" else state
    tpu.states = lambda name: [seen] if name.endswith("-0") else ["ACTIVE"]
    done = cluster(*UP)
    assert done.code == 0, done.err
    assert tpu.created == ["l-aaaaaa-0", *(["l-aaaaaa-0-r1"] if state in again else [])]
    assert not tpu.there  # also the one that was replaced


def test_a_slice_that_its_user_suspended_is_left_so(cluster, tpu, ended):
    ended[:] = [None] * 5 + [0]
    tpu.states = lambda name: ["ACTIVE", ("SUSPENDED", fake_tpu.USER)]
    done = cluster(*UP)
    assert tpu.created == ["l-aaaaaa-0"] and "suspended by its user" in done.err


def test_slices_that_somebody_deleted_are_not_asked_for_again(cluster, tpu, monkeypatch):
    looks = iter(range(9))
    monkeypatch.setattr(meeting, "read", lambda *_: tpu.there.clear() if next(looks) > 2 else None)
    done = cluster(*UP)
    assert done.code == 2 and tpu.created == ["l-aaaaaa-0"]
    assert "all slices of l were deleted by somebody" in done.err


def test_a_name_that_another_cluster_has_is_refused_and_left_alone(cluster, tpu, ended):
    tpu.there["l-aaaaaa-0"] = api.library().QueuedResource()
    tpu.there["l-aaaaaa-0"].tpu.node_spec = [{"node": {"labels": {"isoflop-cluster-id": "b"}}}]
    tpu.scripts["l-aaaaaa-0"] = ["ACTIVE"]
    done = cluster(*UP)
    assert done.code == 2 and "l-aaaaaa-0 belongs to another cluster (id b)" in done.err
    assert cluster("down", "--name=l").code == 0 and tpu.there and not tpu.deleted


def test_failures_before_it_was_ever_active_end_after_three(cluster, tpu, ended):
    ended[:] = [None]
    tpu.states = lambda name: [("FAILED", 14, "no capacity now")]
    done = cluster(*UP)
    assert done.code == 2 and "failed 3 times in a row before it was active" in done.err
    assert tpu.created == ["l-aaaaaa-0", "l-aaaaaa-0-r1", "l-aaaaaa-0-r2"]
    assert "isoflop cluster down --name=l deletes what was created" in done.err
    assert cluster("down", "--name=l").code == 0 and not tpu.there


def test_a_request_that_waited_too_long_is_not_repeated(cluster, tpu, ended):
    ended[:] = [None]
    tpu.states = lambda name: ["WAITING_FOR_RESOURCES", ("FAILED", 4, "valid until has passed")]
    done = cluster(*UP, "--valid_until=30m")
    assert done.code == 2 and tpu.created == ["l-aaaaaa-0"]
    assert "l-aaaaaa-0 failed before it was active: valid until has passed" in done.err
    assert cluster("down", "--name=l").code == 0
    done = cluster(*UP, "--valid_until=soon")
    assert done.code == 2 and "--valid_until=soon is no duration; write 30m" in done.err


@pytest.mark.parametrize("code", [3, 7, 9])
def test_a_failure_that_would_repeat_is_said_at_once(code, cluster, tpu, ended):
    ended[:] = [None]
    tpu.states = lambda name: [("FAILED", code, "the network is closed")]
    done = cluster(*UP)
    assert done.code == 2 and tpu.created == ["l-aaaaaa-0"]
    assert "l-aaaaaa-0 failed: the network is closed" in done.err


def test_an_unavailable_service_is_asked_again(cluster, tpu, ended):
    for method in ("create_queued_resource", "get_queued_resource", "delete_queued_resource"):
        tpu.refuse(method, grpc.StatusCode.UNAVAILABLE, "try later", times=2)
    done = cluster(*UP)
    assert done.code == 0 and tpu.created == ["l-aaaaaa-0"] and not tpu.there
    assert tpu.calls["create_queued_resource"] == 3


def test_a_watch_outlives_an_api_that_is_away(cluster, tpu, ended, monkeypatch):
    """Longer than the retries, and without the credentials service. A refusal ends it."""
    from google.auth.exceptions import TransportError

    monkeypatch.setattr(api, "TIMEOUT", 0.3)
    monkeypatch.setattr(provider, "POLL", 0.05)
    tpu.states = lambda name: ["ACTIVE", "SUSPENDED"] if name.endswith("-0") else ["ACTIVE"]
    get, looks = api.Api.get, itertools.count()

    def sometimes(self, name):
        number = next(looks)
        if number == 1:
            with self.answers("looking"):
                raise TransportError("no route to host")
        if number == 2:
            tpu.refuse("get_queued_resource", grpc.StatusCode.UNAVAILABLE, "down", times=2)
            monkeypatch.setattr(api, "retry", lambda: None)
        return get(self, name)

    monkeypatch.setattr(api.Api, "get", sometimes)
    ended[:] = [None] * 9 + [0]
    done = cluster(*UP)
    assert done.code == 0, done.err
    assert tpu.created == ["l-aaaaaa-0", "l-aaaaaa-0-r1"]  # replaced after that
    assert done.err.count("looking again until it answers") == 1
    assert "credentials service is not reached (no route to host)" in done.err
    assert "the API answers again" in done.err
    ended[:] = [None]
    monkeypatch.setattr(api.Api, "get", get)
    monkeypatch.setattr(api.Api, "create", lambda *_: tpu.refuse(
        "get_queued_resource", grpc.StatusCode.PERMISSION_DENIED, "no"))  # fmt: skip
    done = cluster(*UP)
    assert done.code == 2 and "permission denied in --project=p" in done.err


def test_a_stop_is_seen_at_once(monkeypatch):
    stops, slept = iter([False, False, False, True]), []
    watch = Watch(None, Record(None, "l", "a", "tpu", {}), None, lambda line: None)
    assert watch.follow(lambda: next(stops, True), 20.0, slept.append) is None
    assert slept and sum(slept) < 0.5


def test_down_keeps_the_record_of_a_slice_that_it_does_not_find(cluster, tpu, ended, monkeypatch):
    """The project is that of the time of `up`, whatever the credentials name later."""
    argv = [part for part in UP if not part.startswith("--project")]
    projects = iter(["p", "q", "q"])
    monkeypatch.setattr(provider, "default_project", lambda: next(projects))
    monkeypatch.setattr(Watch, "follow", lambda *_: None)
    assert cluster(*argv).code == 42 and cluster(*argv).code == 42
    assert cluster.record("l")["given"]["project"] == "p"
    away, tpu.there = tpu.there, {}
    done = cluster("down", "--name=l")
    assert done.code == 2 and "l-aaaaaa-0 is not in projects/p/locations/us-cent" in done.err
    tpu.there = away
    assert cluster("down", "--name=l").code == 0 and not tpu.there


def test_a_service_that_stays_away_is_one_line(cluster, tpu, ended, monkeypatch):
    monkeypatch.setattr(api, "TIMEOUT", 0.5)
    tpu.refuse("list_accelerator_types", grpc.StatusCode.UNAVAILABLE, "down", times=99)
    done = cluster(*UP)
    assert done.code == 2 and "Cloud TPU's API is unavailable" in done.err
    assert len(done.err.strip().splitlines()) == 1 and not cluster.folder.exists()


@pytest.mark.parametrize(
    ("code", "detail", "said"),
    [
        (
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            fake_tpu.quota_detail("tpu.googleapis.com/tpu-v5s-litepod-preemptible"),
            "(metric tpu.googleapis.com/tpu-v5s-litepod-preemptible)",
        ),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, None, "quota: what it said"),
        (grpc.StatusCode.PERMISSION_DENIED, None, "roles/tpu.admin"),
        (grpc.StatusCode.INVALID_ARGUMENT, None, "API refuses: what it said"),
    ],
)
def test_refusals_are_one_line_with_the_reason(code, detail, said, cluster, tpu, ended):
    tpu.refuse("create_queued_resource", code, "what it said", detail)
    done = cluster(*UP)
    assert done.code == 2 and said in done.err and tpu.created == []
    assert "Traceback" not in done.err and done.err.strip().count("\n") == 0
    # The same command asks again, under the same name: nothing was created before.
    assert cluster(*UP).code == 0 and tpu.created == ["l-aaaaaa-0"]


def test_what_the_zone_does_not_offer_is_named_by_the_apis_answer(cluster, tpu):
    done = cluster(*UP[:3], "--accelerator=v5e-64", *UP[4:])
    assert done.code == 2 and not tpu.created
    assert "v5litepod-64) is not offered in --zone=us-central1-a" in done.err
    assert "it offers v5litepod-16, v5litepod-256, v5litepod-4" in done.err
    done = cluster(*UP[:3], "--accelerator=v4-8", *UP[4:])
    assert "it offers v5litepod-…, v6e-…" in done.err
    done = cluster(*UP[:4], "--zone=mars-1", *UP[5:])
    assert done.code == 2 and "zones with TPUs: us-central1-a, us-east5-b" in done.err


def test_a_killed_watch_goes_on_without_a_second_request(cluster, tpu, ended, monkeypatch):
    """The process dies between the request of a replacement and its note in the record."""
    tpu.states = lambda name: ["ACTIVE", "SUSPENDED"] if name.endswith("-0") else ["ACTIVE"]
    ended[:] = [None]
    create, before = api.Api.create, list(tpu.created)

    def dies(self, name, body):
        create(self, name, body)
        if name.endswith("r1"):
            raise KeyboardInterrupt

    monkeypatch.setattr(api.Api, "create", dies)
    assert cluster(*UP).code == 42 and before == []
    assert tpu.created == ["l-aaaaaa-0", "l-aaaaaa-0-r1"]
    (resource,) = cluster.record("l")["resources"]
    assert resource["attempt"] == 1 and not resource["requested"]
    ended[:] = [None, None, None, 0]
    done = cluster(*UP)
    assert done.code == 0 and "l exists since" in done.err
    assert tpu.created == ["l-aaaaaa-0", "l-aaaaaa-0-r1"] and not tpu.there


def test_ctrl_c_leaves_the_slices_and_down_deletes_only_those(cluster, tpu, ended, monkeypatch):
    ended[:] = [None]
    monkeypatch.setattr(provider, "follow", lambda *_: None)
    done = cluster(*UP, "--slices=2")
    assert done.code == 42 and "stopped watching; the machines stay" in done.err
    shown = cluster("status", "--name=l")
    assert "l-aaaaaa-0: active" in shown.out and "l-aaaaaa-1: active" in shown.out
    # Meanwhile somebody else's slice took the name of one of ours, and one is foreign altogether.
    tpu.there["l-aaaaaa-1"].tpu.node_spec[0].node.labels["isoflop-cluster-id"] = "other"
    tpu.there["foreign"] = tpu.there["l-aaaaaa-1"]
    done = cluster("down", "--name=l")
    assert done.code == 0 and tpu.deleted == ["l-aaaaaa-0"]
    assert "l-aaaaaa-1 carries no label of this cluster; it is left alone" in done.err
    assert set(tpu.there) == {"l-aaaaaa-1", "foreign"} and not list(cluster.folder.iterdir())


def test_one_request_for_a_multislice_run(cluster, tpu, ended):
    assert cluster(*UP, "--job=train", "--slices=4").code == 0
    (name,) = tpu.created
    spec = tpu.bodies[name].tpu.node_spec[0]
    assert spec.multislice_params.node_count == 4 and not spec.node_id
    assert "launch.cluster.node train" in spec.node.metadata["startup-script"]


def test_reserved_slices_and_requests_that_expire(cluster, tpu, ended):
    argv = [part for part in UP if part != "--spot"]
    assert cluster(*argv, "--reservation=r", "--valid_until=6h").code == 0
    body = tpu.bodies["l-aaaaaa-0"]
    assert body.reservation_name == "projects/p/locations/us-central1-a/reservations/r"
    assert "guaranteed" in body and "spot" not in body
    assert body.queueing_policy.valid_until_duration.total_seconds() == 6 * 3600
    assert body.tpu.node_spec[0].node.scheduling_config.reserved


def test_no_credentials_is_one_line(cluster, monkeypatch, tmp_path):
    pytest.importorskip("google.cloud.tpu_v2")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    done = cluster(*UP)
    assert done.code == 2 and done.err.strip().count("\n") == 0
    assert "on=tpu finds no Google credentials; run `gcloud auth application" in done.err
    monkeypatch.setattr(api, "library", lambda: (_ for _ in ()).throw(ValueError(api.INSTALL)))
    assert "pip install 'isoflop[queued]'" in cluster(*UP).err


def test_a_dry_run_asks_nobody(cluster, monkeypatch):
    monkeypatch.setattr(api, "library", lambda: pytest.fail("it asked"))
    done = cluster(*UP, "--slices=16", "--dry_run")
    assert done.code == 0 and "16 queued resources (spot)" in done.out and "307.20 USD" in done.out
    assert not cluster.folder.exists()
