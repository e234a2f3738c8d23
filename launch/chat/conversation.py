"""A conversation, kept within the context of a model."""

import json
from collections.abc import Sequence
from pathlib import Path

from data.atomic import write_atomic
from launch.chat.turns import Message, Turns


class Conversation:
    """What was said. `dropped` counts the oldest messages that the model no longer sees; the system
    prompt is always seen."""

    def __init__(self, turns: Turns, longest: int, system: str = ""):
        """`longest`: tokens that a prompt may have. ValueError for a system prompt that the
        template cannot write, or that leaves no room."""
        self.turns, self.longest = turns, longest
        self.system: list[Message] = []
        self.messages: list[Message] = []
        self.dropped = 0
        if system:
            self.system = [message("system", system)]
            self._fitting([message("user", "a")], 0)

    def ask(self, text: str) -> list[int]:
        """The prompt [n] for an answer to `text`, which becomes the last message. ValueError, and
        nothing has changed, if it does not fit alone."""
        messages = [*self.messages, message("user", text)]
        prompt, self.dropped = self._fitting(messages, self.dropped)
        self.messages = messages
        return prompt

    def answer(self, text: str) -> None:
        """Adds the assistant's answer."""
        self.messages.append(message("assistant", text))

    def take_back(self) -> None:
        """Forgets the last message, which got no answer."""
        self.messages = self.messages[:-1]

    def reset(self) -> None:
        """Forgets all but the system prompt."""
        self.messages, self.dropped = [], 0

    def save(self, file: Path) -> int:
        """Writes the conversation as one line of JSON, {"messages": […]}, as data of the kind
        `conversations` have it. Returns the number of messages. FileExistsError for an old file."""
        if file.exists():
            raise FileExistsError(f"{file} exists; name another file")
        messages = [*self.system, *self.messages]
        write_atomic(file, (json.dumps({"messages": messages}, ensure_ascii=False) + "\n").encode())
        return len(messages)

    def _fitting(self, messages: Sequence[Message], dropped: int) -> tuple[list[int], int]:
        """(the prompt without the fewest oldest turns, the number of messages dropped)."""
        for first in range(dropped, len(messages), 2):
            prompt = self.turns.prompt([*self.system, *messages[first:]])
            if len(prompt) <= self.longest:
                return prompt, first
        raise ValueError(
            f"the message has {len(prompt)} tokens with its template; the context leaves room for "
            f"{self.longest}: shorten it"
        )


def message(role: str, content: str) -> Message:
    """A message of a conversation."""
    return {"role": role, "content": content}
