"""Tests rollouts that are drawn ahead: off-policy by exactly one, and bit-equal after a kill."""

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from data.fields import Field
from launch.trial import run as trial
from launch.trial.start import hash_of
from model import families
from tests.train.objectives.policy import prompts
from tests.train.objectives.policy.test_trials import PPO, pairs, params, process, rows
from train import objectives
from train.objectives.policy import responses
from train.parallel import sharding
from train.policy import rollouts
from train.step import StepConfig, TrainState

K = 2  # updates on each rollout
GRPO = {"train.duration": "4 steps", "checkpoint.every": "1 steps", "checkpoint.keep_last": "9"}
AHEAD = {"objective.prefetch": "True"}


@dataclass(frozen=True)
class Loss:
    prefetch: bool


class Numbers:
    """A dataset whose prompts are the number of the rollout."""

    def for_run(self, config):
        return self

    def spec(self):
        return {"prompt": Field((), np.int32, ())}

    def batches(self, split, seed, number, count, rows):
        return {"prompt": np.full((count, len(rows)), number, np.int32)}


def drawn_by_each_update(monkeypatch, prefetch: bool, restart_at: int = -1) -> list[tuple]:
    """(step of the parameters that drew, step of the draws, number of the prompts) of the batches
    of each rollout. Parameters are the number of steps taken; the run restarts at a step."""

    def roll_out(cfg, state, batch, ahead):
        ones = jnp.ones_like(batch["prompt"])
        drawn = {"params": state.params["w"] * ones, "key": (state.step + ahead) * ones}
        return drawn | {"prompt": batch["prompt"], "reward": jnp.ones(len(ones))}

    def updates_of(cfg, state, batch):
        return {name: jnp.tile(x, (K, 1)) for name, x in batch.items()}

    toy = SimpleNamespace(passes=lambda loss: (1, K), score=None)
    monkeypatch.setitem(objectives.OBJECTIVES, "toy", toy)
    for made in (roll_out, updates_of):
        monkeypatch.setattr(rollouts, made.__name__, jax.jit(made, static_argnums=0))
    config = SimpleNamespace(train=SimpleNamespace(batch_size=2), seed=0)
    cfg = StepConfig(None, Loss(prefetch), "decoder", "toy")
    mesh = sharding.make_mesh({"data": 1}, jax.devices()[:1])
    make = functools.partial(rollouts.Rollouts, config, cfg, Numbers(), mesh, lambda line: None)
    run, found = make(), []
    for at in range(0, 4 * K, K):
        if at == restart_at:
            kept, run = run.ahead, make()
            run.ahead = kept  # as a checkpoint does
        state = TrainState(jnp.int32(at), {"w": jnp.int32(at)}, (), {}, jnp.uint32(0))
        batches = run(state, run.prompts(run.read_at(at)))
        found.append(tuple(int(batches[name][0, 0]) for name in ("params", "key", "prompt")))
        run.draw_ahead(state)
        run.finish_ahead(state.replace(step=state.step + K))
    return found


def test_each_rollout_is_of_the_parameters_before_the_updates_on_the_last(monkeypatch):
    """The first has no parameters before. Draws and prompts are those of a run without it."""
    ahead = [(0, 0, 0), (0, 2, 1), (2, 4, 2), (4, 6, 3)]
    assert drawn_by_each_update(monkeypatch, True) == ahead
    assert drawn_by_each_update(monkeypatch, True, restart_at=4) == ahead
    current = [(0, 0, 0), (2, 2, 1), (4, 4, 2), (6, 6, 3)]  # control
    assert drawn_by_each_update(monkeypatch, False) == current


@pytest.fixture(scope="module")
def home(tmp_path_factory, compiled_once) -> Path:
    folder = tmp_path_factory.mktemp("ahead")
    prompts.base(folder)
    return folder


def saved(workdir: Path, at: int) -> dict:
    """All that the checkpoint of a step holds."""
    path = (workdir / "checkpoints" / str(at)).absolute()
    reader = ocp.StandardCheckpointer()
    like = jax.tree.map(lambda x: np.empty(x.shape, x.dtype), reader.metadata(path).item_metadata)
    return reader.restore(path, like)


@pytest.mark.slow
def test_checkpoints_hold_the_next_rollout_with_the_probabilities_of_what_drew_it(home, capsys):
    assert trial.run(prompts.config(home, **GRPO | AHEAD), home / "ahead") == 0
    assert capsys.readouterr().out.count("training is off-policy by one rollout") == 1
    assert trial.run(prompts.config(home, **GRPO), home / "current") == 0
    assert "off-policy" not in capsys.readouterr().out
    _, cfg = families.read(json.loads((home / "ahead" / "config.json").read_text())["model"])
    for at in (2, 3, 4):
        batch = jax.tree.map(lambda x: x[0], saved(home / "ahead", at)["ahead"])
        for behind, is_equal in ((1, True), (0, False), (2, False)):
            if at == behind:
                continue
            old = saved(home / "ahead", at - behind)["params"]
            family = families.FAMILIES["decoder"]
            logp, _ = responses.logprobs(family, old, cfg, batch, 1.0)
            far = np.abs(logp - batch["logprobs"]).max()
            assert (far < 1e-5) == is_equal and (is_equal or far > 1e-4), (at, behind, far)
    assert "ahead" not in saved(home / "current", 2)
    first, second = (
        [row["entropy"] for row in rows(home / n) if "entropy" in row] for n in ("ahead", "current")
    )
    assert first[0] == second[0] and first[1:] != second[1:]


@pytest.mark.slow
def test_a_killed_run_draws_the_same_rollouts_ahead(home):
    keys = PPO | AHEAD
    assert trial.run(prompts.config(home, "ppo", **keys), home / "whole") == 0
    assert process(home, "killed", "objective=ppo", *pairs(keys), "kill_at=8") == -9
    assert trial.run(prompts.config(home, "ppo", **keys), home / "killed") == 0
    assert hash_of(params(home / "killed")) == hash_of(params(home / "whole"))
    assert trial.run(prompts.config(home, "ppo", **PPO), home / "without") == 0  # control
    assert hash_of(params(home / "without")) != hash_of(params(home / "whole"))
