"""isoflop tokenize: builds the dataset of a config and prints what is in it.

isoflop tokenize --config=configs/base.py --config.data.tokenizer=bpe --config.data.vocab_size=4096
isoflop tokenize --compare=bytes,bpe:4096,unigram:4096 --out=tokenizers
isoflop tokenize --compare=bytes,llama=hf/tokenizer.model --texts=German=goethe.txt,code=stdlib

--compare puts tokenizers side by side: bytes a token, tokens a word, whether texts come back, the
speed, and how sentences are cut. It takes what data.tokenizer takes; NAME:SIZE, such as bpe:4096,
is trained on the training text of the config. Without --texts they read one article in 13
languages.
"""

import sys
from collections.abc import Sequence
from typing import Any

from absl import flags as absl_flags
from rich.console import Console
from rich.table import Table

from data.files import to_path
from data.kinds.text import rows_of
from data.packed.packed_rows import PackedStore
from data.shards import SPLITS
from data.sources import corpus, synthetic
from data.store import Component, TokenStore, prepare
from launch import flags
from launch.alive import alive
from launch.config import config_file
from launch.errors import DONE, BadInput, bad_input, writing
from launch.files import write_json
from launch.law.fitting import provenance, report_line


def make_flags() -> absl_flags.FlagValues:
    """The flags of this verb."""
    values = absl_flags.FlagValues()
    text = absl_flags.DEFINE_string
    text("config", "configs/base.py", "the config: FILE.py, FILE.py:ARG or FILE.json", values)
    flags.define_path("json", None, "also write what is printed to this file", values)
    several = absl_flags.DEFINE_list
    several("compare", [], "tokenizers to compare, in place of building a dataset", values)
    several("texts", [], "NAME=CORPUS of --compare; default: one article in 13 languages", values)
    absl_flags.DEFINE_multi_string(
        "sentence",
        [],
        "a sentence of --compare to cut; may be repeated; "
        "default: a German one and its ASCII spelling",
        values,
    )
    flags.define_path("out", None, "folder of the page of --compare; default: no page", values)
    flags.define_import(values)
    return values


def main(argv: Sequence[str]) -> int:
    """Builds or opens the dataset; prints a table of it. Returns the exit code."""
    values = make_flags()
    overrides = flags.parse(values, argv, __doc__)
    if values.compare:
        return compared(values, argv, overrides)
    if values.out or values.texts or values.sentence:
        raise BadInput("--out, --texts and --sentence go with --compare=TOKENIZER,TOKENIZER…")
    with bad_input():
        config = config_file.load_config(values.config, overrides)
        dataset = prepare(config.data)
        about = describe(dataset) | packing(dataset, config)
    if values.json:
        with writing("json", values.json):
            write_json(to_path(values.json), about)
    print_table(about)
    return DONE


def compared(values: absl_flags.FlagValues, argv: Sequence[str], overrides: dict) -> int:
    """Compares tokenizers and writes what the flags ask for. Returns the exit code."""
    from launch.tokenizers import comparison, listing

    if values.out:
        flags.require_writable(to_path(values.out), "out")
    with bad_input(), alive("comparing tokenizers") as say:
        config = config_file.load_config(values.config, overrides)
        if unnamed := [one for one in values.texts if not all(one.partition("=")[::2])]:
            raise ValueError(f"texts={unnamed[0]} has no name; write NAME=CORPUS")
        texts = dict(one.split("=", 1) for one in values.texts)
        sentences = values.sentence or comparison.SENTENCES
        about = comparison.compare(config, values.compare, texts, sentences, say)
    about["made"] = provenance("tokenize", argv)
    if values.json:
        with writing("json", values.json):
            write_json(to_path(values.json), about)
    listing.show(about)
    if values.out:
        from scaling.report.tokenizers.tokenizer_page import write_page

        with writing("out", values.out), alive("drawing the page"):
            place = write_page(to_path(values.out), about)
        print(report_line(place).strip())
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
                        **unknown(part, name, dataset.tokenizer.unknown),
                    }
                    for name in SPLITS
                },
                **known_entropy(part, dataset),
            }
            for part, weight in zip(dataset.components, dataset.weights, strict=True)
        ],
    }


def packing(dataset: TokenStore, config: Any) -> dict:
    """How documents fill the rows of training, one dict for each corpus, if data.rows=packed."""
    if config.data.kind != "text" or rows_of(config.data) == "windows":
        return {}
    length = config.model.context_length
    counts = [part.counts() for part in PackedStore(dataset, length).parts]
    names = [part.name for part in dataset.components]
    found = [{"name": name} | one for name, one in zip(names, counts, strict=True)]
    return {"packing": {"context_length": length, "corpora": found}}


def unknown(part: Component, split: str, token: int | None) -> dict:
    """How many tokens of a split stand for what the vocabulary lacks; {} without such a token."""
    return {} if token is None else {"unknown": part.count(split, token)}


def known_entropy(part: Component, dataset: TokenStore) -> dict:
    """The entropy rate of a synthetic corpus, and the oracle's loss on its validation text; {} for
    any other corpus."""
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
    """Prints the counts as a table, one row for each split, then hash and folders."""
    splits = [split for part in about["corpora"] for split in part["splits"].values()]
    counted = any("unknown" in split for split in splits)
    columns = ("documents", "tokens", "bytes", "bytes/token", *(("unknown",) if counted else ()))
    table = Table("corpus", "share", "split", *columns)
    for column in table.columns[3:]:
        column.justify = "right"
    for part in about["corpora"]:
        for name, split in part["splits"].items():
            ratio = split["bytes"] / split["tokens"] if split["tokens"] else 0
            counts = [f"{split[count]:,}" for count in ("documents", "tokens", "bytes")]
            counts.append(f"{ratio:.3f}")
            if counted:
                counts.append(f"{split['unknown'] / max(1, split['tokens']):.2%}")
            table.add_row(part["name"], f"{part['share']:.1%}", name, *counts)
    # Rich assumes that a pipe is 80 columns wide and would truncate the numbers.
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
    packed = about.get("packing", {"corpora": ()})
    for one in packed["corpora"]:
        print(
            f"packing    {one['name']}: {one['rows']:,} rows of {packed['context_length']} tokens, "
            f"{one['padding']:.4%} padding; {one['cut_documents']:,} of {one['documents']:,} "
            f"documents cut in {one['cuts']:,} places, by windows "
            f"{one['cut_documents_by_windows']:,} in {one['cuts_by_windows']:,}"
        )
