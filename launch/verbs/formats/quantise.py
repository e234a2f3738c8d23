"""isoflop quantise: stores the matrices of a trained model in few bits, and measures what it costs.

isoflop quantise runs/first --to=runs/first-int4 --format=int4
isoflop quantise runs/first --to=runs/first-gptq --format=int3 --calibrate=gptq
isoflop quantise runs/first --to=runs/first-int8 --format=int8 --activations=int8
isoflop quantise runs/quickstart --curve=precision --format=int8,int4,int3,int2

The result of --to is a run that sample, chat, evaluate and score load; they compute with its codes.
convert, train.init_from and other readers get the same weights in float32. Only the matrices of the
blocks are quantised; embeddings, the head, norms and biases stay as they are.

--format: int8 has one scale for each output, int6 to int2 one for each --groups inputs of an
output, nf4 is that of QLoRA. --activations=int8 also rounds what the matrices read, one scale for
each token. --calibrate=gptq rounds each matrix so that its outputs on training text change little
(Frantar et al. 2022); without it each weight is rounded to the nearest value.

The loss before and after is measured on the run's validation set, and the difference has a standard
error over the same sequences. --decode times both models in turns, one token at a time.

--curve takes a folder of runs and several formats, with commas between them, quantises each run in
each format, and writes DIR/precision.csv, which `isoflop fit --law=precision` reads, and a page
with the precision curve: loss against bits for each size.
"""

from collections.abc import Sequence
from typing import Any

from absl import flags as absl_flags

from data.files import to_path
from launch import flags
from launch.alive import alive, bar
from launch.errors import DONE, bad_input, writing
from launch.files import write_json


def make_flags() -> absl_flags.FlagValues:
    """The flags of this verb."""
    values = absl_flags.FlagValues()
    text, whole = absl_flags.DEFINE_string, absl_flags.DEFINE_integer
    flags.define_path("run", None, "folder of a run; --curve: also of a sweep", values)
    flags.define_path("to", None, "run folder to write", values)
    flags.define_path("curve", None, "folder of the precision curve to write", values)
    text("format", "int4", "int8, int6, int5, int4, int3, int2 or nf4; --curve: several", values)
    whole("groups", 32, "inputs of one scale of int6 to int2", lower_bound=1, flag_values=values)
    text("activations", "", "int8: round the inputs of the matrices too", values)
    text("calibrate", "", "gptq: round on training text; --curve: also both, as none,gptq", values)
    whole("calibration", 128, "gptq: training sequences", lower_bound=1, flag_values=values)
    whole("sequences", 0, "validation sequences; 0: all", lower_bound=0, flag_values=values)
    whole("decode", 0, "tokens to time decoding with; 0: no timing", lower_bound=0,
          flag_values=values)  # fmt: skip
    whole("seed", 0, "of the calibration sequences", lower_bound=0, flag_values=values)
    flags.define_path("json", None, "write what was measured to this file", values)
    flags.define_import(values)
    return values


def main(argv: Sequence[str]) -> int:
    """Quantises and prints what was measured. Returns the exit code."""
    values = make_flags()
    flags.parse(values, argv, __doc__, positional="run")
    with bad_input():
        if bool(values.to) == bool(values.curve):
            raise ValueError("give --to=RUN for one quantised run, or --curve=DIR for a curve")
    flag = "to" if values.to else "curve"
    flags.require_writable(to_path(values[flag].value), flag)
    with alive("loading the library"):
        from launch.quantising import cases, written  # slow to import
        from model.huggingface import weights

    with bad_input():
        chosen = cases.of_flags(values)
        if values.to and len(chosen) > 1:
            raise ValueError(f"to={values.to} is one run; give one --format and one --calibrate")
    if values.curve:
        return of_curve(values, chosen, argv)
    run, target = to_path(values.run), to_path(values.to)
    with alive("quantising") as detail:
        how = _how(values, detail)
        with bad_input():
            weights.refuse_full(target)
            found = cases.opened(run, chosen, how, required=False)
        about, params = next(cases.costs(found, chosen, how))
        with writing("to", target):
            written.write(run, target, params, found.model.step, about)
    if values.json:
        with writing("json", values.json):
            write_json(to_path(values.json), about)
    cases.show([about])
    print(f"{values.to}: sample, chat, evaluate and score load it")
    return DONE


def of_curve(values: absl_flags.FlagValues, chosen: Sequence[Any], argv: Sequence[str]) -> int:
    """Measures every run of a folder in every format and writes the page. Returns the exit code."""
    from launch.law.fitting import provenance, report_line
    from launch.quantising import cases
    from scaling.report.page import note_missing_drawing
    from scaling.report.precision import precision_page

    note_missing_drawing()
    found: list[dict[str, Any]] = []
    with alive("quantising") as detail:
        with bad_input():
            runs = cases.runs_of(to_path(values.run))
        for number, run in enumerate(runs):
            how = _how(
                values, lambda text, at=number + 1: detail(f"run {at} of {len(runs)}: {text}")
            )
            with bad_input():
                opened = cases.opened(run, chosen, how)
            found += [about for about, _ in cases.costs(opened, chosen, how)]
    about = {"points": found, "made": provenance("quantise", argv)}
    with writing("curve", values.curve), alive("drawing the page"):
        place = report_line(precision_page.write_page(to_path(values.curve), about))
    if values.json:
        with writing("json", values.json):
            write_json(to_path(values.json), about)
    cases.show(found)
    print(place)
    return DONE


def _how(values: absl_flags.FlagValues, detail: Any) -> Any:
    """What is measured, and what receives the progress."""
    from launch.quantising.cases import How

    show = lambda what, share: detail(f"{what} {bar(share)}")  # noqa: E731
    return How(values.sequences, values.calibration, values.seed, values.decode, show)
