"""A tiny trained run, and indexes of small texts."""

import pytest

from configs import base
from launch.__main__ import main
from launch.retrieval import datastore
from launch.trial import run as trial
from model import families
from model.counted import ngram
from tests.launch.trial.test_trial import TINY

TEXTS = {
    "king.txt": "the king of sparta fought\nand won the war",
    "sea\x1b[31m.txt": "the sea is wide and the ships are small",
    "bread.txt": "bread needs flour and water\nand an oven",
}


def trained(folder, name, **changes):
    """A run of a few steps on text.txt."""
    config = base.get_config()
    keys = {"data.corpora": (f"{folder}/text.txt",), "data.cache": f"{folder}/cache"}
    keys |= {"data.validation": 0.2, "log.tensorboard": False} | TINY | changes
    if name == "ngram":
        config.model = dict(family="ngram", **families.keys(ngram) | {"order": 3})
        keys = {k: v for k, v in keys.items() if not k.startswith("model.")}
        keys["model.context_length"] = TINY["model.context_length"]
    config.update_from_flattened_dict(keys)
    assert trial.run(config, folder / name) == 0


@pytest.fixture(scope="module")
def home(text_folder, compiled_once):
    """A folder with text.txt, the runs `decoder` and `ngram` on it, `other/` with TEXTS, and the
    indexes `bm25` and `states`."""
    trained(text_folder, "decoder")
    trained(text_folder, "ngram")
    (text_folder / "other").mkdir()
    for name, text in TEXTS.items():
        (text_folder / "other" / name).write_text(text)
    made = ["index", f"--texts={text_folder}/other", f"--out={text_folder}/bm25", "--lines=1"]
    assert main(made) == 0
    how = f"--run={text_folder}/decoder", "--kind=knn", "--tokens=3000", "--stride=8"
    assert main(["index", *how, f"--out={text_folder}/states"]) == 0
    return text_folder


@pytest.fixture(scope="module")
def model(home):
    """The model of the run `decoder`."""
    return datastore.open_scored(home / "decoder")


@pytest.fixture(scope="module")
def wide(home):
    """A run whose context holds a conversation with a passage."""
    trained(home, "wide", **{"model.context_length": 64})
    return home / "wide"
