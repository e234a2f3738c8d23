"""A bucket of the emulator."""

import pytest

from tests import bucket


@pytest.fixture(scope="module")
def served():
    """An emulated bucket for the tests of a file; each works in a folder of its own."""
    with bucket.bucket("watched") as found:
        yield found


@pytest.fixture
def shared(served, tmp_path):
    """The address of an empty folder in the bucket."""
    served.before, served.faults = (lambda request: None), bucket.Faults()
    return f"{served.url}/{tmp_path.name}"
