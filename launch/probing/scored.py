"""Log-probabilities of continuations under a model: what every probe of texts is made from."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from launch.benchmarks import continuations
from launch.evaluation.scored_model import ScoredModel
from train.evaluate import next_log_probabilities

BATCH = 8192  # tokens of a batch
PADDED = 16  # rows are padded to multiples of it, so that few programs are compiled
Text = tuple[str, str]
"""(what comes before, what is scored)."""


def tokens(model: ScoredModel, text: Text) -> tuple[list[int], list[int]]:
    """The tokens of both parts. The whole is encoded at once, since a token may cover parts of
    both: it is scored then. ValueError for a text without a token to score, or too many."""
    before, after = model.tokenizer.encode_parts(*text)
    context = model.cfg.context_length
    if not 0 < len(after) <= context and not (model.counted and after):
        raise ValueError(
            f"{''.join(text)[:60]!r} has {len(after)} tokens to score; a model with "
            f"model.context_length={context} scores 1 to {context}"
        )
    return before, after


def has_unknown(model: ScoredModel, text: Text) -> bool:
    """Whether the vocabulary of a model lacks a part of a text."""
    unknown = model.tokenizer.unknown
    return unknown is not None and unknown in model.tokenizer.encode("".join(text))


def log_probabilities(
    model: ScoredModel, texts: Sequence[Text], advance: Callable[[float], None] = lambda share: None
) -> np.ndarray:
    """log p, in nats, of what is scored of each text given what comes before it [N]. Texts that
    occur several times are scored once; of a trained model, so are single tokens after one
    beginning, such as the possible answers to a question."""
    found: dict[Text, float] = {}
    whole, single = [], {}
    for text in dict.fromkeys(texts):
        before, after = tokens(model, text)
        if model.counted or len(after) > 1 or model.initial_carry(1) is not None:
            whole.append((text, (before, after)))
        else:
            single.setdefault(tuple(before), []).append((text, after[0]))
    total = len(whole) + len(single)
    done = lambda count: advance(count / total)  # noqa: E731
    if whole:
        show = lambda share: done(share * len(whole))  # noqa: E731
        scored = continuations.score(model, [parts for _, parts in whole], show)
        found |= {text: one.logprob for (text, _), one in zip(whole, scored, strict=True)}
    for number, (before, logp_V) in enumerate(_after(model, list(single)), start=1):
        found |= {text: float(logp_V[token]) for text, token in single[before]}
        done(len(whole) + number)
    return np.array([found[text] for text in texts])


def _after(
    model: ScoredModel, beginnings: Sequence[tuple[int, ...]]
) -> Iterator[tuple[tuple[int, ...], np.ndarray]]:
    """(a beginning, log p [V] of every token after it) of each, the shortest first. Of one that is
    longer than the context, the last tokens count."""
    context = model.cfg.context_length
    inputs = [((*model.start, *before)[-context:], before) for before in beginnings]
    inputs.sort(key=lambda one: len(one[0]))
    first = 0
    while first < len(inputs):
        length = min(context, -(-len(inputs[first][0]) // PADDED) * PADDED)
        rows = max(1, BATCH // length)
        part = [one for one in inputs[first : first + rows] if len(one[0]) <= length]
        tokens_BT = np.zeros((rows, length), np.int32)
        last_B = np.zeros(rows, np.int32)
        for row, (ids, _) in enumerate(part):
            tokens_BT[row, : len(ids)], last_B[row] = ids, len(ids) - 1
        found = next_log_probabilities(model.name, model.cfg, model.fitted, tokens_BT, last_B)
        yield from zip((before for _, before in part), np.asarray(found, float), strict=False)
        first += len(part)
