"""isoflop score: the probability of sentences under the model of a run, and which is likelier.

isoflop score --run=runs/a --text="I want a caramel iced latte." --text="I want a latte."
isoflop score --run=runs/a --file=sentences.txt --json=scores.json
isoflop score --run=runs/a --text="The end." --end

Works with every family that gives the next token a probability, trained or counted. Prints the
log-probability of each --text token by token, and of all texts in nats, in bits and per token. Of
the lines of --file it prints only the totals; --json has their tokens too.

Each text stands by itself: it begins after the tokens that the model expects before a text,
otherwise after the end of a document. It is scored as the beginning of a document, without its end;
--end adds the end of the document as its last token. The longer of two texts is usually the less
likely one, so the totals per token are printed beside the totals.

A text that is longer than the model's context is cut in windows that begin every --stride tokens,
as `isoflop evaluate` does, and named. An n-gram model sees the whole text before each token,
whatever --stride says, and so does a recurrent one with model.carry_state=True, which refuses one.
"""

import sys
from collections.abc import Sequence

from absl import flags as absl_flags

from data.files import to_path
from launch import flags
from launch.alive import alive
from launch.errors import DONE, bad_input, writing
from launch.files import text_lines, write_json


def make_flags() -> absl_flags.FlagValues:
    """The flags of this verb."""
    values = absl_flags.FlagValues()
    flags.define_path("run", None, "folder of the run: finished, stopped or converted", values)
    absl_flags.DEFINE_multi_string("text", [], "text to score; may be repeated", flag_values=values)
    flags.define_path("file", None, "file of texts to score, one a line", values)
    absl_flags.DEFINE_boolean("end", False, "score the end of the document too", flag_values=values)
    absl_flags.DEFINE_integer(
        "stride",
        0,
        "tokens between the beginnings of two windows; 0: the model's context",
        lower_bound=0,
        flag_values=values,
    )
    flags.define_path("json", None, "write the texts with each token's score to this file", values)
    flags.define_import(values)
    return values


def main(argv: Sequence[str]) -> int:
    """Prints the scores. Returns the exit code."""
    values = make_flags()
    flags.parse(values, argv, __doc__, positional="run")
    with bad_input():
        lines = text_lines(values.file, "file") if values.file else []
        texts = [*values.text, *(line for line in lines if line.strip())]
        if not texts:
            raise ValueError('text is not given; add --text="A sentence." or --file=FILE')
        with alive("loading the model"):
            # Slow imports, which --help does without.
            from launch.evaluation import scored_model, sentences

            model = scored_model.open_model(to_path(values.run))
        context = model.cfg.context_length
        reads_all = model.counted or model.initial_carry(1) is not None
        stride = context if model.counted else values.stride or context
        if stride < context and reads_all:
            raise ValueError(
                f"stride={stride} rereads tokens, but the model carries its state from window to "
                "window (model.carry_state=True); drop --stride"
            )
        if stride > context:
            raise ValueError(
                f"stride={stride} is above the model's context_length={context}, so tokens would "
                "be left out; lower it"
            )
        with alive("scoring"):
            scored = sentences.score(model, texts, values.end, context, stride)
    found = {"run": str(model.run), "step": model.step, "end": values.end}
    found |= {"context": context, "stride": stride, "texts": scored}
    if values.json:
        with writing("json", values.json):
            write_json(to_path(values.json), found)
    for number, one in enumerate(scored, start=1):
        if number <= len(values.text):
            sentences.show_tokens(number, one)
        if len(one["tokens"]) > context and not reads_all:
            print(
                f"text {number} has {len(one['tokens']):,} tokens, above the model's context of "
                f"{context:,}: scored in windows that begin every {stride:,} tokens",
                file=sys.stderr,
            )
    sentences.show(scored)
    return DONE
