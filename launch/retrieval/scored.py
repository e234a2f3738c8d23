"""What `isoflop evaluate --retrieve` measures: the nats that an index saves, by its size."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags as absl_flags

from data.build import digest_of, is_validation
from data.files import to_path
from data.retrieval import folder
from data.retrieval.folder import Index
from data.retrieval.nearest import require_backend
from data.sources import corpus
from launch.evaluation.counted_baseline import Unavailable, training_data
from launch.evaluation.scored_model import ScoredModel, open_model
from launch.evaluation.windows import BATCH
from launch.files import AGAIN, read_json
from launch.retrieval import datastore, in_context, knn
from launch.retrieval.retriever import Retriever
from scaling.design.planning import PlanningLaw, read_law
from scaling.estimators.index_worth import size_factor
from scaling.report.number_text import parse_amount

SMALLEST, FACTOR = 4000, 4  # tokens of the smallest index by default, and between two sizes
Advance = Callable[[str, float], None]


def evaluate(values: absl_flags.FlagValues, advance: Advance) -> dict[str, Any]:
    """What the flags ask for, as the JSON file has it. ValueError or FileNotFoundError, in one
    line, for what cannot be measured."""
    require_backend(values.backend)
    run = to_path(values.run)
    about = {"run": str(run), "data": values.data or "validation set of the run"}
    about |= sizes_of_run(run)
    law = read_law(to_path(values.law)) if values.law else None
    if law is not None:
        require_law(about, law)  # before the minutes that scoring takes
    index = folder.read(folder.here(to_path(values.retrieve)))
    if index.kind == "knn":
        found = of_states(values, index, datastore.open_scored(run), advance)
    else:
        model = open_model(run)
        require_window(model)
        found = of_passages(values, index, model, advance)
    kept = {key: value for key, value in index.about.items() if key not in ("files", "checksum")}
    about |= {"index": {**kept, "path": values.retrieve, "size": index.n_bytes}} | found
    if law is not None:
        add_worth(about, law)
    return about


def require_window(model: ScoredModel) -> None:
    """ValueError for a model that has no window to put passages in."""
    if model.counted or model.initial_carry(1) is not None:
        raise ValueError(
            f"run={model.run} has model.family={model.name!r}, which reads no window of text that "
            "passages could begin; use a decoder"
        )


def sizes_of_run(run: Path) -> dict[str, Any]:
    """The parameters and the tokens of training of a run, if its result has them."""
    result = read_json(run / "result.json", AGAIN) or {}
    params = sum((result.get("params") or {}).values()) or None
    return {
        "params": params,
        "trained_on": result.get("tokens"),
        "dataset": result.get("dataset"),
    }


def require_law(about: dict[str, Any], law: PlanningLaw) -> None:
    """ValueError, in one line, for a run or a law that does not say what an index is worth."""
    if not about["params"] or not about["trained_on"]:
        what = "tokens of training" if about["params"] else "parameters"
        raise ValueError(
            f"law: run={about['run']} has no result.json with its {what}; name a finished run, or "
            "drop --law"
        )
    if law.about["params"] != "total":
        raise ValueError(
            f"law={law.about['file']} counts {law.about['params']} parameters; fit one with "
            "--params=total"
        )


def add_worth(about: dict[str, Any], law: PlanningLaw) -> None:
    """Adds to each size of an index how many times larger a model it replaces, and to `about` the
    law."""
    for row in about["sizes"]:
        row["worth"] = size_factor(law, about["params"], row["saved"], row["saved_se"])
    about["law"] = law.about | {name: float(value[0]) for name, value in law.constants.items()}
    about["law"]["range"] = law.range


def sizes_wanted(text: str, total: int) -> list[int]:
    """The sizes of an index, ascending, of `total` tokens: those in '10k,1M,all', or by default all
    of it, a quarter, a sixteenth, … ValueError for one that is no size or exceeds the index."""
    if not text:
        found = [total]
        while found[-1] // FACTOR >= SMALLEST:
            found.append(found[-1] // FACTOR)
        return found[::-1]
    found = set()
    for part in text.split(","):
        try:
            size = total if part.strip() == "all" else int(parse_amount(part.strip()))
        except ValueError as error:
            raise ValueError(f"sizes={text}: {error}") from None
        if not 1 <= size <= total:
            raise ValueError(
                f"sizes={text}: {part.strip()} is not a number from 1 to {total:,}, the tokens of "
                "the index"
            )
        found.add(size)
    return sorted(found)


def of_states(
    values: absl_flags.FlagValues, index: Index, model: ScoredModel, advance: Advance
) -> dict[str, Any]:
    """What a kNN language model saves."""
    datastore.require_same(index, model)
    sizes = sizes_wanted(values.sizes, index.about["tokens"])
    most = int(values.score_tokens)
    left_out, rows = 0, of_validation(model, most)
    if values.data:
        fair, left_out = unknown_documents(values, index, model)
        rows = of_documents(model, fair, most)
    asked = knn.queries(model, rows)
    each = index.about["dimensions"] * 2 + index.array(index.named("values-")[0]).dtype.itemsize
    found = []
    for size, near in knn.neighbourhoods(
        *(index, asked, values.neighbours, sizes, values.backend),
        lambda share: advance("searching", share),
    ):
        found.append({"tokens": size, "bytes": size * each} | knn.measured(asked, near))
    return {"method": "knn", "sizes": found, "left_out": left_out}


def of_validation(model: ScoredModel, most: int) -> Iterator[knn.Batch]:
    """The validation sequences of a run: about `most` tokens, spread evenly over the text; 0:
    all."""
    number, dataset = 0, validation_of(model).for_run(model.config)
    total, length = dataset.eval_sequences, model.cfg.context_length
    count = min(total, -(-most // length)) if most else total
    chosen = np.unique(np.linspace(0, total - 1, count).astype(int))
    for batch in dataset.examples("validation"):
        rows = np.flatnonzero(batch["weights"].any(axis=1))
        spans = [(number + i, row, 0, length) for i, row in enumerate(rows) if number + i in chosen]
        number += len(rows)
        if spans:
            yield batch["tokens"], batch["targets"], spans


def unknown_documents(
    values: absl_flags.FlagValues, index: Index, model: ScoredModel
) -> tuple[list[np.ndarray], int]:
    """(the documents of --data that a datastore does not hold, the number that it does).
    ValueError if it holds all."""
    given = [tokens for _, tokens in documents(model, values)]
    known = datastore.known_documents(index)
    fair = [tokens for tokens in given if datastore.digest(tokens) not in known]
    if not fair:
        raise ValueError(
            f"retrieve={index.folder} holds every document of data={values.data}, which are left "
            "out; give other texts"
        )
    return fair, len(given) - len(fair)


def of_documents(model: ScoredModel, texts: Sequence[np.ndarray], most: int) -> Iterator[knn.Batch]:
    """A stretch of each document, `most` tokens together, 0: all. Each token has at least half a
    context before it, as far as its document goes back."""
    context = model.cfg.context_length
    jobs = [
        (part, *step)
        for part in in_context.parts(texts, model.start, most)
        for step in part.steps(max(1, context // 2))
    ]
    rows = max(1, BATCH // context)
    for first in range(0, len(jobs), rows):
        tokens_BT, targets_BT = np.zeros((2, rows, context), np.int32)
        spans = []
        for row, (part, begin, end) in enumerate(jobs[first : first + rows]):
            text = part.tokens[max(0, end - context - 1) : end]
            tokens_BT[row, : len(text) - 1], targets_BT[row, : len(text) - 1] = text[:-1], text[1:]
            spans.append((part.text, row, len(text) - 1 - (end - begin), len(text) - 1))
        yield tokens_BT, targets_BT, spans


def documents(
    model: ScoredModel, values: absl_flags.FlagValues
) -> Iterator[tuple[bytes, np.ndarray]]:
    """(the hash of a document's text, its tokens and its end) of --data."""
    key = values.text_key or model.config.data.text_key
    for text in corpus.documents(values.data, key, int(values.max_bytes)):
        yield (
            digest_of(text.encode()),
            np.array([*model.tokenizer.encode(text), model.tokenizer.eod]),
        )


def validation_of(model: ScoredModel) -> Any:
    """The dataset of a run. ValueError, in one line, if it cannot be read."""
    try:
        return training_data(model)
    except Unavailable as reason:
        raise ValueError(f"run={model.run}: {reason}; give --data=TEXT") from reason


def held_out(model: ScoredModel) -> list[np.ndarray]:
    """The validation documents of a run, each with its end."""
    found = []
    for text in validation_of(model).for_run(model.config).texts("validation"):
        found += datastore.split(text, model.tokenizer.eod)
    return found


def of_passages(
    values: absl_flags.FlagValues, index: Index, model: ScoredModel, advance: Advance
) -> dict[str, Any]:
    """What passages before the text save."""
    context = model.cfg.context_length
    how = in_context.How(
        *(values.every, values.query, values.passages), values.passage_tokens or context // 2
    )
    how.check(model)
    retriever = Retriever(index, backend=values.backend)
    if values.data:
        scored = list(documents(model, values))
        known = {digest[:8].hex() for digest, _ in scored}
        texts, is_known = [tokens for _, tokens in scored], lambda digest: digest in known
    else:
        share = model.config.data.validation
        texts = held_out(model)
        is_known = lambda digest: is_validation(bytes.fromhex(digest), share)  # noqa: E731
    fair, lengths = passages_of(model, retriever, is_known, advance)
    if not fair.any():
        raise ValueError(
            f"retrieve={index.folder} holds only passages of the documents that are scored, which "
            "are left out; index other texts"
        )
    sizes = sizes_wanted(values.sizes or "all", int(lengths[fair].sum()))
    chosen = in_context.parts(texts, model.start, int(values.score_tokens))
    score = lambda retriever, allowed, what: in_context.score(  # noqa: E731
        model, retriever, chosen, how, allowed, lambda share: advance(what, share)
    )
    alone, found = score(None, None, "without passages"), []
    for allowed in nested(fair, lengths, sizes):
        helped = score(retriever, allowed, f"with {int(allowed.sum()):,} passages")
        about = {"tokens": int(lengths[allowed].sum()), "passages": int(allowed.sum())}
        about["bytes"] = round(index.n_bytes * about["passages"] / len(fair))
        found.append(about | in_context.measured(chosen, alone, helped))
    return {
        **{"method": "in_context", "every": how.stride, "query": how.query, "sizes": found},
        **{"passages": how.passages, "passage_tokens": how.room, "context": context},
        "left_out": int((~fair).sum()),
    }


def passages_of(
    model: ScoredModel, retriever: Retriever, is_known: Callable[[str], bool], advance: Advance
) -> tuple[np.ndarray, np.ndarray]:
    """(whether each passage is from a document that is not scored [P], its tokens [P])."""
    count = len(retriever.passages)
    fair, lengths = np.zeros(count, bool), np.zeros(count, np.int64)
    for number, passage in enumerate(retriever.passages):
        fair[number] = not is_known(passage.document)
        lengths[number] = len(model.tokenizer.encode(passage.text))
        if number % 1000 == 0:
            advance("reading the passages", number / count)
    return fair, lengths


def nested(fair: np.ndarray, lengths: np.ndarray, sizes: Sequence[int]) -> Iterator[np.ndarray]:
    """Which passages [P] an index of each size in tokens has: random ones. Each set contains the
    one before."""
    order = np.random.default_rng(0).permutation(np.flatnonzero(fair))
    reached = np.cumsum(lengths[order])
    for size in sizes:
        allowed = np.zeros(len(fair), bool)
        allowed[order[: max(1, int(np.searchsorted(reached, size, side="right")))]] = True
        yield allowed
