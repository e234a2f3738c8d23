"""Evaluates a model on the fixed evaluation set: metrics with standard errors."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from data.fields import Field
from model import families
from train import objectives
from train.objectives import loss_in_chunks
from train.objectives.cross_entropy import cross_entropy
from train.objectives.metrics import measure
from train.parallel import processes, sharding
from train.parallel.precision import cast_for_compute
from train.policy import rollouts
from train.step import StepConfig, TrainState, eval_sums

Evaluation = dict[str, tuple[float, float | None]]
"""(value, standard error) of each metric of the objective."""


class Evaluator:
    """The evaluation set on the devices, and the compiled program that scores it."""

    def __init__(self, cfg: StepConfig, dataset: Any, mesh: Mesh):
        """`dataset` is sized for the run; ValueError if its split is too small."""
        batches = list(dataset.examples("validation"))
        stacked = {name: np.stack([batch[name] for batch in batches]) for name in batches[0]}
        rows = len(next(iter(batches[0].values())))
        fields = dataset.spec()
        fields = {
            name: fields.get(name, Field(array.shape[2:], array.dtype, (None,) * (array.ndim - 2)))
            for name, array in stacked.items()
        }
        # Every process reads all rows and puts those of its devices onto them.
        where = sharding.batch_shardings(mesh, fields)
        self.batches = processes.place(stacked, np.arange(rows), rows, where)
        self.metrics = objectives.OBJECTIVES[cfg.objective].METRICS
        self._cfg, self._dataset, self._mesh = cfg, dataset, mesh

    def __call__(self, state: TrainState) -> Evaluation:
        batches = self.batches
        if rollouts.responds(self._cfg):
            batches = rollouts.answered(self._cfg, self._dataset, self._mesh, state, batches)
        sums = eval_sums(self._cfg, state.params, state.frozen, batches)
        return measure(self.metrics, processes.to_host(sums))

    def device(self) -> jax.Device:
        """The first device of the evaluation set."""
        return jax.tree.leaves(self.batches)[0].sharding.mesh.devices.flat[0]


@functools.partial(jax.jit, static_argnums=(0, 1))
def states(family: str, cfg: Any, params: dict, batch: dict[str, jax.Array]) -> jax.Array:
    """The last hidden states [B, T, D] of a batch, for a trained family. Fields of the batch that
    the family does not need are left out."""
    model, params = _to_score(family, cfg, params)
    return model.hidden(cfg, params, {name: batch[name] for name in model.INPUTS})


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def token_nats(
    family: str,
    cfg: Any,
    chunk: int,
    params: dict,
    tokens_BT: jax.Array,
    targets_BT: jax.Array,
    packed: dict | None = None,
) -> jax.Array:
    """-log p of each target [B, T] given the tokens up to its place in its row, for a trained
    family; with the segments and positions of `packed` rows, given those of its own segment. Logits
    exist for `chunk` places of each row at a time; 0: for all."""
    model, params = _to_score(family, cfg, params)
    x_BTD = model.hidden(cfg, params, {"tokens": tokens_BT} | (packed or {}))
    return _nats(model, cfg, chunk, params, x_BTD, targets_BT)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def token_scores(
    family: str,
    cfg: Any,
    chunk: int,
    known: int,
    params: dict,
    tokens_BT: jax.Array,
    targets_BT: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """(`token_nats`, whether each target is the likeliest of the first `known` tokens [B, T])."""
    model, params = _to_score(family, cfg, params)
    head = model.head(cfg, params)

    def score(x_BTD: jax.Array, targets_BT: jax.Array) -> jax.Array:
        logits_BTV = model.logits(cfg, head, x_BTD)
        nats_BT, _ = cross_entropy(logits_BTV, targets_BT)
        return jnp.stack([nats_BT, logits_BTV[..., :known].argmax(-1) == targets_BT], axis=-1)

    x_BTD = model.hidden(cfg, params, {"tokens": tokens_BT})
    both_BT2 = loss_in_chunks.each(score, chunk, x_BTD, targets_BT)
    return both_BT2[..., 0], both_BT2[..., 1] > 0


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def token_nats_from(
    family: str,
    cfg: Any,
    chunk: int,
    params: dict,
    tokens_BT: jax.Array,
    targets_BT: jax.Array,
    carry: Any,
) -> tuple[jax.Array, Any]:
    """(`token_nats` of rows that begin from a carry, the carry after them)."""
    model, params = _to_score(family, cfg, params)
    x_BTD, carry = model.hidden_from(cfg, params, {"tokens": tokens_BT}, carry)
    return _nats(model, cfg, chunk, params, x_BTD, targets_BT), carry


@functools.partial(jax.jit, static_argnums=(0, 1))
def next_log_probabilities(
    family: str, cfg: Any, params: dict, tokens_BT: jax.Array, last_B: jax.Array
) -> jax.Array:
    """log p [B, V] of every token that may follow the one at place `last` of each row, in nats."""
    model, params = _to_score(family, cfg, params)
    x_BTD = model.hidden(cfg, params, {"tokens": tokens_BT})
    x_B1D = jnp.take_along_axis(x_BTD, last_B[:, None, None], axis=1)
    logits_BV = model.logits(cfg, model.head(cfg, params), x_B1D)[:, 0]
    return jax.nn.log_softmax(logits_BV.astype(jnp.float32))


def _to_score(family: str, cfg: Any, params: dict) -> tuple[families.Trained, dict]:
    model = families.FAMILIES[family]
    return model, cast_for_compute(params, cfg, model.PARAMETER_AXES)


def _nats(
    model: families.Trained, cfg: Any, chunk: int, params: dict, x_BTD: jax.Array, targets_BT: Any
) -> jax.Array:
    head = model.head(cfg, params)
    score = lambda x_BTD, targets_BT: cross_entropy(model.logits(cfg, head, x_BTD), targets_BT)[0]  # noqa: E731
    return loss_in_chunks.each(score, chunk, x_BTD, targets_BT)
