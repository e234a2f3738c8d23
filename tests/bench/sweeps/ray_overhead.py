"""Measures what Ray costs a sweep: trials per second, and the memory of its driver.

    python -m tests.bench.sweeps.ray_overhead [--trials=200] [--rounds=3] [--slots=1,4,16]

The trials do nothing but write their files (`tests.launch.fake`), so that all the time is that of
the runner. Rounds of local workers and of Ray alternate; the time to start is given apart.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import psutil

from launch.runners import local, ray
from launch.runners.tasks import Cluster, Interrupt, Resources, Task


def tasks(folder: Path, count: int) -> list[Task]:
    """Trials of ten steps without a pause."""
    names = [f"t{i}" for i in range(count)]
    return [Task(n, (n, str(folder), "", 0.0), folder / n / "log.txt") for n in names]


def measure(runner, resources: Resources, folder: Path, count: int) -> tuple[float, float]:
    """(seconds until the first trial has ended, trials per second after that)."""
    began, first, ended = time.perf_counter(), 0.0, 0
    for event in runner.run("tests.launch.fake:run", tasks(folder, count), resources, Interrupt()):
        if event and event.kind == "finished":
            assert event.code == 0, event
            first, ended = first or time.perf_counter(), ended + 1
    assert ended == count
    return first - began, (count - 1) / (time.perf_counter() - first)


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
