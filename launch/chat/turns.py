"""The prompt of a conversation: its messages through the template of a run, as tokens."""

from collections.abc import Sequence
from pathlib import Path

from data.tokenizer import Tokenizer

ROLES = ("system", "user", "assistant")
PLAIN = {"system": "{}\n", "user": "USER: {}\n", "assistant": "ASSISTANT: {}\n"}
Message = dict[str, str]


class Turns:
    """How a model is asked for the assistant's turn of a conversation.

    `end` is the token that ends it. A base model writes none, so its text ends at `stops`, where
    the next turn begins. `trained` says whether the run was trained on this template.
    """

    def __init__(self, run: Path, tokenizer: Tokenizer):
        self.tokenizer, self.trained, self.name = tokenizer, False, "plain"
        self.end, self.roles = tokenizer.eod, ROLES
        self.stops = ("\nUSER:", "\nASSISTANT:")

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """The tokens of a conversation up to where the assistant answers."""
        text = "".join(PLAIN[m["role"]].format(m["content"]) for m in messages) + "ASSISTANT:"
        return [*self.tokenizer.prefix, *self.tokenizer.encode_prompt(text).tolist()]
