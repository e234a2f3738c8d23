"""Exchanges values between the processes that train one model, with timeouts.

With a single process, every function returns at once. Values are sent through the coordination
service of `jax.distributed`, not through the devices, so a thread can exchange values while a step
runs.
"""

import collections
import json
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax._src import distributed  # its client has no public name
from jax.sharding import NamedSharding

TIMEOUT = 600  # seconds that a process waits for another live process

_turns = collections.Counter()


def count() -> int:
    """Number of processes. Unlike `jax.process_count`, this does not initialise devices."""
    return distributed.global_state.num_processes


def index() -> int:
    return distributed.global_state.process_id


def is_first() -> bool:
    """Whether this process writes the files of the run."""
    return index() == 0


def exchange(topic: str, value: Any, timeout: float = TIMEOUT) -> list:
    """The JSON values of all processes, ordered by process. Returns when all have called it.

    All processes must call it equally often for each topic. Topics are independent of each other.
    Raises TimeoutError after `timeout` seconds.
    """
    if count() == 1:
        return [value]
    client = distributed.global_state.client
    _turns[topic] += 1
    folder, before = (f"isoflop/{topic}/{turn}" for turn in (_turns[topic], _turns[topic] - 1))
    client.key_value_set(f"{folder}/{index()}", json.dumps(value))
    try:
        client.wait_at_barrier(folder, int(1000 * timeout))
    except jax.errors.JaxRuntimeError as error:
        if "DEADLINE_EXCEEDED" not in str(error):
            raise
        raise TimeoutError(f"waited {timeout} s for the other processes ({topic})") from error
    values = {int(key.rpartition("/")[2]): v for key, v in client.key_value_dir_get(f"{folder}/")}
    if before[-2:] != "/0":  # all processes have read the previous values, because all are here
        client.key_value_delete(f"{before}/{index()}")
    return [json.loads(values[process]) for process in sorted(values)]


def from_first(topic: str, make: Callable[[], Any]) -> Any:
    """The result of `make()`, called in process 0 only. All processes raise its OSError."""
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
    """The part of `items` for this process, if all processes divide the work."""
    return items[index() :: count()]


def local_rows(where: NamedSharding, shape: tuple[int, ...]) -> np.ndarray:
    """The rows, along dimension 1 of `shape`, that devices of this process hold (in part)."""
    held = where.addressable_devices_indices_map(shape).values()
    return np.unique(np.concatenate([np.arange(shape[1])[place[1]] for place in held]))


def place(
    local: Mapping[str, np.ndarray],
    rows: np.ndarray,
    n_rows: int,
    where: Mapping[str, NamedSharding],
) -> dict[str, jax.Array]:
    """Arrays [K, `n_rows`, ...] of each field on the devices of all processes. `local` holds the
    `rows` of this process, [K, len(rows), ...]."""
    local = dict(local)
    if all(sharding.is_fully_addressable for sharding in where.values()):
        return jax.device_put(local, {name: where[name] for name in local})

    def one(array: np.ndarray, sharding: NamedSharding) -> jax.Array:
        def shard(place: tuple[slice, ...]) -> np.ndarray:
            wanted = np.arange(n_rows)[place[1]]
            return array[:, np.searchsorted(rows, wanted)][(place[0], slice(None), *place[2:])]

        shape = (array.shape[0], n_rows, *array.shape[2:])
        return jax.make_array_from_callback(shape, sharding, shard)

    return {name: one(array, where[name]) for name, array in local.items()}


def to_host(arrays: Any) -> Any:
    """Complete numpy arrays, also of arrays that are sharded over devices of several processes."""
    if count() == 1:
        return jax.device_get(arrays)
    from jax.experimental import multihost_utils

    return multihost_utils.process_allgather(arrays, tiled=True)
