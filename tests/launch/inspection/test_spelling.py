"""Tests how tokens are shown."""

import pytest

from data import tokenizer as tokenizers
from launch.sampling.continuation import spell


@pytest.mark.parametrize(
    ("text", "shown"), [("a", "a"), (" ", "␣"), ("\n", "\\n"), ("'", "'"), ("é", "\\xc3 \\xa9")]
)
def test_a_token_is_visible(text, shown):
    tokenizer = tokenizers.from_spec("bytes")
    assert " ".join(spell(tokenizer, token) for token in tokenizer.encode(text)) == shown
    assert spell(tokenizer, tokenizer.eod) == "<end>"
