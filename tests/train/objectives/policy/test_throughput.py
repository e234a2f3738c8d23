"""Tests the tokens per second of rollouts and updates, and that compilation takes none of them."""

import functools
import time

import jax
import jax.numpy as jnp
import pytest

from train.policy.programs import Programs
from train.policy.throughput import Throughput
from train.progress import describe


def test_rates_are_of_the_row_and_of_the_whole_run_across_a_resume():
    first = Throughput()
    assert first.columns() == first.new_columns() == {}
    first.add("rollout", 300, 2.0)
    first.add("update", 1000, 4.0)
    assert first.new_columns() == {
        "rollout_tokens_per_second": 150.0,
        "update_tokens_per_second": 250.0,
    }
    resumed = Throughput(first.whole)
    assert resumed.new_columns() == {}
    resumed.add("rollout", 100, 2.0)
    assert resumed.new_columns() == {"rollout_tokens_per_second": 50.0}
    assert resumed.columns() == {
        "rollout_tokens_per_second": 100.0,
        "update_tokens_per_second": 250.0,
    }
    assert first.whole["rollout"] == [300, 2.0]  # not shared with the resumed run


def test_the_progress_line_has_both_rates():
    row = {"loss": 1.0, "rollout_tokens_per_second": 1500.0, "update_tokens_per_second": 9e4}
    assert describe(row) == "loss 1.0000, rollouts 1,500 tokens/s, updates 90,000 tokens/s"


def test_programs_are_compiled_once_a_shape_and_the_time_is_known():
    traced = []

    @functools.partial(jax.jit, static_argnums=0)
    def slow(scale, batch):
        traced.append(batch["x"].shape)
        time.sleep(0.1)  # as compilation does
        return batch["x"] * scale

    call, begun = Programs(), time.perf_counter()
    for _ in range(3):
        assert call(slow, (3,), {"x": jnp.ones(2)}).tolist() == [3, 3]
    once = call.seconds
    assert traced == [(2,)] and 0.1 < once <= time.perf_counter() - begun
    call(slow, (3,), {"x": jnp.ones(2)})
    assert call.seconds == once
    assert call(slow, (3,), {"x": jnp.ones(4)}).shape == (4,)  # control: another shape
    assert call(slow, (2,), {"x": jnp.ones(4)}).tolist() == [2] * 4
    assert traced == [(2,), (4,), (4,)] and call.seconds > once + 0.2


def test_what_runs_while_a_program_is_compiled_is_no_compilation():
    work = jax.jit(lambda x: jax.lax.fori_loop(0, 100, lambda _, y: jnp.tanh(y @ y), x))
    call, x = Programs(), jnp.ones((500, 500))
    work(x).block_until_ready()
    begun = time.perf_counter()
    call(jax.jit(lambda x: x.sum()), (), work(x))  # not awaited
    assert call.seconds < 0.5 * (time.perf_counter() - begun)


@pytest.mark.parametrize("known", [None, {}])
def test_a_run_without_rollouts_has_no_rates(known):
    assert Throughput(known).columns() == {}
