"""Prompts and answers as tokens, with or without a chat template, and back to text."""

from typing import Any

import numpy as np

from data import tokenizer as tokenizers
from data.chat.encoding import ChatEncoder, template_of
from data.tokenizer import Tokenizer

HERE = "\x01"  # stands for a prompt while the text around it is looked for


def tokenizer_of(data: Any) -> Tokenizer:
    """The tokenizer of a `data` section; ValueError for one that would have to be trained."""
    if data.tokenizer in tokenizers.TRAINED:
        raise ValueError(
            f"data.tokenizer={data.tokenizer!r} is trained on text, but data.kind={data.kind!r} "
            "needs the tokenizer of a model; use bytes, or the path RUN/tokenizer/tokenizer.json"
        )
    return tokenizers.from_spec(data.tokenizer)


def encoder_of(data: Any) -> "PromptEncoder":
    """The encoder of a `data` section, by its tokenizer and template."""
    tokenizer = tokenizer_of(data)
    chat = ChatEncoder(tokenizer, template_of(data.template)) if data.template else None
    return PromptEncoder(tokenizer, chat)


class PromptEncoder:
    """Encodes a prompt and its answer: as the two turns of a conversation or, without a template,
    as running text that ends with the end of a document."""

    def __init__(self, tokenizer: Tokenizer, chat: ChatEncoder | None):
        self.tokenizer, self.chat = tokenizer, chat
        self.end = chat.end if chat else tokenizer.eod  # the token that ends an answer
        around = tokenizer.decode(self.encode(HERE, "")[0])
        self._head, _, self._tail = around.partition(HERE)

    def encode(self, prompt: str, answer: str) -> tuple[np.ndarray, np.ndarray]:
        """(token ids of the prompt, of the answer with its end), int32."""
        if self.chat is None:
            whole = self.tokenizer.encode(prompt + answer)
            alone = self.tokenizer.encode(prompt)
            if not np.array_equal(whole[: len(alone)], alone):  # a token covers parts of both
                whole = np.concatenate([alone, self.tokenizer.encode(answer)])
            prefix = np.array(self.tokenizer.prefix, np.int32)
            answered = np.append(whole[len(alone) :], np.int32(self.end))
            return np.concatenate([prefix, alone]), answered
        said = ("user", prompt), ("assistant", answer)
        ids, target = self.chat.encode([{"role": r, "content": c} for r, c in said])
        first, last = np.flatnonzero(target)[[0, -1]]
        return ids[:first], ids[first : last + 1]

    def prompt_of(self, ids: np.ndarray) -> str:
        """The prompt whose tokens `encode` returned."""
        text = self.tokenizer.decode(ids)
        return text.removeprefix(self._head).removesuffix(self._tail)

    def response_of(self, ids: np.ndarray) -> str:
        """The text of an answer or a response, up to its end."""
        ends = np.flatnonzero(ids == self.end)
        return self.tokenizer.decode(ids[: ends[0]] if len(ends) else ids)
