"""Small folders of captioned images and sounds."""

import json
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import base
from data.kinds import KINDS
from data.sources.drawn import shapes, tones, written
from launch.config import sections


@pytest.fixture(scope="session")
def drawn(tmp_path_factory) -> Path:
    """Forty drawn shapes, of which four are held out."""
    folder = tmp_path_factory.mktemp("drawn")
    written.write(shapes.items(40, 0), folder, lambda count: None)
    return folder


@pytest.fixture(scope="session")
def played(tmp_path_factory) -> Path:
    """Twenty tones, of which two are held out."""
    folder = tmp_path_factory.mktemp("played")
    written.write(tones.items(20, 0), folder, lambda count: None)
    return folder


@pytest.fixture
def config(tmp_path):
    """Makes configs of a kind with captions, with a cache of the test's own."""

    def make(folder: Path, kind: str = "images", **changes) -> ConfigDict:
        config = base.get_config(kind=kind)
        sections.complete(config)
        lists = {"corpora": (str(folder / "train"),), "held_out": (str(folder / "held_out"),)}
        config.data.update(cache=str(tmp_path / "cache"), **lists)
        config.data.update(changes)
        config.train.batch_size, config.eval.batch_size = 8, 3
        config.model.context_length = 14
        return config

    return make


@pytest.fixture
def opened(config):
    """Prepares the dataset of a config."""

    def make(*args, **changes):
        cfg = config(*args, **changes)
        return KINDS[cfg.data.kind].prepare(cfg.data, progress=False).for_run(cfg)

    return make


@pytest.fixture
def listed(tmp_path):
    """Writes a folder of files and their list; `files` maps names to bytes."""

    def make(files: dict[str, bytes], rows: list | None = None) -> Path:
        folder = tmp_path / "listed"
        folder.mkdir(exist_ok=True)
        for name, content in files.items():
            (folder / name).write_bytes(content)
        rows = [{"file": n, "caption": f"a {n[0]}"} for n in files] if rows is None else rows
        (folder / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return folder

    return make


def image(seed: int, shape: tuple[int, int, int] = (6, 4, 3)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
