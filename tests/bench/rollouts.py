"""Measures rollouts in length buckets against the full width, in one process, in turn.

`python -m tests.bench.rollouts FOLDER LENGTHS BUCKETS …`, LENGTHS one of uniform, lognormal, equal:
64 responses of up to 16 tokens to 16 prompts of up to 256 bytes, by a decoder of 0.8M parameters.
Prints, for each number of buckets, the median seconds of a rollout and the median of its ratio to
the full width in the same round. Compilation is not in them. AssertionError where draws differ.
"""

import dataclasses
import json
import sys
from pathlib import Path

import jax
import numpy as np

from launch.trial import start
from launch.trial.resolve import prepare, resolve
from tests.train.objectives.policy import prompts
from train import loop
from train.parallel import sharding
from train.policy.rollouts import Rollouts

ROUNDS = 10
MODEL = {
    "model.context_length": "320", "model.n_layers": "4", "model.d_model": "128",
    "model.n_heads": "4",
}  # fmt: skip
KEYS = {
    "data.prompt_length": "256", "objective.max_tokens": "16", "objective.samples": "4",
    "train.batch_size": "64",
}  # fmt: skip
LENGTHS = {
    "uniform": lambda rng: rng.integers(8, 250),
    "lognormal": lambda rng: np.clip(rng.lognormal(3.9, 0.7), 8, 250),  # median 49
    "equal": lambda rng: rng.integers(230, 250),
}


def questions(kind: str) -> str:
    """2,000 prompts, as a .jsonl file has them."""
    rng = np.random.default_rng(0)
    letters = lambda: "".join(rng.choice(list("abcdefgh"), int(LENGTHS[kind](rng)) - 6))  # noqa: E731
    rows = [{"prompt": f"{letters()}{i:04}=", "answer": "a"} for i in range(2000)]
    return "".join(json.dumps(row) + "\n" for row in rows)


def measure(home: Path, kind: str, counts: list[int]) -> dict[int, np.ndarray]:
    """Seconds of each round by number of buckets; 0 is the full width."""
    home.mkdir(parents=True, exist_ok=True)
    (home / f"{kind}.jsonl").write_text(questions(kind))
    prompts.MODEL |= MODEL
    keys = KEYS | {"data.corpora": f"{home}/{kind}.jsonl"}
    config = prompts.config(home, "grpo", **keys)
    dataset = prepare(config)
    resolved = resolve(config, dataset, 1)
    begin = start.start(resolved)
    cfg = loop.step_config(resolved, begin, dataset)
    mesh = sharding.make_mesh(dict(resolved.mesh), jax.devices())
    like, make = loop.initial_state(cfg, loop.hyperparameters(resolved), 0, mesh, begin)
    state = make().replace(frozen=loop.frozen_state(like, begin))
    made, seconds = {}, {count: [] for count in counts}
    for count in counts:
        loss = dataclasses.replace(cfg.loss, buckets=count)
        made[count] = Rollouts(resolved, dataclasses.replace(cfg, loss=loss), dataset, mesh)
    with sharding.activation_rules(mesh):
        for number in range(ROUNDS):
            found = {}
            for count, rollouts in made.items():
                found[count] = jax.device_get(rollouts(state, rollouts.prompts(number)))
                seconds[count].append(rollouts.take().seconds)
                jax.tree.map(same, found[count], found[counts[0]])
    return {count: np.array(took) for count, took in seconds.items()}


def same(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


if __name__ == "__main__":
    home, kind, *given = sys.argv[1:]
    took = measure(Path(home), kind, [0, *map(int, given)])
    for count, seconds in took.items():
        ratio = np.median(took[0] / seconds)
        print(f"{count} buckets: {np.median(seconds):.2f} s a rollout, {ratio:.2f} times as fast,",
              "of", ", ".join(f"{s:.2f}" for s in seconds))  # fmt: skip
