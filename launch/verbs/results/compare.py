"""isoflop compare: compares the compute that ladders of runs need for the same loss.

isoflop compare runs/llama runs/gpt
isoflop compare runs/a points.csv --names=ours,theirs --out=comparison/

Compares the first of two or more ladders (architectures, data, optimisers) with each of the others.
A ladder is a folder of runs or a CSV of points. Prints how many times the compute a ladder needs
for the same loss, over the losses that both reach, with an interval, and whether the difference is
significant; --out adds a page with figures. Losses are comparable only on the same validation text:
if the runs' data differ, the text and the page warn; losses of different kinds, such as those of
masked and of next tokens, are refused. A folder that holds only counted models, such as n-grams, is
no ladder: they are drawn against tokens and parameters and enter no ratio. With --positions, the
page also shows the loss by position in the context of the best of each ladder's largest runs.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from absl import flags as absl_flags

from data.files import path_of, to_path
from launch import flags
from launch.alive import alive, bar
from launch.amounts import flops, with_interval
from launch.errors import DONE, bad_input, writing
from launch.law.fitting import LOSS_UNIT, provenance, report_line
from launch.watching.runs_folder import runs_in
from scaling.laws.law import symbols
from scaling.report.number_text import nats, needed


def make_flags() -> absl_flags.FlagValues:
    """The flags of this verb."""
    values = absl_flags.FlagValues()
    text, whole = absl_flags.DEFINE_string, absl_flags.DEFINE_integer
    flags.define_path("out", None, "folder of the page; default: no page", values)
    flags.define_path("json", None, "write the comparison to this file", values)
    names = "names of the ladders; default: the last parts of their paths"
    absl_flags.DEFINE_list("names", None, names, values)
    text("method", "auto", "how the frontiers are fitted: auto | parametric | isoflop", values)
    text("measure", "loss", "loss (nats per token) | bits_per_byte", values)
    text("params", "total", "how N is counted: total | non_embedding | with_head", values)
    text("flops", "6nd", "how C is counted: 6nd | kaplan | chinchilla | palm", values)
    text("loss_unit", "auto", LOSS_UNIT, values)
    whole("draws", 1000, "bootstrap draws; 0: no intervals", flag_values=values)
    whole("seed", 0, "bootstrap seed", flag_values=values)
    positions = "score the best of each ladder's largest runs by position in the context"
    absl_flags.DEFINE_boolean("positions", False, positions, values)
    flags.define_import(values)
    return values


def main(argv: Sequence[str]) -> int:
    """Prints the comparison and writes what the flags ask for. Returns the exit code."""
    values = make_flags()
    paths = [arg for arg in argv if not arg.startswith("-")]
    flags.parse(values, [arg for arg in argv if arg.startswith("-")], __doc__)
    from scaling.drafts import write
    from scaling.fits.comparison import compare
    from scaling.report.page import note_missing_drawing
    from scaling.settings import Settings

    with bad_input():
        paths = [str(path_of(path, "ladder")) for path in paths]
        if values.out:
            note_missing_drawing()
        ladders = read_ladders(paths, values.names, values.loss_unit)
        options = ("draws", "seed", "params", "flops")
        settings = Settings(**{name: values[name].value for name in options})
        with alive("comparing"):
            compared = compare(ladders, settings, values.method, values.measure)
        if values.positions:
            compared["positions"] = scored_positions(paths, values.names or named(paths))
    compared["made"] = provenance("compare", argv)
    if values.json:
        with writing("json", values.json):
            write(to_path(values.json), json.dumps(compared, indent=1) + "\n")
    place = ""
    if values.out:
        from scaling.report.comparison_page import write_page

        with writing("out", values.out), alive("drawing the page"):
            place = report_line(write_page(to_path(values.out), ladders, compared))
    print(summary(compared) + place)
    return DONE


def read_ladders(
    paths: Sequence[str], names: Sequence[str] | None, loss_unit: str = "auto"
) -> list[Any]:
    """The ladders at the paths, each with its name. Folders that hold only counted models are no
    ladders: the first ladder takes their models as baselines. ValueError unless the names differ;
    FileNotFoundError names a path that does not exist."""
    from scaling.csv_file import read_csv
    from scaling.fits.comparison import Ladder
    from scaling.runs import read_baselines, read_runs

    if names is not None and (len(names) != len(paths) or len(set(names)) < len(names)):
        raise ValueError(
            f"names={','.join(names)}: {len(paths)} ladders take {len(paths)} different names"
        )
    missing = [path for path in paths if not to_path(path).exists()]
    if missing:
        raise FileNotFoundError(
            f"{missing[0]} does not exist; give folders of runs, or CSV files of points"
        )
    ladders, counted = [], []
    for name, path in zip(names or named(paths), paths, strict=True):
        place = runs_in(path)
        folder = place.is_dir()
        if folder and (baselines := read_baselines(place)):
            counted += baselines
        else:
            ladders.append(Ladder(name, read_runs(place) if folder else read_csv(place, loss_unit)))
    if counted and ladders:
        points = ladders[0].points
        points = replace(points, baselines=(*points.baselines, *counted))
        ladders[0] = replace(ladders[0], points=points)
    return ladders


def scored_positions(paths: Sequence[str], names: Sequence[str]) -> list[dict[str, Any]]:
    """The loss by position of one run of each ladder. ValueError for a ladder that is a CSV."""
    from launch.evaluation.positions import by_position, compare_with_first

    found = []
    for name, path in zip(names, paths, strict=True):
        if not to_path(path).is_dir():
            raise ValueError(f"--positions scores runs, and {path} is a table; drop one of the two")
        with alive(f"scoring {name} by position") as detail:
            found.append(by_position(name, to_path(path), lambda share: detail(bar(share))))
    return compare_with_first(found)


def named(paths: Sequence[str]) -> list[str]:
    """The last parts of the paths, with a number added to those that occur more than once."""
    stems = [to_path(path).stem if path.endswith(".csv") else to_path(path).name for path in paths]
    total, seen = Counter(stems), Counter()
    names = []
    for stem in stems:
        seen[stem] += 1
        names.append(f"{stem} ({seen[stem]})" if total[stem] > 1 else stem)
    return names


def summary(compared: dict[str, Any]) -> str:
    """The text that the verb prints; `compared` is the content of comparison.json."""
    settings = compared["settings"]
    lines = [f"WARNING: {symbols(w['message'])}" for w in compared["warnings"]]
    width = max(len(part["name"]) for part in compared["ladders"])
    for part in compared["ladders"]:
        (least, most), reach = map(flops, part["flops"]), part["reach"]
        lines.append(
            f"  {part['name']:<{width}}  {part['n']} points, {least} to {most} FLOPs, "
            f"frontier {nats(reach[0])} to {nats(reach[1])} {compared['unit']}"
        )
    if compared["common_flops"]:
        least, most = map(flops, compared["common_flops"])
        lines.append(f"slope of log L in log C between {least} and {most} FLOPs:")
        for part in compared["ladders"]:
            lines.append(f"  {part['name']:<{width}}  {with_interval(part['slope'])}")
    lines.append(f"compute at equal loss, {compared['method']} method, {settings['level']:.0%}:")
    for pair in compared["pairs"]:
        lines += pair_lines(pair, compared)
    if positions := compared.get("positions"):
        lines.append("how much lower the loss is late in the context than before, nats/token:")
        lines += [position_line(one, width) for one in positions]
        lines += behind_lines(positions, width)
    return "\n".join(lines)


def behind_lines(positions: Sequence[dict[str, Any]], width: int) -> list[str]:
    """How far each run is behind that of the first ladder, early and late in the context."""
    lines = []
    for one in positions[1:]:
        parts = [
            f"{nats(part['behind'])} ± {nats(part['behind_se'])} at {part['first']}–{part['last']}"
            for part in one["bins"][3::2]
            if part.get("behind_se") is not None
        ]
        if not one["paired"]:
            lines.append(f"  {one['ladder']:<{width}}  none: it was scored on other windows")
        elif parts:
            lines.append(f"  {one['ladder']:<{width}}  {', '.join(parts)}")
    first = positions[0]["ladder"]
    return [f"loss minus that of {first} by position, nats/token:", *lines] if lines else []


def position_line(one: dict[str, Any], width: int) -> str:
    """What a ladder's run gains from a context twice as long."""
    gain, sees = one["gain"], "; sees the whole text before each token" if one["counted"] else ""
    if gain is None:
        return f"  {one['ladder']:<{width}}  its context is too short ({one['run']})"
    error = "" if gain["se"] is None else f" ± {nats(gain['se'])}"
    since, until = ("–".join(map(str, gain[key])) for key in ("since", "until"))
    text = f"{nats(gain['value'])}{error}, positions {until} against {since}"
    return f"  {one['ladder']:<{width}}  {text} ({one['run']}{sees})"


def pair_lines(pair: dict[str, Any], compared: dict[str, Any]) -> list[str]:
    """The multiplier of one pair, its significance and its trend over the losses."""
    if "reason" in pair:
        why = symbols(pair["reason"])
        return [f"  {pair['other']} against {pair['baseline']}: no comparison; {why}"]
    settings, count = compared["settings"], len(compared["pairs"])
    factor = with_interval(needed(pair["multiplier"]))
    low, high = pair["losses"]
    lines = [
        f"  {pair['other']} needs {factor} times the compute of {pair['baseline']} for losses of "
        f"{nats(low)} to {nats(high)} {compared['unit']}"
    ]
    if pair["p"] is None:
        return [*lines, "    no interval, because of --draws=0"]
    level = f"{settings['alpha']:g}" + (f"/{count}, {count} pairs" if count > 1 else "")
    verdict = "significant" if pair["significant"] else "not significant"
    lines.append(f"    {verdict} (two-sided p = {pair['p']:.2g}, limit {level})")
    trend = with_interval(needed(pair["trend"]))
    ratio = f"the factor at the lowest of these losses, divided by that at the highest: {trend}"
    lines.append(f"    {ratio} (p = {pair['trend_p']:.2g})")
    if "second_opinion" in pair and pair["second_opinion"]["value"] is not None:
        other = pair["second_opinion"]
        factor = with_interval(needed(other))
        lines.append(f"    by the {other['method']} method {factor} times")
    return lines
