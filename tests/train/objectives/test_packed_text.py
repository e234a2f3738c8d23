"""Tests that packed documents train a model as they do apart, with every attention backend."""

import dataclasses
import functools
import json

import jax
import numpy as np
import pytest

from data.packed.packed_rows import PackedStore
from launch.__main__ import main
from model.kernels import backends
from model.recurrent import language_model as recurrent
from model.transformer.config import ModelConfig
from model.transformer.decoder import init
from tests.data.packed.test_packed_text import store_of
from tests.train.steps import decoder_step
from train import step as step_module
from train.objectives import next_token
from train.step import StepConfig

T = 128  # splash needs a multiple of 128
KEY = jax.random.key(0)
MODEL = ModelConfig(
    vocab_size=100, context_length=T, n_layers=1, d_model=16, n_heads=2, n_kv_heads=2, head_dim=8,
    d_ff=32, init_std=0.2, positions="learned",
)  # fmt: skip
RNG = np.random.default_rng(0)
DOCUMENTS = [RNG.integers(0, 90, n) for n in (49, 9, 29, 19, 59, 39, 29, 1)]  # they fill two rows
# One document fills two rows; the first is cut again to fill gaps of 44, 42 and 42 tokens.
CUT_AGAIN = [RNG.integers(0, 90, n) for n in (255, 85, 85, 83)]
compiled = jax.jit(step_module.gradients, static_argnums=2)


def rows(documents: list[np.ndarray] = DOCUMENTS) -> tuple[dict, dict]:
    """Batches [8, T] with equal documents: packed rows, or one document, or a piece of one, a row,
    whose padding no token sees. Rows that are not needed are empty."""
    part = PackedStore(store_of(documents), T).parts[0]
    together = part.read(np.arange(len(part.rows)))
    n, segments = len(part.rows), together["segments"]
    assert (segments.max(1) > 1).sum() > 1  # more than one row has several
    apart = {name: np.zeros((8, T), array.dtype) for name, array in together.items()}
    documents = [(row, s) for row in range(n) for s in range(1, segments[row].max() + 1)]
    for place, (row, segment) in enumerate(documents):
        here = together["segments"][row] == segment
        for name in ("tokens", "targets", "weights"):
            apart[name][place, : here.sum()] = together[name][row][here]
    filled = {name: np.zeros((8, T), array.dtype) for name, array in together.items()}
    for name, array in together.items():
        filled[name][:n] = array
    return filled, {name: apart[name] for name in ("tokens", "targets", "weights")}


def found(cfg: StepConfig, params: dict, batch: dict) -> tuple[float, dict]:
    gradient, means = compiled(params, {}, cfg, batch, KEY)
    return float(means["loss"]), jax.device_get(gradient)


def distance(one: dict, other: dict) -> float:
    apart = jax.tree.map(lambda x, y: np.abs(x - y).max(), one, other)
    return float(max(jax.tree.leaves(apart)))


def check(cfg: StepConfig, params: dict, expected: tuple[float, dict], documents=DOCUMENTS) -> None:
    """Packed rows have the expected loss and gradients; without their borders, as a control, they
    have others."""
    together, _ = rows(documents)
    loss, gradient = found(cfg, params, together)
    assert loss == pytest.approx(expected[0], abs=2e-6)
    assert distance(gradient, expected[1]) < 5e-6
    one_segment = together | {"segments": np.minimum(together["segments"], 1)}
    other, seen = found(cfg, params, one_segment)
    assert abs(other - loss) > 1e-4 and distance(gradient, seen) > 1e-4


@functools.cache
def alone() -> tuple[dict, tuple[float, dict]]:
    """Parameters of MODEL, drawn without compiling `init`; the loss and gradients of documents
    apart, without kernels."""
    shapes, draw = jax.eval_shape(lambda: init(MODEL, KEY)), np.random.default_rng(1).normal
    params = jax.tree.map(lambda leaf: draw(0, 0.2, leaf.shape).astype(leaf.dtype), shapes)
    return params, found(
        decoder_step(dataclasses.replace(MODEL, attention="xla")), params, rows()[1]
    )


@pytest.mark.parametrize(
    "backend",
    [
        "xla",
        *(pytest.param(name, marks=pytest.mark.slow) for name in backends.KERNELS),
    ],
)
def test_packed_documents_have_the_loss_and_gradients_that_they_have_apart(backend):
    model = dataclasses.replace(MODEL, attention=backend)
    check(decoder_step(model), *alone())


def test_pieces_that_fill_gaps_have_the_loss_and_gradients_that_they_have_apart():
    """A document of two rows is longer than one anyway, and its first row is cut again."""
    cfg, (params, _) = decoder_step(dataclasses.replace(MODEL, attention="xla")), alone()
    together, apart = rows(CUT_AGAIN)
    used = (together["segments"] > 0).sum(1)
    assert used.tolist() == [T] * 4 + [0] * 4 and apart["weights"].any(1).sum() == 7
    check(cfg, params, found(cfg, params, apart), CUT_AGAIN)


@pytest.mark.slow
def test_the_state_of_a_recurrent_model_starts_anew_with_each_document():
    model = recurrent.Config(vocab_size=100, context_length=T, d_model=8, d_hidden=8, n_layers=1)
    cfg = StepConfig(model, next_token.Config(), "recurrent", "next_token")
    params = jax.jit(recurrent.init, static_argnums=0)(model, KEY)
    check(cfg, params, found(cfg, params, rows()[1]))


@pytest.mark.slow
def test_a_run_on_packed_rows_resumes_and_is_evaluated_as_it_was_trained(tmp_path):
    """Stopped and resumed, it ends with the same loss; `isoflop evaluate` finds that loss too."""
    words = [" ".join(["to", "be", "or", "not"][: 1 + n % 4] * (1 + n % 5)) for n in range(400)]
    rows = (json.dumps({"text": f"{n} {said}"}) for n, said in enumerate(words))
    (tmp_path / "short.jsonl").write_text("\n".join(rows))
    keys = {
        "data.rows": "packed", "data.corpora": f"{tmp_path}/short.jsonl", "model.n_layers": 1,
        "data.validation": 0.3, "data.cache": f"{tmp_path}/cache", "model.d_model": 16,
        "model.n_heads": 2, "model.context_length": 64, "train.batch_size": 4,
        "train.duration": "8 steps", "eval.sequences": 8, "eval.batch_size": 4,
        "log.tensorboard": False, "optimizer.learning_rate": 0.01,
    }  # fmt: skip
    command = ["--config=configs/base.py", *(f"--config.{k}={v}" for k, v in keys.items())]
    found = []
    for name, stops in (("whole", [""]), ("stopped", ["3 steps", ""])):
        for stop in stops:
            more = [f"--workdir={tmp_path / name}", f"--config.checkpoint.stop_at={stop}"]
            assert main(["train", *command, *more]) == 0
        found.append(json.loads((tmp_path / name / "result.json").read_text()))
    assert found[0]["eval_loss"] == found[1]["eval_loss"]
    out = tmp_path / "e.json"
    assert main(["evaluate", f"--run={tmp_path / 'whole'}", f"--json={out}"]) == 0
    loss = json.loads(out.read_text())["eval_loss"]
    assert loss == pytest.approx(found[0]["eval_loss"], abs=1e-5)
