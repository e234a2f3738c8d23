"""The model of a run, trained or counted, as something that scores tokens."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from configs import base
from data.tokenizer import Tokenizer
from launch.converted import read_tokenizer
from launch.evaluation.windows import BATCH, IN_ORDER, batches, in_order
from launch.files import instead, read_config
from launch.restored import family_of, restored
from model import families
from train import objectives
from train.evaluate import token_nats, token_nats_from, token_scores
from train.objectives import next_token

LOGITS = 1 << 26  # numbers that exist at one time, 256 MB


@dataclass(frozen=True)
class ScoredModel:
    """A model with its tokenizer. `fitted` holds its parameters or its counts; `config` is that of
    its run, with defaults for keys that are younger."""

    run: Path
    name: str  # of its family
    family: families.Family
    cfg: Any
    config: ConfigDict
    tokenizer: Tokenizer
    fitted: Any
    step: int

    @property
    def counted(self) -> bool:
        return families.is_counted(self.family)

    @property
    def start(self) -> tuple[int, ...]:
        """The tokens before a document: those that the model expects before every text, otherwise
        the end of the document before, as in training."""
        return self.tokenizer.prefix or (self.tokenizer.eod,)

    def initial_carry(self, rows: int) -> Any:
        """The carry of rows before their first token; None for a model that carries none."""
        if self.counted or not families.carries(self.cfg):
            return None
        return self.family.initial_carry(self.cfg, rows)

    def nats(
        self,
        tokens_BT: np.ndarray,
        targets_BT: np.ndarray,
        packed: Mapping[str, np.ndarray] | None = None,
    ) -> np.ndarray:
        """-log p of each target [B, T] given the tokens up to its place in its row, float64. In
        rows `packed` with segments and positions, only tokens of its segment count. Of a trained
        model."""
        how = self.name, self.cfg, self._chunk(*tokens_BT.shape)
        found = token_nats(*how, self.fitted, tokens_BT, targets_BT, dict(packed or {}))
        return np.asarray(found, np.float64)

    def scores(
        self, tokens_BT: np.ndarray, targets_BT: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """(`nats`, whether each target is the likeliest token [B, T])."""
        how = self.name, self.cfg, self._chunk(*tokens_BT.shape), self.tokenizer.vocab_size
        found, likeliest_BT = token_scores(*how, self.fitted, tokens_BT, targets_BT)
        return np.asarray(found, np.float64), np.asarray(likeliest_BT)

    def nats_from(
        self, tokens_BT: np.ndarray, targets_BT: np.ndarray, carry: Any
    ) -> tuple[np.ndarray, Any]:
        """(`nats` of rows that begin from a carry, the carry after them). None carries nothing."""
        if carry is None:
            return self.nats(tokens_BT, targets_BT), None
        how = self.name, self.cfg, self._chunk(*tokens_BT.shape)
        found, carry = token_nats_from(*how, self.fitted, tokens_BT, targets_BT, carry)
        return np.asarray(found, np.float64), carry

    def _chunk(self, rows: int, length: int) -> int:
        """The places of each row whose logits exist at one time; 0: all."""
        chunk = length
        while chunk * rows * self.cfg.vocab_size > LOGITS and chunk % 2 == 0:
            chunk //= 2
        return 0 if chunk == length else chunk

    def score(
        self, texts: Iterator[tuple[int, np.ndarray]], context: int, stride: int
    ) -> Iterator[tuple[int, int, np.ndarray]]:
        """(number, position, nats [n]) of consecutive targets of each numbered text: `position` is
        the place of the first of them in its window of `context` tokens.

        Windows begin every `stride` tokens; a target is scored in the first window that has it. A
        counted model sees the whole text before each token, whatever the window, and so does one
        that carries its state, whose windows do not overlap.
        """
        for number, _, position, nats in self._parts(texts, context, stride, BATCH):
            yield number, position, nats

    def each_token(
        self, texts: Sequence[np.ndarray], context: int, stride: int
    ) -> list[np.ndarray]:
        """-log p of each target of each text, in order. A text begins with the tokens of `start`,
        which are no targets; windows are those of `score`."""
        found = [np.zeros(len(text) - len(self.start)) for text in texts]
        at_once = min(BATCH, sum(map(len, texts)))
        for number, first, _, nats in self._parts(enumerate(texts), context, stride, at_once):
            found[number][first : first + len(nats)] = nats
        return found

    def _parts(
        self, texts: Iterable[tuple[int, np.ndarray]], context: int, stride: int, at_once: int
    ) -> Iterator[tuple[int, int, int, np.ndarray]]:
        """(number, place of the first target in the text, its position in the window, nats [n])."""
        if self.counted:
            for number, text in texts:
                nats = self.family.nats(self.fitted, text)[len(self.start) :]
                for first in range(0, len(nats), context):
                    yield number, first, 0, nats[first : first + context]
            return
        start, carry = len(self.start), self.initial_carry(IN_ORDER)
        if carry is not None:
            for windows, begins_B, *rows in in_order(texts, start, context):
                carry = jax.tree.map(lambda x: np.where(begins_B[:, None], 0, x), carry)  # noqa: B023
                nats_BT, carry = self.nats_from(*rows, carry)
                for row, window in windows:
                    first = window.begin + 1 + window.fresh - start
                    nats = nats_BT[row, window.fresh : len(window.targets)]
                    yield window.number, first, window.fresh, nats
            return
        for windows, tokens_BT, targets_BT in batches(texts, start, context, stride, at_once):
            nats_BT = self.nats(tokens_BT, targets_BT)
            for window, nats in zip(windows, nats_BT, strict=False):
                first = window.begin + 1 + window.fresh - start
                yield window.number, first, window.fresh, nats[window.fresh : len(window.targets)]


def open_model(run: Path, any_objective: bool = False) -> ScoredModel:
    """The model in a run's folder, from its newest good checkpoint. ValueError or
    FileNotFoundError, in one line, for a run that cannot score text. With `any_objective` a
    language model counts that was trained on in another way, as by reinforcement."""
    family, cfg = family_of(run)
    config = with_defaults(read_config(run) or {})
    objective = objectives.find(config.objective.name)
    scores = not families.is_counted(family) or hasattr(family, "nats")
    other = not any_objective and not set(next_token.NEEDS) <= set(objective.NEEDS)
    if other or family.INPUTS != ("tokens",) or not scores:
        raise ValueError(
            f"run={run} has objective.name={config.objective.name!r} and model.family="
            f"{config.model.family!r}, which score no next tokens: it measures "
            f"{', '.join(objective.METRICS)} (isoflop show {run}); use a language model"
            f"{instead(family, cfg, run)}"
        )
    if other := instead(family, cfg, run):
        raise ValueError(f"run={run} was not trained to continue text{other}")
    tokenizer = read_tokenizer(run, cfg.vocab_size, "run")
    fitted, step = restored(run, family, cfg)
    name = config.model.family
    return ScoredModel(run, name, family, cfg, config, tokenizer, fitted, step)


def with_defaults(config: Mapping[str, Any]) -> ConfigDict:
    """A run's config without its code's fingerprint, with the defaults of keys outside its model
    that are younger than it."""
    usual = base.all_defaults()
    del usual["model"], usual["objective"]
    whole = {
        name: usual.get(name, {}) | dict(section) if isinstance(section, Mapping) else section
        for name, section in ({"objective": {"name": "next_token"}} | usual | dict(config)).items()
    }
    whole.pop("code", None)
    whole["model"] = {"family": "decoder"} | whole["model"]
    return ConfigDict(whole)


def packing_of(batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The segments and positions of a batch of packed rows; {} for other batches."""
    return {name: batch[name] for name in ("segments", "positions") if name in batch}


def first_words(tokenizer: Tokenizer, tokens: Sequence[int]) -> str:
    """The beginning of a text, as its name."""
    return " ".join(tokenizer.decode(tokens[:100]).split())[:60]
