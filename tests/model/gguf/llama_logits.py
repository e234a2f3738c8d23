"""Logits and tokens of llama.cpp through llama-cpp-python, in float32 wherever it allows it."""

import ctypes
from collections.abc import Sequence
from pathlib import Path

import llama_cpp
import numpy as np

F32 = 0  # the type of the cache of keys and values
QUIET = llama_cpp.llama_log_callback(lambda level, text, data: None)
llama_cpp.llama_log_set(QUIET, ctypes.c_void_p(0))
llama_cpp.llama_backend_init()


def load(path: Path, vocabulary_only: bool = False):
    """A model; RuntimeError if llama.cpp refuses the file."""
    how = llama_cpp.llama_model_default_params()
    how.vocab_only, how.use_mmap = vocabulary_only, False
    if not (model := llama_cpp.llama_model_load_from_file(str(path).encode(), how)):
        raise RuntimeError(f"llama.cpp does not load {path}")
    return model


def context(model, count: int):
    """What `decode` reads up to `count` tokens with, by one thread."""
    how = llama_cpp.llama_context_default_params()
    how.n_ctx = how.n_batch = how.n_ubatch = count
    how.n_threads = how.n_threads_batch = 1
    how.type_k = how.type_v = F32
    how.flash_attn_type = 0
    return llama_cpp.llama_init_from_model(model, how)


def decode(context, tokens_T: Sequence[int], first: int = 0) -> None:
    """Reads tokens after the `first` ones and computes the logits of each."""
    batch = llama_cpp.llama_batch_init(len(tokens_T), 0, 1)
    batch.n_tokens = len(tokens_T)
    for i, token in enumerate(tokens_T):
        batch.token[i], batch.pos[i], batch.logits[i] = token, first + i, 1
        batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
    assert llama_cpp.llama_decode(context, batch) == 0
    llama_cpp.llama_batch_free(batch)


def forget(context) -> None:
    """Empties the cache of keys and values."""
    llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)


def logits(path: Path, tokens_T: np.ndarray, vocab_size: int) -> np.ndarray:
    """Logits [T, V] of one text, read at once by one thread."""
    model = load(path)
    reader = context(model, len(tokens_T))
    decode(reader, tokens_T.tolist())
    shape = len(tokens_T), vocab_size
    found = np.ctypeslib.as_array(llama_cpp.llama_get_logits(reader), shape).copy()
    llama_cpp.llama_free(reader)
    llama_cpp.llama_model_free(model)
    return found


class Vocabulary:
    """The tokenizer in a GGUF file."""

    def __init__(self, path: Path):
        self.model = load(path, vocabulary_only=True)
        self.vocab = llama_cpp.llama_model_get_vocab(self.model)

    def encode(self, text: str, special: bool = False) -> list[int]:
        """Token ids, without those that begin a text; with `special`, names of tokens are read."""
        raw = text.encode()
        found = (llama_cpp.llama_token * (len(raw) + 8))()
        count = llama_cpp.llama_tokenize(
            self.vocab, raw, len(raw), found, len(found), False, special
        )
        return list(found[:count])

    def decode(self, ids: list[int]) -> bytes:
        """The bytes of tokens, one after the other; control tokens give none."""
        text = b""
        for token in ids:
            buffer = (ctypes.c_char * 256)()
            count = llama_cpp.llama_token_to_piece(
                self.vocab, llama_cpp.llama_token(token), buffer, 256, 0, False
            )
            text += bytes(buffer[:count])
        return text
