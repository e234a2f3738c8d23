"""Writes tests/golden/gguf.npz: llama.cpp's logits of tiny models, and hashes of the files read.

    python -m tests.golden.gguf     # needs the packages gguf and llama-cpp-python

Written with gguf 0.19.0 and llama-cpp-python 0.3.36, built with GGML_NATIVE off and without the
line `#define GGML_GELU_FP16` in ggml/src/ggml-cpu/vec.h, by which GELU has half precision.
"""

import hashlib
import tempfile
from pathlib import Path

import numpy as np

from tests.model.gguf import cases, llama_logits


def main() -> None:
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in cases.CHANGES:
            path = cases.write(name, Path(folder))
            cfg, _, _ = cases.case(name)
            found[f"{name}/logits"] = llama_logits.logits(path, cases.TOKENS_T, cfg.vocab_size)
            digest = hashlib.sha256(path.read_bytes()).digest()
            found[f"{name}/sha256"] = np.frombuffer(digest, np.uint8)
    np.savez_compressed(cases.LOGITS, **found)


if __name__ == "__main__":
    main()
