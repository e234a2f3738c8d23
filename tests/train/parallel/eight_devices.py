"""Runs checks on meshes of 1 to 8 virtual devices and prints the results as JSON.

Arguments select the checks; NAME is a key of MESHES:
    NAME           train 10 steps: losses, distance of the first gradient from that on one device,
                   and bytes of state per device
    restore:A>B    continue on mesh B from the checkpoint that mesh A saved after 5 steps
    made:NAME      memory while the initial state is made
    ring:NAME, splash:NAME    attention with this backend
    at_once:NAME   gradients when all logits are computed at once
    long:NAME      gradients of packed rows with splash attention
    kept:NAME      bytes that a product keeps for its backward pass
    refused:NAME   the error for a context length that does not divide
"""

import functools
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from configs.base import get_config
from data.fields import Field
from data.kinds import text
from launch.trial.resolve import prepare, resolve
from model.kernels.backends import AttentionSpec, attend_rows
from model.transformer.config import ModelConfig
from model.transformer.layers import multiplied
from tests.model.kernels import test_backends as cases
from tests.train.steps import decoder_step
from train.checkpoint import Checkpoints
from train.loop import Run, initial_state
from train.objectives import next_token
from train.parallel import sharding
from train.parallel.mesh import make_mesh
from train.record import saved
from train.step import StepConfig, TrainState, gradients, train_chunk

MODEL = ModelConfig(64, 16, 1, 32, 4, 2, 8, 64, positions="rotary", gated=True, norm="rmsnorm")
CFG = decoder_step(MODEL, next_token.Config(loss_chunk=8))
HYPER = dict(
    learning_rate=1e-2, warmup=2, decay=2, total=20, final=0.1, b1=0.9, b2=0.95, eps=1e-8,
    weight_decay=0.1, clip_norm=1.0,
)  # fmt: skip
STEPS, SAVED = 10, 5
SAVING = ("fsdp", "data fsdp")  # meshes
FIELDS = text.Dataset(None, length=16).spec()
CHUNK = 5  # block after each chunk: many collectives in flight deadlock on few cores
ALONE = {"data": 1, "fsdp": 1, "tensor": 1, "sequence": 1}
MESHES = {
    "one": ALONE,
    "other seed": ALONE,
    "data": ALONE | {"data": 8},
    "fsdp": ALONE | {"fsdp": -1},
    "tensor": ALONE | {"tensor": 4},
    "sequence": ALONE | {"sequence": 8},
    "data fsdp": ALONE | {"data": 2, "fsdp": 4},
    "data fsdp 4x2": ALONE | {"data": 4, "fsdp": 2},
    "data tensor": ALONE | {"data": 4, "tensor": 2},
    "data sequence": ALONE | {"data": 2, "sequence": 4},
    "fsdp tensor": ALONE | {"fsdp": 2, "tensor": 4},
    "fsdp sequence": ALONE | {"fsdp": 2, "sequence": 4},
    "tensor sequence": ALONE | {"tensor": 2, "sequence": 4},
    "sequence of three": ALONE | {"sequence": 3},
}  # fmt: skip


def batches() -> dict[str, np.ndarray]:
    tokens = np.random.default_rng(0).integers(0, 64, (STEPS, 8, 17)).astype(np.int32)
    data = {"tokens": tokens[..., :-1], "targets": tokens[..., 1:]}
    return data | {"weights": np.ones(data["tokens"].shape, np.float32)}


def mesh_of(name: str) -> jax.sharding.Mesh:
    sizes = MESHES[name]
    devices = abs(int(np.prod(list(sizes.values()))))
    return make_mesh(sizes, jax.devices()[: 8 if -1 in sizes.values() else devices])


def steps(
    state: TrainState, mesh: jax.sharding.Mesh, first: int, last: int, cfg: StepConfig = CFG
) -> tuple:
    """(state, losses) after steps first..last, in chunks of one shape."""
    losses, where = [], sharding.batch_shardings(mesh, FIELDS)
    while first < last:
        count = min(CHUNK, last - first)
        part = {k: np.resize(v[first : first + count], (CHUNK, 8, 16)) for k, v in DATA.items()}
        state, metrics = train_chunk(cfg, state, jax.device_put(part, where), jnp.int32(count))
        losses += np.asarray(metrics["loss"])[:count].tolist()
        first += count
    return state, losses


def gradient(state: TrainState) -> dict:
    """The first moments, which after one step are proportional to the gradient."""
    leaves = jax.tree_util.tree_leaves_with_path(state.opt_state)
    named = {jax.tree_util.keystr(path): leaf for path, leaf in leaves}
    return {name: np.asarray(leaf) for name, leaf in named.items() if ".mu" in name}


def first_gradients(cfg: StepConfig, mesh: jax.sharding.Mesh, *batches: dict) -> list[dict]:
    """The gradients of the batches at the initial parameters, by leaf."""
    with sharding.activation_rules(mesh):
        params, key = initial_state(cfg, HYPER, 0, mesh)[1]().params, jax.random.key(0)
        compute = jax.jit(gradients, static_argnums=2)
        found = [compute(params, {}, cfg, batch, key)[0] for batch in batches]
    return [{str(i): np.asarray(g) for i, g in enumerate(jax.tree.leaves(g))} for g in found]


def distance(found: dict, expected: dict) -> float:
    """The largest difference of any parameter, relative to its norm."""
    return max(
        float(np.linalg.norm(found[name] - g) / np.linalg.norm(g)) for name, g in expected.items()
    )


def train(name: str, folder: str) -> dict:
    mesh = mesh_of(name)
    with sharding.activation_rules(mesh):
        like, make = initial_state(CFG, HYPER, int(name == "other seed"), mesh)
        state = make()
        shards = [s for leaf in jax.tree.leaves(state) for s in leaf.addressable_shards]
        held = [sum(s.data.nbytes for s in shards if s.device == d) for d in mesh.devices.ravel()]
        state, losses = steps(state, mesh, 0, 1)
        first = gradient(state)
        GRADIENTS.setdefault("one", first)
        state, more = steps(state, mesh, 1, SAVED)
        for expected, leaf in zip(jax.tree.leaves(like), jax.tree.leaves(state), strict=True):
            assert leaf.sharding.is_equivalent_to(expected.sharding, leaf.ndim), name
        if name in SAVING:
            saver = Checkpoints(f"{folder}/{name}", 1, 0)
            saver.save(SAVED, saved(state), {})
            saver.close()
        losses += more + steps(state, mesh, SAVED, STEPS)[1]
    return {"losses": losses, "gradient": distance(first, GRADIENTS["one"]), "bytes": held}


def at_once(name: str, folder: str) -> list[dict[str, float]]:
    """Distance of the first gradient on a mesh from that on one device, without loss chunks.

    For a tied and an untied head. `control` is the distance of another batch's gradient.
    """
    found, here, alone = [], mesh_of(name), mesh_of("one")
    first, second = ({field: rows[i] for field, rows in DATA.items()} for i in (0, 1))
    spread = jax.device_put(first, sharding.batch_shardings(here, FIELDS, 0))
    for tied in (True, False):
        cfg = replace(CFG, loss=next_token.Config(), model=replace(MODEL, tie_embeddings=tied))
        expected, other = first_gradients(cfg, alone, first, second)
        (on_mesh,) = first_gradients(cfg, here, spread)
        near, control = (distance(one, expected) for one in (on_mesh, other))
        found.append({"distance": near, "control": control})
    return found


def long(name: str, folder: str) -> dict[str, float]:
    """Distance of the gradient of packed rows from that on one device.

    Uses splash attention, scanned layers and recomputation. `control` is the distance for rows that
    are packed differently.
    """
    length = 256 * MESHES[name]["sequence"]
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 64, (2, length + 1)).astype(np.int32)

    def batch(start: np.ndarray) -> dict:
        segments = (np.arange(length) >= start).astype(np.int32)
        return {
            "tokens": tokens[:, :-1], "targets": tokens[:, 1:], "segments": segments,
            "positions": (np.arange(length) - segments * start).astype(np.int32),
            "weights": np.ones((2, length), np.float32),
        }  # fmt: skip

    start = np.array([[length // 3], [length // 2]])
    changes = dict(context_length=length, n_layers=2, scan_layers=True, remat="full")
    xla, splash = (
        decoder_step(replace(MODEL, attention=backend, **changes)) for backend in ("xla", "splash")
    )
    expected, other = first_gradients(xla, mesh_of("one"), batch(start), batch(start + 1))
    (on_mesh,) = first_gradients(splash, mesh_of(name), batch(start))
    near, control = (distance(found, expected) for found in (on_mesh, other))
    return {"distance": near, "control": control}


def kept(name: str, folder: str) -> dict[str, int]:
    """Bytes per device that a product keeps for its backward pass besides its input.

    `whole` is the size of the whole kernel.
    """
    mesh = mesh_of(name)
    with sharding.activation_rules(mesh):
        x, kernel = jnp.ones((8, 16, 64)), jnp.ones((64, 512))
        where = sharding.batch_shardings(mesh, {"x": Field((16, 64), np.float32, ("seq", None))}, 0)
        rows = jax.device_put(x, where["x"])
        spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("fsdp"))
        multiply = functools.partial(multiplied, dtype=jnp.float32, wide="mlp", along=0)
        pull = jax.jit(lambda *of: jax.vjp(multiply, *of)[1])(rows, jax.device_put(kernel, spread))
    held = [a.addressable_shards[0].data.nbytes for a in jax.tree.leaves(pull) if a.ndim == 2]
    return {"kept": sum(held), "whole": kernel.nbytes}


def restore(pair: str, folder: str) -> dict:
    """The losses of the later steps, from the checkpoint of another mesh."""
    source, _, name = pair.partition(">")
    mesh = mesh_of(name)
    with sharding.activation_rules(mesh):
        like, _ = initial_state(CFG, HYPER, 0, mesh)
        tree, _ = Checkpoints(f"{folder}/{source}", 1, 0).restore(saved(like))
        state = TrainState(**tree, hyper={k: jnp.float32(v) for k, v in HYPER.items()})
        return {"losses": steps(state, mesh, SAVED, STEPS)[1]}


def made(name: str, folder: str) -> dict[str, int]:
    """Peak bytes per device while a larger model's initial state is made.

    `control` is the peak on a single device, `whole` the size of the state.
    """
    mesh, cfg = mesh_of(name), decoder_step(ModelConfig(512, 64, 1, 128, 4, 4, 32, 512))
    like, make = initial_state(cfg, HYPER, 0, mesh)
    whole = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(like))
    alone = jax.jit(initial_state(cfg, HYPER, 0, mesh_of("one"))[1])
    return {"peak": peak(jax.jit(make)), "control": peak(alone), "whole": whole}


def peak(f: Callable) -> int:
    return f.lower().compile().memory_analysis().peak_memory_in_bytes


def attend(name: str, folder: str, backend: str) -> list[dict[str, float]]:
    """Distance of attention and its gradients on a mesh from those of xla on one device.

    `control` is the distance from attention with a window one token wider. There is one key head,
    so that the devices along `tensor` share it.
    """
    found, sequence = [], MESHES[name]["sequence"]
    length = 256 * sequence if backend == "splash" and sequence > 1 else cases.T
    for changes in (dict(softcap=5.0), dict(window=100), dict(window=20)):
        spec = AttentionSpec(0.25, cases.C, **changes)
        q, k, v, positions, segments, w = cases.arrays(not spec.window, length)
        k, v, rows = k[:, :, :1], v[:, :, :1], (positions, segments)
        if MESHES[name]["data"] > len(q):
            q, k, v, w = (np.concatenate([x, -x]) for x in (q, k, v, w))
            rows = [x if x is None else np.concatenate([x, x]) for x in rows]

        def run(attend, q, k, v, rows=rows, w=w):
            out, back = jax.vjp(lambda *qkv: attend(*qkv, *rows), q, k, v)
            return out, *back(w)

        xla = [
            jax.jit(functools.partial(run, functools.partial(cases.xla, spec=other)))(q, k, v)
            for other in (spec, replace(spec, window=(spec.window or length // 2) + 1))
        ]
        mesh = mesh_of(name)
        with sharding.activation_rules(mesh):
            here = functools.partial(attend_rows, backend, attention=spec)
            on_mesh = jax.jit(functools.partial(run, here))(q, k, v)
        on_mesh, xla = jax.device_get((on_mesh, xla))
        near, control = (cases.distance(on_mesh, expected) for expected in xla)
        found.append({"distance": float(near), "control": float(control)})
    return found


def refused(name: str, folder: str) -> str:
    """The error of a run whose context length the mesh does not divide."""
    file = Path(folder) / "text.jsonl"
    file.write_text("".join(f'{{"text": "to be or not to be {n}"}}\n' for n in range(1000)))
    config = get_config()
    config.update(data=dict(corpora=(str(file),), cache=folder), mesh=MESHES[name])
    config.model.context_length = 12
    dataset = prepare(config)
    resolved = resolve(config, dataset, 8)
    try:
        Run(resolved, dataset.for_run(resolved), Path(folder) / "refused")
    except sharding.MeshError as error:
        return str(error)
    return "not refused"


DATA, GRADIENTS = batches(), {}
VERBS = {"": train, "restore": restore, "made": made, "refused": refused, "at_once": at_once}
VERBS |= {"long": long, "kept": kept}
VERBS |= {name: functools.partial(attend, backend=name) for name in ("ring", "splash")}

if __name__ == "__main__":
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in ["one", *sys.argv[1:]]:
            verb, _, mesh = name.rpartition(":")
            results[name] = VERBS[verb](mesh, folder)
    print(json.dumps(results))
