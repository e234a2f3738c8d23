"""This file is the verb `tokenize`: it builds the dataset of a config and shows what is in it.

isoflop tokenize --config=configs/base.py --config.data.tokenizer=bpe --config.data.vocab_size=4096
"""

import sys
from pathlib import Path

from absl import flags
from rich.console import Console
from rich.table import Table

from data.shards import SPLITS
from data.sources import corpus, synthetic
from data.store import Component, TokenStore, prepare
from launch.errors import DONE, bad_input
from launch.files import write_json
from launch.flags import load_config, parse

FLAGS = flags.FlagValues()
flags.DEFINE_string("config", "configs/base.py", "the config file, FILE.py or FILE.py:ARG", FLAGS)
flags.DEFINE_string("json", "", "also write what is printed to this file", FLAGS)


def main(argv: list[str]) -> int:
    """Builds or opens the dataset; prints a table of it. Returns the exit code."""
    overrides = parse(FLAGS, argv, __doc__)
    with bad_input():
        config = load_config(FLAGS.config, overrides)
        dataset = prepare(config.data)
        about = describe(dataset)
        if FLAGS.json:
            write_json(Path(FLAGS.json), about)
    print_table(about)
    return DONE


def describe(dataset: TokenStore) -> dict:
    """What `--json` writes: hash, tokenizer, and the counts of each split of each corpus."""
    return {
        "hash": dataset.hash,
        "tokenizer": {
            "name": dataset.tokenizer.name,
            "vocab_size": dataset.vocab_size,
            "fingerprint": dataset.tokenizer.fingerprint,
        },
        "corpora": [
            {
                "name": part.name,
                "share": weight / sum(dataset.weights),
                "hash": part.hash,
                "path": str(part.folder),
                "splits": {
                    name: {
                        "documents": part.splits[name].n_documents,
                        "tokens": part.splits[name].n_tokens,
                        "bytes": part.splits[name].n_bytes,
                    }
                    for name in SPLITS
                },
                **known_entropy(part, dataset),
            }
            for part, weight in zip(dataset.components, dataset.weights, strict=True)
        ],
    }


def known_entropy(part: Component, dataset: TokenStore) -> dict:
    """Of a synthetic corpus: H, and the oracle's loss on the validation text that models see."""
    validation = part.splits["validation"]
    if corpus.scheme(part.name) != "synthetic" or not validation.n_tokens:
        return {}
    oracle = synthetic.oracle_of(part.name, validation, dataset.tokenizer)
    return {
        "entropy": {
            "rate": synthetic.parse(part.name).language.entropy,
            "validation": oracle.nats,
            "validation_se": oracle.se,
        }
    }


def print_table(about: dict) -> None:
    """The same for people: a row a split, then where it lies and how it is known."""
    table = Table("corpus", "share", "split", *("documents", "tokens", "bytes", "bytes/token"))
    for column in table.columns[3:]:
        column.justify = "right"
    for part in about["corpora"]:
        for name, split in part["splits"].items():
            ratio = split["bytes"] / split["tokens"] if split["tokens"] else 0
            counts = [f"{split[count]:,}" for count in ("documents", "tokens", "bytes")]
            table.add_row(part["name"], f"{part['share']:.1%}", name, *counts, f"{ratio:.3f}")
    # Rich takes a pipe for 80 columns wide and would cut the numbers.
    Console(width=None if sys.stdout.isatty() else 140).print(table)
    tokenizer = about["tokenizer"]
    print(f"tokenizer  {tokenizer['name']}, {tokenizer['vocab_size']:,} tokens")
    print(f"hash       {about['hash']}")
    for part in about["corpora"]:
        print(f"path       {part['path']}")
        if "entropy" in part:
            known = part["entropy"]
            print(
                f"entropy    {known['rate']:.5f} nats/character; of the validation text "
                f"{known['validation']:.5f} ± {known['validation_se']:.5f}"
            )
