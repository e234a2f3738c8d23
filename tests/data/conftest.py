"""Small datasets for the tests of data/, on disk and in memory."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from data.shards import Split
from data.store import Component, TokenStore

WORDS = (
    "def return self import for while if else None True class value name path αβγ 漢字 \t".split(
        " "
    )
)


def sentence(number: int, words: int = 60) -> str:
    """Text that is determined by `number` and different for each."""
    rng = np.random.default_rng(number)
    return " ".join(rng.choice(WORDS, words)) + f" {number}\n"


def make_split(tokens: np.ndarray, borders: tuple[int, ...] = ()) -> Split:
    """A split of `tokens` in shards that begin at 0 and at `borders`."""
    shards = tuple(np.split(np.asarray(tokens, "<u4"), borders))
    begins = np.array([0, *borders], np.int64)
    return Split(shards, begins, n_tokens=len(tokens), n_documents=1, n_bytes=len(tokens))


def make_dataset(*lengths: int, weights: tuple[int, ...] = (1,), borders=()) -> TokenStore:
    """Components whose tokens all differ: token i of component c is 10**6 c + i."""
    parts = []
    for c, n in enumerate(lengths):
        tokens = 10**6 * c + np.arange(n)
        splits = {name: make_split(tokens, borders) for name in ("train", "validation")}
        parts.append(Component(f"corpus{c}", Path("nowhere"), str(c), splits))
    size = 10**6 * len(lengths)
    tokenizer = SimpleNamespace(vocab_size=size, token_bytes=1 + np.arange(size) % 5)
    return TokenStore(tuple(parts), weights, tokenizer, "hash")


@pytest.fixture
def config(tmp_path):
    """Makes `data` config sections; each test has its own cache."""

    def make(**changes) -> SimpleNamespace:
        defaults = dict(
            corpora=("stdlib",),
            weights=(1.0,),
            text_key="text",
            tokenizer="bytes",
            vocab_size=0,
            validation=0.2,
            cache=str(tmp_path / "cache"),
            max_bytes=0,
            held_out=(),
        )
        return SimpleNamespace(**{**defaults, **changes})

    return make


@pytest.fixture
def folder_of_text(tmp_path):
    """A corpus of 60 small files."""
    folder = tmp_path / "text"
    folder.mkdir()
    for number in range(60):
        (folder / f"{number:03d}.txt").write_text(sentence(number))
    return folder
