"""Datasets of sentence pairs for the tests of data/paired."""

from pathlib import Path

import pytest
from ml_collections import ConfigDict

from configs import base
from data.kinds import KINDS
from data.paired.pair_dataset import PairDataset
from launch.config import sections

WRITTEN = [("ab", "xyz"), ("c", "w"), ("defg", "uv"), ("hi", "t"), ("k", "rs"), ("mno", "qp")]


@pytest.fixture
def pairs_file(tmp_path) -> Path:
    """Six pairs of one letter to four."""
    file = tmp_path / "pairs.tsv"
    file.write_text("".join(f"{source}\t{target}\n" for source, target in WRITTEN))
    return file


@pytest.fixture
def config(tmp_path):
    """Makes configs of a kind of pairs on bytes, with a cache of the test's own."""

    def make(corpora, kind: str = "pairs", lengths=(6, 5), **changes) -> ConfigDict:
        config = base.get_config(kind=kind)
        sections.complete(config)
        corpora = (str(corpora),) if isinstance(corpora, str | Path) else tuple(map(str, corpora))
        config.data.update(corpora=corpora, cache=str(tmp_path / "cache"), validation=0.0)
        config.data.tokenizer = "bytes"
        config.data.update(changes)
        config.train.batch_size = config.eval.batch_size = 3
        with config.unlocked():
            config.model = ConfigDict(dict(family="test", context_length=lengths[1]))
            if kind == "pairs":
                config.model.source_length = lengths[0]
        return config

    return make


@pytest.fixture
def opened(config):
    """Prepares the dataset of a config; without validation pairs, those of training stand in."""

    def make(*args, **changes) -> PairDataset:
        cfg = config(*args, **changes)
        dataset = KINDS[cfg.data.kind].prepare(cfg.data, progress=False)
        dataset.store.splits["validation"] = dataset.store.splits["train"]
        return dataset.for_run(cfg)

    return make
