"""Tests of the shapes that `isoflop compile` gives frozen models and rollouts, without weights."""

from pathlib import Path

import jax
import numpy as np
import pytest

from launch.__main__ import main as isoflop
from launch.compile import frozen_models
from launch.config import config_file
from launch.errors import BAD_INPUT
from launch.trial import start as weights
from launch.trial.resolve import resolve_sizes
from tests.launch.compile.test_compile import needs_libtpu
from train.ahead_of_time import compiled
from train.loop import Start
from train.parallel import memory
from train.parallel.sharding import make_mesh

ONE_LAYER = {"model.n_layers": 1, "model.n_heads": 1}


LLAMA = str(Path(__file__).parents[2] / "golden" / "hf" / "llama")


def of_objective(objective: str, **keys: str):
    """A resolved config of an objective, from published weights."""
    kind = {"distill": "text", "dpo": "preferences"}.get(objective, "tasks")
    given = {"objective.name": objective, "data.kind": kind, "train.init_from": LLAMA} | keys
    if kind == "tasks":
        given |= {"data.prompt_length": "6", "data.answer_length": "4", "objective.max_tokens": "4"}
    if objective == "distill":
        given |= {"objective.teacher": LLAMA}
    return resolve_sizes(config_file.load_config("configs/base.py", given), 1)


def described(tree) -> dict:
    """Path, shape and type of every leaf."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): (leaf.shape, str(leaf.dtype)) for path, leaf in leaves}


CASES = {
    "distill": ("distill", {}),
    "in bfloat16": ("distill", {"model.dtype": "bfloat16"}),
    "dpo": ("dpo", {"objective.stored": "False"}),
    "grpo": ("grpo", {}),
    "ppo": ("ppo", {}),
    "adapters": ("grpo", {"adapter.name": "lora", "adapter.rank": "2"}),
}


@pytest.mark.parametrize("case", CASES)
def test_the_shapes_are_those_of_the_weights(case):
    """`start` without weights describes what `start` with weights makes."""
    objective, keys = CASES[case]
    resolved = of_objective(objective, **keys)
    found, expected = frozen_models.start(resolved), weights.start(resolved)
    assert found.frozen_models == expected.frozen_models and found.frozen_models
    assert found.from_base == expected.from_base
    assert described(found.frozen) == described(expected.frozen) and found.frozen


def test_a_reference_without_a_name_has_the_size_of_the_policy():
    """Without its value head. Rows keep their stored log-probabilities instead of a reference."""
    resolved = resolve_sizes(config_file.load_config("configs/post/ppo.py", ONE_LAYER), 1)
    found = frozen_models.start(resolved)
    ((name, family, cfg),) = found.frozen_models
    assert (name, family, cfg.n_layers, cfg.n_classes) == ("reference", "decoder", 1, 0)
    assert resolved.model.n_classes == 1 and "classes" not in found.frozen["reference"]
    stored = resolve_sizes(config_file.load_config("configs/post/dpo.py", ONE_LAYER), 1)
    assert frozen_models.start(stored) == Start()
    batches = compiled.abstract_chunk(stored, make_mesh({"fsdp": 1}, jax.devices()[:1]))[2]
    assert batches["chosen_reference"].shape == batches["chosen"].shape[:2]


@pytest.mark.parametrize("objective", ["grpo", "ppo", "raft"])
def test_the_batches_of_a_rollout_have_the_shapes_of_the_updates(objective):
    changes = ONE_LAYER | {"train.batch_size": 8, "objective.samples": 2}
    changes |= {"objective.minibatches": 2, "objective.epochs": 3, "objective.max_tokens": 16}
    config = config_file.load_config(f"configs/post/{objective}.py", changes)
    resolved = resolve_sizes(config, 1)
    start, mesh = frozen_models.start(resolved), make_mesh({"fsdp": 1}, jax.devices()[:1])
    _, state, batches, _ = compiled.abstract_chunk(resolved, mesh, start)
    assert batches["tokens"].shape == (6, 8, 48 + 16)
    assert batches["response"].shape == batches["mask"].shape == (6, 8, 16)
    assert "reward" in batches
    size = sum(np.prod(x.shape) * 4 for x in jax.tree.leaves(start.frozen))
    assert memory.by_component(state)["frozen reference"] == size > 0


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("configs/post/distill.py",), "objective.teacher is empty"),
        (("configs/post/distill.py", "--config.objective.teacher=nowhere"), "holds no config.json"),
        (
            ("configs/post/grpo.py", "--config.objective.reward_model=nowhere"),
            "objective.reward_model=nowhere holds no config.json",
        ),
        pytest.param(
            ("configs/post/grpo.py", "--config.train.batch_size=8", "--config.model.n_layers=1"),
            "does not divide the 1 prompts of a rollout",
            marks=needs_libtpu,
        ),
    ],
)
def test_bad_input_is_one_line(arguments, expected, capsys):
    config, *rest = arguments
    code = isoflop(["compile", f"--config={config}", "--topology=v5e:2x2", *rest])
    err = capsys.readouterr().err
    assert code == BAD_INPUT and expected in err and len(err.splitlines()) == 1
