"""Conversations as tokens, each with whether the model is trained on it.

The text is encoded as one, except that it is cut before and after each target, as a prompt is at
generation. Strings that end a turn or begin a text are single tokens: the tokenizer's own or, where
it has none of that name, its end of a document and its prefix. So every template has one end token
under every tokenizer. What a message says is encoded as a document, so that no message can end its
turn by spelling <|im_end|>.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from data.atomic import write_atomic
from data.chat.templates import BOS, EOS, Messages, Piece, Template, pieces
from data.tokenizer import Tokenizer

FILE = "chat_template.jinja"  # of a run's folder
Part = str | bytes | int
"""Of a text: a string with special strings, a document (UTF-8 bytes), or a token."""


class ChatEncoder:
    """Encodes conversations by a template and a tokenizer."""

    def __init__(self, tokenizer: Tokenizer, template: Template):
        """ValueError if the template ends no turns."""
        if not template.bos and tokenizer.prefix:
            template = replace(template, bos=BOS)
        self.tokenizer, self.template = tokenizer, template
        self._tokens = {}
        named = {template.bos: tokenizer.prefix[:1], template.eos: (tokenizer.eod,)}
        named |= {stop: (tokenizer.eod,) for stop in template.stops if stop not in named}
        for text, ids in named.items():
            if text and ids and len(tokenizer.encode_prompt(text)) != 1:
                self._tokens[text] = ids[0]
        # The token that ends a turn of the assistant, at which generation stops.
        self.end = int(self._ids(template.stops[0])[-1])

    @property
    def names(self) -> dict[int, str]:
        """{token: how the template spells it} of the tokens that the tokenizer has under no such
        name; the end of a turn has precedence."""
        return {token: text for text, token in self._tokens.items()}

    def encode(
        self, messages: Messages, add_generation_prompt: bool = False, answers_from: int = 0
    ) -> tuple[np.ndarray, np.ndarray]:
        """(token ids int32 [n], whether each is a target bool [n]): those of the answers from
        message `answers_from` on. Raises what `pieces` raises."""
        found = pieces(self.template, messages, add_generation_prompt)
        ids, targets = [np.empty(0, np.int32)], [np.empty(0, bool)]
        for group in _groups(found):
            made = self._encode([self._parts(piece) for piece in group], len(ids) == 1)
            ids.append(made)
            counts = group[0].is_target and group[0].message >= answers_from
            targets.append(np.full(len(made), counts))
        return np.concatenate(ids), np.concatenate(targets)

    def prompt(self, messages: Messages) -> np.ndarray:
        """Token ids int32 [n] up to where the assistant answers."""
        return self.encode(messages, add_generation_prompt=True)[0]

    def save(self, workdir: Path) -> None:
        """Saves the template in a run's folder, as Hugging Face names the file."""
        write_atomic(workdir / FILE, self.template.source.encode())

    def _parts(self, piece: Piece) -> list[Part]:
        if not piece.is_content:
            return self._split(piece.text)
        as_document = self.tokenizer.encode(piece.text)
        same = np.array_equal(as_document, self.tokenizer.encode_prompt(piece.text))
        return [piece.text if same else piece.text.encode()]

    def _split(self, text: str) -> list[Part]:
        """What the template writes, with tokens for the strings that the tokenizer lacks."""
        parts: list[Part] = [text]
        for string, token in self._tokens.items():
            split = []
            for part in parts:
                if not isinstance(part, str):
                    split.append(part)
                    continue
                first, *others = part.split(string)
                split.append(first)
                for other in others:
                    split += [token, other]
            parts = [part for part in split if part != ""]
        return parts

    def _ids(self, text: str) -> np.ndarray:
        return self._encode([self._split(text)], True)

    def _encode(self, parts: Sequence[Sequence[Part]], first: bool) -> np.ndarray:
        """The tokens of a group; strings that are neighbours are encoded as one."""
        joined: list[Part] = []
        for part in (part for listed in parts for part in listed):
            if joined and isinstance(part, str) and isinstance(joined[-1], str):
                joined[-1] += part
            else:
                joined.append(part)
        ids = [np.empty(0, np.int32)]
        for number, part in enumerate(joined):
            begins = first and number == 0
            if isinstance(part, int):
                ids.append(np.array([part], np.int32))
            elif isinstance(part, bytes):
                ids.append(_continued(self.tokenizer, self.tokenizer.encode, part.decode(), begins))
            else:
                ids.append(_continued(self.tokenizer, self.tokenizer.encode_prompt, part, begins))
        return np.concatenate(ids)


def _groups(found: Sequence[Piece]) -> list[list[Piece]]:
    """Neighbours with the same `is_target`; each answer is a group of its own."""
    groups: list[list[Piece]] = []
    for piece in found:
        same = groups and groups[-1][0].is_target == piece.is_target
        if same and (not piece.is_target or groups[-1][0].message == piece.message):
            groups[-1].append(piece)
        else:
            groups.append([piece])
    return groups


def _continued(tokenizer: Tokenizer, encode, text: str, begins: bool) -> np.ndarray:
    """The tokens of a text that others precede unless it `begins`: without the space that some
    models put before every text."""
    if begins or not tokenizer.dummy_prefix:
        return encode(text)
    mark, whole = encode("\n"), encode(f"\n{text}")
    return whole[len(mark) :] if np.array_equal(whole[: len(mark)], mark) else encode(text)


def template_of(source: str, name: str = "", bos: str = "", eos: str = "") -> Template:
    """The Template of a `data.template`, which is Jinja source by the time that data are read.
    ValueError for a name that the launcher did not replace."""
    if "{{" not in source and "{%" not in source:
        raise ValueError(f"data.template={source[:60]!r} is not the source of a template")
    return Template(name or "data.template", source, bos, eos or EOS)
