"""Tests how much text a tokenizer is trained on, and what is said meanwhile."""

import re

import pytest

from data import store
from data import tokenizer as tokenizers


@pytest.fixture
def trained_on(monkeypatch):
    """The bytes of text of each training."""
    sizes, train = [], tokenizers.train

    def counted(name, texts, vocab_size=0):
        texts = list(texts)
        sizes.append(sum(len(text.encode()) for text in texts))
        return train(name, texts, vocab_size)

    monkeypatch.setattr(tokenizers, "train", counted)
    return sizes


def test_a_sample_bounds_the_text_that_is_trained_on(config, folder_of_text, trained_on):
    keys = dict(corpora=(str(folder_of_text),), tokenizer="bpe", vocab_size=300)
    whole = store.trained_tokenizer(config(**keys), progress=False)
    some = store.trained_tokenizer(config(**keys, tokenizer_sample=9000), progress=False)
    again = store.trained_tokenizer(config(**keys, tokenizer_sample=9000), progress=False)
    assert len(trained_on) == 2  # the second sample is read from the cache
    assert trained_on[1] <= 9000 < trained_on[0]
    assert some.fingerprint == again.fingerprint != whole.fingerprint
    # Tokenizers that count characters or words read all text, whatever the sample.
    keys |= dict(tokenizer="words", vocab_size=0)
    counted = [
        store.trained_tokenizer(config(**keys, tokenizer_sample=n), progress=False).fingerprint
        for n in (0, 9000)
    ]
    assert counted[0] == counted[1] and len(trained_on) == 3


def test_what_it_trains_on_is_said(config, folder_of_text, capsys):
    keys = dict(corpora=(str(folder_of_text),), tokenizer="bpe", vocab_size=300)
    store.trained_tokenizer(config(**keys, tokenizer_sample=9000))
    said = re.search(r"training bpe on ([\d,]+) bytes of that text", capsys.readouterr().err)
    assert 8000 < int(said[1].replace(",", "")) <= 9000
