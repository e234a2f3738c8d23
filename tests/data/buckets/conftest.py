"""A bucket of the emulator, and a mirror for each machine that the tests play."""

import pytest

from data.buckets import copies
from tests import bucket


@pytest.fixture(scope="module")
def served():
    """An emulated bucket for the tests of a file; each works in a folder of its own."""
    with bucket.bucket("shared") as found:
        yield found


@pytest.fixture
def shared(served, tmp_path):
    """The address of an empty folder in the bucket."""
    served.before = lambda request: None
    return f"{served.url}/{tmp_path.name}"


@pytest.fixture(scope="session")
def served_s3():
    """The address of one bucket of moto, for all tests of this folder."""
    server = pytest.importorskip("moto.server")
    boto3 = pytest.importorskip("boto3")
    running = server.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    known = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in known.items():
            patch.setenv(name, value)
        boto3.client("s3").create_bucket(Bucket="shared")
        yield "s3://shared"
    running.stop()


@pytest.fixture
def shared_s3(served_s3, tmp_path):
    """The address of an empty folder in a bucket of S3."""
    return f"{served_s3}/{tmp_path.name}"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Makes this process another machine: one with a mirror of its own."""

    def become(name: str):
        monkeypatch.setenv(copies.PLACE, str(tmp_path / "machines" / name))
        monkeypatch.setattr(copies, "_origins", {})

    become("first")
    return become
