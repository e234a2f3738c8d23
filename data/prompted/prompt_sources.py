"""Where the prompts of the kind `tasks` come from: a generator, or files of prompts and answers."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from data import loader
from data.files import path_of, specs_of
from data.shards import SPLITS
from data.sources.compression import naming_damage, open_file
from data.sources.formats import json_lines
from data.tasks import Task, draws

CHECKED = 256  # examples of a generator
Example = tuple[str, str]
"""(prompt, answer)."""


class Source(Protocol):
    hash: str  # of the prompts, the answers and the splits

    def draw(self, split: str, seed: int, number: int) -> Example:
        """Example `number` of a split's endless order."""

    def checked(self, split: str) -> list[Example]:
        """The examples whose lengths are checked before a run."""

    def fixed(self, split: str, count: int) -> list[Example]:
        """Up to `count` examples with different prompts: always the same."""

    def epochs(self, examples: float) -> float:
        """Epochs in this many examples; 0 if none comes twice."""


@dataclass(frozen=True)
class Generated:
    """A task of TASKS."""

    name: str
    task: Task
    size: int
    validation: float

    @property
    def hash(self) -> str:
        return f"{self.name}-{self.task.VERSION}-{self.size or self.task.SIZE}-{self.validation}"

    def draw(self, split: str, seed: int, number: int) -> Example:
        return draws.draw(self.task, self.size, self.validation, split, seed, number)[:2]

    def checked(self, split: str) -> list[Example]:
        return self.fixed(split, CHECKED)

    def fixed(self, split: str, count: int) -> list[Example]:
        return draws.different(self.task, self.size, self.validation, split, 0, count)

    def epochs(self, examples: float) -> float:
        return 0.0


@dataclass(frozen=True)
class Listed:
    """Examples of files, by split; a hash of the prompt decides which one."""

    splits: dict[str, list[Example]]

    @cached_property
    def hash(self) -> str:
        return hashlib.sha256(json.dumps(self.splits).encode()).hexdigest()

    def draw(self, split: str, seed: int, number: int) -> Example:
        listed = self.splits[split]
        return listed[int(loader.shuffled(np.array([number]), len(listed), seed, 0)[0])]

    def checked(self, split: str) -> list[Example]:
        return self.splits[split]

    def fixed(self, split: str, count: int) -> list[Example]:
        return list(dict(self.splits[split]).items())[:count]

    def epochs(self, examples: float) -> float:
        return examples / len(self.splits["train"])


def specs(corpora: str | Sequence[str]) -> tuple[str, ...]:
    """The files of a `data.corpora`, which may be one or none."""
    return tuple(spec for spec in specs_of(corpora) if spec)


def read(corpora: Sequence[str], validation: float) -> Listed:
    """The examples of files by split; raises what `examples` raises, and ValueError for an empty
    split."""
    found: dict[str, list[Example]] = {name: [] for name in SPLITS}
    for prompt, answer in examples(corpora):
        held_out = draws.in_validation(prompt, validation)
        found["validation" if held_out else "train"].append((prompt, answer))
    for split, listed in found.items():
        if not listed:
            raise ValueError(
                f"data.corpora={','.join(corpora)!r} has no prompts in the split {split!r}; use "
                "more, or another data.validation"
            )
    return Listed(found)


def examples(corpora: Sequence[str], key: str = "data.corpora") -> Iterator[Example]:
    """The examples of .jsonl files: {"prompt": "…", "answer": "…"} in each line. ValueError or
    FileNotFoundError, naming `key`, file and line, for one that cannot be read."""
    for spec in corpora:
        path = path_of(spec, key)
        if not path.is_file():
            raise FileNotFoundError(f"{key}: the file {spec!r} does not exist")
        with naming_damage(path), open_file(path) as stream:
            for where, row in json_lines(stream, path):
                yield _example(where, row)


def _example(where: str, row: Any) -> Example:
    row = row if isinstance(row, dict) else {}
    prompt, answer = row.get("prompt"), row.get("answer", "")
    if isinstance(answer, int | float) and not isinstance(answer, bool):
        answer = json.dumps(answer)
    if not isinstance(prompt, str) or not prompt or not isinstance(answer, str):
        keys = ", ".join(map(str, row)) or "none"
        raise ValueError(
            f'{where} is not {{"prompt": TEXT, "answer": TEXT or NUMBER}}; its keys: {keys}'
        )
    return prompt, answer
