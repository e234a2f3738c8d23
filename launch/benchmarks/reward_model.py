"""A reward model that judges answers: opened once, asked for any number of them.

P prompts, S samples of each, R = P * S
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

from data.prompted.prompt_encoder import PromptEncoder
from launch.benchmarks import answered
from launch.texts import opened, rows
from model import classes


@dataclass(frozen=True)
class RewardModel:
    """The model of a run of objective.name=reward, with what turns answers into its tokens."""

    run: Path
    model: opened.Opened
    encoder: PromptEncoder

    @property
    def size(self) -> int:
        """Parameters."""
        return sum(x.size for x in jax.tree.leaves(self.model.params))

    def rewards(
        self,
        prompts: Sequence[str],
        texts: Sequence[Sequence[str]],
        most: int,
        advance: Callable[[float], None],
    ) -> np.ndarray:
        """The rewards [P, S] of the answers `texts` [P][S], which were cut at `most` tokens;
        `advance` receives the share done. ValueError for an answer that is longer than the model's
        context."""
        model, encoded = self.model, answered.encoded(prompts, texts, most, self.encoder)
        try:
            answered.require_room(encoded, self.run, model.cfg.context_length)
        except ValueError as error:
            raise ValueError(_as_reward(error)) from error

        @jax.jit
        def reward(params: dict, batch: dict) -> jax.Array:
            return classes.logits(params, model.family.pooled(model.cfg, params, batch))[:, 0]

        found: list[np.ndarray] = []
        ids, padding = [ids for ids, _ in encoded], model.tokenizer.eod
        for batch in rows.batches(ids, padding, model.cfg.context_length):
            found.append(np.asarray(reward(model.params, batch)))
            advance(min(1.0, len(found) * rows.AT_ONCE / len(encoded)))
        proxy_R = np.concatenate(found)[: len(encoded)].astype(np.float64)
        return proxy_R.reshape(len(texts), -1)


def open_reward_model(run: Path) -> RewardModel:
    """The reward model of a run. ValueError or FileNotFoundError, in one line that names --reward,
    for any other run."""
    try:
        model = opened.open_run(run, "pooled", "gives no rewards")
        if model.cfg.n_classes != 1:
            raise ValueError(
                f"run={run} has model.n_classes={model.cfg.n_classes}, but a reward is the output "
                "of one class; name a run of objective.name=reward"
            )
        return RewardModel(run, model, answered.encoder_of(run, model.tokenizer))
    except (ValueError, FileNotFoundError) as error:
        raise type(error)(_as_reward(error)) from error


def _as_reward(error: Exception) -> str:
    return str(error).replace("run=", "reward=", 1)
