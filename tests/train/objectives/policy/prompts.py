"""Trials that learn to answer prompts with the letter a.

`python -m tests.train.objectives.policy.prompts WORKDIR KEY=VALUE …` runs one.
"""

import os
import sys
from pathlib import Path

import numpy as np

from launch.config import config_file
from launch.trial import run as trial


def many_as(prompt: str, answer: str, response: str) -> float:
    """1 for a response of four times "a"; half of it for the first."""
    return 0.5 * response.startswith("a") + 0.5 * response.count("a") / max(len(response), 4)


def raises(prompt: str, answer: str, response: str) -> float:
    raise RuntimeError(f"cannot judge {prompt}")


HERE = "tests.train.objectives.policy.prompts"
MODEL = {
    "model.context_length": "12", "model.n_layers": "1", "model.d_model": "16",
    "model.n_heads": "2", "optimizer.weight_decay": "0",
}  # fmt: skip
OFTEN = {
    "eval.sequences": "16", "eval.batch_size": "16", "eval.every": "50 %",
    "log.tensorboard": "False", "log.every": "1 steps",
    "checkpoint.every": "0 steps", "schedule.name": "constant",
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
        assert trial.run(config_file.load_config("configs/base.py", keys), home / "base") == 0
    return home / "base"


def keys_of(home: Path, objective: str = "grpo", **keys: str) -> dict[str, str]:
    """The keys of a trial that starts from `base(home)`."""
    return OFTEN | {
        "train.init_from": str(base(home)), "objective.name": objective,
        "data.kind": "tasks", "data.template": "", "data.size": "1", "data.prompt_length": "6",
        "data.answer_length": "4", "data.checker": f"{HERE}:many_as",
        "objective.max_tokens": "4",
        "train.batch_size": "16", "train.duration": "4 steps", "optimizer.learning_rate": "0.02",
        "schedule.warmup": "0 steps", "optimizer.weight_decay": "0",
    } | keys  # fmt: skip


def config(home: Path, objective: str = "grpo", **keys: str):
    """The config of such a trial."""
    return config_file.load_config("configs/base.py", keys_of(home, objective, **keys))


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
