"""The objectives: pure functions that compute the loss and the metrics.

An objective is a module with the functions of `Objective`. The step, the loop, evaluation, records
and compilation use only these functions.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import jax

from model.families import Family
from train.objectives import classify, distill, exact_match, masked, next_token, tag
from train.objectives.captioned import captions
from train.objectives.metrics import Metric
from train.objectives.policy import grpo, ppo, raft, reinforce
from train.objectives.preference import dpo, reward
from train.objectives.unlearning import unlearn
from train.objectives.words import full_softmax, glove, negative_sampling, reconstruction

Sums = dict[str, tuple[jax.Array, jax.Array]]
"""By metric: (sum over the batch, sum of the weights that divide it). Always has "loss"."""

Metrics = Mapping[str, Metric]


class Objective(Protocol):
    """The interface of a module in OBJECTIVES. `cfg` is the StepConfig: `cfg.model` is the family's
    Config and `cfg.loss` what `configure` returned. `frozen` maps names to parameters that are read
    and never updated. Optional:

    `PREDICTS`: what the loss is averaged over, if that is not what the kind of data says.
    `TASK`: dotted keys that change what is predicted, in addition to those of the kind of data.
    `MAKES`: inputs of the model that it makes from its FIELDS, or by its rollouts, so that no batch
    of data needs them.
    `N_CLASSES`: what `model.n_classes=0` means, if the data have no labels and no model is trained
    beside, which then has the head.
    `FROZEN`: name → dotted config key that holds a run or a folder of Hugging Face weights.
    `FROM_START`: those of these keys that mean `train.init_from` where they are empty.
    `MAY_LACK`: those of these keys that may be empty: the objective goes without.
    `OTHER_TEXT`: those of these keys whose models may have another tokenizer and another length of
    rows, because the objective gives them no tokens.
    `BESIDE`: name → dotted config key that may hold a run. From its weights starts a model that is
    trained beside the family's, as the subtree of the parameters of that name. `loss`, `rollout`
    and the others find it in `frozen`, and its gradients reach its parameters.
    `check_frozen(model, frozen)`: ValueError where the frozen models and those trained beside do
    not go with the trained one; `model` is its Config and `frozen` as in StepConfig.
    `STORED`, `reference(frozen, cfg, batch)`: fields [B] of a batch that depend on its other fields
    and the frozen parameters alone, and the function that computes them. With `objective.stored`
    they are computed once, before training, and no frozen parameters are kept.
    `rollout(model, params, frozen, cfg, batch, key) -> batch`: makes the batch of a step from a
    batch of data and the current parameters, under jit. Without it batches are prefetched.
    The other members are for objectives with a rollout; train/policy/rollouts.py calls them:
    `prompts(cfg.loss) -> int`: rows of data of a rollout, if not train.batch_size.
    `passes(cfg.loss) -> (epochs, minibatches)`: the updates on a rollout, epochs × minibatches; a
    rollout then has minibatches × train.batch_size rows, and its first update is a new one's step.
    `score(dataset, batch) -> [R]`: the field "reward" of a rollout that lacks it, on the host.
    `advantages(cfg, batch) -> batch`: the fields that `loss` reads from all rows of a rollout and
    their rewards, under jit.
    `respond(model, params, frozen, cfg, batch, keys) -> batch`: the rollout of an evaluation batch,
    with a key for each row, which is scored before `evaluate` reads it.
    `for_data(cfg.loss, dataset) -> cfg.loss`: what `configure` returned with what the data decide.
    """

    FIELDS: tuple[str, ...]  # the batch fields that it needs besides the model's inputs
    NEEDS: tuple[str, ...]  # the functions of a model family that it calls
    TRAINED: tuple[str, ...]  # the names in the Sums of `loss`, "loss" first
    METRICS: Metrics  # computed from the sums of `evaluate`; always has "loss"

    def configure(self, config: Any) -> Any:
        """The static, hashable part of a resolved config that the loss reads; ValueError names an
        invalid key."""

    def loss(
        self, model: Family, params: dict, frozen: dict, cfg: Any, batch: dict, key: jax.Array
    ) -> tuple[jax.Array, Sums]:
        """(the sum over the batch to minimise, Sums). The gradient is divided by the weights of
        "loss", summed over all micro-batches and devices."""

    def evaluate(
        self, model: Family, params: dict, frozen: dict, cfg: Any, batch: dict
    ) -> dict[str, jax.Array]:
        """The sums for each row [B] that METRICS use, without dropout."""


OBJECTIVES: dict[str, Objective] = {
    "next_token": next_token,
    "masked": masked,
    "classify": classify,
    "tag": tag,
    "negative_sampling": negative_sampling,
    "full_softmax": full_softmax,
    "glove": glove,
    "reconstruction": reconstruction,
    "exact_match": exact_match,
    "ppo": ppo,
    "grpo": grpo,
    "reward": reward,
    "dpo": dpo,
    "distill": distill,
    "reinforce": reinforce,
    "raft": raft,
    "captions": captions,
    "unlearn": unlearn,
}


def find(name: str) -> Objective:
    """The objective of this name; ValueError lists the known names."""
    if name not in OBJECTIVES:
        raise ValueError(f"objective.name={name!r} is unknown; use one of {', '.join(OBJECTIVES)}")
    return OBJECTIVES[name]


def beside(config: Mapping[str, Any]) -> dict[str, str]:
    """name → dotted key of the models that a config trains beside its family's; {} for most."""
    section = config.get("objective") or {}
    named = getattr(OBJECTIVES.get(section.get("name")), "BESIDE", {})
    return {name: key for name, key in named.items() if section.get(key.partition(".")[2])}
