"""Describes the machine on which the benchmarks run: processor, cores, versions."""

import json
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path


def describe(torch_python: str | None = None) -> dict:
    versions = {name: metadata.version(name) for name in ("jax", "jaxlib", "flax", "optax")}
    versions["torch"] = torch_version(torch_python) if torch_python else None
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "platform": platform.platform(),
        "python": platform.python_version(),
        "versions": versions,
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
    }


def processor() -> str:
    """The processor's name, from /proc/cpuinfo on Linux and from `platform` elsewhere."""
    file = Path("/proc/cpuinfo")
    if file.exists():
        for line in file.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def torch_version(python: str) -> str | None:
    """The version of PyTorch in this Python, or None."""
    probe = "from importlib import metadata; print(metadata.version('torch'))"
    try:
        done = subprocess.run([python, "-c", probe], capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.strip() or None


if __name__ == "__main__":
    print(json.dumps(describe(*sys.argv[1:]), indent=1))
