"""Builds the StepConfig of a decoder, for tests that need no complete config."""

from typing import Any

from model.transformer.config import ModelConfig
from train.objectives import next_token
from train.step import StepConfig

NEXT_TOKEN = next_token.Config()


def decoder_step(
    model: ModelConfig, loss: next_token.Config = NEXT_TOKEN, **changes: Any
) -> StepConfig:
    """The StepConfig of a decoder that is trained on next-token prediction."""
    return StepConfig(model, loss, "decoder", "next_token", **changes)
