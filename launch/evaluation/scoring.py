"""Scores a model on a text, or on the validation set of its run, beside an n-gram model."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from data.kinds import Dataset
from launch.evaluation.scored_model import ScoredModel, first_words, packing_of
from launch.evaluation.tally import Tally
from train.counting import window_nats


def of_text(
    model: ScoredModel,
    other: ScoredModel | None,
    documents: Iterable[str],
    context: int,
    stride: int,
    advance: Callable[[int], None],
) -> tuple[Tally, Tally]:
    """What both models make of each document by itself; the second Tally is empty without `other`.

    A document begins after `model.start` and ends with the end-of-document token, which is scored
    and counts no bytes. Calls `advance(bytes)` when a document is read.
    """
    tally, beside = Tally(), Tally()

    def texts() -> Iterator[tuple[int, np.ndarray]]:
        for document in documents:
            tokens = model.tokenizer.encode(document)
            n_bytes = len(document.encode())
            # Without bytes of tokens, bits per byte would leave out what unknown words hold.
            counted = n_bytes if model.tokenizer.token_bytes is not None else 0
            number = tally.text(" ".join(document[:400].split())[:60], counted)
            tally.unknown += int(np.count_nonzero(tokens == model.tokenizer.unknown))
            text = np.array([*model.start, *tokens, model.tokenizer.eod], np.int64)
            if other:
                beside.text(tally.names[number], counted)
                for scored in other.score(iter([(number, text)]), context, context):
                    beside.add(*scored)
            advance(n_bytes)
            yield number, text

    for scored in model.score(texts(), context, stride):
        tally.add(*scored)
    return tally, beside


def of_validation(
    model: ScoredModel,
    other: ScoredModel | None,
    dataset: Dataset,
    advance: Callable[[float], None],
) -> tuple[Tally, Tally]:
    """What both models make of the sequences on which the run was evaluated. Calls `advance` with
    the share that is done."""
    tally, beside = Tally(), Tally()
    counted_ET = window_nats(model.family, model.fitted, dataset) if model.counted else None
    beside_ET = window_nats(other.family, other.fitted, dataset) if other else None
    carry = model.initial_carry(dataset.eval_batch_size)
    for batch in dataset.examples("validation"):
        packed = packing_of(batch)
        if counted_ET is None and packed:
            nats_BT = model.nats(batch["tokens"], batch["targets"], packed)
        elif counted_ET is None:
            nats_BT, carry = model.nats_from(batch["tokens"], batch["targets"], carry)
        bytes_B = batch.get("bytes", np.zeros(len(batch["tokens"])))
        for row in np.flatnonzero(batch["weights"].any(axis=1)):
            name = first_words(model.tokenizer, batch["tokens"][row])
            number = tally.text(name, bytes_B[row])
            tally.unknown += int(np.count_nonzero(batch["targets"][row] == model.tokenizer.unknown))
            tally.add(number, 0, nats_BT[row] if counted_ET is None else counted_ET[number])
            if beside_ET is not None:
                beside.add(beside.text(name, bytes_B[row]), 0, beside_ET[number])
        advance(len(tally.names) / dataset.eval_sequences)
    return tally, beside
