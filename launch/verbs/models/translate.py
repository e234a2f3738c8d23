"""isoflop translate: writes the target of source sentences with a model trained on pairs.

isoflop translate --run=runs/mt --text="a small dog sees the cats"
isoflop translate --run=runs/mt --file=test.de --beams=8 --json=out.json
isoflop translate --run=runs/mt --file=test.de --references=test.en
isoflop translate --run=runs/mt --validation
isoflop translate --run=runs/mt --text="a small dog" --temperature=0.8 --seed=1
isoflop translate --run=runs/mt --validation --by_length=lengths.html --against=runs/other

The run is an encoder–decoder trained on data.kind=pairs, or a decoder trained on
data.kind=joined_pairs. --text may be repeated; --file has a sentence on each line. Prints one
translation per line.

By default a beam search finds the likeliest outputs: a beam's score is its log-probability divided
by ((5 + tokens) / 6) to the power of --length_penalty (Wu et al. 2016, eq. 14). --beams=1 is
greedy. --temperature draws instead. --json has all beams with their scores.

--references names a file with the right translations, line by line, and prints BLEU and chrF, by
sacrebleu with its default settings, and the share of translations that are equal word by word.
--validation translates the pairs that the run's data hold out, and scores them.

--by_length prints a table instead: the share of translations that are right in every word, by the
words of the source, with 90 % Wilson intervals. It draws them into a page or a picture, beside
those of the runs that --against names.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from absl import flags as absl_flags

from data.files import path_of, to_path
from launch import flags
from launch.alive import alive
from launch.errors import DONE, bad_input, writing
from launch.files import text_lines, write_json
from scaling.printable import printable

DRAWING = ("temperature", "top_k", "top_p", "seed")
SEARCHING = ("beams", "length_penalty")


def make_flags() -> absl_flags.FlagValues:
    """The flags of this verb."""
    values = absl_flags.FlagValues()
    whole, real = absl_flags.DEFINE_integer, absl_flags.DEFINE_float
    flags.define_path("run", None, "folder of the run to translate with", values)
    absl_flags.DEFINE_multi_string(
        "text", [], "sentence to translate; may be repeated", flag_values=values
    )
    flags.define_path("file", None, "file with a sentence on each line", values)
    flags.define_path("references", None, "file with the right translations, line by line", values)
    absl_flags.DEFINE_boolean(
        "validation", False, "translate the held-out pairs of its data", values
    )
    whole("beams", 4, "beams of the search; 1: greedy", lower_bound=1, flag_values=values)
    real("length_penalty", 0.6, "0: none; more favours long outputs", lower_bound=0, flag_values=values)  # fmt: skip  # noqa: E501
    real("temperature", None, "draw, with logits divided by it", lower_bound=0, flag_values=values)
    whole("top_k", 0, "draw among the K most likely tokens; 0: all", lower_bound=0, flag_values=values)  # fmt: skip  # noqa: E501
    real("top_p", 1.0, "draw among the fewest tokens whose probabilities sum to P", flag_values=values)  # fmt: skip  # noqa: E501
    whole("seed", 0, "seed of the draws", flag_values=values)
    whole("tokens", 0, "tokens of an output, at most; 0: the model's", flag_values=values)
    absl_flags.DEFINE_boolean("truncate", False, "cut sentences that are too long", values)
    flags.define_path(
        "by_length", None, "draw exact match by length: FILE.html, .svg or .png", values
    )
    absl_flags.DEFINE_multi_string(
        "against", [], "by_length: a run to draw, too; may be repeated", flag_values=values
    )
    flags.define_path("json", None, "write the translations, with scores, to this file", values)
    flags.define_import(values)
    absl_flags.mark_flags_as_required(["run"], values)
    return values


def main(argv: Sequence[str]) -> int:
    """Prints the translations. Returns the exit code."""
    values = make_flags()
    flags.parse(values, argv, __doc__, positional="run")
    with bad_input():
        refuse(values)
        with alive("loading the model"):
            jobs = [job(run, values) for run in (values.run, *values.against)]
            comparable(jobs)
    outputs = []
    with alive("translating") as detail:
        for one in jobs:
            for found in one.translator.translate(one.encoded, one.how, detail):
                outputs.append(found)
                if not values.by_length:
                    print(printable(found[0].text), flush=True)
    first = jobs[0]
    about = {"run": values.run, "step": first.translator.step} | chosen(values)
    about["translations"] = [
        {"source": source} | vars(found[0]) | {"beams": [vars(one) for one in found]}
        for source, found in zip(first.sources, outputs, strict=False)
    ]
    if values.by_length:
        about["by_length"] = lengths(jobs, outputs, values)
    elif first.references:
        about |= scored(first, outputs)
    if values.json:
        with writing("json", values.json):
            write_json(to_path(values.json), about)
    return DONE


@dataclass(frozen=True)
class Job:
    """A run with what it translates, and how."""

    name: str  # of the run, in plots
    translator: Any
    sources: Sequence[str]
    references: Sequence[str]  # none, or one for each source
    encoded: Sequence[Sequence[int]]
    how: Any


def chosen(values: absl_flags.FlagValues) -> dict[str, Any]:
    """The settings of the search, or of the draws."""
    names = SEARCHING if values.temperature is None else DRAWING
    return {name: values[name].value for name in names}


def job(run: str, values: absl_flags.FlagValues) -> Job:
    """What the flags ask of a run. ValueError or FileNotFoundError, in one line, where they
    cannot."""
    # Slow imports, which --help does without.
    from launch.translation.held_out import held_out
    from launch.translation.translator import How, open_run

    translator = open_run(path_of(run, "run"))
    sources = text_lines(values.file, "file") if values.file else values.text
    references = text_lines(values.references, "references") if values.references else []
    if values.validation:
        sources, references = held_out(translator.run)
    if references:
        same_count(sources, references, values)
    encoded = translator.encode(sources, values.truncate)
    how = How(translator.longest(values.tokens), **chosen(values))
    name = translator.run.resolve().name
    return Job(name, translator, sources, references, encoded, how)


def scored(one: Job, outputs: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """The scores of a run's translations, printed."""
    from launch.translation.scores import scores

    found = scores([best[0].text for best in outputs], one.references)
    bleu, chrf = found["bleu"]["score"], found["chrf"]["score"]
    exact = f"{found['exact_match']:.1%} of {found['sentences']:,} sentences"
    print(f"\nBLEU {bleu:.1f}, chrF {chrf:.1f}, exact match {exact}")
    print(found["bleu"]["signature"])
    return found


def lengths(
    jobs: Sequence[Job], outputs: Sequence[Sequence[Any]], values: absl_flags.FlagValues
) -> dict[str, Any]:
    """The exact matches of each run by the words of the source, printed and drawn."""
    from launch.translation.scores import same_words
    from scaling.report.length_plot import by_length, write_plot

    texts, found = iter(best[0].text for best in outputs), {}
    for one in jobs:
        words_E = np.array([len(source.split()) for source in one.sources])
        exact_E = np.array([same_words(next(texts), right) for right in one.references])
        found[one.name] = by_length(words_E, exact_E)
        print(
            f"{printable(one.name)}: exact match {exact_E.mean():.1%} of {len(exact_E):,} sentences"
        )
        for part in found[one.name]:
            print(
                f"  {part['first']:>3} to {part['last']:>3} words {part['share']:7.1%} "
                f"[{part['lo']:.1%}, {part['hi']:.1%}] of {part['sentences']:,}"
            )
    with writing("by_length", values.by_length):
        write_plot(to_path(values.by_length), found)
    return found


def refuse(values: absl_flags.FlagValues) -> None:
    """ValueError for flags that are missing or exclude one another."""
    if sum(map(bool, (values.text, values.file, values.validation))) != 1:
        raise ValueError("give one of --text='a sentence', --file=FILE and --validation")
    if values.validation and values.references:
        raise ValueError("--references means nothing with --validation; drop one of them")
    scored = values.references or values.validation
    if values.by_length and not scored:
        raise ValueError("--by_length needs right translations; give --validation or --references")
    if values.against and not values.by_length:
        raise ValueError("--against is for the plot of --by_length=FILE; give it, too")
    for flag in SEARCHING if values.temperature is not None else DRAWING:
        if values[flag].present and flag != "temperature":
            other = "without --temperature" if flag in DRAWING else "with --temperature"
            raise ValueError(f"--{flag} means nothing {other}; drop one of them")
    if not 0 < values.top_p <= 1:
        raise ValueError(f"--top_p={values.top_p} is out of range; use more than 0, at most 1")
    if values.by_length:
        from scaling.report.length_plot import require  # slow imports

        require(to_path(values.by_length))
    elif scored:
        from launch.translation.scores import require

        require()


def same_count(
    sources: Sequence[str], references: Sequence[str], values: absl_flags.FlagValues
) -> None:
    """ValueError, with the line, if a sentence has no reference or the other way round."""
    if len(sources) != len(references):
        line = 1 + min(len(sources), len(references))
        raise ValueError(
            f"--references={values.references} has {len(references)} lines for {len(sources)} "
            f"sentences: line {line} has no counterpart; give one line for each"
        )


def comparable(jobs: Sequence[Job]) -> None:
    """ValueError if runs would translate different sentences, or have the same name."""
    first, names = jobs[0], [one.name for one in jobs]
    for one in jobs[1:]:
        if (one.sources, one.references) != (first.sources, first.references):
            raise ValueError(
                f"--against={one.translator.run} holds out other pairs than --run="
                f"{first.translator.run}; name runs on the same data"
            )
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"two runs are named {twice[0]!r}; rename a folder, or name each run once")
