"""Scaling of a model with width and depth: standard, μP and CompleteP.

A model is m = d_model / base_width times as wide as the base shape, its heads are
c = head_dim / base_head_dim times as wide, and it is l = n_layers / base_depth times as deep. At
the base shape all three parametrisations give the same model. `d_ff` and n_heads * head_dim are
assumed to be proportional to the width. `update_scales.py` scales the optimiser.
"""

from dataclasses import dataclass

from model.transformer.config import ModelConfig


@dataclass(frozen=True)
class Exponents:
    """The powers of m, c or l that scale each part of the model relative to the base shape."""

    kernels: float  # of m: standard deviation of the initial kernels of blocks
    scores: float  # of c: scale of attention's scores, which is 1 / sqrt(base_head_dim) at the base
    logits: float  # of m: multiplier of the logits
    branches: float  # of l: multiplier of each branch's output before the residual stream


# mup: Yang et al. 2022, table 8 and definition 4.1: the form that allows tied embeddings.
# completep: Dey et al. 2025, table 1 with α = 1.
PARAMETRIZATIONS = {
    "standard": Exponents(kernels=0, scores=-1 / 2, logits=0, branches=0),
    "mup": Exponents(kernels=-1 / 2, scores=-1, logits=-1, branches=0),
    "completep": Exponents(kernels=-1 / 2, scores=-1, logits=-1, branches=-1),
}


def width_ratio(cfg: ModelConfig) -> float:
    """m; 1 if the parametrization has no base width."""
    return cfg.d_model / (cfg.base_width or cfg.d_model)


def depth_ratio(cfg: ModelConfig) -> float:
    """l; 1 if the parametrization has no base depth."""
    return cfg.n_layers / (cfg.base_depth or cfg.n_layers)


def kernels(cfg: ModelConfig) -> float:
    """The factor on the initial standard deviation of blocks' kernels."""
    return width_ratio(cfg) ** PARAMETRIZATIONS[cfg.parametrization].kernels


def scores(cfg: ModelConfig) -> float:
    """The factor on q·k: `query_scale`, or 1 / sqrt(C), or sqrt(base_head_dim) / C."""
    if cfg.query_scale:
        return cfg.query_scale
    base = cfg.base_head_dim or cfg.head_dim
    return base**-0.5 * (cfg.head_dim / base) ** PARAMETRIZATIONS[cfg.parametrization].scores


def logits(cfg: ModelConfig) -> float:
    """The factor on the logits, before any softcap."""
    return cfg.logit_scale * width_ratio(cfg) ** PARAMETRIZATIONS[cfg.parametrization].logits


def branches(cfg: ModelConfig) -> float:
    """The factor on the output of attention or MLP before it joins the residual stream."""
    return depth_ratio(cfg) ** PARAMETRIZATIONS[cfg.parametrization].branches
