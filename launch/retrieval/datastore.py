"""The datastore of a kNN language model: the state of a run before each token of a text, and the
token (Khandelwal et al. 2020, section 2).

Windows of the model's context begin every `stride` tokens of the text; of each the last `stride`
states are kept, so every token has at least context - stride tokens before it. The windows are in
random order, so that the first M keys are those of a random part of the text.
"""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from data.retrieval import folder
from data.retrieval.folder import Index
from data.shards import token_dtype
from launch.evaluation.counted_baseline import Unavailable, training_data
from launch.evaluation.scored_model import ScoredModel, open_model
from launch.retrieval.building import Texts
from launch.retrieval.encoders import has_states, weights_hash
from train.evaluate import states

KEYS = 1 << 17  # of a file, about
ROWS = 128  # windows that are read at once
HALF = 65504.0  # the largest float16
DOCUMENTS = "documents.npy"  # the digest of each document of the text


def open_scored(run: Path) -> ScoredModel:
    """The language model of a run, if its states can be stored. ValueError or FileNotFoundError, in
    one line, if not."""
    model = open_model(run)
    if model.counted or not has_states(model.family):
        raise ValueError(
            f"run={run} has model.family={model.name!r}, which has no hidden states; use a decoder "
            "or a recurrent model"
        )
    if model.initial_carry(1) is not None:
        raise ValueError(
            f"run={run} carries its state from window to window (model.carry_state=True), and the "
            "datastore reads windows in random order; use a run without"
        )
    if model.config.data.get("rows") == "packed":
        raise ValueError(
            f"run={run} was trained on data.rows=packed, one document at a time, and the windows "
            "of a datastore hold several; use a run of data.rows=windows"
        )
    return model


def build(
    place: Path,
    texts: Texts | None,
    run: Path,
    stride: int,
    most: int,
    seed: int,
    advance: Callable[[float], None],
) -> tuple[Index, bool]:
    """(the datastore in a folder, whether it was built now) of `texts`, or of the training text of
    the run: of at most `most` tokens, 0: all. Files that a killed build wrote are kept."""
    model = open_scored(run)
    context = model.cfg.context_length
    stride = stride or max(1, context // 2)
    if stride > context:
        raise ValueError(f"stride={stride} is above the model's context_length={context}; lower it")
    found, identity = tokens_of(model, texts)
    about = {
        **{"kind": "knn", "weights": weights_hash(model.fitted), "texts": identity},
        **{"tokenizer": model.tokenizer.fingerprint, "context": context, "stride": stride},
    }
    settings = about | {"most": most, "seed": seed}
    with folder.building(place, settings) as missing:
        if not missing:
            return folder.read(place, "out"), False
        chosen = windows(found, context, stride, most, seed)
        at_once = max(1, KEYS // stride)
        dimensions = 0
        for number, first in enumerate(range(0, len(chosen), at_once)):
            names = [folder.shard_name(name, number) for name in ("keys", "values")]
            if not (place / names[1]).is_file():  # written after the keys
                some = chosen[first : first + at_once]
                made = stored(model, found, some, stride)
                for name, array in zip(names, made, strict=True):
                    folder.write_array(place / name, array)
            dimensions = np.load(place / names[0], mmap_mode="r").shape[1]
            advance(min(1.0, (first + at_once) / len(chosen)))
        digests = [digest(part) for text in found for part in split(text, model.tokenizer.eod)]
        folder.write_array(place / DOCUMENTS, np.unique(np.array(digests, np.uint64)))
        tokens = {"tokens": len(chosen) * stride, "dimensions": dimensions}
        named = {"run": str(run.resolve()), "tokenizer_name": model.tokenizer.name}
        return folder.finish(place, settings, about | tokens | named), True


def tokens_of(model: ScoredModel, texts: Texts | None) -> tuple[list[np.ndarray], str]:
    """(the tokens of texts, one array a corpus, what identifies them): of the run's training text
    without `texts`."""
    if texts is None:
        try:
            dataset = training_data(model)
        except Unavailable as reason:
            raise ValueError(f"run={model.run}: {reason}; give --texts=TEXT") from reason
        return dataset.for_run(model.config).texts("train"), dataset.hash
    parts = [
        np.append(model.tokenizer.encode(document.text), model.tokenizer.eod).astype(np.int32)
        for document in texts.documents()
    ]
    return [np.concatenate([np.zeros(0, np.int32), *parts])], texts.identity()


def split(text: np.ndarray, eod: int) -> list[np.ndarray]:
    """The documents of a text of tokens, each with its end."""
    parts = np.split(text, np.flatnonzero(text == eod) + 1)
    return [part for part in parts if len(part)]


def digest(document: np.ndarray) -> int:
    """8 bytes of the SHA-256 of the tokens of a document and its end."""
    return int.from_bytes(hashlib.sha256(document.astype(np.int64).tobytes()).digest()[:8])


def known_documents(index: Index) -> set[int]:
    """The digests of the documents in a datastore. ValueError for one that was built without."""
    if DOCUMENTS not in index.about["files"]:
        raise ValueError(
            f"retrieve={index.folder} does not say which documents it holds, so --data may be "
            "among them; delete it and build it again"
        )
    return set(index.array(DOCUMENTS).tolist())


def windows(
    texts: Sequence[np.ndarray], context: int, stride: int, most: int, seed: int
) -> np.ndarray:
    """(text, first token) of each window [W, 2], in random order: enough for `most` keys, 0:
    all. ValueError for texts that are shorter than a window."""
    found = [
        np.stack([np.full_like(begins, number), begins], axis=1)
        for number, text in enumerate(texts)
        for begins in [np.arange(0, len(text) - context, stride)]
    ]
    every = np.concatenate([*found, np.zeros((0, 2), int)])
    if not len(every):
        raise ValueError(
            f"the text has {sum(map(len, texts))} tokens, and a window {context + 1}; give more"
        )
    order = np.random.default_rng(seed).permutation(len(every))
    return every[order[: -(-most // stride) if most else None]]


def stored(
    model: ScoredModel, texts: Sequence[np.ndarray], chosen: np.ndarray, stride: int
) -> tuple[np.ndarray, np.ndarray]:
    """(keys [N, D] float16, values [N]) of windows."""
    context = model.cfg.context_length
    keys, values = [], []
    for first in range(0, len(chosen), ROWS):
        some = chosen[first : first + ROWS]
        tokens_BT = np.zeros((ROWS, context), np.int32)
        for row, (number, begin) in enumerate(some):
            text = texts[number][begin : begin + context + 1]
            tokens_BT[row] = text[:-1]
            values.append(text[context - stride + 1 :])
        batch = {"tokens": tokens_BT, "segments": np.ones_like(tokens_BT)}
        x_BTD = np.asarray(states(model.name, model.cfg, model.fitted, batch), np.float32)
        kept = x_BTD[: len(some), context - stride :].reshape(-1, x_BTD.shape[-1])
        keys.append(np.clip(kept, -HALF, HALF).astype(np.float16))
    dtype = token_dtype(model.tokenizer.vocab_size)
    return np.concatenate(keys), np.concatenate(values).astype(dtype)


def require_same(index: Index, model: ScoredModel) -> None:
    """ValueError, in one line, for a datastore of another tokenizer or of other weights."""
    about = index.about
    if about["tokenizer"] != model.tokenizer.fingerprint:
        raise ValueError(
            f"retrieve={index.folder} holds tokens of the tokenizer {about['tokenizer_name']!r}, "
            f"and run={model.run} has {model.tokenizer.name!r}, which makes other tokens; build it "
            f"again: isoflop index --kind=knn --run={model.run}"
        )
    if about["weights"] != weights_hash(model.fitted):
        raise ValueError(
            f"retrieve={index.folder} holds states of the model in {about['run']}, and run="
            f"{model.run} has other weights, whose states mean other things; build it again: "
            f"isoflop index --kind=knn --run={model.run}"
        )
