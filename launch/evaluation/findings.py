"""What an evaluation found: the content of its JSON file, and its text for the terminal."""

from collections.abc import Sequence
from typing import Any

import rich.console
import rich.table

from launch.amounts import amount, byte_size
from launch.evaluation import tally
from launch.evaluation.counted_baseline import Baseline
from launch.evaluation.scored_model import ScoredModel
from launch.evaluation.tally import Tally
from launch.files import AGAIN, read_json
from launch.screen.fitted_table import Column, fitted
from launch.screen.sparkline import sparkline
from scaling.printable import printable
from scaling.report.number_text import nats

SHOWN = 5  # worst and best texts
WORTH = 50  # tokens of a text that is shown among them, if there are enough
BESIDE = 43  # characters of the numbers beside the beginning of a text


def findings(
    model: ScoredModel,
    data: str | None,
    scored: tuple[Tally, Tally],
    baseline: Baseline | None,
    missing: str,
) -> dict[str, Any]:
    """The content of the JSON file. `data` is None for the run's validation set; `missing` says why
    there is no `baseline`, under ngram.reason."""
    own, beside = scored
    rows = own.rows()
    result = read_json(model.run / "result.json", AGAIN) or {}
    ngram: dict[str, Any] = {"reason": missing}
    if baseline:
        apart, error = tally.difference(own, beside)
        ngram = {"order": baseline.order, "trained_on": baseline.tokens}
        ngram |= tally.overall(beside) | {"difference": apart, "difference_se": error}
    return {
        "run": str(model.run),
        "step": model.step,
        "data": data or "validation set of the run",
        "units": "documents" if data else "sequences",
        "texts": len(own.names),
        "tokens": int(rows["weights"].sum()),
        "bytes": int(rows["bytes"].sum()),
        "unknown_share": own.unknown / max(1, int(rows["weights"].sum())),
        **tally.overall(own),
        "recorded": None if data else result.get("eval_loss"),
        "by_position": tally.by_position(own),
        "ngram": ngram,
        "by_text": tally.by_text(own),
    }


def show(about: dict[str, Any]) -> None:
    """Prints the scores, the loss by position, and the worst and best texts."""
    console = rich.console.Console(highlight=False, markup=False)
    for title, lines in (
        (f"{about['run']} at step {about['step']:,} on {about['data']}", _totals(about, console)),
        (f"\nby position in the window  {_curve(about, console)}", _positions(about, console)),
        *_extremes(about, console),
    ):
        head, shown = title[: title.startswith("\n")], printable(title.lstrip("\n"))
        console.print(head + shown, style="bold", soft_wrap=True)
        for line in lines:
            console.print(line, soft_wrap=True)


def _with_error(value: float | None, error: float | None) -> str:
    if value is None:
        return "—"
    return nats(value) + ("" if error is None else f" ± {nats(error)}")


def _totals(about: dict[str, Any], console: rich.console.Console) -> list[Any]:
    """The sizes, a table of both models, and how they differ or why one is missing."""
    ngram, units = about["ngram"], about["units"]
    counted = f"{about['texts']:,} {units if about['texts'] > 1 else units[:-1]}"
    of_text = f", {byte_size(about['bytes'])} of text" if about["bytes"] else ""
    sizes = (
        f"  {counted}, {amount(about['tokens'])} tokens{of_text}; windows of "
        f"{about['context']:,} tokens, stride {about['stride']:,}"
    )
    rows = {"model": about} | ({f"{ngram['order']}-gram": ngram} if "order" in ngram else {})
    columns = [Column("", [f"  {name}" for name in rows], number=False)]
    for title, key in (("nats/token", "eval_loss"), ("bits/byte", "bits_per_byte")):
        texts = [_with_error(row[key], row[f"{key}_se"]) for row in rows.values()]
        columns.append(Column(title, texts))
    lines = [sizes, fitted(columns, console.width)[0]]
    if about["unknown_share"]:
        lines.append(f"  {about['unknown_share']:.2%} of the tokens unknown to the vocabulary")
    if "order" in ngram:
        apart = _with_error(ngram["difference"], ngram["difference_se"])
        lines.append(
            f"  model − n-gram: {apart} nats/token, paired by {units[:-1]}; counted on "
            f"{amount(ngram['trained_on'])} tokens of training text"
        )
    else:
        lines.append(f"  no n-gram model: {printable(ngram['reason'])}")
    if about["texts"] == 1:
        lines.append(f"  one {units[:-1]} has no standard error; score more text")
    recorded = about["recorded"]
    if recorded is not None and abs(recorded - about["eval_loss"]) > 5e-5:
        lines.append(f"  result.json has {nats(recorded)}: other code, or another checkpoint")
    return lines


def _curve(about: dict[str, Any], console: rich.console.Console) -> str:
    losses = [one["loss"] for one in about["by_position"]]
    return sparkline(losses, len(losses), console.encoding)


def _positions(about: dict[str, Any], console: rich.console.Console) -> list[rich.table.Table]:
    bins = about["by_position"]
    places = [
        f"{one['first']}" if one["first"] == one["last"] else f"{one['first']}–{one['last']}"
        for one in bins
    ]
    columns = [
        Column("position", places),
        Column("tokens", [amount(one["tokens"]) for one in bins]),
        Column("nats/token", [_with_error(one["loss"], one["se"]) for one in bins]),
    ]
    return [fitted(columns, console.width)[0]]


def _extremes(about: dict[str, Any], console: rich.console.Console) -> list[tuple[str, list[Any]]]:
    """The texts with the most and the fewest bits per byte, or nats per token if none is known."""
    texts = [one for one in about["by_text"] if one["tokens"] >= WORTH]
    texts = texts if len(texts) >= 2 * SHOWN else about["by_text"]
    measure = "loss" if about["bits_per_byte"] is None else "bits_per_byte"
    order = sorted(texts, key=lambda one: -(one[measure] or 0.0))
    some = min(SHOWN, len(order) // 2)
    parts = (("worst", order[:some]), ("best", order[::-1][:some]))
    return [(f"\n{which} {about['units']}", _texts(part, console)) for which, part in parts if part]


def _texts(texts: Sequence[dict[str, Any]], console: rich.console.Console) -> list[Any]:
    room = max(20, console.width - BESIDE)
    columns = [
        Column("number", [f"{one['number']:,}" for one in texts]),
        Column("tokens", [amount(one["tokens"]) for one in texts]),
        Column("nats/token", [nats(one["loss"]) for one in texts]),
        Column("bits/byte", [_with_error(one["bits_per_byte"], None) for one in texts]),
        Column("begins with", [printable(one["text"])[:room] for one in texts], number=False),
    ]
    return [fitted(columns, console.width)[0]]
