"""The kind of data `tasks`: prompts whose answers a rule can check, for reinforcement learning.

    prompt  . . . 1 2 + 9 =     prompt_length 5         padded on the left
    answer  1 2 . . .           answer_length 3         with its end, padded on the right

The prompts come from a seeded generator, data.task (`data/tasks/`), or from .jsonl files of prompts
and answers, data.corpora. `data/prompted/scoring.py` scores responses: by the task, by equality
with the answer of a file, or by data.checker=package.module:function.
"""

import hashlib
import json
from typing import Any

from data import tasks as known
from data.fields import Field
from data.prompted import prompt_encoder, prompt_sources, scoring
from data.prompted.task_dataset import TaskDataset, spec_of

FIELDS = ("prompt", "prompt_length", "answer", "answer_length")
PREDICTS = "the answer of a task"


def spec(config: Any) -> dict[str, Field]:
    """Fields of a row: prompt int32 [P], answer int32 [A], and the length of each, int32 []."""
    return spec_of(config.data)


def tokens(config: Any) -> int:
    """Tokens per row: those of a prompt and of a response or, for objectives that draw none, of an
    answer; padding included."""
    return config.data.prompt_length + config.objective.get("max_tokens", config.data.answer_length)


def vocab_size(data: Any) -> int:
    """Size of the tokenizer; ValueError for one that would have to be trained."""
    return prompt_encoder.tokenizer_of(data).vocab_size


def prepare(data: Any, progress: bool = True) -> TaskDataset:
    """The prompts of a `data` section. ValueError or FileNotFoundError, in one line, for an unknown
    task, a checker that cannot be imported, and files that cannot be read."""
    corpora = prompt_sources.specs(data.corpora)
    if not 0 < data.validation < 1:
        raise ValueError(f"data.validation={data.validation} must be above 0 and below 1")
    encoder = prompt_encoder.encoder_of(data)
    if corpora:
        source: prompt_sources.Source = prompt_sources.read(corpora, data.validation)
    else:
        source = prompt_sources.Generated(
            data.task, known.find(data.task), data.size, data.validation
        )
    about = [source.hash, encoder.tokenizer.fingerprint, data.template]
    hash = hashlib.sha256(json.dumps(about).encode()).hexdigest()
    return TaskDataset(source, encoder, scoring.scorer(data), hash)
