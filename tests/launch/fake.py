"""This file is a trial without jax: it sleeps, keeps a checkpoint, and fails when told to."""

import json
import os
import signal
import sys
import time
from pathlib import Path


def run(name: str, folder: str, behaviour: str = "", seconds: float = 0.2) -> int:
    """Counts up to 10 steps, resuming where it was; every finished run adds a line to 'runs'."""
    home = Path(folder) / name
    home.mkdir(parents=True, exist_ok=True)
    print(f"trial {name} starts", flush=True)
    if (home / "result.json").exists():
        return 0
    with open(home / "environment.json", "w") as file:
        affinity = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        json.dump({"pid": os.getpid(), "affinity": affinity, **os.environ}, file)
    preempted = []
    signal.signal(signal.SIGTERM, lambda *_: preempted.append(True))
    checkpoint = home / "step"
    step = int(checkpoint.read_text()) if checkpoint.exists() else 0
    FAILURES.get(behaviour, lambda: None)()
    while step < 10:
        if preempted:
            return 42
        time.sleep(seconds / 10)
        step += 1
        (home / "step.tmp").write_text(str(step))
        os.replace(home / "step.tmp", checkpoint)
    with open(Path(folder) / "runs", "a") as file:
        file.write(f"{name}\n")
    (home / "result.tmp").write_text(json.dumps({"status": "done"}))
    os.replace(home / "result.tmp", home / "result.json")
    return {"diverge": 43, "bad": 2}.get(behaviour, 0)


def _raise() -> None:
    raise RuntimeError("a bug in the trial")


# Ways to fail before the first step.
FAILURES = {
    "raise": _raise,
    "die": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "exit 0": lambda: os._exit(0),
    "sys.exit": lambda: sys.exit("no"),
}

CONFIG = """
from ml_collections import ConfigDict

def get_config(arg=None):
    return ConfigDict(dict(
        name="t", seed=0, lr=1e-3, holdout=False, corpora=("stdlib",), weights=(1.0,),
        model=dict(width=512 if arg == "big" else 64, depth=2),
    )).lock()
"""
"""A config file with a key of each type."""
