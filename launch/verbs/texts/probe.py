"""isoflop probe: what a model associates, knows and makes up, measured with intervals.

isoflop probe --run=runs/a --pairs=configs/probes/roles.jsonl
isoflop probe --run=runs/vectors --weat=configs/probes/weat.jsonl
isoflop probe --run=runs/a --facts=world:entities=100 --out=probe --json=probe.json
isoflop probe --run=runs/unlearned --before=runs/a --facts=facts.jsonl --text=other.txt

--pairs names texts that differ in a role, such as doctor and nurse, and measures the difference of
their log-probabilities, or that of a continuation. --weat names sets of words for the
word-embedding association test, of any run with a vector for each token. --facts names questions
with their possible answers, or a world of made-up facts (data/sources/world.py): how many answers
are right, whether the same fact asked in several ways has one answer, whether confidence is
calibrated, and whether it tells known facts from unknown ones. --text measures the loss on any
corpus.

--before names the run before a change, such as unlearning: everything is measured of both, and the
differences have intervals. Facts that the run unlearned are asked in the words in which it did, and
in others. docs/probing.md describes the files and the numbers.
"""

from collections.abc import Sequence

from absl import flags as absl_flags

from data.files import to_path
from launch import flags
from launch.alive import alive
from launch.errors import DONE, bad_input, writing
from launch.files import write_json
from launch.law.fitting import provenance, report_line

ASKED = ("pairs", "weat", "facts", "text")


def make_flags() -> absl_flags.FlagValues:
    """The flags of this verb."""
    values = absl_flags.FlagValues()
    text, whole = absl_flags.DEFINE_string, absl_flags.DEFINE_integer
    flags.define_path("run", None, "folder of the run: finished, stopped or converted", values)
    flags.define_path("before", None, "folder of the run to compare it with", values)
    flags.define_path("pairs", None, "file of paired texts, a JSON object a line", values)
    flags.define_path("weat", None, "file of sets of words, a JSON object a line", values)
    text("facts", "", "file of facts, a JSON object a line, or world:KEY=VALUE…", values)
    text("text", "", "corpus to measure the loss on, as data.corpora names it", values)
    whole("documents", 200, "most documents of --text", lower_bound=2, flag_values=values)
    flags.define_path("out", None, "folder of the page; default: no page", values)
    flags.define_path("json", None, "also write all numbers to this file", values)
    whole("draws", 1000, "draws of each bootstrap", lower_bound=50, flag_values=values)
    whole("seed", 0, "seed of the draws", lower_bound=0, flag_values=values)
    flags.define_import(values)
    absl_flags.mark_flags_as_required(["run"], values)
    return values


def main(argv: Sequence[str]) -> int:
    """Prints what was measured and writes what the flags ask for. Returns the exit code."""
    values = make_flags()
    flags.parse(values, argv, __doc__, positional="run")
    if values.out:
        flags.require_writable(to_path(values.out), "out")
    with bad_input():
        if not any(values[flag].value for flag in ASKED):
            raise ValueError(f"nothing is asked; give one of {', '.join(f'--{f}' for f in ASKED)}")
        with alive("probing") as show:
            from launch.probing import measured  # slow imports, which --help does without

            texts = {key: values[key].value or "" for key in ASKED}
            asked = measured.Asked(
                **texts, documents=values.documents, draws=values.draws, seed=values.seed
            )
            before = to_path(values.before) if values.before else None
            about = measured.probed(to_path(values.run), before, asked, show)
    about["made"] = provenance("probe", argv)
    if values.json:
        with writing("json", values.json):
            write_json(to_path(values.json), about)
    place = ""
    if values.out:
        from scaling.report.probing.page import write_page

        with writing("out", values.out), alive("drawing the page"):
            place = report_line(write_page(to_path(values.out), about))
    from launch.probing import listing

    listing.show(about)
    if place:
        print(place.strip())
    return DONE
