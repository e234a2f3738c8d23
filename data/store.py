"""Builds the token shards of a dataset once and opens them for all later trials.

    CACHE/stdlib-bytes-1f0c…/manifest.json          counts, SHA-256 of each shard, dataset's hash
                             tokenizer.json         what the tokens mean
                             00000-93ab….train.bin  a shard (`data/shards.py`)
    CACHE/tokenizer-bpe-77d0…/                      a tokenizer that was trained here

A folder's name ends with a hash of where the text comes from: paths, sizes and times of the files,
the tokenizer and the validation share. The dataset's `hash` covers only its content, not paths.

Each document ends with the end-of-document token. A document belongs to validation if the hash of
its text is below the validation share. So adding documents does not move others between splits, and
equal documents are in the same split. With `held_out`, the share is 0 and the validation split of
each corpus is another corpus.
"""

import hashlib
import heapq
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data import build
from data import tokenizer as tokenizers
from data.caching import folders
from data.files import path_of, specs_of
from data.shards import SPLITS, Split, open_splits, read_manifest
from data.sources import corpus
from data.tokenizer import Tokenizer

FORMAT = 1
# Bytes of text to train a tokenizer on, unless data.tokenizer_sample says otherwise; unigram takes
# 5 s per MB, bpe 0.3 s.
SAMPLE_BYTES = {"bpe": 16 << 20, "unigram": 4 << 20}
LARGEST_BLOCK = 1000


@dataclass(frozen=True)
class Component:
    """One corpus of a dataset, as tokens."""

    name: str
    folder: Path
    hash: str
    splits: dict[str, Split]

    def count(self, split: str, token: int) -> int:
        """How often a token occurs in a split."""
        return sum(int(np.count_nonzero(shard == token)) for shard in self.splits[split].shards)


@dataclass(frozen=True)
class TokenStore:
    """One or more components. A mixture takes `weights[c]` rows of component c per block."""

    components: tuple[Component, ...]
    weights: tuple[int, ...]
    tokenizer: Tokenizer
    hash: str  # of content, tokenizer, splits and weights only
    held_out: str = ""  # hash of the corpora of `data.held_out`, if there are any

    @property
    def vocab_size(self) -> int:
        return self.tokenizer.vocab_size

    @property
    def token_bytes(self) -> np.ndarray | None:
        """Bytes of text that each token represents, int32 [V]; None if tokens do not determine
        them."""
        return self.tokenizer.token_bytes

    @property
    def n_tokens(self) -> dict[str, int]:
        """Tokens of each split, end-of-document tokens included."""
        return self._total("n_tokens")

    @property
    def n_bytes(self) -> dict[str, int]:
        """Bytes of text of each split."""
        return self._total("n_bytes")

    @property
    def n_documents(self) -> dict[str, int]:
        return self._total("n_documents")

    @property
    def unknown_share(self) -> dict[str, float] | None:
        """The share of each split's tokens that stand for what the vocabulary lacks, over all
        components; None if the tokenizer has no such token."""
        if self.tokenizer.unknown is None:
            return None
        return {
            split: sum(part.count(split, self.tokenizer.unknown) for part in self.components)
            / max(1, self.n_tokens[split])
            for split in SPLITS
        }

    def _total(self, count: str) -> dict[str, int]:
        return {
            split: sum(getattr(part.splits[split], count) for part in self.components)
            for split in SPLITS
        }


def prepare(data_cfg: Any, *, progress: bool = True) -> TokenStore:
    """Opens the dataset of a `data` config section and builds what is not in `data_cfg.cache`.

    Raises FileNotFoundError or ValueError, in one line, for text that cannot be read, a tokenizer
    that is not available, and a shard that is missing, truncated or damaged.
    """
    corpora, weights = _corpora(data_cfg)
    if not 0 <= data_cfg.validation < 1:
        raise ValueError(
            f"data.validation={data_cfg.validation} must be at least 0 and below 1; try 0.02"
        )
    cache = path_of(data_cfg.cache, "data.cache")
    held_out = _held_out(data_cfg, corpora)
    for spec in (*corpora, *held_out):
        corpus.identity(spec)  # raises for missing text before a folder is created
    tokenizer = _tokenizer(data_cfg, corpora, cache, progress)
    if data_cfg.vocab_size not in (0, tokenizer.vocab_size):
        raise ValueError(
            f"data.vocab_size={data_cfg.vocab_size}, but the tokenizer {tokenizer.name} has "
            f"{tokenizer.vocab_size} tokens; use that number or 0"
        )

    def component(spec: str, share: float) -> Component:
        return _component(data_cfg, spec, share, tokenizer, cache, progress)

    components = tuple(component(spec, _share(data_cfg)) for spec in corpora)
    others = tuple(component(spec, 1.0) for spec in held_out)
    if others:
        components = tuple(map(_with_validation, components, others))
    return TokenStore(
        components,
        weights,
        tokenizer,
        _hash(components, weights),
        _hash(others, weights) if others else "",
    )


def _hash(components: tuple[Component, ...], weights: tuple[int, ...]) -> str:
    """The hash of a mixture; of one component, its own."""
    if len(components) == 1:
        return components[0].hash
    about = [[part.hash, weight] for part, weight in zip(components, weights, strict=True)]
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()


def trained_tokenizer(data_cfg: Any, *, progress: bool = True) -> Tokenizer:
    """The tokenizer of a `data` config section, trained on its training text if it is not in
    `data_cfg.cache`. Raises what `prepare` raises."""
    corpora, _ = _corpora(data_cfg)
    return _tokenizer(data_cfg, corpora, path_of(data_cfg.cache, "data.cache"), progress)


def integral_weights(weights: tuple[float, ...]) -> tuple[int, ...]:
    """Rows of each component in the smallest block whose shares have relative errors below 0.1 %.

    If no block of up to LARGEST_BLOCK rows has, uses that many rows and the nearest shares. Raises
    ValueError for a share of less than one row in it.
    """
    share = np.array(weights, float) / sum(weights)
    for block in range(len(share), LARGEST_BLOCK + 1):
        rows = np.floor(share * block + 1e-9).astype(int)
        # Rounding down leaves rows unassigned. The components that lost most get them.
        rows[np.argsort(rows - share * block, kind="stable")[: block - rows.sum()]] += 1
        exact = (np.abs(rows / block - share) <= share / 1000).all()
        if rows.min() > 0 and (exact or block == LARGEST_BLOCK):
            return tuple(int(row) for row in rows)
    raise ValueError(
        f"data.weights={weights}: a share is below 1 in {LARGEST_BLOCK}; leave that corpus out"
    )


def _corpora(data_cfg: Any) -> tuple[tuple[str, ...], tuple[int, ...]]:
    corpora = specs_of(data_cfg.corpora)
    weights = tuple(data_cfg.weights)
    if not corpora:
        raise ValueError("data.corpora is empty; name at least one, such as 'stdlib'")
    if len(weights) != len(corpora):
        raise ValueError(
            f"data.weights={weights} and data.corpora={corpora} differ in length; "
            "give one weight per corpus"
        )
    if min(weights) <= 0:
        raise ValueError(f"data.weights={weights} must be above 0; leave a corpus out instead")
    return corpora, integral_weights(weights)


def _held_out(data_cfg: Any, corpora: tuple[str, ...]) -> tuple[str, ...]:
    """The corpora of `data.held_out`: none, or one for each of `corpora`."""
    given = data_cfg.held_out
    held_out = ((given,) if given else ()) if isinstance(given, str) else tuple(given)
    if held_out and len(held_out) != len(corpora):
        raise ValueError(
            f"data.held_out={held_out} and data.corpora={corpora} differ in length; give one "
            "held-out corpus for each, or none"
        )
    return held_out


def _share(data_cfg: Any) -> float:
    """The share of the documents of `data.corpora` in their validation splits."""
    return 0.0 if data_cfg.held_out else data_cfg.validation


def _with_validation(trained: Component, other: Component) -> Component:
    """`trained` with the validation split of `other`."""
    both = hashlib.sha256(json.dumps([trained.hash, other.hash]).encode()).hexdigest()
    splits = {"train": trained.splits["train"], "validation": other.splits["validation"]}
    return Component(trained.name, trained.folder, both, splits)


def _component(
    data_cfg: Any, spec: str, share: float, tokenizer: Tokenizer, cache: Path, progress: bool
) -> Component:
    key = [_origin(data_cfg, spec), tokenizer.fingerprint, share]
    if tokenizer.kind in tokenizers.REVISIONS:
        key.append(tokenizers.REVISIONS[tokenizer.kind])
    folder = folders.named_folder(cache, [spec, tokenizer.name], key)
    with folders.locked_if_missing(folder / "manifest.json") as missing:
        if missing:
            size = corpus.size(spec)
            documents = corpus.documents(spec, data_cfg.text_key, data_cfg.max_bytes)
            with folders.progress_of(f"tokenizing {spec}", size, progress) as advance:
                build.build(
                    folder,
                    spec,
                    documents,
                    size=size,
                    tokenizer=tokenizer,
                    validation=share,
                    advance=advance,
                )
    manifest = read_manifest(folder)
    check_tokenizer(folder, tokenizer)
    return Component(spec, folder, manifest["hash"], open_splits(folder, manifest))


def check_tokenizer(folder: Path, tokenizer: Tokenizer) -> None:
    """ValueError if the tokens in `folder` were not made with `tokenizer`."""
    try:
        saved = tokenizers.read_saved(folder)
    except FileNotFoundError:
        raise ValueError(
            f"{folder / 'tokenizer.json'} is missing; delete {folder} to rebuild it"
        ) from None
    if saved.fingerprint != tokenizer.fingerprint:
        raise ValueError(
            f"{folder / 'tokenizer.json'} is that of another tokenizer; "
            f"delete {folder} to rebuild it"
        )


def _tokenizer(data_cfg: Any, corpora: tuple[str, ...], cache: Path, progress: bool) -> Tokenizer:
    name = data_cfg.tokenizer
    if name not in tokenizers.TRAINED:
        return tokenizers.from_spec(name)
    origins = [_origin(data_cfg, spec) for spec in corpora]
    key = [origins, data_cfg.vocab_size, _share(data_cfg)]
    most = SAMPLE_BYTES.get(name, 0)
    if most:
        tokenizers.require_size(name, data_cfg.vocab_size)  # before all text is read
    if most and data_cfg.tokenizer_sample:
        most = data_cfg.tokenizer_sample
        key.append(most)
    folder = folders.named_folder(cache, ["tokenizer", name], key)
    with folders.locked_if_missing(folder / "tokenizer.json") as missing:
        if missing:
            size = sum(corpus.size(spec) or 0 for spec in corpora) or None
            with folders.progress_of(
                f"reading text for the tokenizer {name}", size, progress
            ) as advance:
                texts = _training_texts(data_cfg, corpora, most, advance)
                if not most:  # a pass over all text, which keeps none
                    tokenizers.train(name, texts, data_cfg.vocab_size).save(folder)
                else:
                    texts = list(texts)
            if most:
                sample = sum(len(text.encode()) for text in texts)
                with folders.still_at(
                    f"training {name} on {sample:,} bytes of that text", progress
                ):
                    tokenizers.train(name, texts, data_cfg.vocab_size).save(folder)
    return tokenizers.load(folder)


def _training_texts(
    data_cfg: Any, corpora: tuple[str, ...], most: int, advance: Callable[[int], None]
) -> Iterator[str]:
    """Training documents: a sample of at most `most` bytes, of equal size from each corpus, or all
    if `most` is 0, for a tokenizer that counts characters or words."""
    for spec in corpora:
        documents = corpus.documents(spec, data_cfg.text_key, data_cfg.max_bytes)
        kept = not_held_out(documents, _share(data_cfg), advance)
        if not most:
            yield from (text for _, text in kept)
        else:
            yield from sampled(kept, most // len(corpora))


def not_held_out(
    documents: Iterable[str], validation: float, advance: Callable[[int], None]
) -> Iterator[tuple[bytes, str]]:
    for text in documents:
        raw = text.encode()
        advance(len(raw))
        digest = build.digest_of(raw)
        if not build.is_validation(digest, validation):
            yield digest, text


def sampled(documents: Iterable[tuple[bytes, str]], max_bytes: int) -> list[str]:
    """A uniform sample, independent of the order: the documents with the lowest digest ends. It
    never holds more than `max_bytes` of text and a document."""
    heap: list[tuple[int, str]] = []
    total = 0
    for digest, text in documents:
        rank = -int.from_bytes(digest[16:], "big")
        heapq.heappush(heap, (rank, text))
        total += len(text.encode())
        while total > max_bytes and len(heap) > 1:
            total -= len(heapq.heappop(heap)[1].encode())
    return [text for _, text in sorted(heap, reverse=True)]


def _origin(data_cfg: Any, spec: str) -> list:
    """What determines the documents of `spec`: equal origins give equal documents."""
    named = spec == "stdlib" or corpus.scheme(spec)
    where = spec if named else str(path_of(spec, "data.corpora").resolve())
    return [FORMAT, where, corpus.identity(spec), data_cfg.text_key, data_cfg.max_bytes]
