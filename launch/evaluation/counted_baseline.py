"""The n-gram model that stands beside a run: counted on the text that the run was trained on."""

from dataclasses import dataclass, replace

from data import kinds
from launch.evaluation.scored_model import ScoredModel
from launch.trial.resolve import prepare
from model.counted import ngram

MOST_TOKENS = 300_000_000  # beyond them counting takes tens of gigabytes


class Unavailable(Exception):
    """Why there is no n-gram model, in words."""


@dataclass(frozen=True)
class Baseline:
    """An n-gram model with what is known of it."""

    model: ScoredModel
    order: int
    tokens: int  # that were counted


def training_data(model: ScoredModel):
    """The running text that the run was trained on. Unavailable if it is missing or has changed, or
    if the data are not running text."""
    wanted = model.config.data.get("hash", "")
    if not wanted:
        raise Unavailable("the run names no training text, as converted models do not")
    try:
        dataset = prepare(model.config)
    except (ValueError, OSError) as error:
        raise Unavailable(f"its training text cannot be read: {error}") from error
    if dataset.hash != wanted:
        raise Unavailable("its training text has changed since it was trained")
    if not isinstance(dataset, kinds.Countable):
        raise Unavailable(f"its data.kind={model.config.data.kind!r} is no running text")
    return dataset


def fitted(model: ScoredModel, order: int) -> Baseline:
    """An n-gram model of this order with the run's tokenizer, counted as `isoflop ngram` does."""
    dataset = training_data(model)
    tokens = dataset.n_tokens("train")
    if tokens > MOST_TOKENS:
        raise Unavailable(f"its training text has {tokens:,} tokens, too many to count here")
    cfg = ngram.Config(model.cfg.vocab_size, model.cfg.context_length, order)
    counts = ngram.fit(cfg, dataset.texts("train"))
    same = replace(model, name="ngram", family=ngram, cfg=cfg, fitted=counts, step=1)
    return Baseline(same, order, tokens)
