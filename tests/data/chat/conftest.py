"""Datasets of conversations and preferences for the tests of data/chat."""

import json
from pathlib import Path

import pytest

from configs import base
from data.kinds import KINDS
from launch.chat.template import filled


@pytest.fixture
def written(tmp_path):
    """Writes rows into a .jsonl file."""

    def write(rows: list, name: str = "chat.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        return path

    return write


@pytest.fixture
def config(tmp_path):
    """Makes configs of a kind on bytes, with a cache of the test's own."""

    def make(kind: str, corpora, length: int = 64, **changes):
        config = base.get_config(kind=kind)
        config.model.context_length = length
        config.train.batch_size = config.eval.batch_size = 2
        if kind != "tasks":
            config.data.cache = str(tmp_path / "cache")
        config.data.corpora = (str(corpora),) if corpora else ()
        config.data.update(changes)
        return config

    return make


@pytest.fixture
def opened(config):
    """Prepares the dataset of a config."""

    def make(*args, **changes):
        cfg = config(*args, **changes)
        return KINDS[cfg.data.kind].prepare(filled(cfg.data), progress=False).for_run(cfg)

    return make
