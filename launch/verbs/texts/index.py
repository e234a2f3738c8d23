"""isoflop index: makes an index of texts, for retrieval by sample, chat and evaluate.

isoflop index --texts=README.md --out=runs/readme-index
isoflop index --texts=stdlib --texts=notes.jsonl --lines=20 --overlap=5 --out=runs/notes-index
isoflop index --kind=dense --run=runs/encoder --texts=README.md --out=runs/dense-index
isoflop index --kind=knn --run=runs/first --out=runs/states

--texts takes what data.corpora takes (stdlib, a file, a folder, .jsonl, .parquet, hf:NAME, …) and
may be repeated. Without it, the text is that of --run, and the documents that the run held out for
validation are left out: an index of them would hold the answers.

bm25 and dense cut the texts into passages of --words words or --lines lines. bm25 ranks them by the
words that they share with a query (package bm25s); okapi gives the scores of rank_bm25's BM25Okapi.
dense ranks them by the cosine of vectors: the mean last hidden state of --run, or its mean word
vector if it is word2vec, glove or lsa. knn stores, for every token of the text, the state of --run
before it and the token, for kNN language models (Khandelwal et al. 2020).

The folder is complete when its manifest.json is written, which has the hash of every file. A build
that was stopped goes on when the same command is run again; a complete index is kept as it is.
"""

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath
from typing import Any

from absl import flags as absl_flags

from data.files import to_path
from data.retrieval import bm25, folder
from launch import flags
from launch.alive import alive, bar
from launch.amounts import amount, byte_size
from launch.errors import DONE, bad_input, writing
from launch.files import write_json
from scaling.printable import printable

OF_PASSAGES = ("words", "lines", "overlap")
OF_BM25 = ("bm25", "k1", "b", "delta")
OF_KNN = ("stride", "tokens", "seed")
NOT_READ = {  # flags that a kind does not read
    "bm25": OF_KNN,
    "dense": (*OF_BM25, *OF_KNN),
    "knn": (*OF_PASSAGES, *OF_BM25),
}


def make_flags() -> absl_flags.FlagValues:
    """The flags of this verb."""
    values = absl_flags.FlagValues()
    text, whole = absl_flags.DEFINE_string, absl_flags.DEFINE_integer
    real, choice = absl_flags.DEFINE_float, absl_flags.DEFINE_enum
    usual = "text to index; may be repeated; default: the training text of --run"
    absl_flags.DEFINE_multi_string("texts", [], usual, flag_values=values)
    flags.define_path("out", None, "folder of the index", values)
    choice("kind", "bm25", ("bm25", "dense", "knn"), "what is stored", flag_values=values)
    flags.define_path(
        "run", None, "dense, knn: run whose states or word vectors are stored", values
    )
    text("text_key", "", "key of a row's text; default: that of --run, or text", values)
    flags.define_amount("max_bytes", 0, "bytes of each text to index; 0: all", values)
    whole("words", 100, "words of a passage", lower_bound=1, flag_values=values)
    whole("lines", 0, "lines of a passage, in place of words", lower_bound=0, flag_values=values)
    shared = "words or lines that a passage shares with the one before"
    whole("overlap", 0, shared, lower_bound=0, flag_values=values)
    choice("bm25", "okapi", bm25.VARIANTS, "bm25: the variant", flag_values=values)
    real("k1", 1.5, "bm25: how slowly repeats of a word count less", 0, flag_values=values)
    real("b", 0.75, "bm25: how much the length of a passage counts", 0, 1, flag_values=values)
    real("delta", 0.5, "bm25: of the variants bm25+ and bm25l", 0, flag_values=values)
    usual = "knn: tokens between two windows; 0: half a context, so each token has half before it"
    whole("stride", 0, usual, lower_bound=0, flag_values=values)
    flags.define_amount("tokens", 0, "knn: tokens to store, from random windows; 0: all", values)
    whole("seed", 0, "knn: seed of the order of the windows", lower_bound=0, flag_values=values)
    flags.define_path("json", None, "also write what is printed to this file", values)
    flags.define_import(values)
    absl_flags.mark_flags_as_required(["out"], values)
    return values


def main(argv: Sequence[str]) -> int:
    """Makes the index and prints what it holds. Returns the exit code."""
    values = make_flags()
    flags.parse(values, argv, __doc__)
    out, begun = to_path(values.out), time.perf_counter()
    flags.require_writable(out, "out")
    with bad_input():
        refuse(values)
        with into(out), alive("indexing") as detail:
            index, made = built(values, out, lambda share: detail(bar(share)))
    about = {key: value for key, value in index.about.items() if key != "files"}
    about |= {"index": str(out), "size": index.n_bytes, "made": made}
    about |= {"seconds": time.perf_counter() - begun}
    if values.json:
        with writing("json", values.json):
            write_json(to_path(values.json), about)
    show(about)
    return DONE


@contextlib.contextmanager
def into(out: Path) -> Iterator[None]:
    """Turns the OSError of a file of the index into one line about --out. Others pass through, such
    as that of a text that is missing."""
    try:
        yield
    except OSError as error:
        place, file = folder.here(out), PurePath(error.filename or "")
        if error.errno is None or not (file.is_relative_to(place) or place.is_relative_to(file)):
            raise
        with writing("out", out):
            raise


def refuse(values: absl_flags.FlagValues) -> None:
    """ValueError for flags that the kind of index does not read, and for those that it lacks."""
    for name in NOT_READ[values.kind]:
        if values[name].present:
            raise ValueError(
                f"{name}={values[name].value} means nothing with --kind={values.kind}; drop it"
            )
    if values.kind != "bm25" and not values.run:
        raise ValueError(f"kind={values.kind} stores what a model makes of the text; add --run=RUN")
    if not values.run and not values.texts:
        raise ValueError("neither texts nor run is given; add --texts=TEXT to index, or --run=RUN")
    if "" in values.texts:
        raise ValueError("texts= is empty; name a text, or drop it")


def built(values: absl_flags.FlagValues, out: Path, advance: Any) -> tuple[Any, bool]:
    """(the index that the flags describe, whether it was made now)."""
    from launch.retrieval import building  # slow imports, which --help does without

    place, run = folder.here(out), values.run and to_path(values.run)
    texts = building.texts_of(values, run)
    if values.kind == "bm25":
        how = values.bm25, values.k1, values.b, values.delta
        return building.build_bm25(place, texts, *how, advance)
    if values.kind == "dense":
        return building.build_dense(place, texts, run, advance)
    from launch.retrieval import datastore

    how = values.stride, int(values.tokens), values.seed
    return datastore.build(place, texts if values.texts else None, run, *how, advance)


def show(about: dict[str, Any]) -> None:
    """Prints what an index holds, and its size."""
    content = {
        "bm25": lambda: f"{amount(about['passages'])} passages of {byte_size(about['bytes'])}",
        "dense": lambda: (
            f"{amount(about['passages'])} passages of {byte_size(about['bytes'])}, vectors of "
            f"{about['dimensions']} dimensions from {about['made_from']}"
        ),
        "knn": lambda: (
            f"{amount(about['tokens'])} tokens, states of {about['dimensions']} dimensions"
        ),
    }[about["kind"]]()
    verb = "made" if about["made"] else "kept"
    print(f"{verb}: {content}; {byte_size(about['size'])} in {printable(about['index'])}")
