"""A fake trial without JAX that sleeps, saves a checkpoint, and fails on request."""

import hashlib
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path


def run(name: str, folder: str, behaviour: str = "", seconds: float = 0.2) -> int:
    """Counts to 10 steps, resuming from its checkpoint, then appends its name to the file `runs`.

    A run that is killed after this line and before result.json only has to write result.json.
    """
    home = Path(folder) / name
    home.mkdir(parents=True, exist_ok=True)
    print(f"trial {name} starts", flush=True)
    result = home / "result.json"
    if result.exists() and json.loads(result.read_text())["status"] == "done":
        return 0
    with open(home / "environment.json", "w") as file:
        affinity = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        json.dump({"pid": os.getpid(), "affinity": affinity, **os.environ}, file)
    preempted = []
    signal.signal(signal.SIGTERM, lambda *_: preempted.append(True))
    checkpoint = home / "step"
    step = int(checkpoint.read_text()) if checkpoint.exists() else 0
    FAILURES.get(behaviour, lambda: None)()
    runs = Path(folder) / "runs"
    ended = step == 10 and runs.exists() and name in runs.read_text().split()
    while step < 10:
        if preempted:
            return 42
        time.sleep(seconds / 10)
        step += 1
        (home / "step.tmp").write_text(str(step))
        os.replace(home / "step.tmp", checkpoint)
    if not ended:
        with open(runs, "a") as file:
            file.write(f"{name}\n")
    (home / "result.tmp").write_text(json.dumps({"status": "done"}))
    os.replace(home / "result.tmp", home / "result.json")
    return {"diverge": 43, "bad": 2}.get(behaviour, 0)


def when(condition, act, *args) -> threading.Thread:
    """Calls act(*args) in a thread once condition() holds, or after 30 s."""

    def wait() -> None:
        until = time.monotonic() + 30
        while not condition() and time.monotonic() < until:
            time.sleep(0.02)
        act(*args)

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def under_way(folder: Path) -> list[str]:
    """The trials of a folder that have started and have at least 4 of their 10 steps left."""
    steps = {file.parent.name: file.read_text() for file in folder.glob("*/step")}
    return [name for name, step in steps.items() if 0 < int(step) < 7]


def environment(folder: Path, name: str) -> dict:
    """The process id, cores and environment variables of a trial's last run."""
    return json.loads((folder / name / "environment.json").read_text())


def alive(pid: int) -> bool:
    """Whether the process is running; False for a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


def _raise() -> None:
    raise RuntimeError("a bug in the trial")


# Ways to fail before the first step.
FAILURES = {
    "raise": _raise,
    "die": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "exit 0": lambda: os._exit(0),
    "sys.exit": lambda: sys.exit("no"),
}

# A config file with a key of each type, and the keys that the fake trial reads.
CONFIG = """
from ml_collections import ConfigDict

def get_config(arg=None):
    return ConfigDict(dict(
        name="t", seed=0, lr=1e-3, holdout=False, corpora=("stdlib",), weights=(1.0,),
        model=dict(width=512 if arg == "big" else 64, depth=2),
        data=dict(text="none"), behaviour="", seconds=0.1, tokens=100,
        checkpoint=dict(share_trunks=False), train=dict(flops_convention="6nd"),
    )).lock()
"""

SWEEP = (
    CONFIG
    + """
def get_sweep(config):
    sizes = [{"model.width": w, "tokens": t} for w in (8, 16, 32, 64, 128) for t in (100, 200, 400)]
    return [*sizes, {"model.width": 128, "tokens": 1600, "holdout": True}]
"""
)


def resolve(config, dataset):
    """Stands in for launch.trial.resolve."""
    if config.model.width % 8:
        raise ValueError(f"model.width={config.model.width} is not divisible by 8; use 8, 16, …")
    return config


def trial_id(config) -> str:
    """Stands in for launch.trial.trial_id."""
    return f"{config.name}-{hashlib.sha256(config.to_json().encode()).hexdigest()[:8]}"


def describe(config, dataset=None) -> dict:
    """Stands in for launch.trial.describe."""
    params, tokens = 1000 * config.model.width, 1000 * config.tokens
    return {
        "id": trial_id(config),
        "counted": False,
        "params": {"mlp": params},
        "tokens": tokens,
        "steps": 10,
        "flops": dict.fromkeys(("6nd", "kaplan", "chinchilla", "palm"), 6.0 * params * tokens),
    }


def run_config(config, workdir: Path, overrides: dict) -> int:
    """Stands in for launch.trial.run: the loss is that of a law, with noise of ±0.05 %."""
    code = run(workdir.name, str(workdir.parent), config.behaviour, config.seconds)
    if code != 0:
        return code
    about = describe(config)
    noise = 1 + 1e-3 * (int(workdir.name[-4:], 16) / 0xFFFF - 0.5)
    loss = (1 + 30 * about["params"]["mlp"] ** -0.4 + 300 * about["tokens"] ** -0.5) * noise
    result = {"status": "done", "holdout": config.holdout, "eval_loss": loss, "seconds": 1.0}
    result["overrides"] = overrides
    (workdir / "result.tmp").write_text(json.dumps(about | result))
    os.replace(workdir / "result.tmp", workdir / "result.json")
    return 0
