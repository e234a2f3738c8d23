"""Reads the golden BERTs of tests/golden/bert and computes how far isoflop's outputs are from
them."""

import dataclasses
import functools
from pathlib import Path

import jax
import numpy as np

from model import classes
from model.encoder import family
from model.huggingface import bert
from tests.model.golden import jit

FOLDER = Path(__file__).parent.parent / "golden" / "bert"
CASES = sorted(path.name for path in FOLDER.iterdir())
TOLERANCE = 1e-5


@functools.cache
def expected(case: str) -> dict[str, np.ndarray]:
    with np.load(FOLDER / case / "expected.npz") as file:
        return dict(file)


@functools.cache
def loaded(case: str) -> tuple:
    """(Config, parameters) of a case."""
    return bert.load(FOLDER / case)


def batch_of(case: str) -> dict[str, np.ndarray]:
    arrays = expected(case)
    names = {"tokens": "input_ids", "segments": "attention_mask", "token_types": "token_type_ids"}
    return {ours: arrays[theirs].astype(np.int32) for ours, theirs in names.items()}


@functools.partial(jit, static_argnames="cfg")
def outputs(cfg, params: dict, batch: dict) -> dict:
    x_BTD = family.hidden(cfg, params, batch)
    found = {"hidden": x_BTD}
    if cfg.pooler:
        found["pooled"] = family.pooled(cfg, params, batch)
    if cfg.masked_head:
        found["logits"] = family.masked_logits(cfg, params, x_BTD)
    if cfg.n_classes:
        found["logits"] = classes.logits(params, found["pooled"] if cfg.pooler else x_BTD)
    return found


def distance(case: str, batch: dict | None = None, **changes) -> dict[str, float]:
    """max |Δ| of each output at the tokens that are no padding, with keys of the model changed."""
    cfg, params = loaded(case)
    batch = batch or batch_of(case)
    with jax.default_matmul_precision("highest"):
        found = outputs(dataclasses.replace(cfg, scan_layers=True, **changes), params, batch)
    real_BT, arrays = batch_of(case)["segments"] > 0, expected(case)

    def of(name: str) -> float:
        difference = np.abs(np.asarray(found[name]) - arrays[name])
        return float((difference[real_BT] if difference.ndim == 3 else difference).max())

    return {name: of(name) for name in ("hidden", "pooled", "logits") if name in arrays}
