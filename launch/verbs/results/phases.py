"""isoflop phases: what each phase of post-training brought, on one page.

isoflop phases runs/assistant/base runs/assistant/sft runs/assistant/grpo --out=runs/assistant/page
isoflop phases runs/sft runs/dpo --task=sorting --samples=32 --k=1,8,32

Every run answers the same prompts of a task of data/tasks. Those of these runs that trained on the
task held the prompts out, unless one held out none; the page says which. Plain text does not count.
Prints pass@k of each: the probability that one of k answers is right, with an interval over
prompts.
--out adds a page with pass@k, answers of all runs side by side, and the rewards and the KL from the
reference along training. The task is that of the first run that trained on its rewards; --task
names another. Give the runs in the order in which they were trained.
"""

import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags as absl_flags

from data.files import path_of, to_path
from launch import flags
from launch.alive import alive, bar
from launch.errors import DONE, bad_input, writing
from launch.law.fitting import provenance, report_line


def make_flags() -> absl_flags.FlagValues:
    """The flags of this verb."""
    values = absl_flags.FlagValues()
    text, whole = absl_flags.DEFINE_string, absl_flags.DEFINE_integer
    flags.define_path("out", None, "folder of the page; default: no page", values)
    flags.define_path("json", None, "write all of it to this file", values)
    absl_flags.DEFINE_list("names", None, "names of the runs; default: of their folders", values)
    text("task", "", "task to answer; default: that of the first run with rewards", values)
    whole("size", 0, "digits, numbers or letters of a prompt; 0: the run's or the task's",
          lower_bound=0, flag_values=values)  # fmt: skip
    whole("prompts", 200, "prompts that each run answers", lower_bound=2, flag_values=values)
    whole("samples", 16, "answers to each prompt", lower_bound=1, flag_values=values)
    text("k", "1,8", "the k of pass@k, at most --samples", values)
    usual = "divides the logits; 0: the likeliest answer"
    absl_flags.DEFINE_float("temperature", 1.0, usual, lower_bound=0, flag_values=values)
    whole("seed", 0, "seed of the draws", lower_bound=0, flag_values=values)
    flags.define_import(values)
    return values


def main(argv: Sequence[str]) -> int:
    """Prints pass@k of every run and writes what the flags ask for. Returns the exit code."""
    values = make_flags()
    paths: list[str] = []
    flags.parse(values, argv, __doc__, bare=paths)
    with bad_input():
        about = measured(values, [path_of(path, "run") for path in paths])
    about["made"] = provenance("phases", argv)
    if values.json:
        with writing("json", values.json):
            from scaling.drafts import write

            write(to_path(values.json), json.dumps(about, indent=1) + "\n")
    place = ""
    if values.out:
        from scaling.report.phases.page import write_page

        with writing("out", values.out), alive("drawing the page"):
            place = report_line(write_page(to_path(values.out), about))
    from launch.phases import listing

    listing.show(about)
    if place:
        print(place.strip())
    return DONE


def measured(values: absl_flags.FlagValues, runs: Sequence[Path]) -> dict[str, Any]:
    """What the verb writes. ValueError or FileNotFoundError for what it cannot do, in one line."""
    begun = time.perf_counter()
    if not runs:
        raise ValueError("no run is given; name their folders, in the order of training")
    with alive("answering") as detail:
        from launch.benchmarks import checked, chosen  # slow imports, which --help does without
        from launch.phases import gathered

        names = gathered.names_of(runs, values.names)
        task, size = gathered.task_of(runs, values.task)
        how = checked.How(
            samples=values.samples,
            ks=chosen.ks_of(values.k, values.samples, values["k"].present > 0),
            prompts=values.prompts,
            size=values.size or size,
            temperature=values.temperature,
            seed=values.seed,
        )
        show = lambda name, share: detail(f"{name} {bar(share)}")  # noqa: E731
        held_out = gathered.held_out(runs, task)
        how = dataclasses.replace(how, validation=held_out or how.validation)
        phases = gathered.gathered(runs, names, task, how, show)
    return {
        "task": task,
        "held_out": held_out,
        "size": how.size,
        "samples": how.samples,
        "temperature": how.temperature,
        "phases": phases,
        "seconds": time.perf_counter() - begun,
    }
