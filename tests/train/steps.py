"""The static part of a decoder's step, for tests that need no whole config."""

from typing import Any

from model.transformer.config import ModelConfig
from train.objectives import next_token
from train.step import StepConfig

NEXT_TOKEN = next_token.Config()


def decoder_step(
    model: ModelConfig, loss: next_token.Config = NEXT_TOKEN, **changes: Any
) -> StepConfig:
    """A decoder that learns the next token."""
    return StepConfig(model, loss, "decoder", "next_token", **changes)
