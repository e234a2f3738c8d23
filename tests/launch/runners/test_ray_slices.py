"""Trials on whole TPU slices, without Ray: which hosts they take, and how they end together."""

import dataclasses
from types import SimpleNamespace

import pytest

from launch.errors import BAD_INPUT, BUG, DONE, PREEMPTED
from launch.runners import ray, ray_cluster, ray_gang
from launch.runners.ray_gang import Gang
from launch.runners.ray_session import WorkerHandle
from launch.runners.ray_slices import Node
from launch.runners.ray_worker import Begin, Reservation, Share, Status
from launch.runners.tasks import Cluster, Interrupt, Resources
from tests.launch.runners.test_ray import Fake, node, tasks


def slice_(name: str, hosts: int, kind: str = "v5litepod-16", chips: int = 4) -> list[Node]:
    """The hosts of a TPU slice as Ray names them; the head is the last."""
    found = []
    for number in reversed(range(hosts)):
        resources = {"CPU": 8, "TPU": chips, name: 1, "accelerator_type:TPU-V5LITEPOD": 1}
        resources |= {f"TPU-{kind}-head": 1} if number == 0 else {}
        labels = {"ray.io/tpu-slice-name": name, "ray.io/tpu-worker-id": str(number)}
        found.append(Node(f"{name}{number}", f"{name}-{number}", resources, labels, f"ip-{name}"))
    return found


def test_a_trial_on_slices_takes_all_their_hosts_and_only_complete_ones():
    there = [*slice_("x", 4), *slice_("y", 3), *slice_("z", 4), *slice_("u", 1, "v6e-4"), node("c")]
    found = Resources("tpu", cluster=Cluster(slice="v5e-16"))
    reservations = ray_cluster.reservations(there, 9, found)
    assert [
        [one.node for one in (reservation, *reservation.peers)] for reservation in reservations
    ] == [[f"{name}{number}" for number in range(4)] for name in "xz"]
    demands = [one.demand["resources"] for one in (reservations[0], *reservations[0].peers)]
    assert demands == [{"TPU": 4, "TPU-v5litepod-16-head": 1}, *[{"TPU": 4}] * 3]
    assert reservations[0].environment == {}
    found = Resources("tpu", cluster=Cluster(slice="v5e-16", slices=2))
    (both,) = ray_cluster.reservations(there, 9, found)
    slices = [(one.environment["MEGASCALE_SLICE_ID"], one.node[0]) for one in (both, *both.peers)]
    assert slices == [("0", "x")] * 4 + [("1", "z")] * 4
    assert both.peers[6].environment["MEGASCALE_COORDINATOR_ADDRESS"] == "ip-x"
    for asked, says in (
        (Cluster(slice="v5e-16", slices=3), "has 2 complete slices of that type"),
        (Cluster(slice="v5e:8x8"), "has 0 complete slices"),
        (Cluster(slice="v5-16"), "slice=v5-16 is unknown; write one of v4"),
        (
            Cluster(slice="h100-8"),
            "slice=h100-8 is no TPU slice that Ray knows; use one of v4, v5e",
        ),
    ):
        with pytest.raises(ValueError, match=says):
            ray_cluster.require_room(there, Resources("tpu", cluster=asked))


def test_more_hosts_than_a_mesh_needs_are_refused():
    mesh, cluster = dict(data=4, fsdp=2, tensor=1, sequence=1), Cluster(slice="v5e-16")
    says = "slice=v5e-16 slices=1 gives a trial 16 devices, but t needs 8"
    with pytest.raises(ValueError, match=says):
        ray.require_all_used(cluster, mesh, "t")
    ray.require_all_used(cluster, mesh | {"fsdp": -1}, "t")
    ray.require_all_used(cluster, mesh | {"fsdp": 4}, "t")


def gang(codes, monkeypatch, grace=-1.0):
    """What a trial on len(codes) hosts ends with; None: its part runs on until it is killed."""
    killed, members = [], []
    for index in range(len(codes)):
        remote = lambda number, index=index: killed.append(index)  # noqa: E731
        actor = SimpleNamespace(signal=SimpleNamespace(remote=remote))
        members.append(WorkerHandle(actor, "n", "k", None, 0.0))
    whole = Gang(members)
    begin = Begin("token", "m:f", tasks(["t"])[0], 1, "s")
    parts = whole.parts(begin, "h:1")
    assert [part.task.args[2] for part in parts] == list(range(len(codes)))
    assert len({str(part.task.log) for part in parts}) == len(codes)
    members[0].begin = begin
    monkeypatch.setattr(ray_gang, "GRACE", grace)
    found = None
    for index, code in [*enumerate(codes), *enumerate(codes)]:
        code = BUG if code is None and index in killed else code
        ended = None if code is None else ("token", code, str(index))
        found = found or whole.heard(members[index], Status("d", 0, "h", None, None, ended))
    return found and found.ended[1], killed


def test_the_hosts_of_a_trial_end_together(monkeypatch):
    assert gang([DONE, DONE], monkeypatch, 9.0) == (DONE, [])
    assert gang([PREEMPTED, None, None], monkeypatch) == (PREEMPTED, [1, 2])
    assert gang([None, PREEMPTED], monkeypatch) == (PREEMPTED, [0])
    assert gang([BAD_INPUT, BAD_INPUT], monkeypatch, 9.0)[0] == BAD_INPUT
    assert gang([DONE, BUG], monkeypatch, 9.0)[0] == BUG
    assert gang([None, None], monkeypatch) == (None, [])


def test_a_slice_that_joins_host_by_host_gets_a_worker_in_both_orders(monkeypatch):
    first, second = slice_("x", 4), slice_("y", 4)
    for order in ([*first, *second], [*reversed(first), *reversed(second)], [*second, *first]):
        there, session = [], Fake(lambda *_: None)
        monkeypatch.setattr(ray_cluster, "nodes", lambda there=there: list(there))
        monkeypatch.setitem(ray._sessions, "w", session)
        monkeypatch.setattr(ray, "_LOOK", -1.0)
        given = Resources("tpu", sweep="w", cluster=Cluster(slice="v5e-16"))
        whole = ray._Run("m:f", tasks("tuv"), given, Interrupt())
        counts, workers = [], []
        for host in order:
            there.append(host)
            whole._follow_the_machines()
            counts.append(len(session.workers))
            assert session.workers[: len(workers)] == workers  # none is replaced
            workers = list(session.workers)
        assert counts == [0, 0, 0, 1, 1, 1, 1, 2]
        assert {len(one.reservation.nodes) for one in workers} == {4}


def test_a_new_driver_goes_on_with_the_workers_of_a_trial_on_several_hosts():
    first = Reservation("a", Share(), {}, peers=(Reservation("b", Share(index=1), {}, group="g"),))
    first = dataclasses.replace(first, group="g")
    begin = Begin("token", "m:f", tasks(["t"])[0], 1, "s")
    handles = [WorkerHandle(None, name, name, None, 0.0) for name in "ab"]
    parts = Gang(list(handles)).parts(begin, "h:1")

    def found(running, ended=(None, None)):
        each = zip(handles, (first, *first.peers), running, ended, strict=True)
        return [(h, Status("d", 0, h.node, r, b, e)) for h, r, b, e in each][::-1]

    gang = ray_gang.regained(found(parts))
    assert gang.members == handles and handles[1].begin is None
    assert (handles[0].begin.function, handles[0].begin.task.args) == ("m:f", ("t",))
    assert gang.is_busy(handles[1])
    ended = ("token", DONE, "")
    assert ray_gang.regained(found((parts[0], None), (None, ended))) is not None
    assert ray_gang.regained(found((None, None))).members[0].begin is None  # free
    assert ray_gang.regained(found((parts[0], None))) is None
    assert ray_gang.regained(found(parts)[:1]) is None
    other = dataclasses.replace(parts[1], token="other")
    assert ray_gang.regained(found((parts[0], other))) is None
