"""isoflop neighbours: what the word vectors of a run know.

isoflop neighbours --run=runs/vectors --word=king
isoflop neighbours --run=runs/vectors --analogy="man king woman"
isoflop neighbours --run=runs/vectors --analogies=questions-words.txt --similarities=wordsim353.tsv
isoflop neighbours --run=runs/vectors --map=words.html

--word prints the words of the highest cosine similarity; it may be repeated. --analogy="a b c"
prints what is to c as b is to a: the words nearest to b - a + c, none of the three. --analogies and
--similarities score files in the usual formats: questions of four words with ": section" lines, and
two words with a number, whose order is compared by Spearman's rho. Words that the model lacks are
counted. The name gensim stands for the files that the package gensim ships. --map draws the most
frequent words in two dimensions.

Any family with a vector for each token has these: word2vec, glove, lsa, decoder.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags as absl_flags

from data.files import to_path
from launch import flags
from launch.alive import alive
from launch.errors import DONE, bad_input, writing
from launch.files import write_json
from scaling.printable import printable

ASKED = ("word", "analogy", "analogies", "similarities", "map")


def make_flags() -> absl_flags.FlagValues:
    """The flags of this verb."""
    values = absl_flags.FlagValues()
    whole = absl_flags.DEFINE_integer
    flags.define_path("run", None, "folder of the run", values)
    repeated = "words near this one; may be repeated"
    absl_flags.DEFINE_multi_string("word", [], repeated, flag_values=values)
    three = "three words 'a b c': what is to c as b is to a; may be repeated"
    absl_flags.DEFINE_multi_string("analogy", [], three, flag_values=values)
    whole("n", 10, "words to print", lower_bound=1, flag_values=values)
    flags.define_path("analogies", None, "file of analogies, or gensim", values)
    flags.define_path("similarities", None, "file of similarities, or gensim", values)
    flags.define_path("map", None, "draw the most frequent words: FILE.html or FILE.png", values)
    whole("map_words", 100, "map: words to draw", lower_bound=3, flag_values=values)
    absl_flags.DEFINE_enum("projection", "pca", ("pca", "tsne"), "map: how", flag_values=values)
    flags.define_path("json", None, "also write what is printed to this file", values)
    flags.define_import(values)
    absl_flags.mark_flags_as_required(["run"], values)
    return values


def main(argv: Sequence[str]) -> int:
    """Prints what is asked. Returns the exit code."""
    values = make_flags()
    flags.parse(values, argv, __doc__, positional="run")
    with bad_input():
        if not any(values[flag].value for flag in ASKED):
            raise ValueError(f"nothing is asked; give one of {', '.join(f'--{f}' for f in ASKED)}")
        with alive("loading the vectors"):
            about = answers(values)
    if values.json:
        with writing("json", values.json):
            write_json(to_path(values.json), about)
    show(about)
    return DONE


def answers(values: absl_flags.FlagValues) -> dict[str, Any]:
    """What is asked of a run, with the answers."""
    # Slow imports, which --help does without.
    from launch.vectors import projection, word_lists, word_vectors
    from scaling.report import word_map

    run = to_path(values.run)
    vectors = word_vectors.open_vectors(run)
    listed = lambda found: [{"word": word, "cosine": cosine} for word, cosine in found]  # noqa: E731
    about: dict[str, Any] = {"run": str(run), "words": len(vectors.words)}
    about["neighbours"] = {
        word: listed(word_vectors.neighbours(vectors, word, values.n)) for word in values.word
    }
    about["analogy"] = {
        asked: listed(word_vectors.analogy(vectors, asked, values.n)) for asked in values.analogy
    }
    if values.analogies:
        about["analogies"] = word_lists.analogies(vectors, values.analogies)
    if values.similarities:
        about["similarities"] = word_lists.similarities(vectors, values.similarities)
    if values.map:
        drawn = projection.word_map(vectors, run.resolve(), values.projection, values.map_words)
        with writing("map", values.map):
            about["map"] = str(word_map.write_map(to_path(values.map), drawn))
    return about


def show(about: Mapping[str, Any]) -> None:
    """Prints the answers."""
    for asked, found in (about["neighbours"] | about["analogy"]).items():
        print(printable(asked))
        for row in found:
            print(f"  {row['cosine']:6.3f}  {printable(row['word'])}")
    if "analogies" in about:
        _show_analogies(about["analogies"])
    if found := about.get("similarities"):
        rho = found["spearman"]
        text = (
            "too few pairs"
            if rho is None
            else f"Spearman's rho {rho:.3f} (p {found['p_value']:.2g})"
        )
        print(f"similarities: {text}, {_of(found['pairs'], found['out_of_vocabulary'], 'pairs')}")
    if "map" in about:
        print(f"map: {about['map']}")


def _show_analogies(found: Mapping[str, Any]) -> None:
    sections = (
        {"analogies": found} if len(found["sections"]) < 2 else found["sections"] | {"all": found}
    )
    for name, tally in sections.items():
        share = f"{tally['right'] / tally['asked']:6.1%}" if tally["asked"] else "     –"
        counts = _of(tally["asked"], tally["out_of_vocabulary"], "questions")
        print(f"{share} right  {printable(name)}: {tally['right']:,} of {counts}")


def _of(asked: int, unknown: int, what: str) -> str:
    return f"{asked:,} {what}; {unknown:,} more have words that the model lacks"
