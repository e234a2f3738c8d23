"""Tests of `isoflop compile` with frozen models and rollouts: their FLOPs."""

import json

import pytest

from launch.__main__ import main as isoflop
from launch.errors import DONE
from tests.launch.compile.test_compile import needs_libtpu, overrides
from tests.train.objectives.policy import prompts

ONE_LAYER = {"model.n_layers": 1, "model.n_heads": 1}


@pytest.mark.slow
@needs_libtpu
def test_the_products_of_a_rollout_and_of_its_update(tmp_path):
    """Of one layer, counted by hand. Attention to a single query is no product."""
    file, batch = tmp_path / "report.json", 128 // 4
    arguments = ["--topology=v5e:2x2", f"--json={file}", *overrides(ONE_LAYER)]
    assert isoflop(["compile", "--config=configs/post/grpo.py", *arguments]) == DONE
    report = json.loads(file.read_text())
    d, S, N, V = 128, 48, 16, 256
    T, block, logits = S + N, 2 * 12 * 128**2, 2 * V * d
    seen = lambda tokens: tokens * (block + 4 * T * d)  # noqa: E731
    read = seen(batch * T) + batch * N * logits
    drawn = seen(batch // 8 * S) + batch * (N - 1) * (block + logits)
    rollout = report["rollout"]
    assert rollout["flops"]["matmul"] == pytest.approx(drawn + 2 * read, rel=2e-3)
    once = seen(batch // 8 * S) + batch * (block + logits)
    assert once + 2 * read != pytest.approx(rollout["flops"]["matmul"], rel=0.05)  # control
    assert report["flops"]["matmul"] == pytest.approx(3 * read, rel=2e-3)
    assert rollout["updates"] == 1 and rollout["memory"]["resident"] > 0
    assert report["detail"]["state"]["frozen reference"] > 0
    with_rollout = report["estimated_step_seconds"] + rollout["estimated_seconds"]
    assert report["detail"]["tokens_per_second"] == pytest.approx(128 * T / with_rollout)


@pytest.mark.slow
@needs_libtpu
def test_a_teacher_adds_its_forward_pass(tmp_path):
    """One layer of width 16; the products of the student are three of those."""
    file, teacher = tmp_path / "report.json", prompts.base(tmp_path)
    changes = {"objective.teacher": teacher, "model.n_layers": 1, "model.context_length": 12}
    arguments = ["--topology=v5e:1x1", f"--json={file}", *overrides(changes)]
    assert isoflop(["compile", "--config=configs/post/distill.py", *arguments]) == DONE
    report = json.loads(file.read_text())
    assert report["detail"]["recompute"] == pytest.approx(1, abs=0.02)


@pytest.mark.slow
@needs_libtpu
def test_offloaded_moments_leave_the_device(tmp_path):
    """They are on its host except in the update; the products are the same."""
    wide = {"model.d_model": 512, "model.n_heads": 4, "model.n_layers": 1}
    reports = {}
    for offload in (False, True):
        file = tmp_path / f"{offload}.json"
        changes = wide | {"train.batch_size": 256, "optimizer.offload": offload}
        arguments = ["--topology=v5e:2x2", f"--json={file}", *overrides(changes)]
        assert isoflop(["compile", "--config=configs/pretrain.py:tiny", *arguments]) == DONE
        reports[offload] = json.loads(file.read_text())
    plain, offloaded = (reports[offload]["memory"] for offload in (False, True))
    states = [reports[offload]["detail"]["state"] for offload in (False, True)]
    moments = states[1]["optimizer on the host"]
    assert moments + states[1]["optimizer"] == states[0]["optimizer"] and moments > 5e6
    assert offloaded["host"] == pytest.approx(moments, rel=0.01) and plain["host"] == 0
    assert plain["argument"] - offloaded["argument"] == pytest.approx(moments, rel=0.01)
    # Activations make the peak, and then the moments are not there.
    assert plain["peak"] - offloaded["peak"] > 0.9 * moments
    assert reports[True]["flops"] == reports[False]["flops"]
