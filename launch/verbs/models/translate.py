"""isoflop translate: writes the target of source sentences with a model trained on pairs.

isoflop translate --run=runs/mt --text="a small dog sees the cats"
isoflop translate --run=runs/mt --file=test.de --beams=8 --json=out.json
isoflop translate --run=runs/mt --file=test.de --references=test.en
isoflop translate --run=runs/mt --validation
isoflop translate --run=runs/mt --text="a small dog" --temperature=0.8 --seed=1

The run is an encoder–decoder trained on data.kind=pairs, or a decoder trained on
data.kind=joined_pairs. --text may be repeated; --file has a sentence on each line. Prints one
translation per line.

By default a beam search finds the likeliest outputs: a beam's score is its log-probability divided
by ((5 + tokens) / 6) to the power of --length_penalty (Wu et al. 2016, eq. 14). --beams=1 is
greedy. --temperature draws instead. --json has all beams with their scores.

--references names a file with the right translations, line by line, and prints BLEU and chrF, by
sacrebleu with its default settings, and the share of translations that are equal word by word.
--validation translates the pairs that the run's data hold out, and scores them.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags as absl_flags

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
        sources = text_lines(values.file, "file") if values.file else values.text
        references = text_lines(values.references, "references") if values.references else []
        with alive("loading the model"):
            # Slow imports, which --help does without.
            from launch.translation import held_out, scores
            from launch.translation.translator import How, open_run

            if values.references or values.validation:
                scores.require()
            translator = open_run(Path(values.run))
            if values.validation:
                sources, references = held_out.held_out(Path(values.run))
            if references:
                same_count(sources, references, values)
            encoded = translator.encode(sources, values.truncate)
            drawn = {name: values[name].value for name in DRAWING}
            searched = {name: values[name].value for name in SEARCHING}
            chosen = searched if values.temperature is None else drawn
            how = How(translator.longest(values.tokens), **chosen)
    outputs = []
    with alive("translating") as detail:
        for found in translator.translate(encoded, how, detail):
            outputs.append(found)
            print(printable(found[0].text), flush=True)
    about = {"run": values.run, "step": translator.step} | chosen
    about["translations"] = [
        {"source": source} | vars(found[0]) | {"beams": [vars(one) for one in found]}
        for source, found in zip(sources, outputs, strict=True)
    ]
    if references:
        about |= scores.scores([found[0].text for found in outputs], references)
        bleu, chrf = about["bleu"]["score"], about["chrf"]["score"]
        exact = f"{about['exact_match']:.1%} of {about['sentences']:,} sentences"
        print(f"\nBLEU {bleu:.1f}, chrF {chrf:.1f}, exact match {exact}")
        print(about["bleu"]["signature"])
    if values.json:
        with writing("json", values.json):
            write_json(Path(values.json), about)
    return DONE


def refuse(values: absl_flags.FlagValues) -> None:
    """ValueError for flags that are missing or exclude one another."""
    if sum(map(bool, (values.text, values.file, values.validation))) != 1:
        raise ValueError("give one of --text='a sentence', --file=FILE and --validation")
    if values.validation and values.references:
        raise ValueError("--references means nothing with --validation; drop one of them")
    for flag in SEARCHING if values.temperature is not None else DRAWING:
        if values[flag].present and flag != "temperature":
            other = "without --temperature" if flag in DRAWING else "with --temperature"
            raise ValueError(f"--{flag} means nothing {other}; drop one of them")
    if not 0 < values.top_p <= 1:
        raise ValueError(f"--top_p={values.top_p} is out of range; use more than 0, at most 1")


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
