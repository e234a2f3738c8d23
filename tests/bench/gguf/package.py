"""Imports what calls llama.cpp, or says how to install it."""

from types import ModuleType


def llama_logits() -> ModuleType:
    """tests/model/gguf/llama_logits.py; ends the program, in one line, without llama-cpp-python."""
    try:
        from tests.model.gguf import llama_logits
    except ImportError as error:
        raise SystemExit(
            f"{error}: this benchmark needs llama-cpp-python; install it with "
            "CMAKE_ARGS=-DGGML_NATIVE=off pip install llama-cpp-python"
        ) from None
    return llama_logits
