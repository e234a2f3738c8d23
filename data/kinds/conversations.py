"""The kind of data `conversations`: messages through a chat template, for supervised fine-tuning.

    tokens    U S E R : H i \\n A S S I S T A N T :   H i !          of one turn, padded
    targets   S E R : H i \\n A S S I S T A N T :   H i ! .          . is the end of the turn
    weights   0 0 0 0 0 0 0  0 0 0 0 0 0 0 0 0 0  1 1 1 1 1

Only what the assistant writes counts, its end of the turn included, in every turn. With
data.rows=packed a row holds several conversations, with segments 1, 2, … and positions from 0 in
each. The corpora are .jsonl files (`data/chat/chat_files.py`) or a task whose demonstrations are
made up, a known share of them wrong (`data/chat/demonstrations.py`).
"""

from collections.abc import Iterator
from typing import Any

from data.chat import chat_files, chat_store, demonstrations
from data.chat.chat_store import Example, corpora_of, listed, trimmed
from data.chat.conversation_dataset import NAMES, ConversationDataset, spec_of
from data.chat.encoding import ChatEncoder, template_of
from data.chat.fitting import require_choice
from data.fields import Field
from data.prompted.prompt_encoder import tokenizer_of

FIELDS = NAMES
PREDICTS = "the assistant's tokens"
ROWS, TOO_LONG = ("padded", "packed"), ("refuse", "drop", "truncate")


def spec(config: Any) -> dict[str, Field]:
    """Fields of a row: tokens, targets int32 [T] and weights float32 [T]; if rows are packed,
    segments and positions int32 [T]."""
    require_choices(config.data)
    return spec_of(config)


def tokens(config: Any) -> int:
    """Tokens per row, those of prompts and padding included."""
    return config.model.context_length


def vocab_size(data: Any) -> int:
    """Size of the tokenizer; ValueError for one that would have to be trained."""
    return tokenizer_of(data).vocab_size


def require_choices(data: Any) -> None:
    """ValueError for an unknown arrangement of rows, treatment of long conversations, or share."""
    require_choice(data, "rows", ROWS)
    require_choice(data, "too_long", TOO_LONG)
    require_share(data)


def require_share(data: Any) -> None:
    """ValueError for a data.wrong_share that is no share, or of data that are not made up."""
    if not 0 <= data.wrong_share <= 1:
        raise ValueError(f"data.wrong_share={data.wrong_share} must be from 0 to 1")
    if data.wrong_share and not all(map(demonstrations.is_task, corpora_of(data))):
        raise ValueError(
            f"data.wrong_share={data.wrong_share} needs answers that are made up; use it with "
            "data.corpora=task:NAME, or set it to 0"
        )


def prepare(data: Any, progress: bool = True) -> ConversationDataset:
    """The conversations of a `data` section as tokens. ValueError or FileNotFoundError, naming
    files and lines, for what cannot be read, for a role that the template does not have, and for
    conversations without an answer."""
    require_choices(data)
    encoder = ChatEncoder(tokenizer_of(data), template_of(data.template))
    about = [data.template, *(_identity(spec, data.wrong_share) for spec in corpora_of(data))]
    read = lambda: _examples(data, encoder)  # noqa: E731
    store = chat_store.prepare(data, about, encoder.tokenizer, read, progress)
    return ConversationDataset(store, encoder)


def _identity(spec: str, wrong_share: float) -> list:
    if demonstrations.is_task(spec):
        return demonstrations.parse(spec).identity(wrong_share)
    return chat_files.identity(spec)


def _examples(data: Any, encoder: ChatEncoder) -> Iterator[Example]:
    without = []
    for spec in corpora_of(data):
        made_up = demonstrations.is_task(spec)
        found = (
            demonstrations.parse(spec).conversations(data.wrong_share)
            if made_up
            else chat_files.conversations(spec)
        )
        for where, messages in found:
            if not any(message["role"] == "assistant" for message in messages):
                without.append(where)
                continue
            try:
                sequence = trimmed(encoder.encode(messages))
            except ValueError as error:
                raise ValueError(f"{where}: {error}") from None
            yield Example(where, prompt_text(messages), [sequence])
    if without:
        raise ValueError(
            f"{len(without):,} conversations have nothing to train on, as the assistant says "
            f"nothing in them: {listed(without)}; complete or delete them"
        )


def prompt_text(messages: list[dict[str, str]]) -> str:
    """What precedes the first answer, which decides the split."""
    before = []
    for message in messages:
        if message["role"] == "assistant":
            break
        before.append(message["content"])
    return "\0".join(before)
