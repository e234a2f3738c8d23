"""Quantises runs in one or several ways, and collects what each costs."""

import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np
import rich.console

from launch.evaluation.scored_model import ScoredModel, open_model
from launch.files import read_json
from launch.quantising import measured, quantised
from launch.screen.fitted_table import Column, fitted, left_out
from model import parameters
from model.quantised import model as kernels
from model.quantised.model import Quantisation
from scaling.printable import printable
from scaling.report.number_text import amount, three_digits


@dataclass(frozen=True)
class How:
    """What is measured on: validation sequences (0: all), calibration sequences, their seed, tokens
    of a timed continuation (0: none). `advance(what, share)` receives the progress."""

    sequences: int
    calibration: int
    seed: int
    decode: int
    advance: Callable[[str, float], None]


def of_flags(values: Any) -> list[Quantisation]:
    """The quantisations that the flags of `isoflop quantise` name. ValueError names a wrong one."""
    named = [name.strip() for name in values.calibrate.split(",")] if values.calibrate else [""]
    calibrations = ["" if name == "none" else name for name in named]
    formats = [name.strip() for name in values.format.split(",")]
    return [
        Quantisation(name, values.groups, values.activations, calibrate)
        for name in formats
        for calibrate in calibrations
    ]


def runs_of(folder: Path) -> list[Path]:
    """The run in a folder, or the finished runs of a sweep in it. ValueError if it has none."""
    if (folder / "config.json").is_file():
        return [folder]
    children = sorted(folder.iterdir()) if folder.is_dir() else []
    done = [
        run for run in children if (read_json(run / "result.json") or {}).get("status") == "done"
    ]
    if not done:
        raise ValueError(f"run={folder} holds no finished run; train one first")
    return done


class Opened(NamedTuple):
    """A model, and the texts that it is measured on; None if its run has none."""

    model: ScoredModel
    texts: measured.Texts | None


def opened(run: Path, chosen: Sequence[Quantisation], to: How, required: bool = True) -> Opened:
    """Reads a run. ValueError or FileNotFoundError for one that is quantised already or cannot be.
    Without its text, too, if that is `required` or needed to calibrate; otherwise a line says that
    no loss is known."""
    if quantised.is_quantised(run):
        raise ValueError(f"run={run} is quantised already; name the run that it was made from")
    model = open_model(run, any_objective=True)
    kernels.kernels(model.family, model.cfg)
    needed = to.calibration if any(how.calibrate for how in chosen) else 0
    try:
        return Opened(model, measured.texts(model, to.sequences, needed, to.seed))
    except measured.NoText as reason:
        if required or needed:
            raise
        print(reason, file=sys.stderr)
        return Opened(model, None)


def costs(
    found: Opened, chosen: Sequence[Quantisation], to: How
) -> Iterator[tuple[dict[str, Any], dict]]:
    """(what it costs, the parameters) of each quantisation of a model."""
    model, texts = found
    before = measured.losses(model, model.fitted, texts.validation) if texts else None
    for how in chosen:
        name = f"{how.format} {how.calibrate}".strip()
        params = kernels.quantised(
            model.family,
            model.cfg,
            model.fitted,
            how,
            texts.calibration if texts else (),
            functools.partial(to.advance, f"rounding, {name}"),
        )
        about = asdict(how) | _about(model, how, params)
        if to.decode:
            about |= _speed(model, params, to.decode)
        if before is None:
            yield about, params
            continue
        # Plain arrays are scored by the program that scored `before`; rounded inputs need codes.
        scored = params if how.activations else kernels.dense(params)
        advance = functools.partial(to.advance, f"scoring, {name}")
        after = measured.losses(model, scored, texts.validation, advance)
        about |= measured.compared(before, after) | {"sequences": len(before)}
        yield about, params


def _about(model: ScoredModel, how: Quantisation, params: dict) -> dict[str, Any]:
    """The size of a model before and after, and the columns of a point of the precision law."""
    result = read_json(model.run / "result.json") or {}
    shapes = kernels.kernels(model.family, model.cfg).values()
    return {
        "run": str(model.run),
        "params": int(sum(np.size(leaf) for leaf in parameters.flat(model.fitted).values())),
        "quantised_params": sum(int(np.prod(shape)) for shape in shapes),
        "tokens": result.get("tokens"),
        "bits": kernels.bits(model.family, model.cfg, how),
        "bytes_before": kernels.size(model.fitted),
        "bytes": kernels.size(params),
    }


def _speed(model: ScoredModel, params: dict, tokens: int) -> dict[str, Any]:
    """Seconds of a continuation with both models, and their ratio: above 1 if it is faster now."""
    tokens = min(tokens, model.cfg.context_length - measured.PROMPT)
    sets = {"before": model.fitted, "after": params}
    seconds = measured.decode_seconds(model, sets, tokens)
    return {
        "decode_tokens": tokens,
        "decode_seconds_before": seconds["before"],
        "decode_seconds": seconds["after"],
        "decode_speed": seconds["before"] / seconds["after"],
    }


def show(points: Sequence[dict[str, Any]]) -> None:
    """Prints a row for each quantisation of each run."""
    console = rich.console.Console(highlight=False, markup=False)
    names = [
        point["format"] + f" {point['calibrate']}" * bool(point["calibrate"]) for point in points
    ]
    acts = ["a8" if point["activations"] else "" for point in points]
    columns = [
        Column("run", [printable(PurePath(point["run"]).name) for point in points], number=False),
        Column(
            "format", [f"{n} {a}".strip() for n, a in zip(names, acts, strict=True)], number=False
        ),
        Column("params", [amount(point["params"]) for point in points]),
        Column("bits", [f"{point['bits']:.2f}" for point in points]),
        Column("loss", [_number(point, "loss", ".4f") for point in points]),
        Column("change", [_number(point, "degradation", "+.5f") for point in points]),
        Column("± se", [_number(point, "degradation_se", ".5f") for point in points]),
        Column("size", [three_digits(point["bytes"] / point["bytes_before"]) for point in points]),
    ]
    if any("decode_speed" in point for point in points):
        columns.append(Column("speed", [three_digits(p["decode_speed"]) for p in points]))
    table, missing = fitted(columns, console.width)
    console.print(table, soft_wrap=True)
    if missing := [name for name in missing if name]:
        console.print(left_out(missing), soft_wrap=True)


def _number(point: dict[str, Any], key: str, form: str) -> str:
    """A measured number as text; a dash if it is not known."""
    return f"{point[key]:{form}}" if point.get(key) is not None else "—"
