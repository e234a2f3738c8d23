"""isoflop synthesise: writes a set of captioned images or sounds, to try models that read them.

isoflop synthesise --of=shapes --to=shapes
isoflop synthesise --of=digits --to=digits --seed=1

shapes         drawn shapes, "a small red circle left of a blue square"; some pairs of two shapes'
               colours and forms are held out
shape_triples  the same; some combinations of size, colour and form are held out
shape_pairs    the same; one colour of each form is held out
digits         scikit-learn's handwritten digits, 8 × 8 grey pixels, "seven"; a fifth is held out
tones          one or two synthesised tones, "a square g then a sine c"; some pairs are held out
spoken_digits  digits spoken by espeak-ng, which must be installed, "seven"; one digit of each
               speaker is held out

Two folders are written, TO/train and TO/held_out, each with files and their captions.jsonl; the
config keys data.corpora and data.held_out take them. Equal seeds write equal files.
"""

from collections.abc import Sequence

from absl import flags as absl_flags

from data.files import to_path
from data.sources.drawn import SETS, written
from launch import flags
from launch.alive import alive
from launch.errors import DONE, bad_input, writing


def make_flags() -> absl_flags.FlagValues:
    """The flags of this verb."""
    values = absl_flags.FlagValues()
    absl_flags.DEFINE_enum("of", "shapes", list(SETS), "the set to write", flag_values=values)
    flags.define_path("to", None, "folder to write; new or empty", values)
    whole = absl_flags.DEFINE_integer
    whole("count", 0, "files, including those held out; 0: the default of the set", lower_bound=0,
          flag_values=values)  # fmt: skip
    whole("seed", 0, "seed of the items and of what is held out", lower_bound=0, flag_values=values)
    absl_flags.mark_flags_as_required(["to"], values)
    return values


def main(argv: Sequence[str]) -> int:
    """Writes the set; prints how many files each folder has. Returns the exit code."""
    values = make_flags()
    flags.parse(values, argv, __doc__)
    folder = to_path(values.to)
    with bad_input():
        written.require_both(values.of, values.count, SETS[values.of].EACH)
        written.require_empty(folder)
        with alive(f"writing {values.of}") as detail, writing("to", values.to):
            done = 0

            def advance(count: int) -> None:
                nonlocal done
                done += count
                detail(f"{done:,} files")

            items = SETS[values.of].items(values.count, values.seed)
            counts = written.write(items, folder, advance)
    for part, count in counts.items():
        print(f"{folder / part}: {count:,} files")
    return DONE
