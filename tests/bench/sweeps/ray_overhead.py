"""Measures what Ray costs a sweep: trials per second, and the memory of its driver.

    python -m tests.bench.sweeps.ray_overhead [--trials=200] [--rounds=3] [--slots=1,4,16]

The trials do nothing but write their files (`tests.launch.fake`), so that all the time is that of
the runner. Rounds of local workers and of Ray alternate. Before the clock
starts, the process of each slot has run a trial. The clock stops when the last
trial has ended, not when the workers have. The time to start is given apart.
"""

import argparse
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from launch.runners import local, ray
from launch.runners.tasks import Cluster, Interrupt, Resources, Task


def trial(folder: Path, name: str, seconds: float = 0.0) -> Task:
    """A trial of ten steps."""
    return Task(name, (name, str(folder), "", seconds), folder / name / "log.txt")


def warm(folder: Path) -> int:
    """The processes that have run a trial."""
    files = folder.glob("*/result.json")
    return len({json.loads((f.parent / "environment.json").read_text())["pid"] for f in files})


def measure(runner, resources: Resources, folder: Path, count: int) -> tuple[float, float]:
    """(seconds until the first trial has ended, trials per second once the process of each slot has
    ended one, up to the end of the last trial)."""
    clock = {}

    def tasks() -> Iterator[Task]:
        for number in itertools.count():
            if warm(folder) == resources.workers:
                break
            yield trial(folder, f"warm{number}", 0.1)
        clock["warm"] = time.perf_counter()
        yield from (trial(folder, f"t{number}") for number in range(count))

    began, ended = time.perf_counter(), 0
    for event in runner.run("tests.launch.fake:run", tasks(), resources, Interrupt()):
        if event and event.kind == "finished":
            assert event.code == 0, event
            clock.setdefault("first", time.perf_counter())
            if event.key.startswith("t"):
                clock["last"], ended = time.perf_counter(), ended + 1
    assert ended == count
    return clock["first"] - began, count / (clock["last"] - clock["warm"])


def megabytes() -> float:
    """What this process holds in memory."""
    return psutil.Process().memory_info().rss / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--slots", default="1,4,16")
    parser.add_argument("--json", default="")
    options = parser.parse_args()
    memory, began = {"alone": megabytes()}, time.perf_counter()
    ray.resources(0, Cluster())
    found = {"ray_start_seconds": time.perf_counter() - began, "memory_mb": memory, "slots": {}}
    memory["joined"] = megabytes()
    print(f"Ray starts in {found['ray_start_seconds']:.1f} s", flush=True)
    for slots in map(int, options.slots.split(",")):
        rates, starts = {"local": [], "ray": []}, {"local": [], "ray": []}
        for _ in range(options.rounds):
            for name, runner in (("local", local), ("ray", ray)):
                with tempfile.TemporaryDirectory() as folder:
                    given = Resources(workers=slots)
                    start, rate = measure(runner, given, Path(folder), options.trials)
                rates[name].append(rate)
                starts[name].append(start)
        memory[f"{slots} slots"] = megabytes()
        ray.close()
        both = {name: statistics.median(values) for name, values in rates.items()}
        each = slots / both["ray"] - slots / both["local"]
        found["slots"][slots] = {"rates": rates, "starts": starts, "seconds_a_trial": each}
        print(
            f"{slots:3} slots: {both['local']:7.1f} trials/s local, {both['ray']:7.1f} through Ray;"
            f" {1000 * each:6.1f} ms more a trial; first trial after "
            f"{starts['local'][0]:.1f} s and {starts['ray'][0]:.1f} s",
            flush=True,
        )
    print("driver memory, MB: " + ", ".join(f"{k} {v:.0f}" for k, v in memory.items()))
    if options.json:
        Path(options.json).write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
