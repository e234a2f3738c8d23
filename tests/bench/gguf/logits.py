"""Compares llama.cpp with isoflop on the GGUF files of a trained run, in each type.

    python -m tests.bench.gguf.logits                   # needs llama-cpp-python and gguf
    python -m tests.bench.gguf.logits runs/first

Without a run, prints the largest difference of the logits of tests/model/gguf/cases.py in float32.

With a run, prints for each type, over 32 validation sequences: the largest and the root mean square
difference of logits between llama.cpp and isoflop's forward pass on the weights of the file, the
root mean square change from rounding the weights, and the loss of both.
"""

import sys
import tempfile
from pathlib import Path

import jax
import numpy as np

from launch.conversion import gguf
from launch.evaluation.scored_model import open_model
from launch.quantising import measured
from model.gguf import file
from model.transformer.config import ModelConfig
from model.transformer.decoder import Decoder
from tests.bench.gguf.package import llama_logits
from tests.model.gguf import cases

SEQUENCES = 32


def tiny_models() -> None:
    """Largest difference, and largest logit, of each of the models of the tests."""
    llama = llama_logits()
    for name in cases.CHANGES:
        cfg, params, _ = cases.case(name)
        with tempfile.TemporaryDirectory() as folder:
            path = cases.write(name, Path(folder))
            theirs = llama.logits(path, cases.TOKENS_T, cfg.vocab_size)
        apply = jax.jit(lambda params, cfg=cfg: logits(cfg, params, cases.TOKENS_T[None]))
        ours = np.asarray(apply(params))[0]
        print(f"{name:<14} {np.abs(theirs - ours).max():.2g} of {np.abs(ours).max():.2g}")


def trained(run: str) -> None:
    """The table of one run, a line for each type."""
    llama, model = llama_logits(), open_model(Path(run))
    batches = measured.texts(model, SEQUENCES, 0, 0).validation
    tokens_BT, targets_BT = (
        np.concatenate([batch[name] for batch in batches]) for name in ("tokens", "targets")
    )
    apply = jax.jit(lambda params: logits(model.cfg, params, tokens_BT))
    whole = np.asarray(apply(model.fitted))
    for kind in file.TYPES:
        with tempfile.TemporaryDirectory() as folder:
            content = gguf.read(Path(run), model.cfg, "llama", kind, print)
            size, _ = gguf.write(content, Path(folder, kind))
            path = Path(folder, kind, content.file_name)
            theirs = np.stack([llama.logits(path, row, model.cfg.vocab_size) for row in tokens_BT])
        ours = np.asarray(apply(cases.decoded(model.fitted, kind)))
        print(
            f"{kind:<5} {size:>9,} bytes  largest difference {np.abs(theirs - ours).max():.2g}  "
            f"rms {rms(theirs - ours):.2g}  rms of the quantiser {rms(ours - whole):.2g}  loss, "
            f"llama.cpp {loss(theirs, targets_BT):.6f}  loss, ours {loss(ours, targets_BT):.6f}"
        )


def logits(cfg: ModelConfig, params: dict, tokens_BT: np.ndarray) -> jax.Array:
    """isoflop's logits [B, T, V]."""
    return Decoder(cfg).apply({"params": params}, tokens_BT)


def rms(x: np.ndarray) -> float:
    """The root mean square."""
    return float(np.sqrt(np.square(x).mean()))


def loss(logits_BTV: np.ndarray, targets_BT: np.ndarray) -> float:
    """Mean cross-entropy in nats, in double precision."""
    logits_BTV = logits_BTV.astype(np.float64)
    total_BT = np.logaddexp.reduce(logits_BTV, axis=-1)
    right_BT = np.take_along_axis(logits_BTV, targets_BT[..., None], axis=-1)[..., 0]
    return float((total_BT - right_BT).mean())


if __name__ == "__main__":
    trained(*sys.argv[1:]) if sys.argv[1:] else tiny_models()
