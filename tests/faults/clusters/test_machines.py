# ruff: noqa: F401, F811  (fixtures of another folder)
"""Preempted slices of Cloud TPU: each is asked for again once, and none after success.

The API is the fake of tests/launch/cluster/fake_tpu.py: the real protocol on loopback.
"""

import random

import grpc
import pytest

from launch.cluster import meeting
from launch.cluster.queued import api
from launch.cluster.record import Record
from tests.launch.cluster.conftest import cluster, tpu
from tests.launch.cluster.test_queued import UP

SLICES = 16


def play(cluster, tpu, monkeypatch, seed, deaths):
    """A sweep on 16 spot slices, each preempted up to three times, whose watch is killed `deaths`
    times at random calls and started again. Returns how often each slice was preempted."""
    draw = random.Random(seed)
    lost = {f"l-aaaaaa-{n}": draw.randrange(4) for n in range(SLICES)}
    active, left = set(), dict(lost)

    def states(name):
        base = name.partition("-r")[0]
        waits = ["WAITING_FOR_RESOURCES"] * draw.randrange(3)
        if left[base]:
            left[base] -= 1
            return [*waits, *["ACTIVE"] * draw.randint(1, 4), "SUSPENDING", "SUSPENDED"]
        active.add(base)
        return [*waits, "ACTIVE"]

    tpu.states = states
    calls = {"number": 0, "next": draw.randint(5, 40), "deaths": deaths}

    def mortal(method):
        def call(self, *args):
            after = draw.random() < 0.5
            found = method(self, *args) if after else None
            calls["number"] += 1
            if calls["deaths"] and calls["number"] >= calls["next"]:
                calls["deaths"] -= 1
                calls["next"] += draw.randint(5, 40)
                raise KeyboardInterrupt
            return found if after else method(self, *args)

        return call

    for name in ("create", "get", "delete"):
        monkeypatch.setattr(api.Api, name, mortal(getattr(api.Api, name)))
    # The command succeeds some looks after every slice has come back for the last time.
    over = {"looks": 0}

    def read(home, name):
        over["looks"] += len(active) == SLICES
        return {"code": 0} if over["looks"] > 12 else None

    monkeypatch.setattr(meeting, "read", read)
    codes = []
    while not codes or codes[-1] == 42:
        codes.append(cluster(*UP, f"--slices={SLICES}").code)
        assert len(codes) < 99
    assert codes == [42] * deaths + [0]
    return lost


@pytest.mark.parametrize("seed", range(3))
def test_one_request_for_each_preemption_whatever_kills_the_watch(
    cluster,
    tpu,
    monkeypatch,
    seed,
):
    lost = play(cluster, tpu, monkeypatch, seed, deaths=12)
    asked = [name.partition("-r")[0] for name in tpu.created]
    assert {base: asked.count(base) - 1 for base in lost} == lost
    assert len(set(tpu.created)) == len(tpu.created) == SLICES + sum(lost.values())
    assert not tpu.there  # the end deleted all, the replaced ones too


def test_without_its_record_a_killed_watch_loses_count(cluster, tpu, monkeypatch):
    """The control: what makes the count exact is the record that is written before each request."""
    save, saved = Record.save, []
    monkeypatch.setattr(Record, "save", lambda self: saved or (saved.append(1), save(self)))
    lost = play(cluster, tpu, monkeypatch, 0, deaths=12)
    asked = [name.partition("-r")[0] for name in tpu.created]
    assert {base: asked.count(base) - 1 for base in lost} != lost


def test_a_slice_that_is_lost_after_success_is_not_asked_for_again(
    cluster,
    tpu,
    monkeypatch,
):
    tpu.states = lambda name: ["ACTIVE", "ACTIVE", "SUSPENDED"]
    looks = []

    def read(home, name):
        looks.append(len(tpu.calls))
        return {"code": 0} if tpu.calls["get_queued_resource"] >= 3 else None

    monkeypatch.setattr(meeting, "read", read)
    assert cluster(*UP).code == 0 and tpu.created == ["l-aaaaaa-0"]
    # The control: the same slice, with a command that has not ended.
    monkeypatch.setattr(meeting, "read", lambda *_: {"code": 0} if len(tpu.created) > 2 else None)
    assert cluster(*UP).code == 0 and tpu.created[1:] == ["l-aaaaab-0", "l-aaaaab-0-r1"]


def test_a_quota_is_said_with_its_metric_and_nothing_is_left(cluster, tpu, monkeypatch):
    from tests.launch.cluster.fake_tpu import quota_detail

    metric = "tpu.googleapis.com/tpu-v5s-litepod-preemptible"
    tpu.refuse(
        "create_queued_resource",
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "Quota limit 'TPUV5sPreemptibleLitepodPerProjectPerZone' has been exceeded. Limit: 16.",
        quota_detail(metric),
    )
    done = cluster(*UP)
    assert done.code == 2 and f"(metric {metric})" in done.err and "Limit: 16" in done.err
    assert cluster("down", "--name=l").code == 0
    assert not tpu.there and not list(cluster.folder.iterdir())
