"""The objective `exact_match` for captions, optionally with the frozen encoder of another run.

objective.encoder names a run of a captioner. Its encoder is never updated: the projector and the
decoder learn to use its states, as in the first stage of LLaVA (Liu et al. 2023).
"""

from dataclasses import dataclass
from typing import Any

import jax

from model.captioner import config as captioner
from model.families import Trained
from train.objectives import exact_match

FIELDS, NEEDS, TRAINED = exact_match.FIELDS, exact_match.NEEDS, exact_match.TRAINED
METRICS = exact_match.METRICS
ENCODER = "objective.encoder"
FROZEN = {"encoder": ENCODER}
MAY_LACK = OTHER_TEXT = (ENCODER,)
# The keys of a model that describe its encoder.
SAME = (
    *("image", "patch", "patch_height", "encoder_layers", "encoder_width", "encoder_heads"),
    *captioner.SHARED,
)


@dataclass(frozen=True)
class Config:
    """The keys of the section `objective`."""

    encoder: str = ""  # a run of a captioner whose encoder is used; "": the encoder is trained
    encoder_hash: str = ""  # of its weights, filled in by `resolve`


def configure(config: Any) -> Any:
    """The settings of `exact_match`. ValueError unless the model has a frozen encoder and the
    objective names one, or neither."""
    of_model = config.model.get("encoder", "")
    if of_model == captioner.FROZEN and not config.objective.encoder:
        raise ValueError(
            f"model.encoder={of_model!r}, but {ENCODER} is empty; name a run of a captioner, or "
            f"use model.encoder={captioner.LEARNED}"
        )
    if of_model != captioner.FROZEN and config.objective.encoder:
        raise ValueError(
            f"{ENCODER}={config.objective.encoder!r}, but model.encoder={of_model!r}; use "
            f"model.family=captioner with model.encoder={captioner.FROZEN}"
        )
    return exact_match.configure(config)


def check_frozen(model: Any, frozen: tuple[tuple[str, str, Any], ...]) -> None:
    """ValueError for an encoder of another family than the model, or of other sizes."""
    for _, family, other in frozen:
        if not isinstance(other, captioner.Config) or not other.learns_encoder:
            raise ValueError(
                f"{ENCODER} holds a model of the family {family!r} without an encoder of its own; "
                "name a run of a captioner with model.encoder=learned"
            )
        keys = {key: getattr(other, key) for key in SAME}
        if wrong := {key: value for key, value in keys.items() if getattr(model, key) != value}:
            listed = " and ".join(f"model.{key}={value}" for key, value in wrong.items())
            raise ValueError(f"{ENCODER} has another encoder; use {listed}, as that run has")


def whole(params: dict, frozen: dict) -> dict:
    """The parameters of the model, with the frozen encoder if it has one."""
    if "encoder" not in frozen:
        return params
    return params | {"encoder": frozen["encoder"]["encoder"]}


def loss(
    model: Trained, params: dict, frozen: dict, cfg: Any, batch: dict, key: jax.Array
) -> tuple[jax.Array, dict]:
    """The loss of `exact_match`."""
    return exact_match.loss(model, whole(params, frozen), {}, cfg, batch, key)


def evaluate(
    model: Trained, params: dict, frozen: dict, cfg: Any, batch: dict
) -> dict[str, jax.Array]:
    """The sums of `exact_match` for each row [B]."""
    return exact_match.evaluate(model, whole(params, frozen), {}, cfg, batch)
