"""Tests how many tokens of a text a counted model reads."""

import numpy as np
import pytest

from launch.config import config_file
from launch.trial.resolve import describe, prepare, resolve

COUNTED = {"model.family": "ngram", "model.order": "2"}


def config_in(home, **keys):
    usual = {"data.corpora": f"{home}/text.txt", "data.cache": f"{home}/cache"}
    return config_file.load_config("configs/base.py", usual | {"eval.sequences": "4"} | keys)


def test_a_counted_model_reads_the_first_tokens_of_the_training_text_alone(text_folder):
    whole = config_in(text_folder, **COUNTED)
    config = config_in(text_folder, **COUNTED, **{"data.max_tokens": "1000"})
    dataset = prepare(config)
    every, some = (dataset.for_run(one) for one in (whole, config))
    assert np.concatenate(some.texts("train")).tolist() == every.texts("train")[0][:1000].tolist()
    assert every.n_tokens("train") > 1000 == some.n_tokens("train")
    assert some.n_tokens("validation") == every.n_tokens("validation") > 1000
    assert [t.tolist() for t in some.texts("validation")] == [
        t.tolist() for t in every.texts("validation")
    ]
    about = describe(resolve(config, dataset), dataset)
    assert about["tokens"] == 1000 and about["flops"]["6nd"] == 2000
    assert about["id"] != describe(resolve(whole, dataset), dataset)["id"]


def test_a_trained_model_has_durations_instead(text_folder):
    keys = {"data.max_tokens": "1000"}
    config = config_in(text_folder, **keys)
    with pytest.raises(ValueError, match="is trained; use 0, and train"):
        resolve(config, prepare(config))
