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

FLAT_ROLLOUTS = 20  # in a row without any variance in a group, after which a run says so


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


def require_divided(n_prompts: int, mesh: Mesh) -> None:
    """MeshError where the rows of a mesh do not divide the prompts of a rollout."""
    parts = mesh.shape.get("data", 1) * mesh.shape.get("fsdp", 1)
    if n_prompts % parts:
        raise MeshError(
            f"a rollout has {n_prompts} prompts, which mesh.data times mesh.fsdp, "
            f"{parts}, does not divide; use another train.batch_size"
        )


def score(
    objective: Any, dataset: Dataset, batch: Mapping[str, jax.Array], mesh: Mesh, leading: int = 0
) -> dict:
    """The batch, with the field "reward" if the objective scores on the host, where the first
    process scores all rows. BadReward for a reward that is not finite."""
    if not hasattr(objective, "score"):
        return dict(batch)
    if "reward" in batch:
        _require_finite(processes.to_host(batch["reward"]))
        return dict(batch)
    host = processes.to_host(dict(batch))
    shape = host["mask"].shape[: leading + 1]
    flat = {name: x.reshape(-1, *x.shape[leading + 1 :]) for name, x in host.items()}
    reward = _require_finite(_scored(objective, dataset, flat)).reshape(shape)
    where = sharding.row_sharding(mesh, leading)
    return dict(batch) | {
        "reward": jax.make_array_from_callback(shape, where, lambda place: reward[place])
    }


def _scored(objective: Any, dataset: Dataset, rows: Mapping[str, np.ndarray]) -> np.ndarray:
    """The rewards [R] that the first process computes, so that all have the same, also of a checker
    that is not deterministic. BadReward in all of them if the first one fails."""
    if processes.count() == 1:
        return objective.score(dataset, rows)
    reward, failure = [], ""
    if processes.is_first():
        try:
            reward = np.asarray(objective.score(dataset, rows), np.float32).tolist()
        except Exception as error:
            failure = f"{type(error).__name__}: {error}"
    reward, failure = processes.exchange("rewards", [reward, failure])[0]
    if failure:
        raise BadReward(f"the rewards cannot be computed ({failure})")
    return np.asarray(reward, np.float32)


def _require_finite(reward: np.ndarray) -> np.ndarray:
    if bad := int((~np.isfinite(reward)).sum()):
        raise BadReward(
            f"the rewards of {bad} of {reward.size} responses are not finite numbers; nothing was "
            "learnt from them. Look at the reward model or the checker, and run this again"
        )
    return reward


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
        require_divided(self.n_prompts, mesh)
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
        """Says once if no group had any variance for FLAT_ROLLOUTS rollouts in a row. `metrics` are
        those of the updates on one."""
        if not (shares := metrics.get("flat_groups", ())):
            return
        self.flat = self.flat + 1 if min(shares) == 1 else 0
        if self.flat == FLAT_ROLLOUTS:
            self.say(
                f"for {FLAT_ROLLOUTS} rollouts all responses to each prompt had the same reward, "
                "so nothing is learnt: begin from a model that is right at times, use easier "
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
