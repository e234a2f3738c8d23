"""Tests of checkpoints in a bucket: what a manifest commits, what damage is found, who writes."""

import contextlib
import json
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data.buckets import lease
from data.buckets.lease import LostLock, Owner, Times, Unlocked
from data.buckets.versioned import client
from data.files import to_path
from tests.bucket import bucket
from train.checkpoint import (
    Checkpoints,
    Damaged,
    damage,
    finished,
    restore_params,
    restore_until,
)
from train.checkpoints import bucket as in_bucket
from train.checkpoints.manifest import sealed

STATE = {"params": {"w": jnp.arange(100.0), "b": jnp.ones(3)}, "step": jnp.int32(4)}


@pytest.fixture
def served():
    with bucket() as found:
        yield found


@pytest.fixture
def folder(served):
    return to_path("gs://bucket/run/checkpoints")


def saved(folder, *steps: int, state=STATE, **options) -> Checkpoints:
    checkpoints = Checkpoints(folder, 3, 0, said.append, **options)
    for step in steps:
        checkpoints.save(step, state, {"seconds": 1.5})
    checkpoints.wait()
    return checkpoints


said: list[str] = []


def equal(one, other) -> bool:
    leaves = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in leaves)


@pytest.mark.parametrize("staged", [True, False])
def test_a_state_comes_back_bit_equal(served, folder, monkeypatch, staged):
    """Through this machine's disk, and written and read by Orbax directly; each reads the other."""
    monkeypatch.setattr(in_bucket, "STAGED", 1 << 30 if staged else 0)
    checkpoints = saved(folder, 5)
    for size in (1 << 30, 0):
        monkeypatch.setattr(in_bucket, "STAGED", size)
        state, meta = checkpoints.restore(STATE)
        assert equal(state, STATE) and meta == {"seconds": 1.5, "step": 5}
        assert equal(restore_params(folder)[0], STATE["params"])
    checkpoints.close()
    assert damage(folder / "5") is None


def test_the_newest_are_kept_and_the_rest_is_removed(served, folder):
    saved(folder, 1, 2, 3, 4, 5).close()
    assert [path.name for path in finished(folder)] == ["5", "4", "3"]
    assert {name.split("/")[2] for name in served.names()} == {"3", "4", "5"}


def test_what_a_killed_save_left_is_removed_by_the_next_owner(served, folder):
    checkpoints = saved(folder, 1)
    for name in ("2/dead/x", "2/dead/d/y", "1/other/x"):
        client(folder).put(f"{folder}/{name}", b"part")
    said.clear()
    assert checkpoints.restore(STATE)[1]["step"] == 1
    assert said == [f"removed unfinished checkpoints in {folder}: 2"]
    assert not [name for name in served.names() if "/2/" in name or "/other/" in name]
    checkpoints.close()


def flip(content: bytes) -> bytes:
    return bytes([content[0] ^ 1]) + content[1:]


@pytest.mark.parametrize("kind", ["truncated", "missing", "swapped", "other", "manifest", "extra"])
def test_every_object_that_is_damaged_is_found(served, folder, kind):
    """Every object in turn; the one before it is restored."""
    checkpoints, store = saved(folder, 1, 2), client(folder)
    objects = [name for name in served.names("run/checkpoints/2/") if name.count("/") > 3]
    whole = {name: served.read(name) for name in served.names()}
    targets = objects if kind not in ("manifest", "extra") else ["run/checkpoints/2/manifest.json"]
    targets = [name for name in targets if whole[name]] if kind != "missing" else targets
    for name in targets:
        match kind:
            case "truncated":
                store.put(f"gs://bucket/{name}", whole[name][:-1])
            case "missing":
                store.remove(f"gs://bucket/{name}")
            case "swapped":
                another = next(x for x in objects if whole[x] != whole[name])
                store.put(f"gs://bucket/{name}", whole[another])
            case "other" | "manifest":
                store.put(f"gs://bucket/{name}", flip(whole[name]))
            case "extra":
                store.put(f"gs://bucket/{objects[0]}.extra", b"x")
        assert damage(folder / "2"), name
        if name == targets[-1]:
            break
        for other, content in whole.items():
            if served.names().count(other) == 0 or served.read(other) != content:
                store.put(f"gs://bucket/{other}", content)
        assert damage(folder / "2") is None  # control: the rest is whole
    assert checkpoints.restore(STATE)[1]["step"] == 1
    assert [path.name for path in finished(folder)] == ["1"]
    assert "run/checkpoints/2/damaged.json" in served.names()
    checkpoints.save(2, STATE, {})  # the step can be saved again
    checkpoints.wait()
    assert damage(folder / "2") is None and checkpoints.restore(STATE)[1]["step"] == 2
    checkpoints.close()


@pytest.mark.parametrize("kind", ["flipped", "missing"])
def test_damage_that_only_the_reading_finds_leads_to_the_one_before(
    served, folder, monkeypatch, kind
):
    """As if the store's own checksum were of the damaged object, or it were removed meanwhile."""
    checkpoints, store = saved(folder, 1, 2), client(folder)
    name = next(n for n in served.names("run/checkpoints/2/") if "/ocdbt.process_0/d/" in n)
    whole = served.read(name)
    if kind == "flipped":
        store.put(f"gs://bucket/{name}", flip(whole))
    else:
        store.remove(f"gs://bucket/{name}")
    monkeypatch.setattr(in_bucket, "_damage", lambda path: None)
    said.clear()
    assert restore_params(folder, said.append)[1]["step"] == 1
    assert restore_until(folder, STATE, 2, said.append)[1]["step"] == 1
    assert checkpoints.restore_before(STATE, 3)[1]["step"] == 1
    assert len(said) == 3 and all(f"{folder}/2 is damaged" in line for line in said)
    assert [path.name for path in finished(folder)] == ["1"]  # the newer one was removed
    checkpoints.save(2, STATE, {})
    checkpoints.wait()
    name = next(n for n in served.names("run/checkpoints/2/") if "/ocdbt.process_0/d/" in n)
    store.put(f"gs://bucket/{name}", flip(served.read(name)))
    assert checkpoints.restore(STATE)[1]["step"] == 1
    assert "run/checkpoints/2/damaged.json" in served.names()
    checkpoints.close()


@pytest.mark.parametrize(
    "change",
    [
        lambda body: body["objects"].update({"../../../x": [1, "crc32c:x"]}),
        lambda body: body["objects"].update({"/tmp/x": [1, "crc32c:x"]}),
        lambda body: body["files"].update({"a/../../x": "0" * 64}),
        lambda body: body.update(data=".."),
        lambda body: body.update(data="a/b"),
        lambda body: body["objects"].update(x=["1", None]),
    ],
)
def test_a_manifest_with_names_outside_of_its_folder_is_damaged(
    served, folder, monkeypatch, change
):
    checkpoints = saved(folder, 1, 2)
    body = json.loads(served.read("run/checkpoints/2/manifest.json"))
    files, meta = body["files"], body["meta"]
    assert damage(folder / "2") is None  # control
    change(body)
    more = {key: body[key] for key in ("data", "objects")}
    client(folder).put(f"{folder}/2/manifest.json", sealed(files, meta, **more))
    assert "manifest.json names" in damage(folder / "2")
    monkeypatch.setattr(in_bucket, "_damage", lambda path: None)
    assert checkpoints.restore(STATE)[1]["step"] == 1  # reading refuses it too
    checkpoints.close()


def test_a_manifest_that_cannot_be_parsed_keeps_its_objects(served, folder):
    """Its objects can still be read by hand. Control: with the manifest, a second folder goes."""
    checkpoints, store = saved(folder, 1, 2), client(folder)
    manifest = served.read("run/checkpoints/2/manifest.json")
    store.put(f"{folder}/2/dead-1/x", b"part")
    before = served.names("run/checkpoints/2/")
    store.put(f"{folder}/2/manifest.json", b"{")
    assert in_bucket.remove_unfinished(folder, Unlocked()) == []
    assert served.names("run/checkpoints/2/") == before
    store.put(f"{folder}/2/manifest.json", manifest)
    assert in_bucket.remove_unfinished(folder, Unlocked()) == []
    assert served.names("run/checkpoints/2/") == [n for n in before if "dead" not in n]
    reads = served.counts["read"]
    in_bucket.remove_unfinished(folder, Unlocked())
    assert served.counts["read"] == reads  # one folder of data a step: nothing to ask
    checkpoints.close()


def test_all_damaged_is_one_line(served, folder):
    checkpoints = saved(folder, 1)
    client(folder).put(f"{folder}/1/manifest.json", b"{")
    with pytest.raises(Damaged, match="every checkpoint in gs://bucket/run/checkpoints is damaged"):
        checkpoints.restore(STATE)
    checkpoints.close()


def test_rows_reach_the_bucket_before_the_manifest(served, folder):
    seen = []
    before = lambda: seen.append(served.names("run/checkpoints/1/manifest.json"))  # noqa: E731
    saved(folder, 1, before=before).close()
    assert seen == [[]] and served.names("run/checkpoints/1/manifest.json")


# Two owners.


@pytest.fixture
def two(served, folder, monkeypatch):
    """The leases of an owner that was frozen for too long, and of the one that took over."""
    monkeypatch.setattr(lease._Beating, "_beat_on", lambda self: None)
    monkeypatch.setattr(Owner, "dead", property(lambda self: False))
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    times = Times(10, 60, lambda: now[0], sleep)
    quiet = lambda line: None  # noqa: E731
    return [lease.take(folder.parent, times, quiet) for _ in range(2)]


@pytest.mark.parametrize("confirms", [True, False])
def test_a_frozen_owner_saves_nothing(served, folder, two, monkeypatch, confirms):
    """Control: without `confirm` its manifest would be there."""
    frozen, owner = two
    saved(folder, 1, lease=owner).close()
    if not confirms:
        monkeypatch.setattr(type(frozen), "confirm", lambda self: None)
        saved(folder, 2, lease=frozen).close()
        assert [path.name for path in finished(folder)] == ["2", "1"]
        return
    writes = len(served.writes)
    with pytest.raises(LostLock):
        saved(folder, 2, lease=frozen)
    assert len(served.writes) == writes and [path.name for path in finished(folder)] == ["1"]


def test_two_owners_write_no_object_twice_and_one_manifest_counts(served, folder, two, monkeypatch):
    """Both save a step at once, with what guards them taken away: the names differ, and the
    manifest is created once."""
    frozen, owner = two
    for each in two:
        monkeypatch.setattr(each, "confirm", lambda: None)
    other = jax.tree.map(lambda x: x + 1, STATE)
    manifests = []

    def late(request) -> float:  # the manifest of the first to write one is on its way for long
        if request.kind == "insert" and request.name.endswith("/7/manifest.json"):
            manifests.append(request)
            return 0.7 if len(manifests) == 1 else 0.0
        return 0.0

    served.late = late
    first = threading.Thread(target=lambda: saved(folder, 7, state=other, lease=frozen).close())
    first.start()
    while not manifests:
        time.sleep(0.01)
    saved(folder, 7, lease=owner).close()
    assert first.is_alive()
    first.join()
    assert len(manifests) == 2
    names = [name for kind, name in served.writes if kind == "insert" and "/7/" in name]
    assert len(names) == len(set(names))
    assert json.loads(served.read("run/checkpoints/7/manifest.json"))["data"][:8] == owner.token
    state, _ = Checkpoints(folder, 1, 0).restore(STATE)
    assert equal(state, STATE)


def test_a_manifest_that_arrives_after_its_objects_were_removed_is_replaced(served, folder, two):
    """A save of the frozen owner was on its way when the next one tidied the folder."""
    frozen, owner = two
    monkey = pytest.MonkeyPatch()
    monkey.setattr(type(frozen), "confirm", lambda self: None)
    saved(folder, 3, lease=frozen).close()
    monkey.undo()
    manifest = served.read("run/checkpoints/3/manifest.json")
    client(folder).remove(f"{folder}/3/manifest.json")
    checkpoints = saved(folder, 1, lease=owner)  # removes what has no manifest
    assert not served.names("run/checkpoints/3/")
    client(folder).put(f"{folder}/3/manifest.json", manifest)  # late
    checkpoints.save(3, STATE, {})
    checkpoints.wait()
    assert damage(folder / "3") is None and checkpoints.restore(STATE)[1]["step"] == 3
    checkpoints.close()


def takeover(folder, frozen, monkeypatch, request: int, when: str) -> None:
    """Before or after its `request`-th listing from now on, `frozen` sleeps for so long that
    another takes the folder, finishes the steps 3 and 4, and is about to finish 9."""
    real, seen, store = type(client(folder)).listed, [], client(folder)

    def act() -> None:
        monkeypatch.setattr(type(store), "listed", real)
        owner = lease.take(folder.parent, frozen.times, lambda line: None)
        saved(folder, 3, 4, lease=owner).close()
        store.put(f"{folder}/9/{owner.token}-1/x", b"part")

    def listed(self, *args):
        seen.append(args)
        now = len(seen) == request
        if now and when == "before":
            act()
        found = real(self, *args)
        if now and when == "after":
            act()
        return found

    monkeypatch.setattr(type(store), "listed", listed)


ACTS = {  # what an owner does that removes, and the number of its listings
    "prune": (lambda own: own._prune(), 2),
    "remove what is unfinished": (
        lambda own: own._place.remove_unfinished(own.folder, own.lease),
        1,
    ),
    "go back": (lambda own: own.restore_before(STATE, 2), 3),
    "restore": (lambda own: own.restore(STATE), 3),
}


@pytest.mark.parametrize("when", ["before", pytest.param("after", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("act", "listing"),
    [
        pytest.param(name, n, marks=pytest.mark.slow if n > 1 else ())
        for name, (_, most) in ACTS.items()
        for n in range(1, most + 1)
    ],
)
def test_a_frozen_owner_removes_nothing(served, folder, two, monkeypatch, act, listing, when):
    """It is frozen around each of its listings in turn, in all that removes something."""
    _, frozen = two
    own = Checkpoints(folder, 3, 0, said.append, lease=frozen)
    own.keep_last = 1
    saved(folder, 1, 2, lease=frozen).close()
    client(folder).put(f"{folder}/5/dead-1/x", b"part")
    if act == "restore":
        client(folder).put(f"{folder}/2/manifest.json", b"{")
    takeover(folder, frozen, monkeypatch, listing, when)
    with contextlib.suppress(LostLock):
        ACTS[act][0](own)
    names = served.names("run/checkpoints/")
    assert {"3", "4"} <= {path.name for path in finished(folder)}
    assert damage(folder / "3") is None and damage(folder / "4") is None
    assert [name for name in names if "/9/" in name]
    own.close()


@pytest.mark.slow
@pytest.mark.parametrize("act", ["prune", "remove what is unfinished", "go back"])
def test_control_without_confirm_it_removes_what_the_next_owner_writes(
    served, folder, two, monkeypatch, act
):
    _, frozen = two
    saved(folder, 1, 2, lease=frozen).close()
    takeover(folder, frozen, monkeypatch, 1, "before")
    monkeypatch.setattr(frozen, "confirm", lambda: None)
    own = Checkpoints(folder, 1, 0, said.append, lease=frozen)
    ACTS[act][0](own)
    left = {path.name for path in finished(folder)}
    assert not {"3", "4"} <= left or not served.names("run/checkpoints/9/")
    own.close()
