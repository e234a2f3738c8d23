"""A toy family and toy objectives, registered here. The project itself does not refer to them.

`python -m tests.launch.toy WORKDIR KEY=VALUE …` runs one trial of them.
"""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp

from launch.config import config_file
from launch.trial import run as trial
from model.families import CONVENTIONS, FAMILIES
from train.objectives import OBJECTIVES, next_token
from train.objectives.cross_entropy import cross_entropy
from train.objectives.metrics import Metric


@dataclass(frozen=True)
class Config:
    """A bag-of-words model: predicts the next token from the mean of the last `span` embeddings."""

    vocab_size: int = 0
    context_length: int = 16
    d_model: int = 16
    span: int = 4


def _flops(cfg: Config) -> dict[str, float]:
    return dict.fromkeys(CONVENTIONS, 6.0 * sum(_parameters(cfg).values()))


def _parameters(cfg: Config) -> dict[str, int]:
    table = cfg.vocab_size * cfg.d_model
    return {"embedding": table, "head": table}


def _init(cfg: Config, key: jax.Array) -> dict:
    one, two = jax.random.split(key)
    shape = cfg.vocab_size, cfg.d_model
    return {
        "embed": {"embedding": 0.1 * jax.random.normal(one, shape)},
        "head": {"kernel": 0.1 * jax.random.normal(two, shape[::-1])},
    }


def _hidden(cfg: Config, params: dict, batch: Mapping, key: jax.Array | None = None) -> jax.Array:
    x_BTD = params["embed"]["embedding"][batch["tokens"]]
    shifted = [
        jnp.pad(x_BTD, ((0, 0), (i, 0), (0, 0)))[:, : x_BTD.shape[1]] for i in range(cfg.span)
    ]
    return sum(shifted) / cfg.span


BAG = SimpleNamespace(
    Config=Config,
    INPUTS=("tokens",),
    derive=lambda keys: Config(**keys),
    flops=_flops,
    parameters=_parameters,
    init=_init,
    hidden=_hidden,
    head=lambda cfg, params: params["head"],
    logits=lambda cfg, head, x_BTD: jnp.matmul(x_BTD, head["kernel"]),
    PARAMETER_AXES=(
        (r"^embed/embedding$", ("vocab", "embed")),
        (r"^head/kernel$", ("embed", "vocab")),
    ),
    MATRICES=((r"^head/kernel$", (0, 1)), (r"embedding$", None)),
)


def _evaluate(model, params, frozen, cfg, batch):
    logits_BTV = model.logits(
        cfg.model, model.head(cfg.model, params), model.hidden(cfg.model, params, batch)
    )
    right_BT = (logits_BTV.argmax(-1) == batch["targets"]) * batch["weights"]
    rows = next_token.evaluate(model, params, frozen, cfg, batch)
    return rows | {"right": right_BT.sum(-1)}


def _loss(model, params, frozen, cfg, batch, key):
    x_BTD = model.hidden(cfg.model, params, batch, key)
    logits_BTV = model.logits(cfg.model, model.head(cfg.model, params), x_BTD)
    nll_BT, _ = cross_entropy(logits_BTV, batch["targets"])
    p_BT, w_BT = jnp.exp(-nll_BT), batch["weights"]
    return ((1 - p_BT) * nll_BT * w_BT).sum(), {
        "loss": ((nll_BT * w_BT).sum(), w_BT.sum()),
        "confidence": ((p_BT * w_BT).sum(), w_BT.sum()),
    }


# Focal loss (Lin et al. 2017), cross-entropy weighted by 1 - p, with accuracy as a metric.
FOCAL = SimpleNamespace(
    FIELDS=("tokens", "targets", "weights"),
    NEEDS=("hidden", "head", "logits"),
    TRAINED=("loss", "confidence"),
    METRICS=next_token.METRICS | {"accuracy": Metric("share", "right", "weights", better="higher")},
    configure=next_token.configure,
    loss=_loss,
    evaluate=_evaluate,
)


def _rollout(model, params, frozen, cfg, batch, key):
    """Replaces a third of the targets by samples from the model."""
    logits_BTV = model.logits(
        cfg.model, model.head(cfg.model, params), model.hidden(cfg.model, params, batch)
    )
    one, two = jax.random.split(key)
    sampled_BT = jax.random.categorical(one, logits_BTV)
    replaced_BT = jax.random.bernoulli(two, 1 / 3, sampled_BT.shape)
    return dict(batch) | {"targets": jnp.where(replaced_BT, sampled_BT, batch["targets"])}


OWN_SAMPLES = SimpleNamespace(**vars(FOCAL) | {"rollout": _rollout})


def _distil(model, params, frozen, cfg, batch, key):
    """Cross-entropy with the teacher's distribution."""
    x_BTD = model.hidden(cfg.model, params, batch, key)
    log_q_BTV = jax.nn.log_softmax(model.logits(cfg.model, model.head(cfg.model, params), x_BTD))
    name, family, teacher = cfg.frozen[0]
    other = FAMILIES[family]
    y_BTD = other.hidden(teacher, frozen[name], batch)
    p_BTV = jax.nn.softmax(other.logits(teacher, other.head(teacher, frozen[name]), y_BTD))
    loss = -((p_BTV * log_q_BTV).sum(-1) * batch["weights"]).sum()
    return loss, {"loss": (loss, batch["weights"].sum())}


DISTIL = SimpleNamespace(
    **vars(FOCAL)
    | {
        "Config": dataclass(frozen=True)(
            type(
                "Config",
                (),
                {
                    "__annotations__": {"teacher": str, "teacher_hash": str},
                    "teacher": "",
                    "teacher_hash": "",
                },
            )
        ),
        "FROZEN": {"teacher": "objective.teacher"},
        "TRAINED": ("loss",),
        "loss": _distil,
    }
)

FAMILIES["bag"] = BAG
OBJECTIVES |= {"toy_focal": FOCAL, "own_samples": OWN_SAMPLES, "distil": DISTIL}


ABSENT = "absent"


def config(home: Path, **keys):
    """The config of a trial in `home`, which has text.txt; `keys` maps dotted keys to strings, of
    which ABSENT leaves a key of the defaults out."""
    defaults = {
        "model.family": "bag", "objective.name": "toy_focal", "data.corpora": f"{home}/text.txt",
        "data.cache": f"{home}/cache", "model.context_length": "16", "model.d_model": "16",
        "train.batch_size": "8", "train.duration": "24 steps", "train.chunk": "2",
        "eval.sequences": "16",
        "eval.batch_size": "8", "eval.every": "6 steps", "checkpoint.every": "6 steps",
        "log.every": "2 steps", "log.tensorboard": "False", "optimizer.learning_rate": "0.02",
    }  # fmt: skip
    given = {key: value for key, value in (defaults | keys).items() if value != ABSENT}
    return config_file.load_config("configs/base.py", given)


if __name__ == "__main__":
    workdir = Path(sys.argv[1])
    given = dict(pair.split("=", 1) for pair in sys.argv[2:])
    if "kill_at" in given:
        from train.record import Record

        at, after = int(given.pop("kill_at")), Record.after_chunk

        def killed(self, *arguments):
            after(self, *arguments)
            if self.step == at:
                self.checkpoints.wait()
                os.kill(os.getpid(), 9)

        Record.after_chunk = killed
    sys.exit(trial.run(config(workdir.parent, **given), workdir))
