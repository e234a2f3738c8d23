"""The length of a description of a text by each model of a sweep: the model, and the text coded
with it (Rissanen 1978; the two-part code of Grünwald 2007, chapter 5)."""

import dataclasses
import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np
import zstandard

from launch.coding import coder as coders
from launch.coding.coder import Coder
from launch.files import AGAIN, ended, read_json
from model import families
from train import metrics

LEVEL = 19  # of Zstandard
FORMATS = ("float32", "bfloat16", "zstd")

Advance = Callable[[str, float], None]
"""Receives the name of a trial and the share of it that is done."""


def described(
    sweep: Path, content: bytes, streams: int, overlap: int, advance: Advance
) -> dict[str, Any]:
    """A row for each finished trial in a sweep's folder, smallest model first, and the trials that
    are left out, with the reason. ValueError or FileNotFoundError if there is none."""
    runs = [run for run in (*sorted(sweep.glob("*")), *sorted(sweep.glob("*/*"))) if _done(run)]
    if not runs:
        raise FileNotFoundError(
            f"sweep={sweep} holds no finished trial (*/result.json); give it the folder of a sweep"
        )
    rows, left_out = [], []
    for number, run in enumerate(runs, start=1):
        show = lambda s: advance(f"{number} of {len(runs)}", s)  # noqa: B023, E731
        try:
            rows.append(_of_run(coders.open_run(run), content, streams, overlap, show))
        except (ValueError, FileNotFoundError) as error:
            left_out.append({"run": run.name, "reason": str(error)})
    if not rows:
        raise ValueError(
            f"sweep={sweep} holds no trial that can code text: {left_out[0]['reason']}"
        )
    rows.sort(key=lambda row: row["params"])
    return {"rows": rows, "left_out": left_out, "best": _best(rows)}


def _done(run: Path) -> bool:
    return (run / "result.json").is_file() and ended(run) == "done"


def _of_run(
    coder: Coder, content: bytes, streams: int, overlap: int, show: Callable[[float], None]
) -> dict[str, Any]:
    """The bytes of the coded text and of the model in each format, and their sums. With a counted
    model, whose counts are no floats to round, there are only "float32", its file, and "zstd"."""
    size = lambda coder, show: len(  # noqa: E731
        coders.compress(coder, content, streams, overlap, show).file
    )
    if coder.counted:
        file = io.BytesIO()
        coder.family.save(coder.fitted, file)
        text = dict.fromkeys(("float32", "zstd"), size(coder, show))
        model = {"float32": len(file.getvalue()), "zstd": _zstd(file.getvalue())}
        params = sum(coder.family.count(coder.fitted).values())
    else:
        leaves = jax.tree.leaves(coder.fitted)
        rounded = dataclasses.replace(coder, fitted=jax.tree.map(_rounded, coder.fitted))
        text = {"float32": size(coder, lambda s: show(s / 2))}
        text["bfloat16"] = text["zstd"] = size(rounded, lambda s: show(0.5 + s / 2))
        params = sum(leaf.size for leaf in leaves)
        half = b"".join(np.asarray(leaf).astype(ml_dtypes.bfloat16).tobytes() for leaf in leaves)
        model = {"float32": 4 * params, "bfloat16": 2 * params, "zstd": _zstd(half)}
    return {
        "run": coder.run.name,
        "family": families.name_of(coder.family),
        "params": params,
        "text_bytes": text,
        "model_bytes": model,
        "total_bytes": {name: text[name] + model[name] for name in model},
        "online": online(coder.run),
    }


def online(run: Path) -> float | None:
    """The prequential code of the text that a run was trained on, in bits per token: the mean loss
    on tokens that it had not been trained on yet, over the first epoch (Dawid 1984; Blier and
    Ollivier 2018). None for a run without a record of it."""
    epochs = (read_json(run / "result.json", AGAIN) or {}).get("epochs_of_data")
    rows = [row for row in metrics.read(run / "metrics.jsonl") if "loss" in row]
    if not epochs or not rows:
        return None
    most, nats, before = rows[-1]["tokens"] / max(epochs, 1), 0.0, 0
    for row in rows:
        if row["tokens"] <= most:  # a row has the mean loss since the row before
            nats += row["loss"] * (row["tokens"] - before)
            before = row["tokens"]
    return nats / before / math.log(2) if before else None


def _rounded(leaf: jax.Array) -> np.ndarray:
    """The nearest bfloat16, in the type of `leaf`."""
    return np.asarray(leaf).astype(ml_dtypes.bfloat16).astype(leaf.dtype)


def _zstd(content: bytes) -> int:
    return len(zstandard.ZstdCompressor(level=LEVEL).compress(content))


def _best(rows: list[dict[str, Any]]) -> dict[str, str]:
    """The trial with the shortest description in each format."""
    best = {}
    for name in FORMATS:
        able = [row for row in rows if name in row["total_bytes"]]
        if able:
            best[name] = min(able, key=lambda row: row["total_bytes"][name])["run"]
    return best


def breaks_even(row: dict[str, Any], size: int, other_bytes: int) -> float | None:
    """The bytes of text from which the zstd form of a model and its text are shorter than what
    another program makes of the text, if both keep the rates that they have on `size` bytes; None
    if the model's rate is the higher one."""
    saved = (other_bytes - row["text_bytes"]["zstd"]) / size
    return row["model_bytes"]["zstd"] / saved if saved > 0 else None
