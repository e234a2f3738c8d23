"""The probabilities of given texts under a model, token by token, and which text is likelier."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import rich.console

from launch.evaluation.scored_model import ScoredModel
from launch.sampling.continuation import spell
from launch.screen.fitted_table import GAP, Column, fitted
from scaling.printable import printable
from scaling.report.number_text import nats as digits

MOST_ROWS = 200  # tokens of a text that the terminal shows


def score(
    model: ScoredModel, texts: Sequence[str], end: bool, context: int, stride: int
) -> list[dict[str, Any]]:
    """What `isoflop score --json` writes of each text. With `end`, the end of the document is the
    last token. ValueError, which numbers the text, for one without tokens."""
    tokens = [model.tokenizer.encode(text).tolist() + [model.tokenizer.eod] * end for text in texts]
    for number, (text, ids) in enumerate(zip(texts, tokens, strict=True), start=1):
        if not ids:
            raise ValueError(f"text {number} ({text!r}) holds no token; give it some words")
    nats = model.each_token(
        [np.array([*model.start, *ids], np.int64) for ids in tokens], context, stride
    )
    return [about(model, *one) for one in zip(texts, tokens, nats, strict=True)]


def about(model: ScoredModel, text: str, tokens: list[int], nats: np.ndarray) -> dict[str, Any]:
    """One scored text. Bits per byte are None where tokens do not give back the bytes."""
    tokenizer, total = model.tokenizer, float(nats.sum())
    known = tokenizer.token_bytes is not None and text != ""
    return {
        "text": text,
        "tokens": tokens,
        "pieces": [spell(tokenizer, token) for token in tokens],
        "logprobs": (-nats).tolist(),
        "logprob": -total,
        "nats": total,
        "bits": total / math.log(2),
        "nats_per_token": total / len(tokens),
        "bits_per_byte": total / math.log(2) / len(text.encode()) if known else None,
        "unknown": sum(token == tokenizer.unknown for token in tokens),
    }


def times(nats: float) -> str:
    """exp(nats) with three digits, whatever its size: '1.35', '3.24e+04', '1.02e+400'."""
    if abs(nats) < 600:
        return f"{math.exp(nats):.3g}"
    power = math.floor(nats / math.log(10))
    return f"{10 ** (nats / math.log(10) - power):.2f}e{power:+d}"


def show_tokens(number: int, one: dict[str, Any]) -> None:
    """Prints the probability of each token of a text, and of the text up to it."""
    console = rich.console.Console(highlight=False, markup=False)
    console.print(f"\n{number}  {printable(one['text'])}", style="bold", soft_wrap=True)
    logprobs = one["logprobs"][:MOST_ROWS]
    columns = [
        Column("token", one["pieces"][:MOST_ROWS], number=False),
        Column("p", [f"{math.exp(value):.3g}" for value in logprobs]),
        Column("log p, nats", [digits(value) for value in logprobs]),
        Column("log p, bits", [digits(value / math.log(2)) for value in logprobs]),
        Column("sum, nats", [digits(value) for value in np.cumsum(logprobs)]),
    ]
    console.print(fitted(columns, console.width)[0], soft_wrap=True)
    if left := len(one["tokens"]) - len(logprobs):
        console.print(f"… {left:,} more tokens; --json=FILE has them all")


def show(scored: Sequence[dict[str, Any]]) -> None:
    """Prints a row for each text, and which one is likelier by what factor."""
    console = rich.console.Console(highlight=False, markup=False)
    most = max(one["logprob"] for one in scored)
    columns = [
        Column("", [str(number) for number in range(1, len(scored) + 1)]),
        Column("tokens", [f"{len(one['tokens']):,}" for one in scored]),
        Column("log p, nats", [digits(one["logprob"]) for one in scored]),
        Column("log p, bits", [digits(-one["bits"]) for one in scored], spare=2),
        Column("nats/token", [digits(one["nats_per_token"]) for one in scored]),
    ]
    if any(one["bits_per_byte"] is not None for one in scored):
        cells = [digits(one["bits_per_byte"]) for one in scored]
        columns.append(Column("bits/byte", cells, spare=3))
    if any(one["unknown"] for one in scored):
        columns.append(Column("unknown", [str(one["unknown"]) for one in scored]))
    if len(scored) > 1:
        factors = [times(most - one["logprob"]) for one in scored]
        columns.append(Column("times less likely", factors))
    kept = [column for column in columns if not column.spare]
    room = max(12, console.width - sum(column.width + GAP for column in kept))
    texts = [printable(" ".join(one["text"].split()))[:room] for one in scored]
    columns.append(Column("text", texts, spare=1, number=False))
    console.print()
    console.print(fitted(columns, console.width)[0], soft_wrap=True)
    for line in verdict(scored):
        console.print(line, soft_wrap=True)


def verdict(scored: Sequence[dict[str, Any]]) -> list[str]:
    """Which text is likeliest, and what to mind of it."""
    lines = []
    if len(scored) > 1:
        order = sorted(range(len(scored)), key=lambda i: -scored[i]["logprob"])
        first, second = order[:2]
        gap = scored[first]["logprob"] - scored[second]["logprob"]
        word = "likelier than" if len(scored) == 2 else "the likeliest, ahead of"
        factor = f"by a factor of {times(gap)} ({digits(gap)} nats)"
        lines.append(
            f"text {first + 1} is {word} text {second + 1} {factor}"
            if gap
            else f"texts {first + 1} and {second + 1} are equally likely"
        )
        best = min(range(len(scored)), key=lambda i: scored[i]["nats_per_token"])
        if gap and best != first:
            lines.append(
                f"per token, text {best + 1} is the likeliest: "
                f"{digits(scored[best]['nats_per_token'])} against "
                f"{digits(scored[first]['nats_per_token'])} nats"
            )
    if unknown := sum(one["unknown"] for one in scored):
        lines.append(
            f"unknown tokens ({unknown}) stand for anything that the vocabulary lacks; the words "
            "that were written are less likely"
        )
    return lines
