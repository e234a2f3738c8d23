"""The settings that the objectives with rollouts share, and their sizes."""

from dataclasses import dataclass
from typing import Any

from train.objectives.policy.estimators import KL
from train.objectives.policy.surrogate import NORMALISE

FROZEN = {"reference": "objective.reference", "reward": "objective.reward_model"}
# Without a reference of its own, the weights that training starts from; without a reward model,
# the checker of the data gives the rewards.
FROM_START = ("objective.reference",)
MAY_LACK = ("objective.reward",)

SCALES = ("group", "batch", "none")
KL_IN = ("reward", "loss")


@dataclass(frozen=True)
class Config:
    """Keys of the section `objective`; configs/base.py explains them. An objective that lacks one
    has the default."""

    max_tokens: int = 16
    samples: int = 1
    temperature: float = 1.0
    eval_temperature: float = 1.0
    epochs: int = 1
    minibatches: int = 1
    kl: float = 0.0
    kl_estimator: str = "k1"
    kl_in: str = "reward"
    clip: float = 0.2
    clip_high: float = 0.0
    normalise: str = "token"
    scale: str = "group"
    entropy: float = 0.0
    value_weight: float = 0.1
    value_clip: float = 0.2
    gamma: float = 1.0
    gae_lambda: float = 0.95
    whiten: bool = True
    whiten_rewards: bool = False
    rows: int = 0  # of a rollout, over all devices

    @property
    def high(self) -> float:
        """How far above 1 a ratio may be."""
        return self.clip_high or self.clip


CHOICES = {
    "kl_estimator": tuple(KL),
    "kl_in": KL_IN,
    "normalise": tuple(NORMALISE),
    "scale": SCALES,
}


def configure(config: Any) -> Config:
    """The Config of a resolved config; ValueError for values that do not go together."""
    keys = [name for name in Config.__dataclass_fields__ if name in config.objective]
    found = {name: config.objective[name] for name in keys}
    for key, known in CHOICES.items():
        if key in found and found[key] not in known:
            raise ValueError(
                f"objective.{key}={found[key]!r} is unknown; use one of {', '.join(known)}"
            )
    cfg = Config(**found, rows=config.train.batch_size * config.objective.get("minibatches", 1))
    if cfg.rows % cfg.samples:
        valid = [n for n in range(1, cfg.rows + 1) if cfg.rows % n == 0]
        raise ValueError(
            f"objective.samples={cfg.samples} does not divide the {cfg.rows} responses of a "
            f"rollout (train.batch_size times objective.minibatches); use one of "
            f"{', '.join(map(str, valid))}"
        )
    if cfg.kl and cfg.kl_in == "loss" and cfg.kl_estimator == "k1":
        raise ValueError(
            "objective.kl_in='loss' with objective.kl_estimator='k1' has a gradient that is 0 in "
            "expectation; use k2 or k3, or objective.kl_in=reward"
        )
    if not cfg.temperature > 0:
        raise ValueError(
            f"objective.temperature={cfg.temperature} draws one response only; use more than 0"
        )
    room = config.model.context_length - cfg.max_tokens
    if room < 1:
        raise ValueError(
            f"objective.max_tokens={cfg.max_tokens} leaves no room for a prompt in "
            f"model.context_length={config.model.context_length}; use fewer"
        )
    for key in ("z_loss", "loss_chunk", "label_smoothing"):
        if config.train[key]:
            raise ValueError(
                f"train.{key}={config.train[key]} has no effect with objective.name="
                f"{config.objective.name!r}; use 0"
            )
    return cfg


def require_groups(config: Any, cfg: Config) -> None:
    """ValueError for groups of one response, which have no baseline."""
    if cfg.samples < 2:
        raise ValueError(
            f"objective.samples={cfg.samples}, but objective.name={config.objective.name!r} "
            "compares the responses to a prompt; use 2 or more"
        )


def prompts(cfg: Config) -> int:
    """Prompts of a rollout."""
    return cfg.rows // cfg.samples


def passes(cfg: Config) -> tuple[int, int]:
    """(epochs over the responses of a rollout, minibatches of each)."""
    return cfg.epochs, cfg.minibatches
