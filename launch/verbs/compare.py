"""The verb `compare`: how much compute one ladder of runs saves against another."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from launch.errors import bad_input, writing
from launch.flags import parse
from launch.verbs.fit import LOSS_UNIT, interval, made

DOC = """isoflop compare runs/a runs/b [points.csv …] [--out=comparison/] [--json=comparison.json]

Compares two or more ladders (architectures, data, optimisers): folders of runs or CSV files of
points, the first against every other. Prints how many times less compute a ladder needs for the
same loss, over the losses that both reach, with an interval, and whether that is significant; --out
adds a page with the picture. Losses compare only on the same validation text: where the runs' data
differ, text and picture say so."""


def flag_values() -> flags.FlagValues:
    """The flags of this verb."""
    values = flags.FlagValues()
    own = {"flag_values": values}
    flags.DEFINE_string("out", None, "folder of the page; none is written without", **own)
    flags.DEFINE_string("json", None, "file for the comparison", **own)
    flags.DEFINE_list("names", None, "names of the ladders; else those of their paths", **own)
    flags.DEFINE_string("method", "auto", "auto | parametric | isoflop", **own)
    flags.DEFINE_string("measure", "loss", "loss (nats per token) | bits_per_byte", **own)
    flags.DEFINE_string("params", "total", "count N as total | non_embedding | with_head", **own)
    flags.DEFINE_string("flops", "6nd", "count C as 6nd | kaplan | chinchilla | palm", **own)
    flags.DEFINE_string("loss_unit", "auto", LOSS_UNIT, **own)
    flags.DEFINE_integer("draws", 1000, "bootstrap draws; 0: no intervals", **own)
    flags.DEFINE_integer("seed", 0, "of the bootstrap", **own)
    return values


def main(argv: list[str]) -> int:
    """Runs the verb; returns the exit code."""
    values = flag_values()
    paths = [arg for arg in argv if not arg.startswith("-")]
    parse(values, [arg for arg in argv if arg.startswith("-")], DOC)
    from scaling.drafts import write
    from scaling.fits.comparison import compare
    from scaling.report.page import require_drawing
    from scaling.settings import Settings

    with bad_input():
        if values.out:
            require_drawing()
        ladders = read_ladders(paths, values.names, values.loss_unit)
        settings = Settings(
            draws=values.draws, seed=values.seed, params=values.params, flops=values.flops
        )
        compared = compare(ladders, settings, values.method, values.measure)
    compared["made"] = made("compare", argv)
    if values.json:
        with writing("json", values.json):
            write(Path(values.json), json.dumps(compared, indent=1) + "\n")
    print(summary(compared))
    if values.out:
        from scaling.report.comparison_page import write_page

        with writing("out", values.out):
            print(f"page: {write_page(values.out, ladders, compared)}")
    return 0


def read_ladders(
    paths: Sequence[str], names: Sequence[str] | None, loss_unit: str = "auto"
) -> list[Any]:
    """The ladders at the paths, each under its own name."""
    from scaling.csv_file import read_csv
    from scaling.fits.comparison import Ladder
    from scaling.runs import read_runs

    if names is not None and (len(names) != len(paths) or len(set(names)) < len(names)):
        raise ValueError(
            f"names={','.join(names)}: {len(paths)} ladders take {len(paths)} different names"
        )
    missing = [path for path in paths if not Path(path).exists()]
    if missing:
        raise FileNotFoundError(
            f"{missing[0]} does not exist; give folders of runs, or CSV files of points"
        )
    names = names or named(paths)
    return [
        Ladder(name, read_runs(path) if Path(path).is_dir() else read_csv(path, loss_unit))
        for name, path in zip(names, paths, strict=True)
    ]


def named(paths: Sequence[str]) -> list[str]:
    """The last parts of the paths; with a number behind those that occur more than once."""
    stems = [Path(path).stem if path.endswith(".csv") else Path(path).name for path in paths]
    often, met = Counter(stems), Counter()
    names = []
    for stem in stems:
        met[stem] += 1
        names.append(f"{stem} ({met[stem]})" if often[stem] > 1 else stem)
    return names


def summary(compared: dict[str, Any]) -> str:
    """What the terminal shows."""
    settings = compared["settings"]
    lines = [f"WARNING: {w['message']}" for w in compared["warnings"]]
    width = max(len(part["name"]) for part in compared["ladders"])
    for part in compared["ladders"]:
        c, reach = part["flops"], part["reach"]
        lines.append(
            f"  {part['name']:<{width}}  {part['n']} points, {c[0]:.2g} to {c[1]:.2g} FLOPs, "
            f"frontier {reach[1]:.4g} to {reach[0]:.4g} {compared['unit']}"
        )
    lines.append(f"compute at equal loss, {compared['method']} method, {settings['level']:.0%}:")
    for pair in compared["pairs"]:
        lines += pair_lines(pair, compared)
    return "\n".join(lines)


def pair_lines(pair: dict[str, Any], compared: dict[str, Any]) -> list[str]:
    """One pair's multiplier, its significance, its trend."""
    if "reason" in pair:
        return [f"  {pair['other']} against {pair['baseline']}: none; {pair['reason']}"]
    settings, count = compared["settings"], len(compared["pairs"])
    needs = f"{pair['other']} needs {interval(inverse(pair['multiplier']), '.3g')} times"
    low, high = pair["losses"]
    lines = [f"  {needs} the compute of {pair['baseline']} for losses of {low:.4g} to {high:.4g}"]
    if pair["p"] is None:
        return [*lines, "    no interval, for --draws=0"]
    level = f"{settings['alpha']:g}" + (f"/{count}, {count} pairs" if count > 1 else "")
    verdict = "significant" if pair["significant"] else "not significant"
    lines.append(f"    {verdict} (two-sided p = {pair['p']:.2g}, limit {level})")
    trend = interval(pair["trend"], ".3f")
    grows = f"times the multiplier at the lowest of these losses as at the highest: {trend}"
    lines.append(f"    {grows} (p = {pair['trend_p']:.2g})")
    if "second_opinion" in pair and pair["second_opinion"]["value"] is not None:
        other = pair["second_opinion"]
        lines.append(f"    by the {other['method']} method {interval(inverse(other), '.3g')} times")
    return lines


def inverse(multiplier: dict[str, Any]) -> dict[str, Any]:
    """What one ladder needs for each FLOP of the other, from what it saves."""
    turned = {"value": "value", "lo": "hi", "hi": "lo"}
    return {key: multiplier[other] and 1 / multiplier[other] for key, other in turned.items()}
