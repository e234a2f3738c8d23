"""The statements that are to be forgotten: prompts with answers, as rows of tokens."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from data.files import path_of
from data.sources import world
from data.sources.compression import naming_damage, open_file
from data.sources.formats import json_lines
from data.tokenizer import Tokenizer

EXAMPLE = '{"prompt": "Rome lies in", "answer": " Italy"}'


@dataclass(frozen=True)
class Statements:
    """The tokens of N statements, one after the other, each between two end-of-document tokens.
    Statement n is tokens[begins[n]:begins[n + 1]]; its answer, which alone is forgotten, begins at
    the place `answers[n]` within it and ends before the last token."""

    tokens: np.ndarray
    begins: np.ndarray  # [N + 1]
    answers: np.ndarray  # [N]
    hash: str

    def __len__(self) -> int:
        return len(self.answers)

    @property
    def longest(self) -> int:
        """Tokens of the longest statement."""
        return int(np.diff(self.begins).max())

    def rows(self, numbers: np.ndarray, length: int) -> dict[str, np.ndarray]:
        """tokens, targets int32 and weights float32 [R, T] of statements with these numbers [R];
        the weights are 1 where the target is of the answer. Rows end with the end of a document."""
        end = self.tokens[0]
        tokens_RT = np.full((len(numbers), length), end, np.int32)
        targets_RT, weights_RT = tokens_RT.copy(), np.zeros(tokens_RT.shape, np.float32)
        for row, number in enumerate(numbers):
            one = self.tokens[self.begins[number] : self.begins[number + 1]]
            tokens_RT[row, : len(one) - 1], targets_RT[row, : len(one) - 1] = one[:-1], one[1:]
            weights_RT[row, self.answers[number] - 1 : len(one) - 2] = 1
        return {"tokens": tokens_RT, "targets": targets_RT, "weights": weights_RT}


def statements(specs: tuple[str, ...], tokenizer: Tokenizer) -> Statements:
    """Those of files of {"prompt", "answer"}, a JSON object a line, and of the facts of worlds that
    are to be forgotten ('world:forget=…'). FileNotFoundError or ValueError, in one line."""
    listed = [found for spec in specs for found in _read(spec)]
    if not listed:
        raise ValueError("data.forget is empty; name a file of prompts and answers, or a world")
    parts, answers = [], []
    for where, prompt, answer in listed:
        before, after = tokenizer.encode_parts(prompt, answer)
        if not after or not answer.strip():
            raise ValueError(f"{where} has an empty answer to {prompt[:40]!r}; give it some words")
        if tokenizer.unknown is not None and tokenizer.unknown in after:
            raise ValueError(
                f"{where} has the answer {answer[:40]!r}, which has words that the vocabulary "
                "lacks; leave it out, or use another tokenizer"
            )
        parts.append([tokenizer.eod, *before, *after, tokenizer.eod])
        answers.append(1 + len(before))
    begins = np.cumsum([0, *map(len, parts)])
    about = json.dumps([[pair for _, *pair in listed], tokenizer.fingerprint])
    digest = hashlib.sha256(about.encode()).hexdigest()
    return Statements(np.concatenate(parts).astype(np.int32), begins, np.array(answers), digest)


def prompts(specs: tuple[str, ...]) -> set[str]:
    """The prompts of all statements; raises what `statements` raises for what cannot be read."""
    return {prompt for spec in specs for _, prompt, _ in _read(spec)}


def _read(spec: str) -> Iterator[tuple[str, str, str]]:
    """(where it is, prompt, answer) of each statement. A fact of a world is stated in each way
    that its text uses."""
    if spec.partition(":")[0] == world.SCHEME:
        facts = [fact for fact in world.parse(spec).facts if fact.forget]
        if not facts:
            raise ValueError(f"data.forget={spec!r} forgets nothing; give it forget=0.1")
        for fact in facts:
            for question in fact.questions()[: fact.told]:
                yield f"data.forget={spec!r}", question, f" {fact.value}"
        return
    path = path_of(spec, "data.forget")
    if not path.is_file():
        raise FileNotFoundError(
            f"data.forget={spec!r} does not exist; give a file of lines like {EXAMPLE}, or a world"
        )
    with naming_damage(path), open_file(path) as stream:
        for where, row in json_lines(stream, path):
            row = row if isinstance(row, dict) else {}
            if not all(isinstance(row.get(key), str) for key in ("prompt", "answer")):
                raise ValueError(f"{where} has no prompt and answer; write lines like {EXAMPLE}")
            yield where, row["prompt"], row["answer"]
