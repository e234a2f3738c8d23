"""Exchanges values between the processes that train one model, with waits that end.

With one process everything here returns at once. Values travel through the coordination service of
`jax.distributed`, not through the devices, so a thread may exchange while a step runs.
"""

import collections
import json
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax._src import distributed  # its client has no public name
from jax.sharding import NamedSharding

PATIENCE = 600  # seconds that a process waits for another one that is alive

_turns = collections.Counter()


def count() -> int:
    """Processes of this run. Starts no device, as `jax.process_count` would."""
    return distributed.global_state.num_processes


def index() -> int:
    return distributed.global_state.process_id


def is_first() -> bool:
    """Whether this process writes the files of the run."""
    return index() == 0


def exchange(topic: str, value: Any, patience: float = PATIENCE) -> list:
    """The JSON values of all processes, ordered by process; returns in each once all have called.

    All processes must call it equally often for a topic. Topics do not wait for each other.
    TimeoutError after `patience` seconds.
    """
    if count() == 1:
        return [value]
    client = distributed.global_state.client
    _turns[topic] += 1
    folder, before = (f"isoflop/{topic}/{turn}" for turn in (_turns[topic], _turns[topic] - 1))
    client.key_value_set(f"{folder}/{index()}", json.dumps(value))
    try:
        client.wait_at_barrier(folder, int(1000 * patience))
    except jax.errors.JaxRuntimeError as error:
        if "DEADLINE_EXCEEDED" not in str(error):
            raise
        raise TimeoutError(f"waited {patience} s for the other processes ({topic})") from error
    said = {int(key.rpartition("/")[2]): v for key, v in client.key_value_dir_get(f"{folder}/")}
    if before[-2:] != "/0":  # all have read it, because all are here
        client.key_value_delete(f"{before}/{index()}")
    return [json.loads(said[process]) for process in sorted(said)]


def from_first(topic: str, make: Callable[[], Any]) -> Any:
    """What `make()` returned in process 0, the only one that calls it. All raise its OSError."""
    value, error = None, None
    try:
        value = make() if is_first() else None
    except OSError as raised:
        if count() == 1:
            raise
        error = [raised.errno, raised.strerror, str(raised.filename)]
    error, value = exchange(topic, [error, value])[0]
    if error:
        raise OSError(*error)
    return value


def share(items: list) -> list:
    """This process's part of work that is divided among all."""
    return items[index() :: count()]


def own_rows(where: NamedSharding, shape: tuple[int, ...]) -> np.ndarray:
    """The rows, along dimension 1 of `shape`, of which devices of this process hold a part."""
    held = where.addressable_devices_indices_map(shape).values()
    return np.unique(np.concatenate([np.arange(shape[1])[place[1]] for place in held]))


def placed(
    own: Mapping[str, np.ndarray], rows: np.ndarray, n_rows: int, where: Mapping[str, NamedSharding]
) -> dict[str, jax.Array]:
    """Arrays [K, `n_rows`, ...] on the devices of all processes, field by field; `own` has this
    process's `rows` of them, [K, len(rows), ...]."""
    own = dict(own)
    if all(sharding.is_fully_addressable for sharding in where.values()):
        return jax.device_put(own, {name: where[name] for name in own})

    def one(array: np.ndarray, sharding: NamedSharding) -> jax.Array:
        def shard(place: tuple[slice, ...]) -> np.ndarray:
            wanted = np.arange(n_rows)[place[1]]
            return array[:, np.searchsorted(rows, wanted)][(place[0], slice(None), *place[2:])]

        shape = (array.shape[0], n_rows, *array.shape[2:])
        return jax.make_array_from_callback(shape, sharding, shard)

    return {name: one(array, where[name]) for name, array in own.items()}


def on_host(arrays: Any) -> Any:
    """Whole numpy arrays, also of those whose parts lie on devices of several processes."""
    if count() == 1:
        return jax.device_get(arrays)
    from jax.experimental import multihost_utils

    return multihost_utils.process_allgather(arrays, tiled=True)
