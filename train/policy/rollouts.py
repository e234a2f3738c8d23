"""Rollouts: the batches of an objective that makes them from the current parameters.

A rollout has three parts: the objective's `rollout` under jit, its `score` on the host, for rewards
that Python computes, and its `advantages` under jit. It gives the batches of K updates, which are K
steps; so rollouts happen at multiples of K, and all events of such a run do.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from data.kinds import Batch, Dataset
from train import objectives
from train.parallel import processes, sharding
from train.parallel.mesh import MeshError
from train.step import StepConfig, TrainState, passes, respond, roll_out, updates_of

FLAT_STEPS = 20  # steps in a row without any variance in a group, after which a run says so


class BadReward(ValueError):
    """A reward that is not a finite number."""


def with_prompts(config: Any, cfg: StepConfig) -> Any:
    """The config whose train.batch_size is the number of prompts of a rollout, by which the data
    are sized."""
    objective = objectives.OBJECTIVES[cfg.objective]
    if not hasattr(objective, "prompts"):
        return config
    sized = config.copy_and_resolve_references()
    sized.train.batch_size = objective.prompts(cfg.loss)
    return sized


def score(
    objective: Any, dataset: Dataset, batch: Mapping[str, jax.Array], mesh: Mesh, leading: int = 0
) -> dict:
    """The batch with the field "reward", if the objective scores on the host. Every process scores
    all rows."""
    if "reward" in batch or not hasattr(objective, "score"):
        return dict(batch)
    host = processes.to_host(dict(batch))
    shape = host["mask"].shape[: leading + 1]
    flat = {name: x.reshape(-1, *x.shape[leading + 1 :]) for name, x in host.items()}
    reward = objective.score(dataset, flat).reshape(shape)
    if bad := int((~np.isfinite(reward)).sum()):
        raise BadReward(
            f"the rewards of {bad} of {reward.size} responses are not finite numbers; let the "
            "checker return finite ones"
        )
    where = sharding.row_sharding(mesh, leading)
    return dict(batch) | {
        "reward": jax.make_array_from_callback(shape, where, lambda place: reward[place])
    }


class Rollouts:
    """Makes the batches of a run. The constructor raises MeshError if the rows of a mesh do not
    divide the prompts, and what the sizing of the data raises."""

    def __init__(
        self,
        config: Any,
        cfg: StepConfig,
        dataset: Dataset,
        mesh: Mesh,
        say: Callable[[str], None] = print,
    ):
        self.config, self.cfg, self.mesh, self.say = with_prompts(config, cfg), cfg, mesh, say
        self.dataset = dataset.for_run(self.config)
        self.objective = objectives.OBJECTIVES[cfg.objective]
        epochs, minibatches = passes(cfg)
        self.updates, self.flat = epochs * minibatches, 0
        self.n_prompts = self.config.train.batch_size
        parts = mesh.shape.get("data", 1) * mesh.shape.get("fsdp", 1)
        if self.n_prompts % parts:
            raise MeshError(
                f"a rollout has {self.n_prompts} prompts, which mesh.data times mesh.fsdp, {parts}, "
                "does not divide; use a larger train.batch_size"
            )
        self._where = sharding.batch_shardings(mesh, self.dataset.spec())
        name, first = next(iter(self.dataset.spec().items()))
        shape = (1, self.n_prompts, *first.shape)
        self._rows = processes.local_rows(self._where[name], shape)

    def prompts(self, step: int) -> dict[str, jax.Array]:
        """The data [1, P, ...] of the rollout that begins at this step."""
        number = step // self.updates
        local: Batch = self.dataset.batches("train", self.config.seed, number, 1, self._rows)
        return processes.place(local, self._rows, self.n_prompts, self._where)

    def __call__(self, state: TrainState, prompts: Mapping[str, jax.Array]) -> dict:
        """The batches [K, B, ...] of the next K updates."""
        batch = roll_out(self.cfg, state, {name: x[0] for name, x in prompts.items()})
        batch = score(self.objective, self.dataset, batch, self.mesh)
        return updates_of(self.cfg, state, batch)

    def watch(self, metrics: Mapping[str, Sequence[float]]) -> None:
        """Says once if no group had any variance for FLAT_STEPS steps in a row."""
        for share in metrics.get("flat_groups", ()):
            self.flat = self.flat + 1 if share == 1 else 0
            if self.flat == FLAT_STEPS:
                self.say(
                    f"for {FLAT_STEPS} steps all responses to each prompt had the same reward, so "
                    "nothing is learnt: begin from a model that is right at times, use easier "
                    "prompts or more objective.samples, or raise objective.temperature"
                )


def answered(
    cfg: StepConfig, dataset: Dataset, mesh: Mesh, state: TrainState, batches: Mapping
) -> dict:
    """Evaluation batches [E, B, ...] with a response and a reward in each row."""
    made = respond(cfg, state.params, state.frozen, batches)
    return score(objectives.OBJECTIVES[cfg.objective], dataset, made, mesh, leading=1)


def responds(cfg: StepConfig) -> bool:
    """Whether an evaluation needs responses."""
    return hasattr(objectives.OBJECTIVES[cfg.objective], "respond")
