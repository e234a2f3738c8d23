"""Measures the page of a sweep: its size, and the time until headless Chromium first draws it.

    python -m tests.bench.sweeps.page [--trials=16,500,5000] [--json=FILE] [--keep=FOLDER]

Simulates random searches over seven keys with curves of 50 points, ranks them and writes their
pages. Targets: at most 1.5 MB besides the data; first draw within 1 s at 16 and 500 trials and
within 3 s at 5,000; nothing on the browser's console. Without Chromium only sizes are measured.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from absl import app, flags

from scaling.ranking.ranking import rank
from scaling.ranking.trials import read_sweeps
from scaling.report.explorer.sweep_page import write_sweep_page

TRIALS = flags.DEFINE_list("trials", ["16", "500", "5000"], "Numbers of trials.")
JSON = flags.DEFINE_string("json", "", "File to write the measurements to.")
KEEP = flags.DEFINE_string("keep", "", "Folder that keeps the sweeps and their pages.")

KEYS = {
    "optimizer.learning_rate": lambda random: float(f"{10 ** random.uniform(-4, -1):.3g}"),
    "optimizer.weight_decay": lambda random: float(f"{10 ** random.uniform(-3, 0):.3g}"),
    "optimizer.b2": lambda random: round(random.uniform(0.9, 0.999), 4),
    "model.d_model": lambda random: int(random.choice([32, 64, 128, 256])),
    "model.n_layers": lambda random: int(random.integers(1, 9)),
    "model.activation": lambda random: str(random.choice(["silu", "gelu", "relu"])),
    "schedule.warmup": lambda random: f"{random.integers(1, 10)} %",
}
DATA = re.compile(r'<script type="application/json"[^>]*>(.*?)</script>', re.DOTALL)
ROUNDS = 3
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


def simulate(folder: Path, trials: int, seed: int = 0) -> Path:
    """A folder of finished trials, of which one in twenty has diverged."""
    random, planned = np.random.default_rng(seed), {}
    for number in range(trials):
        name = f"trial-{number:05}"
        values = {key: draw(random) for key, draw in KEYS.items()}
        planned[name] = {"overrides": values, "holdout": False}
        off = np.log10(values["optimizer.learning_rate"] / 0.01)
        loss = 2 + 0.1 * off**2 + 8 / values["model.d_model"] + 0.01 * random.standard_normal()
        _write_trial(folder / name, name, values, loss, random)
    folder.mkdir(exist_ok=True)
    plan = {"config": "simulated", "base": {"seed": 0}, "trials": planned}
    (folder / "sweep.json").write_text(json.dumps(plan))
    return folder


def _write_trial(home: Path, name: str, values: dict, loss: float, random) -> None:
    home.mkdir(parents=True)
    steps, bad = np.arange(20, 1001, 20), random.random() < 0.05
    curve = loss + 3 * np.exp(-steps / 120) + 0.02 * random.standard_normal(len(steps))
    curve *= np.exp(np.maximum(0, steps - 600) / 40) if bad else 1
    rows = [
        {"step": int(s), "tokens": int(s) * 1024, "loss": float(v), "seconds": s / 50}
        for s, v in zip(steps, curve, strict=True)
    ]
    rows += [
        {"step": row["step"], "tokens": row["tokens"], "eval_loss": row["loss"] + 0.02}
        for row in rows[4::5]
    ]
    rows.sort(key=lambda row: row["step"])
    (home / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    size = 12 * values["model.n_layers"] * values["model.d_model"] ** 2
    result = {
        "id": name, "status": "diverged" if bad else "done", "params": {"mlp": size},
        "tokens": 1_024_000, "flops": {"6nd": 6 * size * 1_024_000}, "seconds": 20.0, "seed": 0,
        "metrics": {"loss": {"value": loss, "se": 0.01, "unit": "nats/token", "better": "lower"}},
    }  # fmt: skip
    (home / "result.json").write_text(json.dumps(result))


def browser() -> str | None:
    """The path of Chromium; None if there is none."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def dump(page: Path, *options: str) -> tuple[str, list[str]]:
    """The document of a page after its first frames in headless Chromium, and its console."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        done = subprocess.run(
            [browser(), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
             "--disable-background-networking", "--enable-logging=stderr", "--window-size=1300,900",
             f"--user-data-dir={home}", *options, "--dump-dom", page.resolve().as_uri()],
            capture_output=True, text=True, timeout=300,
        )  # fmt: skip
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def measure(folder: Path, trials: int) -> dict:
    """Sizes in bytes, times in seconds."""
    (sweep,) = read_sweeps(simulate(folder, trials))
    began = time.monotonic()
    ranking = rank(sweep)
    ranked = time.monotonic()
    page = write_sweep_page(sweep, ranking)
    found = {"trials": trials, "rank": ranked - began, "write": time.monotonic() - ranked}
    text = page.read_text()
    data = sum(len(part.encode()) for part in DATA.findall(text))
    found |= {"page_bytes": len(text.encode()) - data, "data_bytes": data}
    if browser():
        marks = [dump(page) for _ in range(ROUNDS)]
        times = [int(re.search(r'data-drawn="(\d+)"', text)[1]) / 1000 for text, _ in marks]
        # With virtual time, what is drawn lazily is drawn too.
        _, console = dump(page, "--virtual-time-budget=10000", "--window-size=1300,6000")
        found |= {"first_draw": sorted(times)[ROUNDS // 2], "first_draws": times}
        found |= {"console": [line for _, lines in marks for line in lines] + console}
    return found


def main(_: list[str]) -> None:
    if not browser():
        print(f"no {' or '.join(BROWSERS)}: times to the first draw are not measured")
    rows = []
    for number in map(int, TRIALS.value):
        with tempfile.TemporaryDirectory() as temporary:
            home = Path(KEEP.value or temporary) / f"page-{number}"
            shutil.rmtree(home, ignore_errors=True)
            rows.append(row := measure(home, number))
        drawn = f", first draw {row['first_draw']:.2f} s" if "first_draw" in row else ""
        lines = f", {len(row['console'])} console lines" if "console" in row else ""
        sizes = f"{row['page_bytes'] / 1e6:.2f} MB + {row['data_bytes'] / 1e6:.2f} MB of data"
        times = f"ranked in {row['rank']:.1f} s, written in {row['write']:.1f} s"
        print(f"{number} trials: {sizes}{drawn}{lines}; {times}", flush=True)
    if JSON.value:
        Path(JSON.value).write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(app.run(main))
