"""Trains every family of configs/published/tiny_families.py at a smaller width."""

import json

import pytest

from configs.published.tiny_families import TINY
from launch.__main__ import main

pytestmark = pytest.mark.slow
SMALLER = (
    "--config.model.d_model=64",
    "--config.train.batch_size=16",
    "--config.train.accumulation=1",
)


def test_every_family_learns_more_than_bigrams(tmp_path):
    common = [
        "--config=configs/published/tiny_families.py",
        f"--config.data.cache={tmp_path / 'cache'}",
    ]
    out = tmp_path / "ngram.json"
    assert main(["ngram", "--order=2", f"--json={out}", *common]) == 0
    bigrams = json.loads(out.read_text())["eval_loss"]
    home = tmp_path / "sweep"
    assert main(["sweep", f"--workdir={home}", "--nofit", *common, *SMALLER]) == 0
    results = [json.loads(file.read_text()) for file in home.glob("*/result.json")]
    losses = {result["id"].rsplit("-", 1)[0]: result["eval_loss"] for result in results}
    assert losses.keys() == TINY.keys()
    assert {name: loss for name, loss in losses.items() if loss >= bigrams} == {}
    assert len(set(losses.values())) == len(TINY)
