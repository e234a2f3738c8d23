"""The settings that the objectives with rollouts share, and their sizes."""

from dataclasses import dataclass, replace
from typing import Any

from model import families
from train.objectives.policy.estimators import KL
from train.objectives.policy.surrogate import NORMALISE
from train.objectives.refusals import refuse_settings

FROZEN = {"reference": "objective.reference", "reward": "objective.reward_model"}
# Without a reference of its own, the weights that training starts from; without a reward model,
# the checker of the data gives the rewards.
FROM_START = ("objective.reference",)
MAY_LACK = ("objective.reward_model",)
# Without a value model, the values are of a head on the policy's trunk.
BESIDE = {"value": "objective.value_model"}
KEYS = FROZEN | BESIDE

SCALAR = "a run with objective.name=reward, whose head has one output"
# The functions of a family that each needs, and what has them. The value before a token must not
# depend on it, so only a family that predicts the next token can give it.
NEEDED = {
    "reference": (("hidden", "head", "logits"), "a decoder"),
    "reward": (("pooled",), SCALAR),
    "value": (("hidden", "logits", "pooled"), f"{SCALAR}, of a decoder"),
}
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
    skip_flat: bool = False
    buckets: int = 0
    prefetch: bool = False
    rows: int = 0  # of a rollout, over all devices
    vocab_size: int = 0  # higher tokens are padding and never drawn; 0: none is

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
    if cfg.buckets and prompts(cfg) % cfg.buckets:
        valid = [n for n in range(1, prompts(cfg) + 1) if prompts(cfg) % n == 0]
        raise ValueError(
            f"objective.buckets={cfg.buckets} does not divide the {prompts(cfg)} prompts of a "
            f"rollout; use one of 0, {', '.join(map(str, valid))}"
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
    longest = config.data.get("prompt_length", 1)
    if (room := config.model.context_length - longest) < cfg.max_tokens:
        fits = f"use {room} or fewer" if room > 0 else "use a smaller data.prompt_length"
        raise ValueError(
            f"objective.max_tokens={cfg.max_tokens} after prompts of {longest} tokens "
            f"(data.prompt_length) does not fit model.context_length="
            f"{config.model.context_length}; {fits}"
        )
    if (wanted := config.data.get("answer_length", 0)) > cfg.max_tokens:
        raise ValueError(
            f"objective.max_tokens={cfg.max_tokens} cuts right answers short, which have up to "
            f"{wanted} tokens (data.answer_length); use {wanted} or more, or a smaller "
            "data.answer_length"
        )
    if rate := (config.get("adapter") or {}).get("dropout", 0):
        raise ValueError(
            f"adapter.dropout={rate}, but objective.name={config.objective.name!r} needs the "
            "policy that drew the responses, without dropout; use 0"
        )
    refuse_settings(config, "z_loss", "loss_chunk", "label_smoothing")
    return cfg


def check_frozen(model: Any, frozen: tuple[tuple[str, str, Any], ...]) -> None:
    """ValueError for a reference that gives no distribution of the next token, a reward or value
    model without a scalar head, and any of another vocabulary."""
    for name, family, of in frozen:
        (needs, what), scalar = NEEDED[name], name != "reference"
        has_needs = all(hasattr(families.FAMILIES[family], need) for need in needs)
        n_classes, having = getattr(of, "n_classes", 0), ""
        if scalar:
            having = f" with model.n_classes={n_classes}"
        if not has_needs or (scalar and n_classes != 1):
            raise ValueError(
                f"{KEYS[name]} names a model of the family {family!r}{having}; use {what}"
            )
        if of.vocab_size != model.vocab_size:
            raise ValueError(
                f"{KEYS[name]} names a model with model.vocab_size={of.vocab_size}, and the "
                f"policy has {model.vocab_size}; use one of the same vocabulary"
            )


def for_data(cfg: Config, dataset: Any) -> Config:
    """The settings with what the data decide: the vocabulary that responses are drawn from."""
    return replace(cfg, vocab_size=getattr(dataset, "vocab_size", 0))


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
