"""Fixture: the runs of Hoffmann et al. 2022, simulated and published, with the expected fits."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scaling.csv_file import read_csv
from scaling.table import Points

SIMULATED = Path(__file__).parents[1] / "reference" / "chinchilla_simulated.csv"
EPOCH = Path(__file__).parents[3] / "shared" / "reference" / "chinchilla_epoch.csv"
# Fits to the published table, by Besiroglu et al. 2024 (arXiv:2404.10102) and by us.
PUBLISHED = {
    "huber": {"A": 477.826, "B": 2143.417, "E": 1.817218, "alpha": 0.347310, "beta": 0.367172}
    | {"a": 0.51390},
    "absolute": {"A": 482.006, "B": 2085.434, "E": 1.816864, "alpha": 0.347813, "beta": 0.365854}
    | {"a": 0.51264},
    "all rows": {"A": 495.73, "B": 12845.6, "E": 1.8913, "alpha": 0.34931, "beta": 0.45305}
    | {"a": 0.5646},
    "objective": 1.018274e-3,
    "standard errors": {"A": 124.5, "B": 1293, "E": 0.0257, "alpha": 0.0154, "beta": 0.0206}
    | {"a": 0.0200},
    "interval of a": (0.481, 0.556),
    "errors beyond 1e21": (23, 0.0105, 0.028),
}


@dataclass(frozen=True)
class Chinchilla:
    """All 245 runs, the 240 of the published analysis, and the results of a correct fit."""

    every: Points
    runs: Points  # without the first five, which have the highest losses
    expected: dict[str, Any]


@pytest.fixture(scope="session", params=["simulated", "published"])
def chinchilla(request) -> Chinchilla:
    """The simulated table with fits by scipy (tests/reference/README.md), and the published table.

    The published table states no licence, so the repository does not include it. Without it, its
    tests are skipped.
    """
    if request.param == "simulated":
        path, expected = SIMULATED, json.loads(SIMULATED.with_suffix(".json").read_text())
    else:
        path, expected = EPOCH, PUBLISHED
    if not path.is_file():
        pytest.skip(f"{path} is missing")
    every = read_csv(path)
    return Chinchilla(every, every.select(np.arange(len(every)) >= 5), expected)
