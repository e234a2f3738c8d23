"""Compares ways to search at equal FLOPs: the best loss, and the FLOPs to reach random's best.

    python -m tests.bench.sweeps.search --workdir=runs/searches [--methods=tpe,asha]
        [--seeds=3] [--budget="1.2e12 flops"] [--json=FILE]

Each method runs `isoflop sweep` on one config with the same budget, once for each seed; the seed
chooses the configurations and the models' first weights. Takes about 2 minutes for each method and
seed on two idle cores. The same command goes on after an interrupt.
"""

import argparse
import json
import statistics
import subprocess
import sys
from itertools import accumulate
from pathlib import Path

METHODS = {
    "random": ["--search=random"],
    "sobol": ["--search=sobol"],
    "tpe": ["--search=tpe"],
    "asha": ["--search=random", "--stop=asha"],
    "median": ["--search=random", "--stop=median"],
}
"""The flags of `isoflop sweep` for each method."""


def progress(folder: Path) -> list[tuple[float, float]]:
    """(FLOPs so far, best loss so far) after each trial of a sweep, in the order in which they
    ended or stopped. result.json of a stopped trial is written again when the sweep ends."""

    def ended(file: Path) -> int:
        return file.with_name("metrics.jsonl").stat().st_mtime_ns

    files = sorted(folder.glob("*/result.json"), key=ended)
    results = [json.loads(file.read_text()) for file in files]
    flops = accumulate(result["flops"]["6nd"] for result in results)
    finite = [result["eval_loss"] if result["status"] == "done" else 1e9 for result in results]
    return list(zip(flops, accumulate(finite, min), strict=True))


def flops_to(reached: list[tuple[float, float]], loss: float) -> float | None:
    """The FLOPs after which the best loss is at most `loss`; None if it never is."""
    return next((flops for flops, best in reached if best <= loss), None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--config", default="configs/study/rate_search.py")
    parser.add_argument("--methods", default="random,tpe,asha")
    length = "of each trial; in tokens, so that --stop compares equal lengths"
    parser.add_argument("--duration", default="2e5 tokens", help=length)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--budget", default="1.2e12 flops")
    parser.add_argument("--trials", type=int, default=1000, help="at most; the budget ends first")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    names = list(dict.fromkeys(["random", *args.methods.split(",")]))
    found = {}
    for seed in range(args.seeds):
        for name in names:
            folder = args.workdir / f"{name}{seed}"
            command = [sys.executable, "-m", "launch", "sweep", f"--config={args.config}"]
            command += [f"--workdir={folder}", f"--budget={args.budget}", f"--trials={args.trials}"]
            command += [f"--config.seed={seed}", "--nofit", *METHODS[name]]
            command += [f"--config.train.duration={args.duration}"]
            print(f"{name}, seed {seed}", file=sys.stderr)
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            found[name, seed] = progress(folder)
    rows = []
    for name in names:
        best = [found[name, seed][-1][1] for seed in range(args.seeds)]
        needed = [
            flops_to(found[name, seed], found["random", seed][-1][1]) for seed in range(args.seeds)
        ]
        rows.append({"method": name, "best_loss": best, "flops_to_the_best_of_random": needed})
        spent = " ".join(f"{found[name, seed][-1][0]:.2e}" for seed in range(args.seeds))
        losses = " ".join(f"{loss:.4f}" for loss in best)
        flops = " ".join("never" if f is None else f"{f:.2e}" for f in needed)
        print(f"{name}: best loss {losses} (mean {statistics.mean(best):.4f})")
        print(f"  FLOPs to the best of random {flops}; FLOPs spent {spent}")
    if args.json:
        args.json.write_text(json.dumps({"budget": args.budget, "methods": rows}, indent=1))


if __name__ == "__main__":
    main()
