"""The published points of Chinchilla, where they are at hand."""

from pathlib import Path

import numpy as np
import pytest

from scaling.csv_file import read_csv

EPOCH = Path(__file__).parents[3] / "shared" / "reference" / "chinchilla_epoch.csv"


@pytest.fixture(scope="session")
def chinchilla_all():
    """All 245 digitised runs."""
    if not EPOCH.is_file():
        pytest.skip(f"{EPOCH} is not here")
    return read_csv(EPOCH)


@pytest.fixture(scope="session")
def chinchilla(chinchilla_all):
    """The 240 runs of the published analysis: without the five of highest loss, the first rows."""
    return chinchilla_all.select(np.arange(len(chinchilla_all)) >= 5)
