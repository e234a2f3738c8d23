"""Untrained runs that talk, for tests of conversations and of the server."""

import json
from pathlib import Path

import jax

from data import tokenizer
from model import families
from train.checkpoint import Checkpoints

DECODER = dict(
    vocab_size=300, context_length=96, n_layers=1, d_model=16, n_heads=2, n_kv_heads=1, head_dim=8,
    d_ff=32, init_std=0.5,
)  # fmt: skip
RECURRENT = dict(
    family="recurrent", vocab_size=300, context_length=96, cell="gru", n_layers=1, d_model=16,
    d_hidden=16, init="uniform",
)  # fmt: skip


def untrained(folder: Path, model: dict) -> Path:
    """A run whose vocabulary of 300 is larger than the 256 bytes of its tokenizer."""
    family, cfg = families.read({"family": "decoder"} | model)
    params = jax.jit(family.init, static_argnums=0)(cfg, jax.random.key(0))
    checkpoints = Checkpoints(folder / "checkpoints", 1, 0)
    checkpoints.save(7, {"params": params}, {})
    checkpoints.wait()
    config = {"model": {"family": "decoder"} | model, "data": {"tokenizer": "bytes"}}
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer.from_spec("bytes").save(folder / "tokenizer")
    return folder
