"""Tests the tokenizers of GGUF files: the tokens of llama.cpp are ours, or the file is refused."""

import json

import numpy as np
import pytest

from data import tokenizer as tokenizers
from data.tokenizer import Tokenizer
from data.tokenizer_files import exported, gguf
from data.tokenizer_files.extended import with_special_tokens
from data.tokenizer_files.tokenizer_json import BYTE_LEVEL

TEXT = ["the cat sat on the mat, the hat. Süße Köche präferieren 12 Törtchen!\n" * 20] * 9
TEXTS = (
    *(
        "the cat",
        " the  cat\n\n\tsat",
        "Köche präferieren süße Törtchen.",
        "日本語 <|endoftext|> 😀",
    ),
    *("a <|one|> b<|two|>", "don't 1234 x=3;\r\n", "</s> <unk> <0x41>", "a" * 300),
)


def saved(tokenizer: Tokenizer, tmp_path) -> tokenizers.Saved:
    tokenizer.save(tmp_path / "tokenizer")
    return tokenizers.read_saved(tmp_path / "tokenizer")


def byte_level(split: str | None = None, **changes) -> bytes:
    """A tokenizer.json of bytes and a few merges, split by GPT-2's rule or a regex."""
    names = {c: i for i, c in enumerate(BYTE_LEVEL)}
    merges = [["t", "h"], ["th", "e"], ["Ġ", "the"], ["c", "a"], ["1", "2"]]
    for left, right in merges:
        names[left + right] = len(names)
    names[exported.END] = len(names)
    about = json.loads(exported.byte_level(names, merges, False))
    about["model"] |= changes
    if split:
        pattern = {"type": "Split", "pattern": {"Regex": split}, "behavior": "Isolated"}
        level = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
        level |= {"trim_offsets": True}
        steps = [pattern | {"invert": False}, level]
        about["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": steps}
    return json.dumps(about).encode()


def made(name: str) -> Tokenizer:
    if name == "bytes":
        return Tokenizer("bytes", "bytes")
    if name == "bpe":
        return tokenizers.train("bpe", TEXT, 300)
    if name.startswith("extended "):
        return with_special_tokens(made(name.removeprefix("extended ")), ADDED)
    split = {"gpt2": None, "llama3": gguf.LLAMA3, "qwen2": gguf.QWEN2}[name]
    return Tokenizer("huggingface", name, byte_level(split, ignore_merges=name == "llama3"))


ADDED = ("<|one|>", "<|two|>")
NAMES = (
    "extended bytes",
    "extended bpe",
    "extended gpt2",
    "bytes",
    "bpe",
    "gpt2",
    "llama3",
    "qwen2",
)


@pytest.mark.parametrize("name", NAMES)
def test_every_row_has_a_name_and_a_type(name, tmp_path):
    tokenizer = made(name)
    about = gguf.described(saved(tokenizer, tmp_path))
    assert len(about["tokens"]) == len(about["token_type"]) == tokenizer.vocab_size
    assert len(set(about["tokens"])) == tokenizer.vocab_size
    assert about["eos_token_id"] == tokenizer.eod and not about["add_bos_token"]
    assert about["token_type"][tokenizer.eod] == gguf.CONTROL
    assert len(about.get("scores", about["tokens"])) == tokenizer.vocab_size
    if name.startswith("extended"):
        assert tuple(about["tokens"][-2:]) == ADDED
        assert about["token_type"][-2:] == [gguf.CONTROL] * 2


@pytest.mark.parametrize("name", NAMES)
def test_tokens_of_llama_cpp_are_ours(name, tmp_path):
    """And they come back as the same bytes. The control: tokens of another text are others."""
    pytest.importorskip("llama_cpp", reason="this machine has no llama-cpp-python")
    from tests.model.gguf import llama_logits

    tokenizer = made(name)
    path = vocabulary_file(gguf.described(saved(tokenizer, tmp_path)), tmp_path / "a.gguf")
    theirs = llama_logits.Vocabulary(path)
    for text in TEXTS:
        ours = tokenizer.encode(text).tolist()
        assert theirs.encode(text) == ours, text
        assert theirs.encode(text + "!") != ours
        assert theirs.decode(ours).decode() == text
    assert theirs.encode(theirs_end(path), special=True) == [tokenizer.eod]
    ours = tokenizer.encode_prompt(TEXTS[4]).tolist()
    assert theirs.encode(TEXTS[4], special=True) == ours
    assert (tokenizer.vocab_size - 1 in ours) == name.startswith("extended")


def vocabulary_file(about: dict, path):
    """A GGUF file with a vocabulary and the smallest model."""
    from model import parameters
    from model.gguf import file
    from model.transformer.config import ModelConfig

    cfg = ModelConfig(
        vocab_size=len(about["tokens"]), context_length=8, n_layers=1, d_model=8, n_heads=1,
        n_kv_heads=1, head_dim=8, d_ff=8, norm="rmsnorm", positions="rotary", activation="silu",
        gated=True, attention_bias=False, mlp_bias=False,
    )  # fmt: skip
    from model.transformer.decoder import shapes

    leaves = parameters.flat(shapes(cfg))
    params = parameters.nested({k: np.zeros(leaf.shape, np.float32) for k, leaf in leaves.items()})
    file.write(path, cfg, params, "llama", about, "f32")
    return path


def theirs_end(path) -> str:
    import gguf as package

    reader = package.GGUFReader(path)
    tokens = reader.get_field("tokenizer.ggml.tokens").contents()
    return tokens[reader.get_field("tokenizer.ggml.eos_token_id").contents()]


def test_a_template_may_give_the_end_another_name(tmp_path):
    about = gguf.described(saved(made("bytes"), tmp_path), {255: "<|im_end|>"})
    assert about["tokens"][255] == "<|im_end|>" and about["token_type"][255] == gguf.CONTROL
    with pytest.raises(ValueError, match="two tokens of one name"):
        gguf.described(saved(made("bytes"), tmp_path), {255: "a"})


@pytest.mark.parametrize("name", ["chars", "words", "unigram"])
def test_tokenizers_that_llama_cpp_lacks_are_refused(name, tmp_path):
    tokenizer = tokenizers.train(name, TEXT, 285 if name == "unigram" else 0)
    with pytest.raises(ValueError, match=r"llama\.cpp") as error:
        gguf.described(saved(tokenizer, tmp_path))
    assert f"data.tokenizer={name!r}" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("change", [{"split": r"\p{L}+|."}, {"ignore_merges": True}])
def test_rules_that_llama_cpp_has_under_no_name_are_refused(change, tmp_path):
    tokenizer = Tokenizer("huggingface", "other", byte_level(**change))
    with pytest.raises(ValueError, match=r"whose rules llama\.cpp does not have by name"):
        gguf.described(saved(tokenizer, tmp_path))
