"""Requests of saves in a bucket, the time to find damage, and the requests of heartbeats.

    python -m tests.bench.bucket_checkpoints

Against tests/bucket.py on this machine: the requests are those of any bucket, the times are not.
"""

import os
import time

import jax
import jax.numpy as jnp
import numpy as np

from data.buckets.lease import Times, take
from data.files import to_path
from tests.bucket import bucket
from train.checkpoint import Checkpoints, damage
from train.checkpoints import bucket as in_bucket


def save(name: str, arrays: int, numbers: int, times: int) -> Checkpoints:
    """Saves a state of so many arrays of so many float32 numbers."""
    random = np.random.default_rng(0)
    made = {str(i): random.normal(size=numbers).astype(np.float32) for i in range(arrays)}
    checkpoints = Checkpoints(to_path(f"gs://bucket/{name}"), 2, 0)
    for step in range(times):
        checkpoints.save(step + 1, jax.tree.map(jnp.asarray, {"params": made}), {})
    checkpoints.wait()
    return checkpoints


def main() -> None:
    with bucket() as served:
        for name, size in (("directly", 0), ("staged", 1 << 30)):
            in_bucket.STAGED = size
            served.counts.clear()
            save(name, arrays=10, numbers=1000, times=3).close()
            print(f"3 saves, {name}: {dict(served.counts)}", flush=True)
        checkpoints = save("large", arrays=32, numbers=10**6, times=1)
        path = checkpoints.finished()[0]
        for _ in range(3):
            began, before = time.perf_counter(), served.counts.total()
            assert damage(path) is None
            seconds, requests = time.perf_counter() - began, served.counts.total() - before
            print(f"128 MB, damage by listing: {1e3 * seconds:.0f} ms, {requests} requests")
            began = time.perf_counter()
            with in_bucket.opened(path):
                print(f"128 MB, read and hashed: {time.perf_counter() - began:.1f} s", flush=True)
        checkpoints.close()
        held = take(to_path("gs://bucket/run"), Times(0.5, 3))
        served.counts.clear()
        time.sleep(30)
        print(f"heartbeats every 0.5 s, in 30 s: {dict(served.counts)}", flush=True)
        held.release()


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    main()
