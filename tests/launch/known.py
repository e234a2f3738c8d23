"""A fake trial whose loss follows a known law, with an optimal learning rate and noise."""

import hashlib
import json
import math
from pathlib import Path

from launch.files import write_json
from launch.trial.resolve import describe

LAW = {"E": 1.1, "A": 60.0, "B": 3000.0, "alpha": 0.45, "beta": 0.65}
BEST_RATE = 0.03
NOISE = 0.003  # standard deviation of the log-loss


def loss(params: float, tokens: float) -> float:
    """The loss at the best learning rate, without noise."""
    of_n, of_d = LAW["A"] * params ** -LAW["alpha"], LAW["B"] * tokens ** -LAW["beta"]
    return LAW["E"] + of_n + of_d


def best_params(flops: float) -> float:
    """N* of a budget C = 6 N D."""
    a, b = LAW["alpha"], LAW["beta"]
    return (a * LAW["A"] / (b * LAW["B"])) ** (1 / (a + b)) * (flops / 6) ** (b / (a + b))


def noise(name: str) -> float:
    """A standard normal number that is determined by `name` (Box–Muller)."""
    digest = hashlib.sha256(name.encode()).digest()
    one, two = (1 + int.from_bytes(digest[i : i + 6], "big") for i in (0, 6))
    scale = 1 + 2**48
    return math.sqrt(-2 * math.log(one / scale)) * math.cos(2 * math.pi * two / scale)


def run(config, workdir: Path, overrides: dict) -> int:
    """Stands in for launch.trial.run; rates above ten times the best diverge."""
    about = describe(config, None)
    rate = config.optimizer.learning_rate
    status = "diverged" if rate > 10 * BEST_RATE else "done"
    off = 0.02 * math.log(rate / BEST_RATE) ** 2 + NOISE * noise(workdir.name)
    value = loss(sum(about["params"].values()), about["tokens"]) * math.exp(off)
    result = {"status": status, "holdout": config.holdout, "overrides": overrides, "seconds": 1.0}
    result |= {"eval_loss": value, "hyperparameters": json.loads(config.optimizer.to_json())}
    write_json(workdir / "result.json", about | result)
    return 43 if status == "diverged" else 0
