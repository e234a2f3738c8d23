"""Prints what an index saves, for each of its sizes."""

from typing import Any

import rich.console

from launch.amounts import amount, byte_size
from launch.screen.fitted_table import Column, fitted
from scaling.printable import printable
from scaling.report.number_text import nats
from scaling.report.retrieval.page import beyond_law, worth_text


def method_text(about: dict[str, Any]) -> str:
    """How the index was used, in a line."""
    left_out = about["left_out"]
    if about["method"] == "knn":
        one = about["sizes"][-1]
        return (
            f"kNN-LM, {one['neighbours']} neighbours; λ and temperature tuned on "
            f"{one['tuned_on']:,} tokens, measured on {one['scored']:,} others"
            + (f"; {left_out:,} documents that it holds left out" if left_out else "")
        )
    return (
        f"retrieval in context: {about['passages']} of at most {about['passage_tokens']} tokens in "
        f"a context of {about['context']}, a search every {about['every']} tokens for the last "
        f"{about['query']}; {about['sizes'][-1]['scored']:,} tokens scored"
        + (f"; {left_out:,} passages of scored documents left out" if left_out else "")
    )


def show(about: dict[str, Any]) -> None:
    """Prints a table with a row for each size of the index."""
    console = rich.console.Console(highlight=False, markup=False)
    index, rows = about["index"], about["sizes"]
    title = f"{about['run']} with {index['path']} ({index['kind']}) on {about['data']}"
    console.print(printable(title), style="bold", soft_wrap=True)
    console.print(f"  {method_text(about)}", soft_wrap=True)
    error = lambda row: "" if row["saved_se"] is None else f" ± {nats(row['saved_se'])}"  # noqa: E731
    columns = [
        Column("tokens", [amount(row["tokens"]) for row in rows]),
        Column("size", [byte_size(row["bytes"]) for row in rows], spare=2),
        Column("alone", [nats(row["base"]) for row in rows]),
        Column("with it", [nats(row["loss"]) for row in rows]),
        Column("saved", [nats(row["saved"]) + error(row) for row in rows]),
    ]
    if about["method"] == "knn":
        columns.append(Column("λ", [f"{row['weight']:.2f}" for row in rows], spare=1))
    if "law" in about:
        columns.append(Column("worth × params", [worth_text(row["worth"]) for row in rows]))
    console.print(fitted(columns, console.width)[0], soft_wrap=True)
    if "law" in about:
        worth = rows[-1]["worth"]
        x = (
            f"{worth_text(worth)} times larger"
            if worth["value"] is not None
            else "larger than any that the law allows for these tokens"
        )
        console.print(
            f"an index of {amount(rows[-1]['tokens'])} tokens is worth a model {x}, trained on the "
            f"same tokens ({printable(about['law']['source'])})",
            soft_wrap=True,
        )
        if beyond := beyond_law(about):
            console.print(beyond, soft_wrap=True)
    if "page" in about:
        console.print(f"page: {printable(about['page'])}", soft_wrap=True)
