"""Tests of what a run in a bucket shows while it trains."""

from data.files import path_of
from tests import bucket
from train.metrics import MetricsLog, read


def test_tensorboard_and_samples_are_copied_at_saves_and_at_the_end():
    with bucket.bucket("shown") as served:
        workdir = path_of(f"{served.url}/run", "workdir")
        log = MetricsLog(workdir, tensorboard=True)
        log.rewind(0, {"seed": 1.0})
        log.write({"step": 1, "loss": 2.0})
        log.write_sample({"step": 1, "tokens": 8, "prompt": "a", "text": "b"})
        assert not served.names("run/tensorboard/")
        log.copy()
        (name,) = served.names("run/tensorboard/")
        before = served.read(name)
        log.write({"step": 2, "loss": 1.0})
        log.close(done=True)
        assert served.names("run/tensorboard/") == [name]
        assert served.read(name).startswith(before) and len(served.read(name)) > len(before)
        assert [row["step"] for row in read(workdir / "metrics.jsonl")] == [1, 2]
        assert read(workdir / "samples.jsonl")[0]["text"] == "b"
        again = MetricsLog(workdir, tensorboard=True)
        again.rewind(1, {"seed": 1.0})
        again.close()
        assert len(served.names("run/tensorboard/")) == 2
        assert [row["step"] for row in read(workdir / "metrics.jsonl")] == [1]
