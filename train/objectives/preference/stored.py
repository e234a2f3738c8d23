"""Fields of batches that the frozen parameters decide, computed once and kept in the data's cache.

    CACHE/reference/1f0c….npz    digests [N, 16] of rows and their values [N, fields], for weights
                                 and data whose hashes the name has

A row is found by a digest of its content, so its values serve every epoch, seed and batch size. A
run computes only what the file lacks.
"""

import contextlib
import fcntl
import functools
import hashlib
import io
import json
import math
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from data.atomic import lock, write_atomic
from data.buckets import copies
from data.fields import Field
from data.files import path_of
from data.kinds import Batch, Dataset
from train import duration, objectives
from train.loop import Start, step_config
from train.parallel import processes, sharding
from train.progress import Progress
from train.step import BASE, StepConfig

FORMAT = 1
Table = dict[bytes, np.ndarray]
"""By the digest of a row: its values [fields]."""


def with_stored(config: Any, dataset: Dataset, start: Start) -> tuple[Dataset, Start]:
    """(the dataset with the fields STORED of the objective, a start without the parameters that
    they needed) of a resolved config; both as they are, where nothing is stored.

    ValueError for values that are not finite and for a cache that cannot be written."""
    objective = objectives.find(config.objective.name)
    if not stored_fields(config):
        return dataset, start
    cfg = step_config(config, start)
    path = _path(config, cfg, dataset)
    with _alone(path):
        table = {} if processes.count() > 1 else _read(path)
        missing = {
            digest
            for batch in _batches(config, dataset)
            for digest in digests(objective.FIELDS, batch)
            if digest not in table
        }
        if missing:
            table |= _compute(config, cfg, dataset, start, missing)
            if processes.is_first():
                _write(path, table)
                print(f"  reference: {len(missing):,} rows computed, kept in {path}", flush=True)
    stored = Stored(dataset, objective.FIELDS, objective.STORED, table)
    kept = {name: params for name, params in start.frozen.items() if name == BASE}
    return stored, replace(start, frozen=kept, frozen_models=())


def stored_fields(config: Any) -> dict[str, Field]:
    """The fields that `with_stored` adds to the batches of a config; {} if nothing is stored."""
    objective = objectives.find(config.objective.name)
    if not (hasattr(objective, "STORED") and config.objective.stored):
        return {}
    return {name: Field((), np.float32, ()) for name in objective.STORED}


@dataclass(frozen=True)
class Stored:
    """A Dataset whose batches have more fields [B], by the content of their rows."""

    dataset: Dataset
    keys: tuple[str, ...]  # the fields that decide them
    names: tuple[str, ...]
    table: Table

    def __getattr__(self, name: str) -> Any:
        return getattr(self.dataset, name)

    def spec(self) -> dict[str, Field]:
        return self.dataset.spec() | {name: Field((), np.float32, ()) for name in self.names}

    def batch(self, split: str, seed: int, step: int, rows: Any = None) -> Batch:
        return self._with_values(self.dataset.batch(split, seed, step, rows))

    def batches(self, split: str, seed: int, step: int, count: int, rows: Any = None) -> Batch:
        whole = self.dataset.batches(split, seed, step, count, rows)
        each = [{name: x[i] for name, x in whole.items()} for i in range(count)]
        parts = [self._with_values(batch) for batch in each]
        return whole | {name: np.stack([part[name] for part in parts]) for name in self.names}

    def examples(self, split: str) -> Iterator[Batch]:
        return map(self._with_values, self.dataset.examples(split))

    def _with_values(self, batch: Batch) -> Batch:
        values = np.stack([self.table[digest] for digest in digests(self.keys, batch)])
        return batch | dict(zip(self.names, values.T.astype(np.float32), strict=True))


def digests(keys: Sequence[str], batch: Batch) -> list[bytes]:
    """A digest of the fields `keys` of each row."""
    fields = [np.ascontiguousarray(batch[name]) for name in keys]
    joined = (b"".join(field[row].tobytes() for field in fields) for row in range(len(fields[0])))
    return [hashlib.blake2b(content, digest_size=16).digest() for content in joined]


def _batches(config: Any, dataset: Dataset) -> Iterator[Batch]:
    """The batches of the first epoch, or of a shorter run, and those of the evaluation."""
    for step in range(_steps(config, dataset)):
        yield dataset.batch("train", config.seed, step)
    yield from dataset.examples("validation")


def _steps(config: Any, dataset: Dataset) -> int:
    steps, share = duration.steps(config.train.duration), dataset.epochs(1)
    return min(steps, math.ceil(1 / share)) if share else steps


def _compute(
    config: Any, cfg: StepConfig, dataset: Dataset, start: Start, missing: set[bytes]
) -> Table:
    """The values of the rows with the digests `missing`, by one forward pass on the mesh of the
    run, `eval.batch_size` rows at a time."""
    objective, size = objectives.OBJECTIVES[cfg.objective], config.eval.batch_size
    mesh = sharding.make_mesh(dict(config.mesh), jax.devices())
    fields = {name: field for name, field in dataset.spec().items() if name in objective.FIELDS}
    where = sharding.batch_shardings(mesh, fields)
    frozen = {
        name: jax.device_put(
            params, sharding.parameter_shardings(params, cfg.frozen_axes[name], mesh)
        )
        for name, params in start.frozen.items()
    }
    frozen |= dict.fromkeys(cfg.from_base, frozen.get(BASE))
    table, wanted = {}, set(missing)
    bar = contextlib.nullcontext()
    if processes.is_first():
        bar = Progress(f"{config.name}: reference", len(missing))
    with sharding.activation_rules(mesh), bar as progress:
        for rows in _chunks(config, dataset, objective.FIELDS, wanted, size):
            names = digests(objective.FIELDS, rows)
            filled = {name: np.resize(x, (1, size, *x.shape[1:])) for name, x in rows.items()}
            placed = processes.place(filled, np.arange(size), size, where)
            found = processes.to_host(_values(cfg, frozen, placed))
            values = np.stack([found[name] for name in objective.STORED], axis=-1)[: len(names)]
            if not np.isfinite(values).all():
                raise ValueError(
                    "the reference gives log-probabilities that are not finite; use other weights"
                )
            table |= zip(names, values, strict=True)
            if progress:
                progress.update(len(table), {})
    return table


def _chunks(
    config: Any, dataset: Dataset, keys: Sequence[str], wanted: set[bytes], size: int
) -> Iterator[Batch]:
    """The rows with the digests `wanted`, each once, `size` at a time; empties `wanted`."""
    kept: list[dict] = []
    for batch in _batches(config, dataset):
        for row, digest in enumerate(digests(keys, batch)):
            if digest in wanted:
                wanted.remove(digest)
                kept.append({name: batch[name][row] for name in keys})
        while len(kept) >= size or (kept and not wanted):
            part, kept = kept[:size], kept[size:]
            yield {name: np.stack([row[name] for row in part]) for name in keys}


@functools.partial(jax.jit, static_argnums=0)
def _values(cfg: StepConfig, frozen: dict, batches: Mapping[str, jax.Array]) -> dict:
    """The fields STORED [B] of batches [1, B, ...]."""
    batch = {name: x[0] for name, x in batches.items()}
    return objectives.OBJECTIVES[cfg.objective].reference(frozen, cfg, batch)


def _path(config: Any, cfg: StepConfig, dataset: Dataset) -> Path:
    objective = objectives.OBJECTIVES[cfg.objective]
    hashes = [config.train.init_hash]
    for key in objective.FROZEN.values():
        section, leaf = key.split(".")
        hashes.append(config[section][f"{leaf}_hash"])
    key = [FORMAT, config.objective.name, hashes, repr(cfg.frozen), dataset.hash]
    if cfg.from_base and cfg.adapter.base_dtype:  # the reference is quantised too
        key.append(cfg.adapter.base_dtype)
    name = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]
    cache = path_of(config.data.get("cache", "cache"), "data.cache")
    return cache / "reference" / f"{name}.npz"


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Keeps other runs from computing the same values. Processes of one run do not wait for each
    other."""
    if processes.count() > 1:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
        return
    here = copies.folder_of(path.parent) / f"{path.stem}.lock"
    try:
        here.parent.mkdir(parents=True, exist_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(here, "w")
    except OSError as error:
        raise ValueError(
            f"data.cache={path.parents[1]} cannot be written ({error.strerror or error}); name "
            "another place"
        ) from error
    with file:
        lock(file, fcntl.LOCK_EX)
        yield


def _read(path: Path) -> Table:
    """The table of a file; {} where there is none, or a damaged one."""
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            digests_N16, values = file["digests"], file["values"]
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
        return {}
    return {row.tobytes(): value for row, value in zip(digests_N16, values, strict=True)}


def _write(path: Path, table: Table) -> None:
    content = io.BytesIO()
    digests_N16 = np.frombuffer(b"".join(table), np.uint8).reshape(len(table), 16)
    np.savez(content, digests=digests_N16, values=np.stack(list(table.values())))
    write_atomic(path, content.getvalue())
