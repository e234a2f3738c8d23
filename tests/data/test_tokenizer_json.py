"""Tests that a tokenizer.json gives the right tokens for every model and saved setting."""

import json

import numpy as np
import pytest

from data import store
from data import tokenizer as tokenizers
from data.caching import folders
from data.sources import corpus
from data.store import prepare
from tests.data.conftest import sentence

library = pytest.importorskip("tokenizers")

BYTES = {f"<0x{byte:02X}>": byte + 3 for byte in range(256)}


def added(i: int, content: str, special: bool = True) -> dict:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": i, "content": content, "special": special, **flags}


def describe(model: dict, added_tokens: list[dict], **changes) -> dict:
    parts = ("truncation", "padding", "normalizer", "pre_tokenizer", "post_processor", "decoder")
    return {"version": "1.0", **dict.fromkeys(parts), "added_tokens": added_tokens} | {
        "model": model, **changes
    }  # fmt: skip


def byte_level() -> dict:
    """As in GPT-2: the end token is in the vocabulary of the model."""
    fast = library.Tokenizer(library.models.BPE())
    fast.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = library.decoders.ByteLevel()
    trainer = library.trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=library.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    fast.train_from_iterator([sentence(i) for i in range(50)], trainer)
    fast.add_tokens(["<tool>", "é!"])
    fast.add_special_tokens(["<|user|>"])
    return json.loads(fast.to_str())


def byte_level_that_ignores_merges() -> dict:
    """As in Llama 3: a word that is in the vocabulary becomes one token without merges."""
    about = byte_level()
    about["model"]["ignore_merges"] = True
    about["pre_tokenizer"]["use_regex"] = False
    return about


def end_is_no_special_token() -> dict:
    about = byte_level()
    about["added_tokens"][0]["special"] = False
    return about


def with_byte_fallback() -> dict:
    """As in Llama 2, with merges that produce </s> and the token of a byte."""
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2, **BYTES}
    pieces = ["▁", "<", "/", "s", ">", "</", "s>", "0", "x", "4", "1", "41>", "<0x", "a", "b"]
    vocab |= {piece: 259 + place for place, piece in enumerate(pieces)}
    steps = ["< /", "s >", "</ s>", "< s>", "< 0", "<0 x", "4 1", "41 >", "<0x 41>"]
    vocab |= {"<0": 280, "41": 281}
    model = {"type": "BPE", "unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True}
    model |= {"vocab": vocab, "merges": steps}
    normalizer = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    tokens = [added(0, "<unk>"), added(1, "<s>"), added(2, "</s>")]
    return describe(model, tokens, normalizer=normalizer)


def unigram() -> dict:
    """As in T5: control tokens are ordinary pieces, with the highest scores."""
    pieces = ["<unk>", "</s>", "▁", *"</s>|endoftxabc"]
    vocab = [[piece, -3.0 if place > 1 else 0.0] for place, piece in enumerate(pieces)]
    model = {"type": "Unigram", "unk_id": 0, "vocab": vocab, "byte_fallback": False}
    normalizer = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    return describe(model, [added(0, "<unk>"), added(1, "</s>")], normalizer=normalizer)


LOSSLESS = {
    "byte level": byte_level,
    "ignores merges": byte_level_that_ignores_merges,
    "end is not special": end_is_no_special_token,
    "byte fallback": with_byte_fallback,
    "unigram": unigram,
}


def words(kind: str) -> dict:
    """A vocabulary of whole words that includes the end token."""
    names = ["[UNK]", "<|endoftext|>", "the", "end"]
    model = {"type": kind, "unk_token": "[UNK]", "vocab": {n: i for i, n in enumerate(names)}}
    if kind == "WordPiece":
        model |= {"continuing_subword_prefix": "##", "max_input_chars_per_word": 100}
    tokens = [added(0, "[UNK]"), added(1, "<|endoftext|>")]
    return describe(model, tokens, pre_tokenizer={"type": "WhitespaceSplit"})


def save(folder, about: dict) -> str:
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(about))
    return str(path)


def as_the_library_reads(about: dict, text: str) -> list[int]:
    fast = library.Tokenizer.from_str(json.dumps(about))
    return fast.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("name", LOSSLESS)
def test_special_strings_in_a_document_are_text(tmp_path, name):
    about = LOSSLESS[name]()
    tokenizer = tokenizers.from_spec(save(tmp_path, about))
    end = "</s>" if "</s>" in about["model"]["vocab"] or name == "unigram" else "<|endoftext|>"
    text = f"ab{end}a {end}{end}b"
    assert as_the_library_reads(about, text).count(tokenizer.eod) == 3  # what we must avoid
    ids = tokenizer.encode(text)
    assert tokenizer.eod not in ids and tokenizer.decode(ids) == text
    assert tokenizer.token_bytes[ids].sum() == len(text.encode())
    assert tokenizer.token_bytes[tokenizer.eod] == 0
    prompt = tokenizer.encode_prompt(text)
    assert prompt.tolist() == as_the_library_reads(about, text) and prompt.dtype == np.int32


@pytest.mark.parametrize("name", LOSSLESS)
def test_text_without_special_strings_has_the_tokens_of_the_library(tmp_path, name):
    about = LOSSLESS[name]()
    tokenizer = tokenizers.from_spec(save(tmp_path, about))
    for text in ("", "a b  bab</ s>", sentence(3) if "byte" in name else "tea cod"):
        assert tokenizer.encode(text).tolist() == as_the_library_reads(about, text)


@pytest.mark.parametrize("kind", ["WordLevel", "WordPiece"])
def test_an_end_token_among_words_is_unknown(tmp_path, kind):
    about = words(kind)
    tokenizer = tokenizers.from_spec(save(tmp_path, about))
    assert as_the_library_reads(about, "the <|endoftext|> end") == [2, 1, 3]
    assert tokenizer.encode("the <|endoftext|> end").tolist() == [2, 0, 3]
    assert tokenizer.token_bytes.tolist() == [1, 0, 3, 3]  # unknown counts as one byte


def test_other_special_and_added_tokens(tmp_path):
    tokenizer = tokenizers.from_spec(save(tmp_path, byte_level()))
    text = "a<|user|>b<tool>é!"
    ids, prompt = tokenizer.encode(text), tokenizer.encode_prompt(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.token_bytes[ids].sum() == len(text.encode())
    assert len(prompt) == 5 < len(ids) and tokenizer.decode(prompt) == "ab<tool>é!"


def test_the_token_of_a_byte_is_never_spelled(tmp_path):
    tokenizer = tokenizers.from_spec(save(tmp_path, with_byte_fallback()))
    for text in ("a<0x41>b", "é<0x41>", "</s><s>\n"):
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert tokenizer.token_bytes[ids].sum() == len(text.encode())


@pytest.mark.parametrize("kind", ["bytes", "chars", "bpe", "unigram"])
def test_other_kinds_yield_no_end_of_document_either(kind):
    texts = [sentence(i) + "<|endoftext|></s><s><unk>" for i in range(100)]
    made = tokenizers.from_spec(kind) if kind == "bytes" else tokenizers.train(kind, texts, 300)
    for text in texts[:5]:
        ids = made.encode(text)
        assert made.eod not in ids and made.decode(ids) == text
        assert np.array_equal(ids, made.encode_prompt(text))


def test_a_corpus_that_spells_the_end_token(config, tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = [sentence(i) + "<|endoftext|>" * (i % 3) for i in range(80)]
    path.write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    spec = save(tmp_path, byte_level())
    dataset = prepare(config(corpora=(str(path),), tokenizer=spec), progress=False)
    for split in ("train", "validation"):
        part = dataset.components[0].splits[split]
        tokens = np.concatenate(part.shards)
        assert (tokens == dataset.tokenizer.eod).sum() == part.n_documents
        assert dataset.token_bytes[tokens].sum() == part.n_bytes


def test_tokens_that_older_versions_made_are_not_used(config, tmp_path):
    """The key of their folder names lacks the revision of the encoding."""
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"text": "a"}) + "\n" + json.dumps({"text": "b"}))
    for spec, moved in ((save(tmp_path, byte_level()), True), ("bytes", False)):
        settings = config(corpora=(str(path),), tokenizer=spec, validation=0.0)
        dataset = prepare(settings, progress=False)
        key = [store._origin(settings, str(path)), dataset.tokenizer.fingerprint, 0.0]
        old = folders.named_folder(tmp_path / "cache", [str(path), dataset.tokenizer.name], key)
        assert (dataset.components[0].folder != old) == moved


SETTINGS = {
    "truncation": {
        "direction": "Right",
        "max_length": 4,
        "strategy": "LongestFirst",
        "stride": 0,
    },
    "padding": {
        "strategy": {"Fixed": 300},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "<|endoftext|>",
    },
}


@pytest.mark.parametrize("saved", ["truncation", "padding", "both"])
def test_saved_truncation_and_padding_are_off(tmp_path, saved):
    plain = byte_level()
    wanted = tokenizers.from_spec(save(tmp_path, plain))
    about = plain | {key: value for key, value in SETTINGS.items() if saved in (key, "both")}
    tokenizer = tokenizers.from_spec(save(tmp_path, about))
    text = sentence(1)
    assert len(as_the_library_reads(about, text)) in (4, 300)
    assert np.array_equal(tokenizer.encode(text), wanted.encode(text))
    assert np.array_equal(tokenizer.encode_prompt(text), wanted.encode(text))
    assert tokenizer.prefix == wanted.prefix


def test_saved_dropout_of_merges_is_off(tmp_path):
    about = byte_level()
    wanted = tokenizers.from_spec(save(tmp_path, about)).encode(sentence(1))
    about["model"]["dropout"] = 0.9
    assert as_the_library_reads(about, sentence(1)) != as_the_library_reads(about, sentence(1))
    tokenizer = tokenizers.from_spec(save(tmp_path, about))
    assert np.array_equal(tokenizer.encode(sentence(1)), wanted)
    assert np.array_equal(tokenizer.encode_prompt(sentence(1)), wanted)


def test_gaps_in_token_ids(tmp_path):
    """The vocabulary extends to the largest id; ids without a token decode to no text."""
    vocab = {"a": 0, "b": 1, "ab": 70_000}
    model = {"type": "BPE", "vocab": vocab, "merges": ["a b"]}
    tokens = [added(80_000, "<|endoftext|>"), added(90_000, "<tool>", special=False)]
    tokenizer = tokenizers.from_spec(save(tmp_path, describe(model, tokens)))
    assert tokenizer.vocab_size == len(tokenizer.token_bytes) == 90_001
    assert tokenizer.eod == 80_000
    assert tokenizer.encode("abab<tool>a").tolist() == [70_000, 70_000, 90_000, 0]
    assert tokenizer.encode_prompt("a<|endoftext|>").tolist() == [0, 80_000]
    assert tokenizer.token_bytes[[0, 5, 70_000, 80_000, 90_000]].tolist() == [1, 0, 2, 0, 6]
    assert tokenizer.decode([5, 70_000]) == "ab"


def test_gaps_through_the_cache(config, tmp_path):
    model = {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 70_000}, "merges": ["a b"]}
    spec = save(tmp_path, describe(model, [added(70_001, "</s>")]))
    text = tmp_path / "a.txt"
    text.write_text("ab" * 20_000)
    settings = config(corpora=(str(text),), tokenizer=spec, validation=0.0)
    dataset = prepare(settings, progress=False)
    tokens = np.concatenate(dataset.components[0].splits["train"].shards)
    assert dataset.vocab_size == 70_002 and tokens.dtype == np.dtype("<u4")
    assert set(tokens.tolist()) == {70_000, 70_001}
    whole = "".join(corpus.documents(str(text)))
    assert dataset.token_bytes[tokens].sum() == len(whole)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"{}",
        b"1",
        b'"x"',
        b"\xff\xfe{",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"model": []}',
        b'{"model": {"vocab": 3}}',
        b'{"model": {"vocab": {"</s>": 99999999999}, "type": "BPE", "merges": []}}',
        b'{"model": {"vocab": {"</s>": 3999999999}, "type": "BPE", "merges": []}}',
        b'{"model": {"vocab": {"</s>": 1}, "merges": [3]}, "added_tokens": []}',
        b'{"model": {"vocab": [1, 2]}, "added_tokens": [{"content": "</s>"}]}',
        b'{"model": {"vocab": {}}, "added_tokens": [{"content": 3}]}',
        b'{"model": {"vocab": {"a": 0}}, "added_tokens": {"id": 3}}',
    ],
)
def test_a_json_that_describes_no_tokenizer_is_one_line(tmp_path, raw):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(raw)
    with pytest.raises(ValueError, match=r"data\.tokenizer") as raised:
        tokenizers.from_spec(str(path))
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 400
