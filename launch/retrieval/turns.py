"""Passages in a conversation: put before the last message of the user, and not kept with it."""

import sys

from data.chat.templates import Messages
from launch.chat.turns import Turns
from launch.retrieval.retriever import Found, Retriever, fitting, source_lines


class Passages:
    """What a conversation's prompt holds besides its messages: the passages of an index that fit
    the last message best. They take at most half of the prompt's `longest` tokens.

    With `all_messages` they leave room for all messages; without it for the system prompt and the
    last message, as the oldest turns of a conversation may be dropped. `found` are those of the
    last prompt, `heard` says whether they are printed on stderr too, as by a server.
    """

    def __init__(
        self,
        retriever: Retriever,
        count: int,
        turns: Turns,
        longest: int,
        all_messages: bool = False,
        heard: bool = False,
    ):
        self.retriever, self.count, self.turns = retriever, count, turns
        self.longest, self.all_messages, self.heard = longest, all_messages, heard
        self.found: list[Found] = []

    def __call__(self, messages: Messages) -> Messages:
        """The messages with passages before the text of the last one, if it is a user's."""
        messages, self.found = list(messages), []
        if (
            not messages
            or messages[-1]["role"] != "user"
            or not isinstance(messages[-1].get("content"), str)
        ):
            return messages
        last = messages[-1]
        system = messages[:1] if messages[0]["role"] == "system" else []
        least = messages if self.all_messages or len(messages) == 1 else [*system, last]
        room = self.longest - len(self.turns.encoder.prompt(least))
        tokenizer = self.turns.encoder.tokenizer
        best = self.retriever.search(last["content"], self.count)
        length_of = lambda text: len(tokenizer.encode(text))  # noqa: E731
        before, self.found = fitting(best, length_of, min(room, self.longest // 2))
        if self.heard and self.found:
            print(*source_lines(self.found), sep="\n", file=sys.stderr, flush=True)
        return [*messages[:-1], {**last, "content": before + last["content"]}]
