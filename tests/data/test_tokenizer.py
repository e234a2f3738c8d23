"""Tests that every tokenizer decodes to the text it encoded, byte for byte."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from data import tokenizer as tokenizers
from tests.data.conftest import sentence

SYLLABLES = "ba ce di fo gu ha ki lo mu na po ri st tr ve wo xy zi".split()
TEXTS = [
    sentence(number) + "".join(np.random.default_rng(number).choice([*SYLLABLES, " "], 200))
    for number in range(300)
]
SPECS = ["bytes", "chars", "bpe", "unigram", "words", "lowercase_words"]
SIZES = {"chars": 0, "bpe": 400, "unigram": 400, "words": 0, "lowercase_words": 300}
TRICKY = [
    "",
    " ",
    "  two  spaces\t\ttabs\n\n\nlines\r\n ",
    "\u2581 the mark of SentencePiece\u2581\u2581",
    "</s><unk><s><0x41> \u2047 \u2585",
    "\0nul \x7f \ufeff \ufffd",
    "e\u0301 é Å ﬁ Ⅷ ａ",  # each changes under Unicode normalisation
    "漢字 👩‍👩‍👧 \U0010ffff",
    "x" * 5000,
]


@pytest.fixture(scope="module")
def trained():
    made = {name: tokenizers.train(name, TEXTS, size) for name, size in SIZES.items()}
    return {"bytes": tokenizers.from_spec("bytes"), **made}


@pytest.mark.parametrize("name", ["bytes", "bpe", "unigram"])
@settings(max_examples=150, deadline=None)
@given(text=st.text(max_size=60))
def test_round_trip_of_any_text(trained, name, text):
    check_round_trip(trained[name], text)


@pytest.mark.parametrize("text", TRICKY)
@pytest.mark.parametrize("name", ["bytes", "bpe", "unigram"])
def test_round_trip_of_tricky_text(trained, name, text):
    check_round_trip(trained[name], text)


def check_round_trip(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.token_bytes[ids].sum() == len(text.encode())
    assert tokenizer.eod not in ids
    assert ids.dtype == np.int32 and (
        len(ids) == 0 or 0 <= ids.min() <= ids.max() < tokenizer.vocab_size
    )


@settings(max_examples=100, deadline=None)
@given(text=st.text(alphabet=sorted(set("".join(TEXTS)))))
@example(text="αβγ\t漢字\n")
def test_round_trip_of_known_characters(trained, text):
    check_round_trip(trained["chars"], text)


def test_unknown_characters_are_one_token_and_one_byte(trained):
    chars = trained["chars"]
    ids = chars.encode("a€b")
    assert ids[1] == chars.vocab_size - 1 and chars.decode(ids) == "a?b"
    assert chars.token_bytes[ids].tolist() == [1, 1, 1]


def test_vocabularies(trained):
    assert trained["bytes"].vocab_size == 256 and trained["bytes"].eod == 0xFF
    assert trained["chars"].vocab_size == len(set("".join(TEXTS))) + 2
    assert trained["bpe"].vocab_size == trained["unigram"].vocab_size == 400
    assert trained["lowercase_words"].vocab_size == 300
    for name, tokenizer in trained.items():
        assert len(tokenizer.pieces) == tokenizer.vocab_size
        if "words" in name:
            assert tokenizer.token_bytes is None
        else:
            assert tokenizer.token_bytes.shape == (tokenizer.vocab_size,)
            assert tokenizer.token_bytes[tokenizer.eod] == 0
        assert tokenizer.decode([tokenizer.eod]) == ""


def test_sentencepiece_learns_words_and_runs_of_spaces(trained):
    for name in ("bpe", "unigram"):
        assert len(trained[name].encode(TEXTS[0])) < 0.7 * len(TEXTS[0].encode())
    indented = [f"def f():\n        return {i}\n" for i in range(500)]
    assert b"        " in tokenizers.train("bpe", indented, 300).pieces


WRITTEN = "Don’t stop: it's 3.14, naïve_1 漢字…\n\tIt costs £5 (don't)!"
SPLIT = "Don’t|stop|:|it's|3|.|14|,|naïve_1|漢字|…|It|costs|£|5|(|don't|)|!".split("|")


def test_words_are_split_by_their_rule():
    words = tokenizers.train("words", [WRITTEN])
    assert words.decode(words.encode(WRITTEN)) == " ".join(SPLIT)
    lower = tokenizers.train("lowercase_words", [WRITTEN])
    assert lower.decode(lower.encode(WRITTEN)) == " ".join(SPLIT).lower()
    assert np.array_equal(lower.encode("IT COSTS"), lower.encode("it costs"))
    assert words.encode("IT").tolist() == [words.unknown] != lower.encode("IT").tolist()
    for text in ("", " ", "\n \t\n"):
        assert words.encode(text).tolist() == []


def test_the_most_frequent_words_are_kept():
    """b 3, a and c 2, d 1: equally frequent words are ordered by their characters."""
    texts = ["b c b", "a d c a b"]
    words = tokenizers.train("words", texts, 5)
    assert words.encode("b a c d z").tolist() == [0, 1, 2, words.unknown, words.unknown]
    assert (words.eod, words.unknown, words.vocab_size) == (3, 4, 5)
    assert words.decode([0, 4, 3]) == "b <unk>"
    every = tokenizers.train("words", texts, 0)
    assert every.vocab_size == 6 and every.unknown not in every.encode("a b c d")
    assert tokenizers.train("words", texts, 6).fingerprint == every.fingerprint != words.fingerprint


@pytest.mark.parametrize(
    "name", ["chars", "bpe", pytest.param("unigram", marks=pytest.mark.slow), "lowercase_words"]
)
def test_training_is_deterministic_across_processes(trained, name):
    script = (
        "from data import tokenizer; from tests.data.test_tokenizer import TEXTS;"
        f"print(tokenizer.train({name!r}, TEXTS, {SIZES[name]}).fingerprint)"
    )
    root = Path(__file__).parents[2]
    out = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True)
    assert out.stdout.strip() == trained[name].fingerprint, out.stderr
    other = tokenizers.train(name, [text + "!~" for text in TEXTS], SIZES[name])
    assert other.fingerprint != trained[name].fingerprint


@pytest.mark.parametrize("name", SPECS)
def test_saved_is_loaded(trained, name, tmp_path):
    trained[name].save(tmp_path / "t")
    loaded = tokenizers.load(tmp_path / "t")
    assert (loaded.name, loaded.fingerprint, loaded.eod) == (
        trained[name].name,
        trained[name].fingerprint,
        trained[name].eod,
    )
    assert np.array_equal(loaded.encode(TEXTS[1]), trained[name].encode(TEXTS[1]))
    assert np.array_equal(loaded.token_bytes, trained[name].token_bytes)


def test_a_changed_model_is_refused(trained, tmp_path):
    trained["chars"].save(tmp_path)
    model = tmp_path / "tokenizer.model"
    model.write_bytes(model.read_bytes()[:-4])
    with pytest.raises(ValueError, match=f"tokenizer.model.*delete {tmp_path}"):
        tokenizers.load(tmp_path)


def test_a_model_file_is_used_as_it_is(trained, tmp_path):
    path = tmp_path / "mine.model"
    path.write_bytes(trained["bpe"].model)
    given = tokenizers.from_spec(str(path))
    assert given.name == "mine" and given.fingerprint == trained["bpe"].fingerprint


def test_a_model_with_a_dummy_prefix_and_normalisation_works(tmp_path):
    """As in Llama and T5. Text round-trips, except for what the normalisation changes."""
    import sentencepiece

    path = tmp_path / "t5"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS), model_prefix=str(path), vocab_size=90, minloglevel=2
    )
    given = tokenizers.from_spec(f"{path}.model")
    assert given.decode(given.encode("return name")) == "return name"
    assert given.decode([given.eod]) == ""


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: tokenizers.from_spec("word"),
            ValueError,
            "data.tokenizer='word'.*bytes, chars, bpe",
        ),
        (lambda: tokenizers.from_spec("no.model"), FileNotFoundError, "no.model.*does not exist"),
        (lambda: tokenizers.train("bpe", TEXTS, 0), ValueError, "data.vocab_size above 0, not 0"),
        (lambda: tokenizers.train("bpe", TEXTS, 100), ValueError, "data.vocab_size=100"),
        (lambda: tokenizers.train("unigram", TEXTS, 90000), ValueError, "data.vocab_size=90000"),
        (lambda: tokenizers.train("bpe", [], 500), ValueError, "data.vocab_size=500"),
        (
            lambda: tokenizers.train("words", ["a b a"], 9),
            ValueError,
            "data.vocab_size=9 does not fit this text, which has 2 distinct words; use 3 to 4",
        ),
        (lambda: tokenizers.train("words", ["a b"], 2), ValueError, "data.vocab_size=2 does not"),
        (lambda: tokenizers.train("words", [" "], 0), ValueError, "'words' found no training text"),
    ],
)
def test_bad_input_is_one_clear_line(call, error, message):
    with pytest.raises(error, match=message) as raised:
        call()
    assert "\n" not in str(raised.value)


def test_a_file_that_is_no_model_is_refused(tmp_path):
    path = tmp_path / "bad.model"
    path.write_bytes(b"not a model")
    with pytest.raises(ValueError, match=r"bad\.model' is not a SentencePiece model"):
        tokenizers.from_spec(str(path))


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory):
    """A tokenizer.json like GPT-2's, trained by the library, that adds a token before texts."""
    library = pytest.importorskip("tokenizers")
    fast = library.Tokenizer(library.models.BPE())
    fast.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = library.decoders.ByteLevel()
    alphabet = library.pre_tokenizers.ByteLevel.alphabet()
    names = ["<|begin|>", "<|endoftext|>"]
    trainer = library.trainers.BpeTrainer(
        vocab_size=400, special_tokens=names, initial_alphabet=alphabet, show_progress=False
    )
    fast.train_from_iterator(TEXTS, trainer)
    fast.post_processor = library.processors.TemplateProcessing(
        single="<|begin|> $A", special_tokens=[("<|begin|>", 0)]
    )
    path = tmp_path_factory.mktemp("byte_level") / "tokenizer.json"
    fast.save(str(path))
    return path


def test_a_byte_level_tokenizer_json(byte_level, tmp_path):
    tokenizer = tokenizers.from_spec(str(byte_level))
    assert (tokenizer.eod, tokenizer.prefix) == (1, (0,))
    for text in ["", "two  spaces\n\ttab", "漢字 👩‍👩‍👧 é\0", TEXTS[0]]:
        check_round_trip(tokenizer, text)
    half = tokenizer.encode("é")[:1]
    assert tokenizer.decode(half) == "\ufffd"
    tokenizer.save(tmp_path)
    again = tokenizers.load(tmp_path)
    assert (again.fingerprint, again.prefix) == (tokenizer.fingerprint, (0,))


def test_a_json_that_is_no_tokenizer(tmp_path):
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(ValueError, match="this is not a tokenizer"):
        tokenizers.from_spec(str(tmp_path / "x.json"))
