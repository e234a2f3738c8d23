"""Passages in a conversation: put before the last message of the user, and not kept with it."""

import sys

from data.chat.templates import Messages
from launch.chat.turns import Turns
from launch.retrieval.retriever import Found, Retriever, fitting, source_lines


class Passages:
    """What a conversation's prompt holds besides its messages: the passages of an index that fit
    the last message best. They take at most half of the prompt's `longest` tokens.

    A server (`serves`) drops no turns, so the passages leave room for all messages; it prints their
    sources on stderr. In the terminal the oldest turns may be dropped, so they leave room for the
    system prompt and the last message. `found` are the passages of the last prompt.
    """

    def __init__(
        self,
        retriever: Retriever,
        count: int,
        turns: Turns,
        longest: int,
        serves: bool = False,
    ):
        self.retriever, self.count, self.turns = retriever, count, turns
        self.longest, self.serves = longest, serves
        self.found: list[Found] = []

    def __call__(self, messages: Messages) -> Messages:
        """The messages with passages before the text of the last one, if it is a user's."""
        messages, self.found = list(messages), []
        last = messages[-1] if messages else {}
        if last.get("role") != "user" or not isinstance(last.get("content"), str):
            return messages
        system = messages[:1] if messages[0]["role"] == "system" else []
        least = messages if self.serves or len(messages) == 1 else [*system, last]
        room = self.longest - len(self.turns.encoder.prompt(least))
        tokenizer = self.turns.encoder.tokenizer
        best = self.retriever.search(last["content"], self.count)
        length_of = lambda text: len(tokenizer.encode(text))  # noqa: E731
        before, self.found = fitting(best, length_of, min(room, self.longest // 2))
        if self.serves and self.found:
            print(*source_lines(self.found), sep="\n", file=sys.stderr, flush=True)
        return [*messages[:-1], {**last, "content": before + last["content"]}]
