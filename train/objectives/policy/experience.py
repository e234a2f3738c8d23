"""What the objectives with rollouts have in common: experience, evaluation and metrics.

A rollout has three parts. `rollout` draws responses under jit and adds log-probabilities by the
policy (`logprobs`) and the reference (`reference`), [R, N]. `score`, on the host, gives each a
`reward` [R] by the checker of the data, unless a reward model has. The objective's `advantages`, in
jit, turns these into the fields that its loss reads.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from model import classes, families
from model.families import Trained
from train.objectives.metrics import Metric
from train.objectives.policy import responses
from train.objectives.policy.estimators import KL, k1
from train.objectives.policy.responses import PROMPT
from train.parallel.precision import cast_for_compute

FIELDS = PROMPT
NEEDS = ("hidden", "head", "logits", "generate")
PREDICTS = "the reward of a response"
METRICS = {
    # Lower is better for every loss, so it is the reward with the sign changed.
    "loss": Metric("-reward/response", of="lost", per="responses"),
    "reward": Metric("reward/response", of="reward", per="responses", better="higher"),
    "pass_at_1": Metric("share of responses", of="right", per="responses", better="higher"),
    "kl": Metric("nats/response", of="kl", per="responses"),
    "response_length": Metric("tokens/response", of="length", per="responses"),
}
MEASURED = ("reward", "kl", "entropy", "response_length")
"""The names that `measured` gives."""


def frozen_model(frozen: dict, cfg: Any, name: str) -> tuple[Trained, Any, dict] | None:
    """(family, Config, parameters) of a frozen model, or of one that is trained beside the policy;
    None if no model has this name."""
    for known, family, model_cfg in (*cfg.frozen, *cfg.beside):
        if known == name:
            found = families.FAMILIES[family]
            if name in cfg.from_base:  # rounded already, and maybe quantised
                return found, model_cfg, frozen[name]
            return found, model_cfg, cast_for_compute(frozen[name], model_cfg, found.PARAMETER_AXES)
    return None


def rollout(
    model: Trained, params: dict, frozen: dict, cfg: Any, batch: dict, key: jax.Array
) -> dict:
    """`samples` responses to each prompt, with their log-probabilities."""
    settings = cfg.loss
    rows = responses.draw(model, params, cfg, batch, key, settings.samples, settings.temperature)
    how = settings.temperature, settings.vocab_size
    logp_RN, _ = responses.logprobs(model, params, cfg.model, rows, *how)
    return rows | {"logprobs": logp_RN} | judged(frozen, cfg, rows, settings.temperature)


def respond(
    model: Trained, params: dict, frozen: dict, cfg: Any, batch: dict, keys_B: jax.Array
) -> dict:
    """One response to each prompt of an evaluation batch, at `eval_temperature`."""
    rows = responses.draw(model, params, cfg, batch, keys_B, 1, cfg.loss.eval_temperature)
    return {"counts": batch["counts"]} | rows | judged(frozen, cfg, rows, _measuring(cfg))


def _measuring(cfg: Any) -> float:
    """The temperature of the probabilities that an evaluation measures: that which draws, because
    only samples of a distribution estimate its KL. Greedy responses have none."""
    return cfg.loss.eval_temperature or cfg.loss.temperature


def judged(frozen: dict, cfg: Any, rows: dict, temperature: float) -> dict:
    """The log-probabilities of the reference, and the rewards of a reward model if there is one."""
    family, model_cfg, params = frozen_model(frozen, cfg, "reference")
    how = temperature, cfg.loss.vocab_size
    found = {"reference": responses.logprobs(family, params, model_cfg, rows, *how)[0]}
    if judge := frozen_model(frozen, cfg, "reward"):
        family, model_cfg, params = judge
        length_R1 = rows["prompt_length"][:, None] + rows["mask"].sum(1, keepdims=True)
        segments_RT = (jnp.arange(rows["tokens"].shape[1]) < length_R1).astype(jnp.int32)
        read = {"tokens": rows["tokens"], "segments": segments_RT}
        x_RD = family.pooled(model_cfg, params, read)
        found["reward"] = classes.logits(params, x_RD)[:, 0]
    return found


def score(dataset: Any, batch: dict[str, np.ndarray]) -> np.ndarray:
    """The reward [R] of each response by the checker of the data, which reads texts."""
    tokens_RN = batch["response"]  # padding of the vocabulary has no text
    tokens_RN = np.where(tokens_RN < dataset.vocab_size, tokens_RN, 0)
    length_R = batch["mask"].sum(1).astype(np.int32)
    return dataset.scorer(*(batch[name] for name in PROMPT), tokens_RN, length_R)


def shaped(cfg: Any, batch: dict) -> jax.Array:
    """The reward of each response [R], minus its weighted KL if `kl_in` is reward."""
    settings = cfg.loss
    if not settings.kl or settings.kl_in != "reward":
        return batch["reward"]
    kl_RN = KL[settings.kl_estimator](batch["logprobs"], batch["reference"]) * batch["mask"]
    return batch["reward"] - settings.kl * kl_RN.sum(1)


def without_prompts(batch: dict) -> dict:
    """The fields that an update needs."""
    return {name: x for name, x in batch.items() if name not in PROMPT or name == "prompt_length"}


def penalty(cfg: Any, logp_BN: jax.Array, batch: dict, entropy_BN: jax.Array) -> jax.Array:
    """What is added to the loss of each token [B, N]: the KL if `kl_in` is loss, and the entropy
    bonus."""
    settings, added_BN = cfg.loss, -cfg.loss.entropy * entropy_BN
    if settings.kl and settings.kl_in == "loss":
        added_BN += settings.kl * KL[settings.kl_estimator](logp_BN, batch["reference"])
    return added_BN


def measured(batch: dict, entropy_BN: jax.Array) -> dict:
    """The Sums of MEASURED: the mean reward, and the KL of the policy that drew the responses from
    the reference, a response; the entropy, a token; tokens of a response."""
    mask_BN, rows = batch["mask"], jnp.float32(len(batch["mask"]))
    return {
        "reward": (batch["reward"].sum(), rows),
        "kl": ((k1(batch["logprobs"], batch["reference"]) * mask_BN).sum(), rows),
        "entropy": ((entropy_BN * mask_BN).sum(), mask_BN.sum()),
        "response_length": (mask_BN.sum(), rows),
    }


def evaluate(model: Trained, params: dict, frozen: dict, cfg: Any, batch: dict) -> dict:
    """The sums for each row [B] of a batch that `respond` and `score` made, in which the rows that
    `counts` keeps count. The KL is known only where responses are drawn at random, and the share of
    right ones, whose reward is 1, where a checker scores."""
    counts_B = batch["counts"]
    sums = {
        "responses": counts_B,
        "lost": -batch["reward"],
        "reward": batch["reward"],
        "length": batch["mask"].sum(1),
    }
    if cfg.loss.eval_temperature:
        how = _measuring(cfg), cfg.loss.vocab_size
        logp_BN, _ = responses.logprobs(model, params, cfg.model, batch, *how)
        sums["kl"] = k1(logp_BN, batch["reference"]).sum(1)
    if frozen_model(frozen, cfg, "reward") is None:
        sums["right"] = (batch["reward"] >= 1).astype(jnp.float32)
    return {name: x_B * counts_B for name, x_B in sums.items()}
