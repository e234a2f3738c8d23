"""Distillation: the loss of one student against the loss of its teacher.

    isoflop sweep --config=configs/study/distillation.py:teachers --workdir=runs/teachers
    isoflop sweep --config=configs/study/distillation.py:runs/teachers --workdir=runs/students

Unmeasured.

The first sweep trains teachers of several widths; the second trains one small student on the
distribution of each, and one without a teacher. Both losses are of the next token of the same
validation text, so they can be compared: `eval_loss`, and `teacher_loss` of the students.
"""

from pathlib import Path

from ml_collections import ConfigDict

from configs import base
from configs.space import grid

TEACHERS = "teachers"  # the argument of the first sweep; that of the second is the folder it made
WIDTHS = (8, 16, 32, 64, 96)


def get_config(arg: str = TEACHERS) -> ConfigDict:
    config = base.get_config(objective="next_token" if arg == TEACHERS else "distill")
    config.name = "teacher" if arg == TEACHERS else "student"
    config.data.max_bytes = 2_000_000
    config.model.n_layers, config.model.n_heads = 2, 2
    config.model.d_model = 16
    config.train.batch_size = 16
    config.train.duration = "5e5 tokens"
    config.optimizer.learning_rate = 3e-3
    if arg != TEACHERS:
        teachers = _teachers(arg)
        config.objective.teacher = teachers[0] if teachers else ""
    return config


def get_sweep(config: ConfigDict) -> list[dict]:
    if config.objective.name == "next_token":
        return grid({"model.d_model": list(WIDTHS)})
    folder = Path(config.objective.teacher).parent
    return [{"objective.teacher": teacher} for teacher in _teachers(folder)] + [
        {"objective.name": "next_token", "name": "alone"}
    ]


def _teachers(folder: str | Path) -> list[str]:
    """The finished runs in a folder."""
    return sorted(str(path.parent) for path in Path(folder).glob("*/result.json"))
