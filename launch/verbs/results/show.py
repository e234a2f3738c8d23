"""isoflop show: everything about one run, and its curves.

isoflop show runs/first
isoflop show runs/first --x=tokens --log=xy

The run may be finished, diverged or still training. Keys are shown as they were resolved, where
they differ from the defaults in configs/base.py. Values after ± are standard errors of the
evaluation. --x=flops counts FLOPs by the convention palm, in which runs log their speed.
"""

import json
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags as absl_flags

from configs import base
from data.files import to_path
from launch import flags
from launch.alive import alive
from launch.amounts import amount, clock, flops
from launch.errors import DONE, bad_input, writing
from launch.screen.line_plot import Series, plot
from launch.trial.owner import seen
from scaling.drafts import read_object, write
from scaling.flattened import flatten
from scaling.printable import printable
from scaling.report.number_text import nats, setting, three_digits
from train import metrics
from train.policy.throughput import PARTS

INDENT = 14  # characters of the titles of the parts
SHOWN_ELSEWHERE = ("name", "data.hash", "data.corpora", "data.tokenizer", "data.cache")
AXES: dict[str, Callable[[float], str]] = {
    "steps": amount,
    "tokens": amount,
    "flops": flops,
    "seconds": clock,
}
"""What --x takes, with the text of a value."""


def make_flags() -> absl_flags.FlagValues:
    """The flags of this verb."""
    values = absl_flags.FlagValues()
    flags.define_path("run", None, "folder of the run", values)
    absl_flags.DEFINE_enum("x", "steps", list(AXES), "what the curves run over", values)
    absl_flags.DEFINE_enum("log", "", ["", "x", "y", "xy"], "logarithmic axes", values)
    flags.define_path("json", None, "write all of it, with the curves, to this file", values)
    return values


def main(argv: Sequence[str]) -> int:
    """Prints what the folder of a run says. Returns the exit code."""
    values = make_flags()
    flags.parse(values, argv, __doc__, positional="run")
    with bad_input(), alive("reading the run"):
        about = describe(to_path(values.run))
    if values.json:
        with writing("json", values.json):
            write(to_path(values.json), json.dumps(finite(about), indent=1) + "\n")
    show(about, values.x, values.log)
    return DONE


def describe(run: Path) -> dict[str, Any]:
    """What the files of a run say. FileNotFoundError, with the remedy, for a folder without a run,
    and ValueError for a damaged file."""
    result, config = _read(run / "result.json"), _read(run / "config.json")
    if result is None and config is None:
        if (run / "sweep.json").is_file():
            raise FileNotFoundError(
                f"run={run} holds a sweep; name one of its trials, which isoflop runs {run} lists"
            )
        raise FileNotFoundError(f"run={run} holds no run; give the folder of a run: runs/first")
    result, config = result or {}, config or {}
    code = config.pop("code", {})
    rows = metrics.read(run / "metrics.jsonl")
    settings = flatten(config)
    return {
        "run": str(run),
        "id": result.get("id", run.name),
        "status": result.get("status") or _unfinished(run, rows),
        "owner": seen(run),
        "step": max((row["step"] for row in rows), default=0),
        "steps": result.get("steps") or _steps(settings),
        "faults": [str(row["diverged"]) for row in rows if "diverged" in row],
        "settings": {k: v for k, v in settings.items() if v != _defaults(config).get(k)},
        "data": {key: settings.get(f"data.{key}") for key in ("corpora", "tokenizer", "hash")},
        "code": {key: code.get(key) for key in ("fingerprint", "earlier")},
        "checkpoints": sorted(
            int(path.parent.name)
            for path in run.glob("checkpoints/*/manifest.json")
            if path.parent.name.isdigit()
        ),
        "result": result,
        "curves": {name: curve(rows, column) for name, column in CURVES.items()},
    }


CURVES = {"training loss": "loss", "validation loss": "eval_loss"}
"""The curves of a run, each with its column in metrics.jsonl."""


def curve(rows: Sequence[Mapping[str, Any]], column: str) -> dict[str, list[float]]:
    """A column of the rows as `value`, over each of AXES. Rows without a value are left out."""
    points: dict[str, list[float]] = {name: [] for name in (*AXES, "value")}
    seconds = per_token = 0.0
    for row in rows:
        seconds = row.get("seconds", seconds)
        if row.get("tokens_per_second"):
            per_token = row.get("model_flops_per_second", 0.0) / row["tokens_per_second"]
        if not isinstance(row.get(column), int | float):
            continue
        tokens = row.get("tokens", 0)
        at = (row["step"], tokens, tokens * per_token, seconds, row[column])
        for name, value in zip(points, at, strict=True):
            points[name].append(value)
    return points


def show(about: Mapping[str, Any], x: str, log: str) -> None:
    """Prints the parts of SECTIONS that the run has, and its curves."""
    import rich.console
    import rich.text

    console = rich.console.Console(highlight=False, markup=False)
    console.print(f"{printable(about['id'])}: {status(about)}", style="bold", soft_wrap=True)
    wrapped = textwrap.TextWrapper(max(40, console.width - INDENT), break_long_words=False)
    for title, lines in SECTIONS.items():
        found = [part for line in lines(about) if line for part in wrapped.wrap(printable(line))]
        for number, line in enumerate(found):
            text = rich.text.Text(f"  {title if number == 0 else ''}".ljust(INDENT), style="dim")
            console.print(text.append(line, style="not dim"), soft_wrap=True)
    found = [
        Series(name, points[x], points["value"], style, mark)
        for (name, points), style, mark in zip(
            about["curves"].items(), ("cyan", "yellow"), "*o", strict=True
        )
        if points["value"]
    ]
    drawn = plot(found, min(console.width, 100), 14, log, AXES[x], console.encoding)
    if drawn:
        names = rich.text.Text("\n  ")
        for one in found:
            mark = "━" if console.encoding.startswith("utf") else one.mark
            names.append(f"{mark} {one.name}   ", style=one.style)
        axes = {"": "", "xy": ", both axes logarithmic"}.get(log, f", {log} logarithmic")
        console.print(names.append(f"over {x}{axes}", style="dim"))
        console.print(drawn, soft_wrap=True)
    else:
        console.print("  no curve yet: metrics.jsonl has no loss", style="dim")


def status(about: Mapping[str, Any]) -> str:
    """The status in words, with how far the run has come."""
    step, steps = about["step"], about["steps"]
    reached = f" at step {step:,}" + (f" of {steps:,}" if steps else "") if step else ""
    by = f" ({printable(about['owner'])})" if about["owner"] else ""
    return f"{printable(about['status'])}{reached}{by}"


def finite(content: Any) -> Any:
    """The content with null for each number that JSON cannot hold: nan and ±inf."""
    return json.loads(json.dumps(content), parse_constant=lambda name: None)


def _read(file: Path) -> dict[str, Any] | None:
    return read_object(file) if file.exists() else None


def _unfinished(run: Path, rows: Sequence[Any]) -> str:
    if seen(run):
        return "running"
    if not rows and (run / "huggingface").is_dir():
        return "converted, not trained here"
    return "stopped; the same command goes on" if rows else "started, nothing logged yet"


def _steps(settings: Mapping[str, Any]) -> int | None:
    """The steps of a resolved duration, '300 steps'."""
    number, _, unit = str(settings.get("train.duration", "")).partition(" ")
    return int(number) if unit == "steps" and number.isdigit() else None


def _defaults(config: Mapping[str, Any]) -> dict[str, Any]:
    """The default of each dotted key that the config can have, as JSON has it."""
    choice = [
        (config.get(section) or {}).get(key, first)
        for section, key, first in (
            ("model", "family", "decoder"),
            ("objective", "name", "next_token"),
            ("data", "kind", "text"),
        )
    ]
    if all(one in known for one, known in zip(choice, LISTED, strict=True)):
        usual = base.all_defaults(*choice)
    else:
        from launch.trial.identity import defaults  # slow to import

        return defaults(config)
    return json.loads(json.dumps(flatten(usual)))


LISTED = (base.MODELS, base.OBJECTIVES, base.DATA)


def _measured(about: Mapping[str, Any]) -> list[str]:
    lines = []
    for name, one in (about["result"].get("metrics") or {}).items():
        spread = "" if one.get("se") is None else f" ± {nats(one['se'])}"
        value = "unknown" if one.get("value") is None else nats(one["value"])
        lines.append(f"{name} {value}{spread} {one.get('unit', '')}")
    train = about["result"].get("train_loss")
    return [*lines, *([f"training loss {nats(train)}"] if train is not None else [])]


def _sizes(about: Mapping[str, Any]) -> list[str]:
    params = about["result"].get("params") or {}
    parts = ", ".join(f"{name} {amount(n)}" for name, n in params.items() if n)
    return [f"{amount(sum(params.values()))}: {parts}"] if params else []


def _amounts(about: Mapping[str, Any]) -> list[str]:
    found = about["result"]
    if not found.get("tokens"):
        return []
    epochs = found.get("epochs_of_data")
    share = f", {three_digits(epochs)} epochs of the data" if epochs else ""
    each = f" in {found['steps']:,} steps of {found['batch']:,}" if found.get("batch") else ""
    return [f"{amount(found['tokens'])}{each}{share}"]


def _flops(about: Mapping[str, Any]) -> list[str]:
    found = about["result"].get("flops") or {}
    return [", ".join(f"{flops(value)} {name}" for name, value in found.items())]


def _time(about: Mapping[str, Any]) -> list[str]:
    found = about["result"]
    if found.get("seconds") is None:
        return []
    parts = [f"{clock(found['seconds'])} training"]
    if found.get("compile_seconds"):
        parts.append(f"{clock(found['compile_seconds'])} compiling")
    if found.get("tokens_per_second"):
        parts.append(f"{found['tokens_per_second']:,.0f} tokens/s")
    if found.get("mfu"):
        parts.append(f"MFU {found['mfu']:.1%}")
    rates = {part: found.get(f"{part}_tokens_per_second") for part in PARTS}
    of_parts = [f"{part}s {rate:,.0f} tokens/s" for part, rate in rates.items() if rate]
    lines = [", ".join(parts), *filter(None, [", ".join(of_parts)])]
    lines.append(f"{found.get('devices', 1)} × {found.get('device', 'unknown')}")
    return lines + _goodput(found.get("goodput")) + _spikes(found.get("spikes"))


def _goodput(ledger: Mapping[str, Any] | None) -> list[str]:
    """What the wall time went to, without parts below 0.1 %."""
    if not ledger:
        return []
    wall, parts = ledger["wall_seconds"], ledger["seconds"]
    shown = [f"{name} {part / wall:.1%}" for name, part in parts.items() if part > 1e-3 * wall]
    return [f"goodput {ledger['train_share']:.1%} of {clock(wall)}: {', '.join(shown)}"]


def _spikes(spikes: Sequence[Mapping[str, Any]] | None) -> list[str]:
    """What a run did at each spike of its loss."""
    return [
        f"spike at step {spike['step']:,} ({spike['fault']}): "
        + ("skipped" if spike.get("skipped") else f"back to step {spike['back_to']:,}")
        for spike in spikes or ()
    ]


def _origin(about: Mapping[str, Any]) -> list[str]:
    found, lines = about["result"], []
    if parent := found.get("parent"):
        lines.append(f"weights of {parent.get('init_from')} ({parent.get('init_hash')})")
    if found.get("branched_from"):
        lines.append(f"branched from {found['branched_from']} at step {found['branched_at']:,}")
    return lines


def _data(about: Mapping[str, Any]) -> list[str]:
    data = about["data"]
    # A converted run has no hash: nobody knows its training text.
    corpora = ", ".join(map(str, data["corpora"] or ())) if data["hash"] else ""
    parts = (corpora, data["tokenizer"] and f"tokenizer {data['tokenizer']}", data["hash"])
    return [", ".join(str(part) for part in parts if part)]


def _code(about: Mapping[str, Any]) -> list[str]:
    code, versions = about["code"], about["result"].get("versions") or {}
    earlier = code["earlier"] and f", before that {', '.join(code['earlier'])}"
    listed = ", ".join(f"{name} {version}" for name, version in versions.items())
    return [code["fingerprint"] and f"{code['fingerprint']}{earlier or ''}", listed]


def _settings(about: Mapping[str, Any]) -> list[str]:
    """One line a section."""
    sections: dict[str, list[str]] = {}
    for key, value in about["settings"].items():
        section, _, leaf = key.rpartition(".")
        if key not in SHOWN_ELSEWHERE:
            sections.setdefault(section or "trial", []).append(f"{leaf}={setting(value)}")
    return [f"{section}: {', '.join(pairs)}" for section, pairs in sections.items()]


def _by_sweep(about: Mapping[str, Any]) -> list[str]:
    set_here = about["result"].get("overrides") or {}
    return [", ".join(f"{key}={setting(value)}" for key, value in set_here.items())]


def _checkpoints(about: Mapping[str, Any]) -> list[str]:
    steps = about["checkpoints"]
    return (
        [f"step{'s' * (len(steps) > 1)} {', '.join(f'{step:,}' for step in steps)}"]
        if steps
        else []
    )


SECTIONS: dict[str, Callable[[Mapping[str, Any]], list[str]]] = {
    "folder": lambda about: [about["run"]],
    "sweep": lambda about: [about["result"].get("sweep") or "", *_by_sweep(about)],
    "fault": lambda about: about["faults"],
    "metrics": _measured,
    "parameters": _sizes,
    "tokens": _amounts,
    "FLOPs": _flops,
    "time": _time,
    "data": _data,
    "starts from": _origin,
    "checkpoints": _checkpoints,
    "code": _code,
    "not default": _settings,
}
"""The parts of the text, each with the function that gives its lines."""
