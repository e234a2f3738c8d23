"""isoflop inspect: what a model makes of a text, and how, on one page.

isoflop inspect --run=runs/a --text="The cat sat on the mat. The cat"
isoflop inspect --run=runs/a --file=story.txt --tokens=128 --out=inspection --json=inspection.json

The page shows each token with its probability, the entropy of the distribution that it came from
and its rank; the attention of each head; the logit lens, which is what the model would say after
each layer; how the loss changes if a head or a neuron is switched off; how far each head is an
induction head; and a map of the token embedding with the neighbours of the text's tokens.

Decoders have all of these. Recurrent models have only the tokens and the logit lens, n-gram models
only the tokens; other families are refused.

As in `isoflop score`, the text follows the tokens that the model expects before every text, or the
end of a document if it expects none. It is cut to --tokens and to the model's context. An ablation
is exact for every head, and for the --neurons whose gradient times activation is the largest; the
others are not tried.
"""

from collections.abc import Sequence

from absl import flags as absl_flags

from data.files import to_path
from launch import flags
from launch.alive import alive
from launch.errors import DONE, bad_input, writing
from launch.files import write_json
from launch.law.fitting import provenance


def make_flags() -> absl_flags.FlagValues:
    """The flags of this verb."""
    values = absl_flags.FlagValues()
    whole = absl_flags.DEFINE_integer
    flags.define_path("run", None, "folder of the run: finished, stopped or converted", values)
    absl_flags.DEFINE_string("text", None, "text to look at", flag_values=values)
    flags.define_path("file", None, "file with the text", values)
    most = "tokens of the text to read, at most; the model's context is a limit too"
    whole("tokens", 128, most, lower_bound=1, flag_values=values)
    flags.define_path("out", None, "folder of the page; default: RUN/inspection", values)
    flags.define_path("json", None, "also write the numbers to this file", values)
    ablate = "switch off heads and neurons, which takes most of the time"
    absl_flags.DEFINE_boolean("ablate", True, ablate, flag_values=values)
    whole("neurons", 20, "neurons whose ablation is exact", lower_bound=0, flag_values=values)
    whole("seed", 0, "seed of the random tokens", lower_bound=0, flag_values=values)
    flags.define_import(values)
    absl_flags.mark_flags_as_required(["run"], values)
    return values


def main(argv: Sequence[str]) -> int:
    """Writes the page and prints its main numbers. Returns the exit code."""
    values = make_flags()
    flags.parse(values, argv, __doc__, positional="run")
    with bad_input():
        # Slow imports, which --help does without.
        from launch.inspection import text as texts

        given = texts.read(values.text, values.file)
        with alive("loading the model"):
            from launch.evaluation import scored_model

            model = scored_model.open_model(to_path(values.run), any_objective=True)
        text = texts.encoded(model, given, values.tokens)
    out = to_path(values.out) if values.out else model.run / "inspection"
    flags.require_writable(out, "out")
    from launch.inspection import listing, measured
    from scaling.report.inspection.page import write_page

    with alive("looking inside:") as show:
        how = measured.How(values.neurons, values.ablate, values.seed)
        about, weights_LHTS = measured.inspected(model, text, how, show)
    about = {"run": str(model.run), "step": model.step, "family": model.name} | about
    about["made"] = provenance("inspect", argv)
    if values.json:
        with writing("json", values.json):
            write_json(to_path(values.json), about)
    with writing("out", out):
        page = write_page(out, about, weights_LHTS)
    listing.show(about)
    print(f"page: {page}")
    return DONE
