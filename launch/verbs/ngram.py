"""This file is `isoflop ngram`: what an n-gram model scores where a config's models are scored.

isoflop ngram --config=configs/tiny_families.py --order=5

Counts the training text once, whatever the weights of a mixture, and scores the validation windows
of `eval.sequences` and `model.context_length`. The first tokens of a window have the tokens before
it as their context, which a Transformer does not see.
"""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import flags as absl_flags

from data.kinds.text import validation_starts
from data.shards import Split
from data.store import Dataset, prepare
from launch import flags
from launch.errors import DONE, bad_input, writing
from launch.files import write_json
from model.counted import ngram
from train.evaluate import Evaluation, summarise


def make_flags() -> absl_flags.FlagValues:
    values = absl_flags.FlagValues()
    text = absl_flags.DEFINE_string
    text("config", "configs/base.py", "the config file, FILE.py or FILE.py:ARG", values)
    text("json", "", "also write what is printed to this file", values)
    absl_flags.DEFINE_integer("order", 5, "tokens of an n-gram", flag_values=values)
    return values


def main(argv: Sequence[str]) -> int:
    """Prints the loss. Returns the exit code."""
    values = make_flags()
    overrides = flags.parse(values, argv, __doc__)
    begun = time.perf_counter()
    with bad_input():
        config = flags.load_config(values.config, overrides)
        dataset = prepare(config.data)
        model = ngram.fit(texts(dataset, "train"), dataset.vocab_size, values.order)
        found = evaluate(model, dataset, config.eval.sequences, config.model.context_length)
    about = {
        "order": values.order,
        "ngrams": [len(level.keys) for level in model.levels],
        "tokens": dataset.n_tokens["train"],
        "dataset": dataset.hash,
        "eval_loss": found.loss,
        "eval_loss_se": found.se,
        "bits_per_byte": found.bits_per_byte,
        "seconds": time.perf_counter() - begun,
    }
    error = "" if found.se is None else f" ± {found.se:.4f}"
    print(
        f"{values.order}-gram of {about['tokens']:,} tokens, {model.n_parameters:,} n-grams: "
        f"{found.loss:.4f}{error} nats/token, {found.bits_per_byte:.4f} bits/byte "
        f"({about['seconds']:.1f} s)"
    )
    if values.json:
        with writing("json", values.json):
            write_json(Path(values.json), about)
    return DONE


def texts(dataset: Dataset, split: str) -> list[np.ndarray]:
    """All tokens of a split, an array a component."""
    return [_whole(part.splits[split]) for part in dataset.components]


def evaluate(
    model: ngram.NGram, dataset: Dataset, sequences: int, context_length: int
) -> Evaluation:
    """The loss on the windows that `train.evaluate.Evaluator` scores."""
    inside = 1 + np.arange(context_length)
    nats, targets = [], []
    starts = validation_starts(dataset, sequences, context_length)
    for text, of_part in zip(texts(dataset, "validation"), starts, strict=True):
        place_ET = of_part[:, None] + inside
        nats.append(model.nats(text)[place_ET])
        targets.append(text[place_ET])
    nats_ET, targets_ET = np.concatenate(nats), np.concatenate(targets)
    weights_E = np.full(len(nats_ET), context_length)
    return summarise(nats_ET.sum(1), weights_E, float(dataset.token_bytes[targets_ET].sum()))


def _whole(split: Split) -> np.ndarray:
    """The tokens of a split [N]."""
    return np.concatenate([np.empty(0, "<u4"), *split.shards]).astype(np.int64)
