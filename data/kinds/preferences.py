"""The kind of data `preferences`: a prompt with a chosen and a rejected answer, as
`data/chat/preference_dataset.py` lays them out.

The corpora are .jsonl files (`data/chat/chat_files.py`) or a task whose answers are made up: the
right one chosen and a wrong one rejected, exchanged in data.wrong_share of them.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from data.chat import chat_files, chat_store, demonstrations
from data.chat.chat_files import Preference
from data.chat.chat_store import Example, corpora_of, listed, trimmed
from data.chat.fitting import require_choice
from data.chat.preference_dataset import FIELDS, PreferenceDataset, spec_of
from data.fields import Field
from data.kinds import conversations
from data.prompted.prompt_encoder import PromptEncoder, encoder_of

__all__ = ["FIELDS", "PREDICTS", "prepare", "spec", "tokens", "vocab_size"]
PREDICTS = "the preferred answer"
TOO_LONG = ("refuse", "drop")
vocab_size = conversations.vocab_size


def spec(config: Any) -> dict[str, Field]:
    """Fields of a row: chosen, rejected int32 [T], chosen_weights, rejected_weights float32 [T] and
    margin float32 []."""
    return spec_of(config)


def tokens(config: Any) -> int:
    """Tokens per row: of both answers with their prompts, padding included."""
    return 2 * config.model.context_length


def prepare(data: Any, progress: bool = True) -> PreferenceDataset:
    """The preferences of a `data` section as tokens. ValueError or FileNotFoundError, naming files
    and lines, for what cannot be read, a role that the template does not have, and answers that
    are equal."""
    require_choice(data, "too_long", TOO_LONG)
    conversations.require_share(data)
    encoder = encoder_of(data)
    about: list = [data.template]
    for spec in corpora_of(data):
        made_up = demonstrations.is_task(spec)
        about.append(
            demonstrations.parse(spec).identity(data.wrong_share)
            if made_up
            else chat_files.identity(spec)
        )
    read = lambda: _examples(data, encoder)  # noqa: E731
    store = chat_store.prepare(data, about, encoder.tokenizer, read, progress)
    return PreferenceDataset(store, encoder)


def _examples(data: Any, encoder: PromptEncoder) -> Iterator[Example]:
    equal = []
    for spec in corpora_of(data):
        made_up = demonstrations.is_task(spec)
        found = (
            demonstrations.parse(spec).preferences(data.wrong_share)
            if made_up
            else chat_files.preferences(spec)
        )
        for preference in found:
            try:
                sides = [trimmed(_encoded(encoder, preference, answer))
                         for answer in (preference.chosen, preference.rejected)]  # fmt: skip
            except ValueError as error:
                raise ValueError(f"{preference.where}: {error}") from None
            if np.array_equal(sides[0][0], sides[1][0]):
                equal.append(preference.where)
                continue
            prompt = conversations.prompt_text(preference.prompt)
            yield Example(preference.where, prompt, sides, preference.margin)
    if equal:
        raise ValueError(
            f"{len(equal):,} preferences have equal answers, chosen = rejected: {listed(equal)}; "
            "delete them"
        )


def _encoded(
    encoder: PromptEncoder, preference: Preference, answer: list[dict[str, str]]
) -> tuple[np.ndarray, np.ndarray]:
    """(token ids, whether each is in the answer) of a prompt with an answer."""
    if not any(message["role"] == "assistant" for message in answer):
        raise ValueError("an answer has no message of the role 'assistant'; add it")
    if encoder.chat:
        messages = [*preference.prompt, *answer]
        return encoder.chat.encode(messages, answers_from=len(preference.prompt))
    if len(preference.prompt) != 1 or len(answer) != 1:
        raise ValueError(
            "without a template, a prompt and an answer are one text each; give data.template"
        )
    ids, answered = encoder.encode(preference.prompt[0]["content"], answer[0]["content"])
    return np.concatenate([ids, answered]), np.arange(len(ids) + len(answered)) >= len(ids)
