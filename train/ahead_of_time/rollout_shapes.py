"""The shapes of what a rollout reads and makes, and the FLOPs of its forward passes."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from data.fields import Field
from data.kinds import KINDS
from model import families
from train import objectives
from train.parallel import sharding
from train.policy.rollouts import batch_shapes, require_divided, with_prompts
from train.step import StepConfig, TrainState, passes


def makes_rollouts(cfg: StepConfig) -> bool:
    """Whether the objective makes its batches from the parameters."""
    return hasattr(objectives.OBJECTIVES[cfg.objective], "rollout")


def abstract(
    fields: Mapping[str, Field], leading: tuple[int, ...], mesh: Mesh
) -> dict[str, jax.ShapeDtypeStruct]:
    """The fields of a batch with the leading dimensions (..., rows), sharded as batches are."""
    where = sharding.batch_shardings(mesh, fields, len(leading) - 1)
    return {
        name: jax.ShapeDtypeStruct((*leading, *field.shape), field.dtype, sharding=where[name])
        for name, field in fields.items()
    }


def prompts(config: Any, cfg: StepConfig, mesh: Mesh) -> dict[str, jax.ShapeDtypeStruct]:
    """The data [P, ...] of a rollout of a resolved config, in one bucket. Raises MeshError if the
    rows of the mesh do not divide the prompts of a bucket."""
    sized = with_prompts(config, cfg)
    require_divided(sized.train.batch_size, mesh, getattr(cfg.loss, "buckets", 0))
    fields = KINDS[config.data.kind].spec(sized)
    return abstract(fields, (sized.train.batch_size,), mesh)


def batches(
    config: Any, cfg: StepConfig, state: TrainState, mesh: Mesh
) -> dict[str, jax.ShapeDtypeStruct]:
    """The batches [K, B, ...] of the updates on a rollout."""
    return batch_shapes(cfg, state, prompts(config, cfg, mesh), mesh)


def updates(cfg: StepConfig) -> int:
    """The steps on the batches of one rollout."""
    return math.prod(passes(cfg))


def forward_flops(config: Any, cfg: StepConfig, convention: str = "palm") -> float:
    """FLOPs of the forward passes of a rollout over all devices: the policy reads the prompts and
    writes responses of full length, and then it and each other model read both."""
    P, R = with_prompts(config, cfg).train.batch_size, cfg.loss.rows
    S, N = config.data.prompt_length, cfg.loss.max_tokens
    of_policy = _forward(cfg.family, cfg.model, convention)
    others = (*cfg.frozen, *cfg.beside)
    drawn = (P * S + R * (N - 1)) * of_policy
    readers = [of_policy, *(_forward(family, of, convention) for _, family, of in others)]
    return drawn + R * (S + N) * float(np.sum(readers))


def frozen_flops(cfg: StepConfig, convention: str = "palm") -> float:
    """FLOPs per token of a forward pass of every frozen model that a step reads; those of a
    rollout are read before it."""
    if makes_rollouts(cfg):
        return 0.0
    return float(sum(_forward(family, of, convention) for _, family, of in cfg.frozen))


def _forward(family: str, cfg: Any, convention: str) -> float:
    """FLOPs per token of a forward pass, a third of those of training."""
    found = families.FAMILIES[family]
    if convention != "matmul":
        return found.flops(cfg)[convention] / 3
    return found.matmul_flops(cfg) / 3 if hasattr(found, "matmul_flops") else float("nan")
