"""The command `isoflop cluster` with a folder of records, known ids, and a fake TPU API."""

import itertools
import json
from types import SimpleNamespace

import pytest

from launch import __main__
from launch.cluster import bundle
from launch.cluster.queued import api, provider


@pytest.fixture
def cluster(tmp_path, monkeypatch, capfd):
    """Runs `isoflop cluster …`; its answer has the exit code, stdout, stderr."""
    ids = itertools.count(0xAAAAAA)
    monkeypatch.setattr("secrets.token_hex", lambda size: f"{next(ids):06x}")
    monkeypatch.setattr(bundle, "archive", lambda: b"checkout")
    monkeypatch.setattr(bundle, "upload", lambda target, packed: None)

    def command(*argv):
        capfd.readouterr()
        code = __main__.main(["cluster", f"--records={tmp_path}/clusters", *argv])
        out, err = capfd.readouterr()
        return SimpleNamespace(code=code, out=out, err=err)

    command.folder = tmp_path / "clusters"
    command.record = lambda name: json.loads((command.folder / f"{name}.json").read_text())
    return command


@pytest.fixture
def tpu(monkeypatch):
    """A fake TPU API that the command reaches; its `states` may be replaced."""
    fake_tpu = pytest.importorskip("tests.launch.cluster.fake_tpu", exc_type=ImportError)
    fake = fake_tpu.FakeTpu()
    with fake_tpu.serving(fake) as arguments:
        monkeypatch.setattr(api, "connection", lambda project: arguments)
        monkeypatch.setattr(provider, "POLL", 0.0)
        yield fake
