"""isoflop extend: adds special tokens to a trained model and to its tokenizer.

isoflop extend --run=runs/base --token='<|im_start|>' --token='<|im_end|>' --to=runs/base-chat

Writes a run whose tokenizer, embedding and head have one more entry for each --token. Old tokens
keep their ids and logits. Train on from it with --config.train.init_from=RUN and
--config.data.tokenizer=RUN/tokenizer/tokenizer.json. New tokens are read in prompts and templates;
ordinary text that spells one is still cut into old tokens.
"""

import sys
from collections.abc import Sequence

from absl import flags as absl_flags

from data.files import to_path
from launch import flags
from launch.alive import alive
from launch.errors import DONE, BadInput, bad_input


def make_flags() -> absl_flags.FlagValues:
    """The flags of this verb."""
    values = absl_flags.FlagValues()
    flags.define_path("run", None, "run to read", values)
    absl_flags.DEFINE_multi_string("token", [], "a new token; may be repeated", values)
    flags.define_path("to", None, "run folder to write", values)
    absl_flags.DEFINE_string(
        "rows",
        "mean",
        "new entries of embedding and head: mean, the mean of all tokens; pieces, the mean of the "
        "tokens that spelled the new one before",
        values,
    )
    flags.define_import(values)
    return values


def main(argv: Sequence[str]) -> int:
    """Writes the extended run. Returns the exit code."""
    values = make_flags()
    flags.parse(values, argv, __doc__)
    if not (values.run and values.token and values.to):
        raise BadInput("give --run=RUN, --token=… for each new token, and --to=FOLDER")
    from launch.conversion import vocabulary  # slow imports

    run, target = to_path(values.run), to_path(values.to)
    say = lambda line: print(line, file=sys.stderr)  # noqa: E731
    with bad_input(), alive("adding tokens"):
        made = vocabulary.extend(run, target, values.token, values.rows, say)
    for place, name in enumerate(values.token):
        print(f"token {made.first + place}  {name!r}")
    print(f"{target}: model.vocab_size={made.after:,}, before {made.before:,}")
    return DONE
