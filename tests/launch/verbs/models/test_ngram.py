"""Tests of the verb `ngram`: it scores the same tokens as a model of the config."""

import json

import numpy as np
import pytest

from data.loader import eval_batches
from launch.__main__ import main
from launch.config import config_file
from launch.trial.resolve import prepare, resolve
from model.counted import ngram
from train import counting
from train.objectives import next_token

SEQUENCES, CONTEXT = 6, 16


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    random = np.random.default_rng(0)
    for name, words in (("a", ("sea", "shore", "ship")), ("b", ("hill", "hut", "heath"))):
        lines = (" ".join(random.choice(words, 40)) + "\n\n" for _ in range(700))
        (folder / f"{name}.txt").write_text("".join(lines))
    return {
        "data.corpora": f"{folder / 'a.txt'},{folder / 'b.txt'}",
        "data.weights": "1,2",
        "data.cache": str(folder / "cache"),
        "data.validation": "0.2",
        "model.context_length": str(CONTEXT),
        "eval.sequences": str(SEQUENCES),
    }


@pytest.fixture(scope="module")
def dataset(keys):
    config = config_file.load_config("configs/base.py", keys)
    dataset = prepare(config, progress=False)
    return dataset.for_run(resolve(config, dataset))


def test_what_is_written_is_the_loss_on_the_evaluation_windows(keys, dataset, tmp_path, capsys):
    out = tmp_path / "out.json"
    arguments = [f"--config.{key}={value}" for key, value in keys.items()]
    assert main(["ngram", "--order=1", f"--json={out}", *arguments]) == 0
    about = json.loads(out.read_text())
    # Unigrams need no context, so the windows alone determine the loss.
    model = ngram.fit(ngram.Config(dataset.vocab_size, order=1), dataset.texts("train"))
    (batch,) = eval_batches(dataset.token_store, SEQUENCES, SEQUENCES, CONTEXT)
    wanted = model.nats(batch["targets"]).mean()
    assert about["eval_loss"] == pytest.approx(wanted, abs=1e-12)
    assert about["bits_per_byte"] == pytest.approx(
        model.nats(batch["targets"]).sum()
        / np.log(2)
        / dataset.token_store.token_bytes[batch["targets"]].sum()
    )
    elsewhere = model.nats(dataset.texts("validation")[0]).mean()
    assert abs(elsewhere - wanted) > 1e-3
    assert f"{about['eval_loss']:.4f}" in capsys.readouterr().out


def test_a_window_s_first_tokens_have_the_context_before_it(dataset):
    model = ngram.fit(ngram.Config(dataset.vocab_size), dataset.texts("train"))
    found = counting.evaluate(ngram, model, dataset, next_token.METRICS)["loss"][0]
    (batch,) = eval_batches(dataset.token_store, SEQUENCES, SEQUENCES, CONTEXT)
    rows = np.concatenate([batch["tokens"][:, :1], batch["targets"]], axis=1)
    alone = model.nats(rows)[:, 1:]
    assert found < alone.mean()
    # From the fourth target on, the window contains the whole context of a 5-gram.
    starts = dataset.windows("validation")
    whole = np.concatenate(
        [
            model.nats(text)[start[:, None] + 1 + np.arange(CONTEXT)]
            for text, start in zip(dataset.texts("validation"), starts, strict=True)
        ]
    )
    assert found == pytest.approx(whole.mean(), abs=1e-12)
    assert np.array_equal(whole[:, 3:], alone[:, 3:])
    assert not np.array_equal(whole[:, :3], alone[:, :3])


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--order=0", "order=0 must be at least 1"),
        ("--order=five", "order"),
        ("--smoothing=katz", "model.smoothing='katz' is unknown; use one of modified_kneser_ney"),
        ("--k=0.5", "model.k=0.5 has no effect with model.smoothing='modified_kneser_ney'"),
        ("--config.eval.sequences=0", "eval.sequences=0"),
        ("--config.data.corpora=/no/such,x", "does not exist"),
        ("--json=/dev/null/x", "json=/dev/null/x cannot be written"),
    ],
)
def test_bad_input_is_one_line(keys, capsys, argument, message):
    arguments = [f"--config.{key}={value}" for key, value in keys.items()]
    assert main(["ngram", *arguments, argument]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
