"""Tests the accelerator benchmark on tiny models: it runs and reports correct counts."""

import dataclasses
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import pytest

from tests.bench import accelerator
from tests.bench.race.shapes import SHAPES


@pytest.mark.slow
def test_the_benchmark_of_an_accelerator_runs_in_miniature(tmp_path):
    tiny = dataclasses.replace(SHAPES["S3"], n_layers=1, steps=2, batch=4)
    (row,) = accelerator.stacking(tiny, [3])
    gflops = 3 * tiny.steps * tiny.flops / row["seconds"]
    assert row["lanes"] == 3 and row["model_flops_per_second"] == pytest.approx(gflops)
    ratio = row["seconds one after another"] / row["seconds"]
    assert row["speed-up"] == pytest.approx(ratio) and ratio > 0
    model = dataclasses.replace(
        accelerator.family("gpt3-125m", "none"),
        **dict(n_layers=2, d_model=32, n_heads=2, n_kv_heads=2, head_dim=16, d_ff=64),
        **dict(context_length=32, vocab_size=64),
    )
    assert model.dtype == "bfloat16" and model.scan_layers
    # The profiler crashes in a process that has compiled for TPUs, as other tests do.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as apart:
        measured = apart.submit(accelerator.utilisation, "tiny", model, 64, 2, str(tmp_path))
        found = measured.result(timeout=300)
    assert found["tokens_per_step"] == 64 and found["mfu"] is None
    assert found["tokens_per_second"] == pytest.approx(64 / found["step_seconds"])
    assert list((tmp_path / "tiny").rglob("*.xplane.pb"))
