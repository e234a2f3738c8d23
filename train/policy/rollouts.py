"""Rollouts: the batches of an objective that makes them from the current parameters.

A rollout has three parts: the objective's `rollout` under jit, its `score` on the host, for rewards
that Python computes, and its `advantages` under jit. It gives the batches of K updates, which are K
steps; so rollouts happen at multiples of K, and all events of such a run do.

With `objective.prefetch` the rollout of the next updates is drawn before those on the current one,
so the host scores it while the devices train. It is off-policy by one rollout.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from data.kinds import Batch, Dataset
from train import objectives
from train.parallel import processes, sharding
from train.parallel.mesh import MeshError
from train.policy import buckets
from train.policy.programs import Programs
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


def require_divided(n_prompts: int, mesh: Mesh, buckets: int = 0) -> None:
    """MeshError where the rows of a mesh do not divide the prompts of a rollout or of a bucket."""
    parts = mesh.shape.get("data", 1) * mesh.shape.get("fsdp", 1)
    if n_prompts % parts:
        raise MeshError(
            f"mesh.data × mesh.fsdp = {parts} does not divide the {n_prompts} prompts of a "
            "rollout; use another train.batch_size"
        )
    if buckets and n_prompts // buckets % parts:
        raise MeshError(
            f"mesh.data × mesh.fsdp = {parts} does not divide the {n_prompts // buckets} prompts "
            f"of a bucket; use fewer than objective.buckets={buckets}, or 0"
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


def batch_shapes(
    cfg: StepConfig, state: TrainState, prompts: Mapping[str, Any], mesh: Mesh
) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes and shardings of the batches [K, B, ...] of the updates on a rollout, given the
    shapes of its prompts [P, ...]."""
    with sharding.activation_rules(mesh):
        rows = dict(roll_out.eval_shape(cfg, state, prompts))
        if "reward" not in rows:  # the host scores
            rows["reward"] = jax.ShapeDtypeStruct(rows["mask"].shape[:1], jnp.float32)
        made = updates_of.eval_shape(cfg, state, rows)
    by_rows = sharding.row_sharding(mesh, leading=1)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=by_rows), made)


@dataclass
class Taken:
    """What rollouts have taken: tokens of the responses drawn, seconds without compilation, seconds
    of compilation."""

    tokens: float = 0.0
    seconds: float = 0.0
    compiling: float = 0.0


class Rollouts:
    """Makes the batches of a run. The constructor raises MeshError if the rows of a mesh do not
    divide the prompts of a rollout or of a bucket, and what the sizing of the data raises.

    With `prefetch`, `ahead` has the batches of the next updates between two chunks.
    """

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
        self.buckets = getattr(cfg.loss, "buckets", 0)
        require_divided(self.n_prompts, mesh, self.buckets)
        self._where = sharding.batch_shardings(mesh, self.dataset.spec())
        name, first = next(iter(self.dataset.spec().items()))
        shape = (1, self.n_prompts, *first.shape)
        self._rows = processes.local_rows(self._where[name], shape)
        self._call, self._taken, self._told = Programs(), Taken(), 0.0
        self.prefetch, self.ahead = getattr(cfg.loss, "prefetch", False), {}
        if self.prefetch:
            say(
                "objective.prefetch: each rollout is drawn before the updates on the rollout "
                "before it, so training is off-policy by one rollout"
            )

    def prompts(self, step: int) -> dict[str, jax.Array]:
        """The data [1, P, ...] of the rollout that begins at this step."""
        number = step // self.updates
        local: Batch = self.dataset.batches("train", self.config.seed, number, 1, self._rows)
        return processes.place(local, self._rows, self.n_prompts, self._where)

    def read_at(self, step: int) -> int:
        """The step whose prompts a call at this step takes."""
        return step + self.updates if self.prefetch else step

    def __call__(self, state: TrainState, prompts: Mapping[str, jax.Array]) -> dict:
        """The batches [K, B, ...] of the next K updates. With `prefetch`, `prompts` are those of
        the K updates after them."""
        if not self.prefetch:
            return self._made(state, prompts)
        self._next = prompts
        self.ahead = self.ahead or self._made(state, self.prompts(int(state.step)))
        return self.ahead

    def draw_ahead(self, state: TrainState) -> None:
        """With `prefetch`, starts the next rollout; called before the updates."""
        if self.prefetch:
            self._begun, self._drawn = self._clock(), self._draw(state, self._next, self.updates)

    def finish_ahead(self, state: TrainState) -> None:
        """With `prefetch`, makes the batches of the rollout that `draw_ahead` started; called when
        the updates have been started. `state` is that after them."""
        self.updating_from = self._clock()
        if self.prefetch:
            jax.block_until_ready(self._drawn)
            self.updating_from = self._clock()  # an accelerator runs both in turn
            self.ahead = self._finished(state, self._drawn)
            self._taken.seconds += self._clock() - self._begun

    def update_seconds(self) -> float:
        """Seconds of the updates up to now, without compilation."""
        return self._clock() - self.updating_from

    def take(self) -> Taken:
        """What rollouts have taken since the last call."""
        taken, self._taken = self._taken, Taken()
        taken.compiling, self._told = self._call.seconds - self._told, self._call.seconds
        return taken

    def like(self, state: TrainState) -> dict:
        """The shapes and shardings of `ahead`, given those of the state; {} without `prefetch`."""
        if not self.prefetch:
            return {}
        prompts = {
            name: jax.ShapeDtypeStruct((self.n_prompts, *field.shape), field.dtype)
            for name, field in self.dataset.spec().items()
        }
        return batch_shapes(self.cfg, state, prompts, self.mesh)

    def _clock(self) -> float:
        """Seconds, in which compilation takes none."""
        return time.perf_counter() - self._call.seconds

    def _made(self, state: TrainState, prompts: Mapping[str, jax.Array]) -> dict:
        begun = self._clock()
        batches = self._finished(state, self._draw(state, prompts, 0))
        jax.block_until_ready(batches)
        self._taken.seconds += self._clock() - begun
        return batches

    def _draw(self, state: TrainState, prompts: Mapping[str, jax.Array], ahead: int) -> dict:
        """The rows [R, ...] of a rollout for the updates that begin `ahead` steps later."""
        ahead, batch = np.int32(ahead), self._call(_first, (), dict(prompts))
        if not self.buckets:
            return self._call(roll_out, (self.cfg,), state, batch, ahead)
        lengths_P = processes.to_host(batch[buckets.LENGTH])
        longest = batch[buckets.PROMPT].shape[1]
        parts, order = [], []
        for rows_Q, width in buckets.groups(lengths_P, self.buckets, longest):
            part = self._call(buckets.cut, (width,), batch, rows_Q)
            rows = self._call(roll_out, (self.cfg,), state, part, ahead)
            rows = self._call(buckets.widened, (longest - width,), rows)
            parts, order = [*parts, rows], [*order, rows_Q]
        return self._call(buckets.joined, (), parts, batch, np.concatenate(order))

    def _finished(self, state: TrainState, drawn: Mapping[str, jax.Array]) -> dict:
        """The batches of the updates on a rollout, which begin at the state's step."""
        if "mask" in drawn:
            self._taken.tokens += float(self._call(_sum, (), drawn["mask"]))
        batch = score(self.objective, self.dataset, drawn, self.mesh)
        return self._call(updates_of, (self.cfg,), state, batch)

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


@jax.jit
def _first(prompts: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    return {name: x[0] for name, x in prompts.items()}


@jax.jit
def _sum(x: jax.Array) -> jax.Array:
    return x.sum()


def answered(
    cfg: StepConfig, dataset: Dataset, mesh: Mesh, state: TrainState, batches: Mapping
) -> dict:
    """Evaluation batches [E, B, ...] with a response and a reward in each row."""
    made = respond(cfg, state.params, state.frozen, batches)
    return score(objectives.OBJECTIVES[cfg.objective], dataset, made, mesh, leading=1)


def responds(cfg: StepConfig) -> bool:
    """Whether an evaluation needs responses."""
    return hasattr(objectives.OBJECTIVES[cfg.objective], "respond")
