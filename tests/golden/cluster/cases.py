"""The requests whose manifests and scripts are kept as golden files, and how they are written."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

from launch.cluster import PROVIDERS, skypilot, slurm
from launch.cluster.request import request_of

FOLDER = Path(__file__).parent
SWEEP = {"config": "configs/isoflop.py", "workdir": "gs://bucket/ladder"}
CODE = {"code": "gs://bucket/ladder/machines/code-0123456789abcdef.tar.gz"}
CREATED = "2026-11-30T08:00:00Z"
TPU = {"accelerator": "v5e-16", "spot": True}
SHARED = {"config": "configs/isoflop.py", "workdir": "/shared/ladder"}

# case -> its provider and the options of its request
CASES = {
    "tpu-sweep": (
        "tpu",
        SWEEP
        | CODE
        | TPU
        | {"slices": 16, "zone": "us-central1-a", "project": "p", "overrides": [["seed", "3 4"]]},
    ),
    "tpu-train": (
        "tpu",
        SWEEP
        | CODE
        | {"accelerator": "v5p:2x2x4", "slices": 2, "job": "train", "zone": "us-east5-a"}
        | {"reservation": "r", "valid_until": "6h", "project": "p"},
    ),
    "sky-sweep": ("sky", SWEEP | TPU | {"slices": 4, "zone": "us-central1-a,europe-west4-b"}),
    "sky-train": (
        "sky",
        {"config": "configs/pretrain.py", "workdir": "s3://bucket/run", "job": "train"}
        | {"accelerator": "h100-8", "spot": True, "zone": "aws/us-east-1"},
    ),
    "gke-sweep": (
        "gke",
        SWEEP | CODE | TPU | {"slices": 16, "image": "repo/isoflop:1", "queue": "research"},
    ),
    "gke-train": (
        "gke",
        {"config": "configs/pretrain.py", "workdir": "gs://bucket/run", "job": "train"}
        | {"accelerator": "v5p:4x4x4", "slices": 2, "spot": True, "image": "repo/isoflop:1"}
        | {"queue": "research", "priority": "high"}
        | CODE,
    ),
    "gke-gpu": (
        "gke",
        {"config": "configs/pretrain.py", "workdir": "gs://bucket/run", "job": "train"}
        | {"accelerator": "h100-8", "slices": 2, "image": "repo/isoflop:1"}
        | CODE,
    ),
    "slurm-sweep": ("slurm", SHARED | {"nodes": 4, "queue": "gpu", "accelerator": "h100-8"}),
    "slurm-train": (
        "slurm",
        SHARED | {"nodes": 2, "job": "train", "time": "12:00:00", "priority": "normal"},
    ),
    "slurm-parts": ("slurm", SHARED | {"nodes": 16, "job": "parts"}),
}


@contextlib.contextmanager
def elsewhere() -> Iterator[None]:
    """The checkout and the interpreter at places that do not depend on this machine."""
    with (
        mock.patch.object(slurm, "ROOT", Path("/shared/isoflop")),
        mock.patch.object(skypilot, "ROOT", Path("/home/me/isoflop")),
        mock.patch.object(slurm.sys, "executable", "/shared/isoflop/.venv/bin/python"),
    ):
        yield


def files(case: str) -> dict[str, str]:
    """The documents of a case, by file name."""
    on, given = CASES[case]
    request = request_of("ladder", "0a1b2c", given, CREATED)
    PROVIDERS[on].check(request)
    with elsewhere():
        return PROVIDERS[on].plan(request).documents
