"""Tests of conditional writes: one of many wins, also where answers are lost."""

import contextlib
from concurrent.futures import ThreadPoolExecutor

import pytest

from data.buckets import attempts
from data.buckets.attempts import Changed
from data.buckets.versioned import client
from data.files import to_path
from tests.bucket import Faults, bucket

FILE = "gs://bucket/file"


@pytest.fixture
def store():
    with bucket():
        yield client(FILE)


def test_an_object_is_created_once_and_replaced_in_its_version_only(store):
    holds_versions(store, FILE)


def holds_versions(store, url):
    none = f"{url}s"
    first = store.put(url, b"one", "")
    with pytest.raises(Changed):
        store.put(url, b"two", "")
    assert not to_path(url).create_bytes(b"two")
    assert store.get(url) == (b"one", first)
    second = store.put(url, b"two", first)
    with pytest.raises(Changed):
        store.put(url, b"three", first)
    assert store.get(url) == (b"two", second)
    with pytest.raises(FileNotFoundError):
        store.get(none)
    with pytest.raises(Changed):
        store.put(none, b"x", second)
    assert to_path(none).create_bytes(b"new") and store.get(none)[0] == b"new"


def test_one_of_eight_that_count_loses_nothing(store):
    """Each adds 1 five times; a write in an old version would lose another's."""
    store.put(FILE, b"0", "")

    def add(name: int) -> None:
        for _ in range(5):
            while True:
                content, version = store.get(FILE)
                number = int(content.split()[0]) + 1
                with contextlib.suppress(Changed):
                    store.put(FILE, b"%d of %d" % (number, name), version)
                    break

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(8)))
    assert store.get(FILE)[0].split()[0] == b"40"


def test_a_write_whose_answer_was_lost_counts_once(monkeypatch):
    """The store has done what it answers 503 to: the next attempt finds its own content. Control:
    content of another is no success."""
    monkeypatch.setattr(attempts, "_FIRST", 0.001)
    with bucket(faults=Faults(lost=0.5, unavailable=0.1, too_many=0.1, seed=1)) as found:
        store, version = client(FILE), ""
        for number in range(30):
            version = store.put(FILE, b"%d" % number, version)
        assert found.counts["faults"] > 15
        assert [name for kind, name in found.writes if kind == "insert"] == ["file"] * 30
        found.faults.lost = found.faults.unavailable = found.faults.too_many = 0
        other = store.put(FILE, b"of another")
        found.faults.lost = 0.9
        with pytest.raises(Changed):
            store.put(FILE, b"mine", version)
        found.faults.lost = 0
        assert store.get(FILE) == (b"of another", other)


def test_a_store_that_does_not_answer_is_one_line_after_a_while(monkeypatch):
    monkeypatch.setattr(attempts, "_FIRST", 0.01)
    with bucket(faults=Faults(unavailable=1)):
        with pytest.raises(TimeoutError, match=r"did not answer within 0 s .status 503.; check"):
            client(FILE).get(FILE, within=0.1)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:1")  # nobody listens there
    with pytest.raises(TimeoutError, match="did not answer"):
        client(FILE).get(FILE, within=0.1)


def test_listings_name_size_and_checksum():
    with bucket():
        store = client("gs://bucket")
        for name, content in {"a/x": b"12", "a/b/y": b"123", "ab": b"1"}.items():
            store.put(f"gs://bucket/{name}", content)
        found = store.listed("gs://bucket/a")
        assert {name: entry.size for name, entry in found.items()} == {"x": 2, "b/y": 3}
        before = found["x"].checksum
        store.put("gs://bucket/a/x", b"13")
        assert store.listed("gs://bucket/a")["x"].checksum != before
        store.remove("gs://bucket/a/x")
        store.remove("gs://bucket/a/x")  # again is no fault
        assert list(store.listed("gs://bucket/a")) == ["b/y"]


@pytest.mark.slow
def test_s3_does_the_same(monkeypatch, tmp_path):
    """Against moto's server: conditional writes, a lock, a checkpoint."""
    server = pytest.importorskip("moto.server")
    import botocore.session
    import jax.numpy as jnp
    import numpy as np

    from data.buckets import lease
    from train.checkpoint import Checkpoints, damage

    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(key, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    try:
        session = botocore.session.get_session()
        session.create_client("s3").create_bucket(Bucket="bucket")
        place = to_path("s3://bucket/place")
        holds_versions(client(place), f"{place}/file")
        times = lease.Times(0.2, 1.0)
        held = lease.take(place, times)
        with pytest.raises(lease.Held, match="process"):
            lease.take(place, times)
        held.confirm()
        held.release()
        checkpoints = Checkpoints(place / "checkpoints", 2, 0)
        state = {"params": {"w": jnp.arange(5.0)}}
        for step in (1, 2, 3):
            checkpoints.save(step, state, {})
        checkpoints.wait()
        assert [path.name for path in checkpoints.finished()] == ["3", "2"]
        restored, meta = checkpoints.restore(state)
        assert np.array_equal(restored["params"]["w"], state["params"]["w"]) and meta["step"] == 3
        name = next(n for n in client(place).listed(f"{place}/checkpoints/3") if "/d/" in n)
        client(place).put(f"{place}/checkpoints/3/{name}", b"short")
        assert "bytes, not" in damage(place / "checkpoints/3")
        assert checkpoints.restore(state)[1]["step"] == 2
        checkpoints.close()
    finally:
        running.stop()
