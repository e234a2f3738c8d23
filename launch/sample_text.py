"""This file turns what `isoflop sample` draws into text: as it comes, as JSON, on the terminal."""

import bisect
import math
from collections.abc import Sequence

import numpy as np
import rich.console
import rich.table
import rich.text

from data.tokenizer import Tokenizer
from model.generation.beam import Beams
from model.generation.sample import Samples


class Continuation:
    """The text of one sample while its tokens come. It ends before the first of the stop strings.

    `context` are the tokens that it continues: what a token spells may depend on its place.
    """

    def __init__(self, tokenizer: Tokenizer, context: Sequence[int], stops: Sequence[str] = ()):
        self.tokenizer, self.context, self.stops = tokenizer, list(context), stops
        self.start = len(tokenizer.decode(self.context))
        self.tokens, self.text, self.stopped, self.shown = [], "", False, 0

    def add(self, tokens: Sequence[int]) -> None:
        """Takes more tokens. Those after a stop string are dropped."""
        if self.stopped:
            return
        before = len(self.tokens)
        self.tokens += [int(token) for token in tokens]
        self.text = self._spelled(len(self.tokens))
        if ends := [at for stop in self.stops if (at := self.text.find(stop)) >= 0]:
            enough = lambda count: any(s in self._spelled(count) for s in self.stops)  # noqa: E731
            counts = range(before, len(self.tokens) + 1)
            del self.tokens[counts[bisect.bisect_left(counts, True, key=enough)] :]
            self.text, self.stopped = self.text[: min(ends)], True

    def news(self, last: bool = False) -> str:
        """Text not returned before that no later token can change; with `last`, all there is."""
        safe = len(self.text)
        if not (last or self.stopped):
            safe = len(self.text.rstrip("\ufffd"))  # half a character, so far
            for stop in self.stops:
                sizes = range(min(len(stop) - 1, safe), 0, -1)
                held = next((n for n in sizes if self.text[:safe].endswith(stop[:n])), 0)
                safe = min(safe, len(self.text[:safe]) - held)
        text, self.shown = self.text[self.shown : safe], max(self.shown, safe)
        return text

    def _spelled(self, count: int) -> str:
        return self.tokenizer.decode(self.context + self.tokens[:count])[self.start :]


def describe(tokenizer: Tokenizer, continuation: Continuation, drawn: Samples, row: int) -> dict:
    """One sample as `--json` writes it; log-probabilities in nats."""
    tokens = continuation.tokens
    logprobs = drawn.logprobs_BN[row, : len(tokens)].astype(float).tolist()
    about = _base(tokenizer, continuation) | {
        "logprobs": logprobs,
        "nats_per_token": -sum(logprobs) / len(tokens),
    }
    if drawn.top_tokens_BNM.shape[-1]:
        about["top"] = [
            [
                {"token": int(token), "piece": spell(tokenizer, token), "logprob": float(logprob)}
                for token, logprob in zip(*step, strict=True)
                if np.isfinite(logprob)
            ]
            for step in zip(
                drawn.top_tokens_BNM[row, : len(tokens)],
                drawn.top_logprobs_BNM[row, : len(tokens)],
                strict=True,
            )
        ]
    return about


def describe_beam(
    tokenizer: Tokenizer, context: Sequence[int], beams: Beams, place: int, length_penalty: float
) -> dict:
    """One beam of the first prompt as `--json` writes it."""
    count, score = int(beams.lengths_PW[0, place]), float(beams.scores_PW[0, place])
    continuation = Continuation(tokenizer, context)
    continuation.add(beams.tokens_PWN[0, place, :count])
    nats = -score * count**length_penalty / count
    return _base(tokenizer, continuation) | {"score": score, "nats_per_token": nats}


def _base(tokenizer: Tokenizer, continuation: Continuation) -> dict:
    tokens = continuation.tokens
    return {
        "text": continuation.text,
        "tokens": tokens,
        "pieces": [spell(tokenizer, token) for token in tokens],
        "ended": continuation.stopped or tokens[-1] == tokenizer.eod,
    }


def spell(tokenizer: Tokenizer, token: int) -> str:
    """A token so that it can be seen, spaces and newlines included."""
    if token == tokenizer.eod:
        return "<end>"
    return repr(tokenizer.pieces[int(token)].decode("utf-8", "backslashreplace"))[1:-1].replace(
        " ", "␣"
    )


def show(prompt: str, samples: Sequence[dict]) -> None:
    """The prompt dimmed, its continuation, and the table of probabilities if there is one."""
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


def visible(text: str) -> str:
    """Text without what would move the terminal's cursor or change its colours."""
    return "".join(c if c.isprintable() or c in "\n\t" else "�" for c in text)


def probabilities(about: dict) -> rich.table.Table:
    """A row a step: the token drawn, its probability, and the likeliest tokens with theirs."""
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
