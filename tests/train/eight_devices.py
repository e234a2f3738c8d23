"""This file trains 20 steps on 1 and on 8 virtual devices and prints losses and bytes as JSON."""

import json

import jax
import jax.numpy as jnp
import numpy as np

from model.config import ModelConfig
from train import sharding
from train.loop import initial_state
from train.step import StepConfig, train_chunk

MODEL = ModelConfig(64, 16, 1, 32, 4, 2, 8, 64, positions="rotary", gated=True, norm="rmsnorm")
CFG = StepConfig(MODEL)
HYPER = dict(
    learning_rate=1e-2, warmup=2, decay=2, total=20, final=0.1, b1=0.9, b2=0.95, eps=1e-8,
    weight_decay=0.1, clip_norm=1.0,
)  # fmt: skip
CHUNK = 10  # blocking between chunks: collectives in flight deadlock on few cores
MESHES = {
    "one": ({"data": 1, "fsdp": 1}, 1),
    "fsdp": ({"data": 1, "fsdp": -1}, 8),
    "both": ({"data": 2, "fsdp": 4}, 8),
}


def train(sizes: dict[str, int], devices: int, seed: int) -> dict:
    """The losses of 20 steps, and the bytes of the state that each device holds."""
    tokens = np.random.default_rng(0).integers(0, 64, (20, 8, 17)).astype(np.int32)
    data = {"tokens": tokens[..., :-1], "targets": tokens[..., 1:]}
    data["weights"] = np.ones(data["tokens"].shape, np.float32)
    mesh = sharding.make_mesh(sizes, jax.devices()[:devices])
    with sharding.activation_rules(mesh):
        _, make = initial_state(CFG, HYPER, seed, mesh)
        state, losses = make(), []
        shards = [s for leaf in jax.tree.leaves(state) for s in leaf.addressable_shards]
        held = [sum(s.data.nbytes for s in shards if s.device == d) for d in mesh.devices.ravel()]
        for first in range(0, 20, CHUNK):
            part = {k: v[first : first + CHUNK] for k, v in data.items()}
            part = jax.device_put(part, sharding.batch_sharding(mesh, 1))
            state, metrics = train_chunk(CFG, state, part, jnp.int32(CHUNK))
            losses += np.asarray(metrics["loss"]).tolist()
    return {"losses": losses, "bytes": held}


if __name__ == "__main__":
    results = {name: train(*mesh, seed=0) for name, mesh in MESHES.items()}
    results["other seed"] = train(*MESHES["one"], seed=1)
    print(json.dumps(results))
