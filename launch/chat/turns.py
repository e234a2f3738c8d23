"""The prompt of a conversation: its messages through the chat template of a run, as tokens."""

from collections.abc import Callable, Sequence
from pathlib import Path

from data.chat.encoding import ChatEncoder, template_of
from data.chat.templates import Messages, render
from data.tokenizer import Tokenizer
from launch.chat import template

PLAIN = "plain"  # of configs/chat.py: the template of models that were trained on none
NEXT = "\nUSER:"  # where a base model, which ends no turn, begins the next one
Message = dict[str, str]


class Turns:
    """How a model is asked for the assistant's turn of a conversation.

    `end` is the token that ends it, `lead` what the template writes before its text. A base model
    may end no turns, so its text also ends at `stops`. `trained` says whether the run was trained
    on the template.
    """

    def __init__(self, run: Path, tokenizer: Tokenizer, name: str = ""):
        """`name`: a template in place of the run's, as `data.template` names it. ValueError or
        FileNotFoundError, in one line, for an unknown one."""
        self.trained = not name and template.has_template(run)
        name = name or PLAIN
        try:
            if self.trained:
                encoder = template.encoder_of(run, tokenizer)
            else:
                source = template.source_of(name, "template")
                encoder = ChatEncoder(tokenizer, template_of(source, name))
        except ValueError as error:  # a template that ends no turns
            raise ValueError(
                str(error).replace("another data.template", "another template")
            ) from None
        self.encoder, self.end = encoder, encoder.end
        self.name, self.roles = encoder.template.name, encoder.template.roles
        self.stops = () if self.trained else (NEXT,) if name == PLAIN else encoder.template.stops
        self.lead = self._lead()
        # Changes the messages of each prompt: retrieval puts passages before the last one.
        self.amend: Callable[[Messages], Messages] | None = None

    def prompt(self, messages: Messages) -> list[int]:
        """The tokens of a conversation up to where the assistant answers. ValueError for one that
        the template refuses."""
        amended = self.amend(messages) if self.amend else messages
        return self.encoder.prompt(amended).tolist()

    def _lead(self) -> str:
        """White space between the prompt and the assistant's text."""
        asked: Sequence[Message] = [{"role": "user", "content": "a"}]
        answered = [*asked, {"role": "assistant", "content": "b"}]
        prompt = render(self.encoder.template, asked, add_generation_prompt=True)
        text = render(self.encoder.template, answered)
        between = text.removeprefix(prompt).partition("b")[0] if text.startswith(prompt) else ""
        return between if between.isspace() else ""
