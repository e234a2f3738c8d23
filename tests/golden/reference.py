"""Builds tiny transformers models that are hard to match; computes their logits and gradients."""

import copy
import zlib

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM

SCALE = 0.2  # of all weights: large enough for every activation function to be nonlinear
UNIT_OFFSET = ("gemma", "gemma2", "gemma3_text", "nemotron")  # norms multiply by 1 + weight
EMBEDDINGS = ("wte", "wpe", "embed", ".w.")


def build(keys: dict, weights: dict | None = None, dtype: str = "float32"):
    """A model with `weights` or random ones, in eval mode and with eager attention."""
    config = AutoConfig.for_model(**copy.deepcopy(keys))  # the class edits nested dicts in place
    config._attn_implementation = "eager"
    model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype)).eval()
    if weights is not None:
        model.load_state_dict(weights)
        model.tie_weights()
    return model


def harden(model, name: str, embedding: float) -> None:
    """Replaces all parameters by random ones: large weights, scales that aren't 1, biases not 0.

    If the head is tied to small embeddings or its logits are scaled down, a larger final norm
    restores the size of the logits. Names distinguish norms from biases; the final norm is the one
    without a layer number.
    """
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    gain = (SCALE / embedding if tied else 1) / (getattr(model.config, "logit_scale", None) or 1)
    offset = 1 if model.config.model_type in UNIT_OFFSET else 0
    for path, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim == 1 and "bias" not in path:
            final = not any(part.isdigit() for part in path.split("."))
            value = (gain if final else 1) * (1 + 0.3 * noise) - offset
        elif path == "lm_head.bias":  # isoflop's head has no bias
            value = 0 * noise
        else:
            small = any(part in path for part in EMBEDDINGS)
            value = (embedding if small else SCALE) * noise
        parameter.data.copy_(value)


@torch.no_grad()
def logits(model, tokens: torch.Tensor) -> torch.Tensor:
    """Logits [B, T, V], computed without a cache."""
    return model(tokens, use_cache=False).logits


def gradients(model, tokens: torch.Tensor) -> dict[str, np.ndarray]:
    """`loss`, the mean next-token cross-entropy in nats, and its gradients by parameter."""
    model.zero_grad()
    predicted = model(tokens, use_cache=False).logits[:, :-1]
    loss = torch.nn.functional.cross_entropy(predicted.flatten(0, 1), tokens[:, 1:].flatten())
    loss.backward()
    found = {f"gradient/{path}": p.grad.numpy() for path, p in model.named_parameters()}
    return {"loss": np.float32(loss.item())} | found
