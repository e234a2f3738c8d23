"""isoflop clean: removes from raw text what a language model should not learn.

isoflop clean --config=configs/data/cleaning.py --config.input.corpora=raw/ --out=clean
isoflop train --config=configs/quickstart.py --config.data.corpora=clean/text --workdir=runs/a

Normalises Unicode, keeps some languages, applies the rules of C4 and Gopher, removes exact and near
duplicates and repeated spans of sentences, replaces personal data, and removes what evaluation sets
contain. The config switches each stage and rule on or off; configs/data/cleaning.py lists its keys.

OUT/text/ has the text that is left, as .jsonl.zst files that data.corpora reads. OUT/cleaning.json
has what each rule removed, with examples, and OUT/index.html shows it. The result does not depend
on --workers. A stopped run goes on where it was when the same command is given again. OUT may be in
a bucket (gs://…, s3://…): the work is done in a folder here, and the text is uploaded at the end.
"""

import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import rich.console
from absl import flags as absl_flags

from configs.data import cleaning
from data.build import usable_cores
from data.cleaning import pipeline, settings
from data.cleaning.rules import BY_NAME
from data.files import to_path
from launch import flags
from launch.alive import alive, bar
from launch.amounts import clock
from launch.config import config_file
from launch.errors import DONE, bad_input, writing
from launch.law.fitting import provenance, report_line
from launch.screen.fitted_table import Column, fitted
from scaling.printable import printable
from scaling.report.cleaning.cleaning_page import write_page
from scaling.report.page import note_missing_drawing

STEPS = {
    "filter": "filtering",
    "compare": "finding duplicates",
    "spans": "finding repeated spans",
    "write": "writing",
    "upload": "uploading",
}


def make_flags() -> absl_flags.FlagValues:
    """The flags of this verb."""
    values = absl_flags.FlagValues()
    text, whole = absl_flags.DEFINE_string, absl_flags.DEFINE_integer
    text("config", "configs/data/cleaning.py", "what is cleaned, and how: FILE.py", values)
    flags.define_path("out", None, "folder of the result (required)", values)
    whole("workers", 0, "processes; 0: one for each core", lower_bound=0, flag_values=values)
    return values


def main(argv: Sequence[str]) -> int:
    """Cleans, writes the page, prints what each rule removed. Returns the exit code."""
    values = make_flags()
    overrides = flags.parse(values, argv, __doc__)
    with bad_input():
        if not values.out:
            raise ValueError("out is not given; add --out=FOLDER")
        out = to_path(values.out)
        flags.require_writable(out, "out")
        note_missing_drawing()
        cfg = json.loads(config_file.load_config(values.config, overrides).to_json())
        settings.check(cfg, cleaning.bounds(), values.config)
        workers = values.workers or usable_cores()
        with alive("cleaning") as detail:
            about = pipeline.clean(cfg, out, workers, progress(detail))
        with writing("out", out), alive("drawing the page"):
            made = provenance("clean", argv)
            place = report_line(write_page(out, about, BY_NAME, made))
    show(about)
    print(f"text: {out / 'text'}")
    print(place.strip())
    return DONE


def progress(detail: Callable[[str], None]) -> pipeline.Progress:
    """Shows the share of a step that is done and the time that is left; of the first and last step
    also the bytes. What an earlier run has done does not count for the time."""
    begun: dict[str, tuple[float, int]] = {}

    def show(step: str, done: int, total: int) -> None:
        began, before = begun.setdefault(step, (time.monotonic(), done))
        text = f"{STEPS[step]} {bar(done / max(1, total))}"
        if step in ("filter", "upload"):
            text += f" {done / 1e6:,.0f} of {total / 1e6:,.0f} MB"
        if done > before:
            left = (time.monotonic() - began) * (total - done) / (done - before)
            text += f", about {clock(left)} left"
        detail(text)

    return show


def show(about: dict[str, Any]) -> None:
    """Prints a row for each rule that removed or changed something."""
    # Rich assumes that a pipe is 80 columns wide and would truncate the numbers.
    width = None if sys.stdout.isatty() else 140
    console = rich.console.Console(width=width, highlight=False, markup=False)
    read, left = about["read"], about["written"]
    rows = [(name, about["rules"][name]) for name in BY_NAME if name in about["rules"]]
    columns = [
        Column("rule", [name for name, _ in rows], number=False),
        Column("stage", [BY_NAME[name].stage for name, _ in rows], 1, number=False),
        Column("documents removed", [f"{counts['documents']:,}" for _, counts in rows]),
        Column("changed", [f"{counts['changed']:,}" for _, counts in rows]),
        Column("bytes removed", [f"{counts['bytes']:,}" for _, counts in rows]),
    ]
    if rows:
        console.print(fitted(columns, console.width)[0], soft_wrap=True)
    for one in about["faults"]["named"]:
        line = f"skipped {one['where']}: {one['why']}"
        console.print(printable(line), soft_wrap=True)
    console.print(
        f"{read['documents']:,} documents, {read['bytes']:,} bytes read; "
        f"{left['documents']:,} documents, {left['bytes']:,} bytes left "
        f"({left['bytes'] / max(1, read['bytes']):.1%})",
        soft_wrap=True,
    )
