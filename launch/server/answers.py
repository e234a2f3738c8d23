"""The JSON of OpenAI's API: whole answers, the chunks of a stream, log-probabilities, usage."""

import codecs
import math
import secrets
import time
from collections.abc import Sequence

from data.tokenizer import Tokenizer
from launch.chat.request import END, LENGTH, Piece, Request, Token
from launch.server.queries import CHAT, Query

ENDS = {END: "stop", LENGTH: "length"}
PREFIXES = {CHAT: "chatcmpl", "text": "cmpl"}
OBJECTS = {CHAT: "chat.completion", "text": "text_completion"}


class Answers:
    """Writes the answers to one query."""

    def __init__(self, query: Query, model: str, tokenizer: Tokenizer):
        self.query, self.tokenizer = query, tokenizer
        self.frame = {
            "id": f"{PREFIXES[query.kind]}-{secrets.token_hex(12)}",
            "object": OBJECTS[query.kind],
            "created": int(time.time()),
            "model": model,
        }
        choices = len(query.prompts) * query.n
        self.decoders = [codecs.getincrementaldecoder("utf-8")("replace") for _ in range(choices)]
        self.offsets = [0] * choices  # characters of the tokens told so far

    def whole(self, pieces: Sequence[Piece], requests: Sequence[Request]) -> dict:
        """The answer that is sent at once: a piece for each choice."""
        choices = []
        for index, piece in enumerate(pieces):
            choice = {"index": index, "finish_reason": ENDS[piece.end]}
            choice["logprobs"] = self._logprobs(index, piece.tokens)
            if self.query.kind == CHAT:
                choice["message"] = dict(role="assistant", content=piece.text, refusal=None)
            else:
                choice["text"] = piece.text
            choices.append(choice)
        return {**self.frame, "choices": choices, "usage": self.usage(requests)}

    def opening(self, index: int) -> dict | None:
        """The chunk before the first text of a choice, if there is one."""
        if self.query.kind != CHAT:
            return None
        delta = {"role": "assistant", "content": ""}
        return self._chunk([dict(index=index, delta=delta, logprobs=None, finish_reason=None)])

    def chunk(self, index: int, piece: Piece) -> dict:
        """The chunk of a piece."""
        choice = {"index": index, "finish_reason": ENDS[piece.end] if piece.end else None}
        choice["logprobs"] = self._logprobs(index, piece.tokens)
        if self.query.kind == CHAT:
            choice["delta"] = {"content": piece.text} if piece.text or not piece.end else {}
        else:
            choice["text"] = piece.text
        return self._chunk([choice])

    def closing(self, requests: Sequence[Request]) -> dict:
        """The last chunk of a stream that tells the usage."""
        return self._chunk([]) | {"usage": self.usage(requests)}

    def usage(self, requests: Sequence[Request]) -> dict:
        """Tokens that were read and drawn; a prompt counts once whatever n is."""
        read = sum(map(len, self.query.prompts))
        drawn = sum(request.drawn for request in requests)
        return dict(prompt_tokens=read, completion_tokens=drawn, total_tokens=read + drawn)

    def _chunk(self, choices: list[dict]) -> dict:
        kind = "chat.completion.chunk" if self.query.kind == CHAT else "text_completion"
        return {**self.frame, "object": kind, "choices": choices}

    def _logprobs(self, index: int, tokens: Sequence[Token]) -> dict | None:
        if self.query.top is None or not tokens:
            return None
        if self.query.kind == CHAT:
            content = [
                self._told(token.id, token.logprob)
                | {"top_logprobs": [self._told(*one) for one in _finite(token)]}
                for token in tokens
            ]
            return {"content": content, "refusal": None}
        offsets = []
        for token in tokens:
            offsets.append(self.offsets[index])
            text = self.decoders[index].decode(self.tokenizer.pieces[token.id])
            self.offsets[index] += len(text)
        return {
            "tokens": [self._spelled(token.id) for token in tokens],
            "token_logprobs": [token.logprob for token in tokens],
            "top_logprobs": [
                {self._spelled(id): logprob for id, logprob in _finite(token)} for token in tokens
            ],
            "text_offset": offsets,
        }

    def _told(self, token: int, logprob: float) -> dict:
        piece = self.tokenizer.pieces[token]
        return {"token": self._spelled(token), "logprob": logprob, "bytes": list(piece)}

    def _spelled(self, token: int) -> str:
        """A token as text; one that is no whole character as its bytes."""
        piece = self.tokenizer.pieces[token]
        try:
            return piece.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in piece)


def _finite(token: Token) -> list[tuple[int, float]]:
    return [(id, logprob) for id, logprob in token.top if math.isfinite(logprob)]
