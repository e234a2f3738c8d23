"""Tests that reading and writing the tokenizer files of published models keeps the ids."""

import importlib.util
import io
import json
from pathlib import Path

import numpy as np
import pytest
import sentencepiece

from data import tokenizer as tokenizers
from data.tokenizer import Tokenizer
from data.tokenizer_files import exported, published, sentencepiece_model
from data.tokenizer_files.added_tokens import end_ids
from data.tokenizer_files.special_strings import SpecialString, split

CODE = Path(json.decoder.__file__).read_text()
TEXTS = [CODE[at : at + 100] + "\n  if x:\t12345 é中 <0x41> ÿ" for at in range(0, 9000, 100)]
TRIED = [*TEXTS[:20], "", " ", "  two  spaces ", "\n\n", "é\0中🎈", "a<b>|c", "x" * 300]


def published_sentencepiece() -> bytes:
    """As in Llama 2: a space before every text, characters normalised, outer spaces removed."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS), model_writer=model, model_type="bpe", vocab_size=400,
        byte_fallback=True, normalization_rule_name="nmt_nfkc", character_coverage=0.99,
        user_defined_symbols=["<tool>"], minloglevel=2, num_threads=1,
    )  # fmt: skip
    return model.getvalue()


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> dict[str, Tokenizer]:
    """A tokenizer of every kind."""
    library = pytest.importorskip("tokenizers")
    folder = tmp_path_factory.mktemp("given")
    (folder / "llama.model").write_bytes(published_sentencepiece())
    fast = library.Tokenizer(library.models.BPE())
    fast.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = library.decoders.ByteLevel()
    alphabet = library.pre_tokenizers.ByteLevel.alphabet()
    trainer = library.trainers.BpeTrainer(
        vocab_size=350,
        initial_alphabet=alphabet,
        special_tokens=["<｜end▁of▁sentence｜>", "<|user|>"],
    )
    fast.train_from_iterator(TEXTS, trainer)
    (folder / "config.json").write_text('{"eos_token_id": 0}')
    fast.save(str(folder / "deep.json"))
    return {
        "bytes": tokenizers.from_spec("bytes"),
        "chars": tokenizers.train("chars", TEXTS[:3]),
        "bpe": tokenizers.train("bpe", TEXTS, 400),
        "unigram": tokenizers.train("unigram", TEXTS, 400),
        "given model": tokenizers.from_spec(str(folder / "llama.model")),
        "given json": tokenizers.from_spec(str(folder / "deep.json")),
    }


KINDS = ("bytes", "chars", "bpe", "unigram", "given model", "given json")


def export(tokenizer: Tokenizer, folder) -> None:
    """Writes the files that `isoflop convert --to_hf` makes from the tokenizer of a run."""
    tokenizer.save(folder / "run")
    saved = tokenizers.read_saved(folder / "run")
    (folder / "hf").mkdir()
    for name, content in exported.files(saved, 128).items():
        (folder / "hf" / name).write_bytes(content)
    (folder / "hf" / "config.json").write_text(json.dumps(exported.ids(saved)))


@pytest.mark.parametrize("kind", KINDS)
def test_an_exported_tokenizer_has_the_same_ids(made, kind, tmp_path):
    """In the library `tokenizers`, which transformers uses, and when it is read back."""
    tokenizer = made[kind]
    export(tokenizer, tmp_path)
    fast = pytest.importorskip("tokenizers").Tokenizer.from_file(
        str(tmp_path / "hf/tokenizer.json")
    )
    for text in TRIED:
        # The library reads <0x41> as the token of that byte.
        text = text.replace("<0x41>", "") if kind == "unigram" else text
        ids = tokenizer.encode(text).tolist()
        assert fast.encode(text, add_special_tokens=False).ids == ids, text
        if kind != "given model" and kind != "chars":
            assert fast.decode(ids) == text
    back, faults = published.read(tmp_path / "hf", tokenizer.vocab_size)
    assert faults == [] and back.fingerprint == tokenizer.fingerprint
    assert (back.kind, back.eod, back.prefix) == (tokenizer.kind, tokenizer.eod, tokenizer.prefix)
    for text in TRIED:
        assert np.array_equal(back.encode(text), tokenizer.encode(text))
    json_alone = tokenizers.from_spec(str(tmp_path / "hf" / "tokenizer.json"))
    assert (json_alone.eod, json_alone.vocab_size) == (tokenizer.eod, tokenizer.vocab_size)
    if kind not in ("unigram", "given model"):
        assert json_alone.pieces == tokenizer.pieces
        for text in TRIED:
            assert np.array_equal(json_alone.encode(text), tokenizer.encode(text))


@pytest.mark.parametrize("kind", KINDS)
def test_special_tokens_and_ends_of_an_export(made, kind, tmp_path):
    tokenizer = made[kind]
    export(tokenizer, tmp_path)
    about = {
        name: json.loads((tmp_path / "hf" / f"{name}.json").read_text())
        for name in ("tokenizer", "tokenizer_config", "generation_config")
    }
    special = {one["id"]: one["content"] for one in about["tokenizer"]["added_tokens"]}
    assert special[tokenizer.eod] == about["tokenizer_config"]["eos_token"]
    assert about["generation_config"]["eos_token_id"] == tokenizer.eod
    assert end_ids(tmp_path / "hf") == [tokenizer.eod]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "given json"])
def test_our_exports_are_read_back_without_the_library(made, kind, tmp_path, monkeypatch):
    export(made[kind], tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    back, faults = published.read(tmp_path / "hf", 10_000)
    assert (back.fingerprint, faults) == (made[kind].fingerprint, [])


@pytest.mark.parametrize("kind", KINDS)
def test_the_path_of_a_saved_tokenizer_is_one(made, kind, tmp_path):
    """For every kind, with the tokens that begin prompts. Damage is reported."""
    tokenizer = made[kind]
    tokenizer.prefix = (3,)
    tokenizer.save(tmp_path)
    tokenizer.prefix = ()
    for name in ("tokenizer.json", *(["tokenizer.model"] if tokenizer.model else [])):
        found = tokenizers.from_spec(str(tmp_path / name))
        assert (found.fingerprint, found.prefix) == (tokenizer.fingerprint, (3,))
    (tmp_path / "tokenizer.model").write_bytes(b"other")
    with pytest.raises(ValueError, match=r"tokenizer.model does not match"):
        tokenizers.from_spec(str(tmp_path / "tokenizer.json"))


def added(i: int, content: str, special: bool = True, **flags: bool) -> dict:
    return {"id": i, "content": content, "special": special, "normalized": False} | flags


def phi3(folder, **files: dict) -> Tokenizer:
    """Writes a tokenizer.model, and `files` that add to it; returns the model without them."""
    (folder / "tokenizer.model").write_bytes(published_sentencepiece())
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return tokenizers.from_spec(str(folder / "tokenizer.model"))


CHAT = [
    added(400, "<|endoftext|>"), added(401, "<|user|>", rstrip=True), added(403, "<|end|>"),
    added(404, "<word>", special=False),
]  # fmt: skip
STANDARD = [added(0, "<unk>"), added(1, "<s>"), added(2, "</s>", special=False)]
CHAT_FILES = {
    "tokenizer.json": {"tokenizer": {"added_tokens": STANDARD + CHAT, "model": {}}},
    "tokenizer_config.json": {
        "tokenizer_config": {"added_tokens_decoder": {str(one["id"]): one for one in CHAT}}
    },
    "added_tokens.json": {"added_tokens": {one["content"]: one["id"] for one in CHAT}},
}


@pytest.mark.parametrize("file", CHAT_FILES)
def test_chat_tokens_outside_tokenizer_model(file, tmp_path, monkeypatch):
    """Without the library: prompts encode them, documents spell them, all ids are in range."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    ends = {"generation_config": {"eos_token_id": [400, 403]}}
    alone = phi3(tmp_path, **CHAT_FILES[file], **ends, config={"eos_token_id": 400})
    tokenizer, faults = published.read(tmp_path, 500)
    assert faults == [] and tokenizer.vocab_size == 405
    assert (tokenizer.eod, tokenizer.token_bytes[400], alone.eod) == (400, 0, 2)
    hello = alone.encode("hello").tolist()
    space = [] if file != "added_tokens.json" else alone.encode("\n").tolist()
    prompt = tokenizer.encode_prompt("<|user|>\nhello<|end|>")
    if file != "added_tokens.json":  # the other files drop spaces after <|user|>
        assert prompt.tolist() == [401, *hello, 403] and space == []
    else:
        assert [prompt[0], prompt[-1]] == [401, 403]
    document = tokenizer.encode("the <|user|> end<|endoftext|>")
    assert not {400, 401, 403} & set(document.tolist())
    assert document.tolist() == alone.encode("the <|user|> end<|endoftext|>").tolist()
    if file != "added_tokens.json":  # where <word> would be special
        assert 404 in tokenizer.encode("a<word>").tolist()
        assert tokenizer.decode([404]) == "<word>"
    assert tokenizer.pieces[402] == b"" and tokenizer.pieces[:400] == alone.pieces
    tokenizer.save(tmp_path / "saved")
    again = tokenizers.load(tmp_path / "saved")
    assert again.fingerprint == tokenizer.fingerprint != alone.fingerprint
    assert np.array_equal(again.encode_prompt("<|user|>\nhello<|end|>"), prompt)
    export(tokenizer, tmp_path)
    back, faults = published.read(tmp_path / "hf", 500)
    assert (back.fingerprint, back.eod, faults) == (tokenizer.fingerprint, 400, [])
    assert np.array_equal(back.encode_prompt("<|user|>\nhello<|end|>"), prompt)


def test_usual_tokens_leave_a_tokenizer_model_as_it_is(tmp_path):
    """The fingerprint stays the same, so that existing datasets stay valid."""
    alone = phi3(tmp_path, **{"tokenizer": {"added_tokens": STANDARD, "model": {}}})
    found, faults = published.read(tmp_path, 400)
    assert (found.model, found.fingerprint, faults) == (alone.model, alone.fingerprint, [])
    assert np.array_equal(found.encode_prompt("</s>"), alone.encode_prompt("</s>"))


def test_added_tokens_beyond_the_model_are_left_out(tmp_path):
    alone = phi3(tmp_path, **CHAT_FILES["added_tokens.json"])
    found, (line,) = published.read(tmp_path, 402)
    assert found.vocab_size == 402 and found.pieces[:400] == alone.pieces
    assert "2 added tokens, such as '<|end|>', have ids from 403 on, but the model has 402" in line


def test_more_pieces_than_the_model_has_tokens(tmp_path):
    phi3(tmp_path)
    assert published.read(tmp_path, 399) == (
        None, ["tokenizer.model has 400 tokens, more than the model's 399"]
    )  # fmt: skip


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        ((50, "<|user|>"), "'<|user|>' has id 50, which is '<0x2"),
        ((401, "<s>"), "its id in tokenizer.model is 1"),
    ],
)
def test_contradictions_are_named_and_leave_the_model(tmp_path, token, reason):
    alone = phi3(tmp_path, added_tokens={token[1]: token[0], "<|x|>": 400})
    found, (line,) = published.read(tmp_path, 500)
    assert reason in line and found.fingerprint == alone.fingerprint


def test_text_after_a_special_string_begins_with_a_space_only_if_the_files_say_so(tmp_path):
    """Mistral's later tokenizers put a space only before the first text."""
    scheme = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first"}
    about = {"added_tokens": CHAT, "model": {}, "pre_tokenizer": scheme}
    alone = phi3(tmp_path, tokenizer=about)
    found, _ = published.read(tmp_path, 500)
    ids = found.encode_prompt("the<|end|>the").tolist()
    with_space, at = alone.encode("the").tolist(), ids.index(403)
    assert ids[:at] == with_space and ids[at + 1 :] != with_space
    assert found.decode(ids) == "thethe"
    (tmp_path / "tokenizer.json").write_text(json.dumps(about | {"pre_tokenizer": None}))
    found, _ = published.read(tmp_path, 500)
    assert found.encode_prompt("the<|end|>the").tolist() == [*with_space, 403, *with_space]


def test_added_tokens_join_a_tokenizer_json(made, tmp_path):
    (tmp_path / "tokenizer.json").write_bytes(made["given json"].model)
    (tmp_path / "config.json").write_text('{"eos_token_id": 0}')
    (tmp_path / "added_tokens.json").write_text('{"<|im_start|>": 350, "<|im_end|>": 351}')
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "<|im_end|>"}')
    found, faults = published.read(tmp_path, 400)
    assert (found.vocab_size, found.eod, faults) == (352, 0, [])
    assert found.encode_prompt("<|im_start|><|im_end|>").tolist() == [350, 351]
    assert end_ids(tmp_path) == [0, 351]
    document = "a<|im_end|>"
    assert np.array_equal(found.encode(document), made["given json"].encode(document))


@pytest.mark.parametrize("file", ["tokenizer_config.json", "special_tokens_map.json"])
def test_an_end_with_another_name(made, tmp_path, file):
    """As in the models of DeepSeek and Cohere, where a config file names the end token."""
    (tmp_path / "tokenizer.json").write_bytes(made["given json"].model)
    spec = str(tmp_path / "tokenizer.json")
    with pytest.raises(
        ValueError, match=r"has none of .*; put the config.json that names the end token"
    ):
        tokenizers.from_spec(spec)
    assert "has none of" in published.read(tmp_path, 400)[1][0]
    (tmp_path / file).write_text('{"eos_token": {"content": "<｜end▁of▁sentence｜>"}}')
    found = tokenizers.from_spec(spec)
    assert found.eod == published.read(tmp_path, 400)[0].eod == 0
    text = "a<｜end▁of▁sentence｜>b"
    assert 0 not in found.encode(text) and found.decode(found.encode(text)) == text
    assert found.encode_prompt(text).tolist()[1] == 0
    other = Tokenizer("huggingface", "x", found.model, end=1)
    assert other.fingerprint != found.fingerprint and 0 not in other.encode(text)


def test_the_end_of_tokenizer_config_counts_more_than_that_of_the_map(made, tmp_path):
    (tmp_path / "tokenizer.json").write_bytes(made["given json"].model)
    (tmp_path / "special_tokens_map.json").write_text('{"eos_token": "<｜end▁of▁sentence｜>"}')
    assert end_ids(tmp_path) == [0]
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "<|user|>"}')
    assert end_ids(tmp_path) == [1]


@pytest.mark.parametrize("spaced", [False, True])
def test_vocabulary_and_merges_alone_give_the_ids_of_the_library(tmp_path, spaced):
    """As GPT-2 was published; the library's own reader of these two files is the reference."""
    library = pytest.importorskip("tokenizers")
    trained = library.ByteLevelBPETokenizer(add_prefix_space=spaced)
    trained.train_from_iterator(TEXTS, vocab_size=400, special_tokens=["<|endoftext|>"])
    trained.save_model(str(tmp_path))
    about = {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": spaced}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(about))
    (tmp_path / "special_tokens_map.json").write_text('{"eos_token": "<|endoftext|>"}')
    reference = library.ByteLevelBPETokenizer(
        str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt"), add_prefix_space=spaced
    )
    found, faults = published.read(tmp_path, 400)
    assert (faults, found.vocab_size, found.eod) == ([], 400, 0) and end_ids(tmp_path) == [0]
    for text in (*TRIED, "I'll say we've 3,000 — ok?!"):
        assert found.encode(text).tolist() == reference.encode(text).ids
    assert found.encode_prompt("a<|endoftext|>").tolist()[-1] == 0
    assert 0 not in found.encode("a<|endoftext|>")
    found.save(tmp_path / "saved")
    assert tokenizers.load(tmp_path / "saved").fingerprint == found.fingerprint


@pytest.mark.parametrize("config", [{}, {"tokenizer_class": "Qwen2Tokenizer"}])
def test_a_vocabulary_of_another_kind_is_refused_with_a_remedy(tmp_path, config):
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    for name, text in (("vocab.json", '{"a": 0}'), ("merges.txt", "#version: 0.2\n")):
        (tmp_path / name).write_text(text)
    tokenizer, (fault,) = published.read(tmp_path, 400)
    assert tokenizer is None and str(tmp_path / "vocab.json") in fault
    assert f"(here: {config.get('tokenizer_class')})" in fault and "save_pretrained" in fault
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    (tmp_path / "merges.txt").unlink()
    assert "with its merges.txt" in published.read(tmp_path, 400)[1][0]


DAMAGED = ("{", "[]", '{"added_tokens": [{"id": "x", "content": "a"}]}', '{"added_tokens": 3}')


@pytest.mark.parametrize("text", DAMAGED)
def test_a_damaged_file_is_named_and_the_others_are_used(tmp_path, text):
    alone = phi3(tmp_path)
    (tmp_path / "tokenizer.json").write_text(text)
    found, faults = published.read(tmp_path, 500)
    assert found.fingerprint == alone.fingerprint
    assert len(faults) == 1 and str(tmp_path) in faults[0] and "\n" not in faults[0]


def test_special_strings():
    specials = [
        SpecialString("<a>", 1),
        SpecialString("<a><b>", 2),
        SpecialString("c", 3, True, True),
    ]
    assert list(split("x<a><b> c  <a>y", specials)) == ["x", 2, 3, 1, "y"]
    assert list(split("<a", specials)) == ["<a"] and list(split("x<a>", [])) == ["x<a>"]
    assert list(split("", specials)) == []


def test_a_damaged_model_is_refused():
    raw = published_sentencepiece()
    assert len(sentencepiece_model.parse(raw).pieces) == 400
    for broken in (raw[:-1], b"\x0a\xff\xff", b"\x0f"):
        with pytest.raises(ValueError, match=r"tokenizer\.model is"):
            sentencepiece_model.parse(broken)
