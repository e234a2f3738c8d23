"""`isoflop ngram`: what an n-gram model scores where the models of a config are scored.

isoflop ngram --config=configs/published/tiny_families.py --order=5
isoflop ngram --config=configs/base.py --order=3 --smoothing=witten_bell
isoflop ngram --config=configs/base.py --order=3 --smoothing=add_k --k=0.01

A short cut for a trial of the family `ngram` that writes no run folder. It counts the training text
once, whatever the weights of a mixture, and scores the validation windows of `eval.sequences` and
`model.context_length`. The first tokens of a window have the tokens before it as their context,
which a Transformer does not see.
"""

import time
from collections.abc import Sequence

from absl import flags as absl_flags

from data.files import to_path
from launch import flags
from launch.alive import alive
from launch.config import config_file
from launch.errors import DONE, bad_input, writing
from launch.files import write_json
from launch.trial.resolve import prepare, resolve
from model import families
from model.counted import ngram
from model.counted.smoothing import SMOOTHINGS
from train import counting
from train.objectives import next_token

KEYS = ("order", "smoothing", "k", "discount")  # of the family, which are flags here


def make_flags() -> absl_flags.FlagValues:
    values = absl_flags.FlagValues()
    text = absl_flags.DEFINE_string
    text("config", "configs/base.py", "the config: FILE.py, FILE.py:ARG or FILE.json", values)
    flags.define_path("json", None, "also write what is printed to this file", values)
    absl_flags.DEFINE_integer("order", 5, "tokens of an n-gram", flag_values=values)
    usual = next(iter(SMOOTHINGS))
    text("smoothing", usual, f"{' | '.join(SMOOTHINGS)}", values)
    real = absl_flags.DEFINE_float
    real("k", 1.0, "of add_k: added to the count of each token", flag_values=values)
    meaning = "of absolute and kneser_ney: subtracted from each count; 0: estimated"
    real("discount", 0.0, meaning, flag_values=values)
    flags.define_import(values)
    return values


def main(argv: Sequence[str]) -> int:
    """Prints the loss. Returns the exit code."""
    values = make_flags()
    overrides = flags.parse(values, argv, __doc__)
    begun = time.perf_counter()
    with bad_input():
        config = config_file.load_config(values.config, overrides)
        chosen = {f"model.{key}": values[key].value for key in KEYS}
        config_file.apply_overrides(config, {"model.family": "ngram"} | chosen)
        dataset = prepare(config)
        config = resolve(config, dataset)
        dataset = dataset.for_run(config)
        with alive("counting"):
            model = ngram.fit(families.read(config.model)[1], dataset.texts("train"))
            found = counting.evaluate(ngram, model, dataset, next_token.METRICS)
    (loss, error), (bits, _) = found["loss"], found.get("bits_per_byte", (None, None))
    about = {
        **{key: config.model[key] for key in KEYS},
        "ngrams": list(ngram.count(model).values()),
        "tokens": dataset.n_tokens("train"),
        "dataset": dataset.hash,
        "eval_loss": loss,
        "eval_loss_se": error,
        "bits_per_byte": bits,
        "seconds": time.perf_counter() - begun,
    }
    if values.json:
        with writing("json", values.json):
            write_json(to_path(values.json), about)
    spread = "" if error is None else f" ± {error:.4f}"
    per_byte = "" if bits is None else f", {bits:.4f} bits/byte"
    print(
        f"{values.order}-gram of {about['tokens']:,} tokens, {sum(about['ngrams']):,} n-grams, "
        f"{values.smoothing}: {loss:.4f}{spread} nats/token{per_byte} ({about['seconds']:.1f} s)"
    )
    return DONE
