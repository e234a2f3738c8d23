"""Prints samples on the terminal: when they are complete, or while they are drawn."""

import math
from collections.abc import Sequence

import rich.console
import rich.table
import rich.text

from launch.sampling.continuation import Continuation


class Echo:
    """Prints one sample while it is drawn, behind its dimmed prompt."""

    def __init__(self, prompt: str):
        self.console = rich.console.Console(highlight=False)
        self._print(prompt, "dim")

    def more(self, row: Continuation) -> None:
        """Prints what has become certain since the last call."""
        self._print(row.news())

    def end(self, row: Continuation, ended: bool) -> None:
        """Prints the rest; `ended` says that the text stops here by itself."""
        self._print(row.news(last=True))
        self.console.print(rich.text.Text(" <end>" if ended else "", style="dim"))

    def _print(self, text: str, style: str = "") -> None:
        self.console.print(rich.text.Text(visible(text), style=style), end="", soft_wrap=True)


def visible(text: str) -> str:
    """Text without characters that move the terminal's cursor or change its colours."""
    return "".join(c if c.isprintable() or c in "\n\t" else "�" for c in text)


def show(prompt: str, samples: Sequence[dict]) -> None:
    """Prints the prompt dimmed, its continuation, and the table of probabilities, if any."""
    console = rich.console.Console(highlight=False)
    for number, about in enumerate(samples, 1):
        if len(samples) > 1 or "top" in about:
            kind = "beam" if "score" in about else "sample"
            title = f"{kind} {number} of {len(samples)}, {about['nats_per_token']:.3f} nats/token"
            console.print(title, style="bold", soft_wrap=True)
        line = rich.text.Text(visible(prompt), style="dim")
        line.append(visible(about["text"]), style="not dim")
        if about["ended"]:
            line.append(" <end>", style="dim")
        console.print(line, soft_wrap=True)
        if "top" in about:
            console.print(probabilities(about))
        if number < len(samples):
            console.print()


def probabilities(about: dict) -> rich.table.Table:
    """One row for each step: the token, its probability, the likeliest tokens and theirs."""
    table = rich.table.Table(box=None, header_style="bold", pad_edge=False)
    for column, justify in (("step", "right"), ("drawn", "left"), ("p", "right")):
        table.add_column(column, justify=justify, no_wrap=True)
    for _ in range(max(len(step) for step in about["top"])):
        table.add_column("likeliest" if len(table.columns) == 3 else "", no_wrap=True)
    rows = zip(about["tokens"], about["pieces"], about["logprobs"], about["top"], strict=True)
    for number, (token, piece, logprob, top) in enumerate(rows, 1):
        cells = [str(number), piece, f"{math.exp(logprob):.1%}"]
        cells += [f"{one['piece']} {math.exp(one['logprob']):.1%}" for one in top]
        drawn = [False] * 3 + [one["token"] == token for one in top]
        table.add_row(
            *(
                rich.text.Text(cell, style="bold" if bold else "")
                for cell, bold in zip(cells, drawn, strict=True)
            )
        )
    return table
