"""Turns sampled tokens into text while they are drawn, and into what `isoflop sample` writes."""

import bisect
from collections.abc import Sequence

import numpy as np

from data.tokenizer import Tokenizer
from model.generation.beam import Beams
from model.generation.sample import Samples

AROUND = 8  # tokens before a token that its text may depend on
WINDOW = 32  # tokens after which text that is certain is kept


class Continuation:
    """The text of one sample while its tokens are drawn. It ends before the first stop string.

    `context` holds the tokens that it continues: the text of a token may depend on the AROUND ones
    before it. Only the newest tokens are decoded again, so the time is linear in their number.
    """

    def __init__(self, tokenizer: Tokenizer, context: Sequence[int], stops: Sequence[str] = ()):
        self.tokenizer, self.context, self.stops = tokenizer, list(context), stops
        self.settled, self.count = "", 0  # text of the first `count` tokens, which is certain
        self.before = self.context  # tokens before the others that decide their text
        self.start = len(tokenizer.decode(self.before))
        self.tokens, self.text, self.stopped, self.shown = [], "", False, 0

    def add(self, tokens: Sequence[int]) -> None:
        """Adds tokens and drops those after a stop string."""
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
        elif len(self.tokens) - self.count >= WINDOW and not self.text.endswith("\ufffd"):
            # Tokens without text would not show whether a space is the first character.
            if start := len(self.tokenizer.decode(self.tokens[-AROUND:])):
                self.settled, self.count = self.text, len(self.tokens)
                self.before, self.start = self.tokens[-AROUND:], start

    def news(self, last: bool = False) -> str:
        """The text, not returned before, that no later token can change; with `last`, all of it."""
        safe = len(self.text)
        if not (last or self.stopped):
            safe = len(self.text.rstrip("\ufffd"))  # an incomplete character
            for stop in self.stops:
                sizes = range(min(len(stop) - 1, safe), 0, -1)
                held = next((n for n in sizes if self.text[:safe].endswith(stop[:n])), 0)
                safe = min(safe, len(self.text[:safe]) - held)
        text, self.shown = self.text[self.shown : safe], max(self.shown, safe)
        return text

    def _spelled(self, count: int) -> str:
        newest = self.tokens[self.count : count]
        return self.settled + self.tokenizer.decode(self.before + newest)[self.start :]


def describe(tokenizer: Tokenizer, continuation: Continuation, drawn: Samples, row: int) -> dict:
    """One sample as `--json` writes it; log-probabilities in nats."""
    tokens = continuation.tokens
    logprobs = drawn.logprobs_BN[row, : len(tokens)].astype(float).tolist()
    about = _common(tokenizer, continuation) | {
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
    return _common(tokenizer, continuation) | {"score": score, "nats_per_token": nats}


def _common(tokenizer: Tokenizer, continuation: Continuation) -> dict:
    """What samples and beams both have."""
    tokens = continuation.tokens
    return {
        "text": continuation.text,
        "tokens": tokens,
        "pieces": [spell(tokenizer, token) for token in tokens],
        "ended": continuation.stopped or tokens[-1] == tokenizer.eod,
    }


def spell(tokenizer: Tokenizer, token: int) -> str:
    """A token as visible text, spaces and newlines included."""
    if token == tokenizer.eod:
        return "<end>"
    text = tokenizer.pieces[int(token)].decode("utf-8", "surrogateescape")
    return "".join(_visible(character) for character in text)


def _visible(character: str) -> str:
    """A character as text. Bytes that are no character, newlines and the like are escaped as in
    Python."""
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"
    return "␣" if character == " " else repr(character)[1:-1]
