"""A small kind of data with prompts and a checker, registered here as `short_prompts`, and trials on
it. `python -m tests.train.objectives.policy.prompts WORKDIR KEY=VALUE …` runs one trial."""

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from data import tokenizer
from data.fields import Field
from data.kinds import KINDS
from data.tasks.checkers import from_spec
from launch import flags
from launch.trial import run as trial

S, A = 4, 3  # tokens of a prompt and of an answer, with padding
FIELDS = ("prompt", "prompt_length", "answer", "answer_length")


def begins_with_its_letter(prompt: str, answer: str, response: str) -> float:
    """1 if a response begins with an 'a', plus a little for each later one."""
    return 0.5 * response.startswith("a") + 0.5 * response.count("a") / max(len(response), 4)


def always_one(prompt: str, answer: str, response: str) -> float:
    return 1.0


def raises(prompt: str, answer: str, response: str) -> float:
    raise RuntimeError(f"cannot judge {prompt}")


def spec(config: Any) -> dict[str, Field]:
    row = lambda n: Field((n,), np.int32, (None,))  # noqa: E731
    one = Field((), np.int32, ())
    return dict(zip(FIELDS, (row(S), one, row(A), one), strict=True))


@dataclass(frozen=True)
class Config:
    checker: str = "tests.train.objectives.policy.prompts:begins_with_its_letter"
    hash: str = ""


@dataclass(frozen=True)
class Prompts:
    """Prompts of 1 to 4 digits, answered with one letter."""

    checker: Any
    config: Any = None
    hash: str = "prompts"
    tokenizer = tokenizer.from_spec("bytes")
    vocab_size = 256

    def for_run(self, config: Any) -> "Prompts":
        return replace(self, config=config)

    def spec(self) -> dict[str, Field]:
        return spec(self.config)

    def batch(self, split: str, seed: int, step: int, rows: Any = None) -> dict:
        size = self.config.train.batch_size
        return self._made(
            (split == "train", seed, step), np.arange(size)[slice(None) if rows is None else rows]
        )

    def batches(self, split: str, seed: int, step: int, count: int, rows: Any = None) -> dict:
        made = [self.batch(split, seed, step + i, rows) for i in range(count)]
        return {name: np.stack([one[name] for one in made]) for name in made[0]}

    def _made(self, of: tuple, rows: np.ndarray) -> dict:
        prompt, answer = np.zeros((len(rows), S), np.int32), np.zeros((len(rows), A), np.int32)
        length = np.empty(len(rows), np.int32)
        for i, row in enumerate(rows):
            rng = np.random.default_rng((*of, int(row)))
            length[i] = rng.integers(1, S + 1)
            prompt[i, S - length[i] :] = rng.integers(48, 58, length[i])
        answer[:, :2] = ord("a"), self.tokenizer.eod
        return dict(
            zip(FIELDS, (prompt, length, answer, np.full(len(rows), 2, np.int32)), strict=True)
        )

    def examples(self, split: str) -> Iterator[dict]:
        size, wanted = self.config.eval.batch_size, self.config.eval.sequences
        for first in range(0, wanted, size):
            batch = self._made((2, first), np.arange(size))
            batch["answer_length"][wanted - first :] = 0
            yield batch

    def epochs(self, steps: float) -> float:
        return 0

    def save(self, workdir: Path) -> None:
        self.tokenizer.save(workdir / "tokenizer")


KINDS["short_prompts"] = SimpleNamespace(
    Config=Config,
    FIELDS=FIELDS,
    PREDICTS="nothing",
    prepare=lambda data, progress=True: Prompts(from_spec("", data.checker)),
    spec=spec,
    tokens=lambda config: config.model.context_length,
    vocab_size=lambda data: 256,
)

MODEL = {
    "model.context_length": "12", "model.n_layers": "1", "model.d_model": "16",
    "model.n_heads": "2", "optimizer.weight_decay": "0",
}  # fmt: skip
OFTEN = {
    "eval.sequences": "16", "eval.batch_size": "16", "eval.every": "50 %", "log.tensorboard": "False",
    "log.every": "1 steps", "checkpoint.every": "0 steps", "schedule.name": "constant",
}  # fmt: skip


def base(home: Path) -> Path:
    """A run whose weights are nearly random, from which the others start."""
    if not (home / "base" / "result.json").exists():
        words = np.random.default_rng(0).choice(["12", "345", "abc\n\n"], 20_000)
        (home / "text.txt").write_text(" ".join(words))
        keys = MODEL | OFTEN | {
            "data.corpora": f"{home}/text.txt", "data.cache": f"{home}/cache",
            "train.duration": "2 steps", "train.batch_size": "4",
        }  # fmt: skip
        assert trial.run(flags.load_config("configs/base.py", keys), home / "base") == 0
    return home / "base"


def config(home: Path, objective: str = "grpo", **keys: str):
    """The config of a trial that starts from `base(home)`."""
    given = OFTEN | {
        "train.init_from": str(base(home)), "objective.name": objective,
        "data.kind": "short_prompts", "objective.max_tokens": "4",
        "train.batch_size": "16", "train.duration": "4 steps", "optimizer.learning_rate": "0.02",
        "schedule.warmup": "0 steps", "optimizer.weight_decay": "0",
    }  # fmt: skip
    return flags.load_config("configs/base.py", given | keys)


if __name__ == "__main__":
    workdir = Path(sys.argv[1])
    given = dict(pair.split("=", 1) for pair in sys.argv[2:])
    objective = given.pop("objective", "grpo")
    if "kill_at" in given:
        from train.record import Record

        at, after = int(given.pop("kill_at")), Record.after_chunk

        def killed(self, *arguments):
            after(self, *arguments)
            if self.step == at:
                self.checkpoints.wait()
                os.kill(os.getpid(), 9)

        Record.after_chunk = killed
    sys.exit(trial.run(config(workdir.parent, objective, **given), workdir))
