"""Saves and restores training states: written by Orbax in the background, verified by hash.

Layout: FOLDER/STEP/ contains Orbax's files and `manifest.json`, which is written last and lists the
SHA-256 of every other file. A checkpoint without a manifest is unfinished and is removed. One whose
files do not match its manifest is damaged: it is renamed, and the previous good one is used.
`train/checkpoints/bucket.py` says how that is in a bucket, where nothing can be renamed.

The processes of a run write a checkpoint together. Each writes the parts on its devices to a shared
folder and hashes a share of the files. Only process 0 creates and removes folders and writes the
manifest. A checkpoint can be restored on any mesh and with any number of processes.
"""

import contextlib
import errno
import json
import logging
import shutil
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from data.atomic import write_atomic
from data.buckets.lease import Lease, LostLock, Unlocked
from data.buckets.scratch import scratch
from data.files import is_remote
from train.checkpoints import bucket, disk
from train.checkpoints.manifest import MANIFEST as MANIFEST
from train.checkpoints.manifest import Spoiled, sealed
from train.parallel import processes

_DISK_FULL = ("RESOURCE_EXHAUSTED", "No space left", "Disk quota exceeded")
# What Orbax writes besides the arrays, at most: for each array, and in all.
_BYTES_PER_ARRAY, _BYTES_IN_ALL = 4 << 10, 1 << 20

_LOOKS, _QUIET = 40, 4  # for what a failed save left, 0.05 s apart


def _shown(record: logging.LogRecord) -> bool:
    """Whether to log a record. Orbax and its event loop log a full disk with long tracebacks, but
    Orbax raises that error too, and `Checkpoints` reports it. Its threads may then go on writing to
    the folder that `Checkpoints` has removed."""
    error = record.exc_info[1] if record.exc_info else None
    text = f"{record.getMessage()} {error}"
    removed = isinstance(error, FileNotFoundError) and disk.TEMPORARY in text
    known = removed or any(sign in text for sign in _DISK_FULL)
    return record.levelno < logging.ERROR or not known


for _name in ("absl", "asyncio"):
    logging.getLogger(_name).addFilter(_shown)


def _unraisable(about: Any, show: Callable[[Any], None] = sys.unraisablehook) -> None:
    """Shows an error that cannot be raised, unless it only says that a write ended after Orbax's
    failed save."""
    if str(about.exc_value) != "Event loop is closed":
        show(about)


sys.unraisablehook = _unraisable


class Damaged(ValueError):
    """No checkpoint of a run can be restored."""


def _place(path: Path) -> ModuleType:
    """How checkpoints are kept where `path` is."""
    return bucket if is_remote(path) else disk


class Checkpoints:
    """The checkpoints of one run. Keeps the last `keep_last`, the `keep_best` by eval loss, and
    those at the steps `keep_at`. `say` receives one-line messages for the user. `lease` is the lock
    of the run's folder: LostLock is raised where another process has it. `before` is called before
    each manifest is written.
    """

    def __init__(
        self,
        folder: Path,
        keep_last: int,
        keep_best: int,
        say: Callable[[str], None] = print,
        keep_at: Collection[int] = (),
        lease: Lease | None = None,
        before: Callable[[], None] = lambda: None,
    ):
        self._place = _place(folder)
        self.folder = folder if self._place is bucket else Path(folder).absolute()
        self.lease, self._before = lease or Unlocked(), before
        self.keep_last, self.keep_best, self.say = keep_last, keep_best, say
        self.keep_at = keep_at
        self._writer = ocp.AsyncCheckpointer(ocp.StandardCheckpointHandler())
        self._finisher: threading.Thread | None = None
        self._error: BaseException | None = None
        self._failed = False  # a save, ever

    def save(self, step: int, state: Any, meta: dict) -> None:
        """Starts writing `state` and returns when it has been copied from the devices.

        `meta` is JSON and is restored with the state. Raises the OSError of a failed previous save.
        """
        self.wait()
        path = self.folder / str(step)
        leaves = jax.tree.leaves(state)
        size = sum(getattr(leaf, "nbytes", 0) + _BYTES_PER_ARRAY for leaf in leaves)
        size += _BYTES_IN_ALL
        if processes.from_first("there", lambda: self._place.make_room(path, size, self.lease)):
            return
        data, name = path, ""
        if self._place is bucket:
            name = processes.from_first("name", lambda: bucket.new_name(self.lease))
            data = bucket.folder_for(path, size, name)
        try:
            self._writer.save(data, args=ocp.args.StandardSave(state))
        except Exception as error:
            self._remove_failed(data)
            raise as_os_error(error, path) from error
        meta = {**meta, "step": step}
        self._finisher = threading.Thread(target=self._finish, args=(path, data, name, meta))
        self._finisher.start()

    def wait(self) -> None:
        """Returns when everything is on disk; raises the error of a failed save."""
        if self._finisher is not None:
            self._finisher.join()
            self._finisher = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def close(self) -> None:
        """Waits and frees the writer's threads. Nothing can be saved afterwards."""
        self.wait()
        with contextlib.suppress(OSError):  # that of a failed save again
            self._writer.close()
        if self._failed and self._place is disk:
            self._remove_failed(self.folder)

    def restore(self, like: Any) -> tuple[Any, dict] | None:
        """(state, meta) of the newest good checkpoint, on the shardings of `like` (shapes are
        enough), or None if there is no checkpoint. Renames newer checkpoints that are damaged, and
        removes unfinished ones. Raises Damaged if all are damaged."""
        names = processes.from_first("checkpoints", self._tidy)
        paths = [self.folder / name for name in names]
        read = newest_read(paths, lambda path: (_read(path, like), read_meta(path)), self.say)
        if read is None and paths:
            self.lease.confirm()  # the next owner may have removed them
            raise Damaged(
                f"every checkpoint in {self.folder} is damaged; "
                "restore one from a backup, or delete the folder to start over"
            )
        if read is None:
            return None
        good, restored = read
        newer = paths[: paths.index(good)]
        processes.from_first("aside", lambda: self._place.set_aside(newer, self.lease))
        return restored

    def restore_before(self, like: Any, step: int) -> tuple[Any, dict] | None:
        """(state, meta) of the newest good checkpoint of fewer than `step` steps, or else of `step`
        steps; None if there is none. Removes those that are newer."""
        self.wait()
        paths = processes.from_first("before", lambda: [p.name for p in self.finished()])
        until = [self.folder / name for name in paths if int(name) <= step]
        order = sorted(until, key=lambda path: int(path.name) == step)
        read = newest_read(order, lambda path: (_read(path, like), read_meta(path)), self.say)
        good, restored = read or (None, None)
        newer = [self.folder / n for n in paths if good is None or int(n) > int(good.name)]
        processes.from_first("newer", lambda: self._place.remove(newer, self.lease))
        return restored

    def finished(self) -> list[Path]:
        """Folders of the finished checkpoints, newest first."""
        return finished(self.folder)

    def _finish(self, path: Path, data: Path, name: str, meta: dict) -> None:
        try:
            self._writer.wait_until_finished()
            if self._place is bucket:
                bucket.commit(path, data, name, meta, self.lease, self._before)
            else:
                self.lease.confirm()
                write_manifest(path, meta)
            if processes.is_first():
                self._prune()
                self._place.remove_unfinished(self.folder, self.lease)
        except Exception as error:  # the training thread raises it
            self._error = as_os_error(error, path)
            self._remove_failed(data)
        finally:
            if self._place is bucket and not is_remote(data):
                shutil.rmtree(data.parent, ignore_errors=True)

    def _tidy(self) -> list[str]:
        """Removes unfinished checkpoints. Returns the names of the finished ones."""
        if removed := self._place.remove_unfinished(self.folder, self.lease):
            self.say(f"removed unfinished checkpoints in {self.folder}: {', '.join(removed)}")
        return [path.name for path in self.finished()]

    def _prune(self) -> None:
        paths = self.finished()
        losses = {p: (_meta(p) or {}).get("eval_loss") for p in paths}
        scored = [p for p in paths if losses[p] is not None]
        kept = paths[: self.keep_last] + sorted(scored, key=losses.get)[: self.keep_best]
        kept += [p for p in paths if int(p.name) in self.keep_at]
        self._place.remove([path for path in paths if path not in kept], self.lease)

    def _remove_failed(self, data: Path) -> None:
        """Removes what a failed save left. Other threads of the writer may add files to it for a
        moment, so it looks until nothing has come for _QUIET looks. In a bucket, and where the lock
        is lost, the next owner removes it."""
        self._failed = True
        if self._place is bucket:
            if not is_remote(data):
                shutil.rmtree(data.parent, ignore_errors=True)
            return
        quiet = 0
        for _ in range(_LOOKS if processes.is_first() else 0):
            try:
                quiet = 0 if disk.remove_unfinished(self.folder, self.lease) else quiet + 1
            except (LostLock, OSError):
                return
            if quiet == _QUIET:
                return
            time.sleep(0.05)


def finished(folder: Path) -> list[Path]:
    """Folders of the finished checkpoints of a run, newest first."""
    return _place(folder).finished(folder)


def newest_good(paths: Sequence[Path], say: Callable[[str], None] = print) -> Path | None:
    """The first of `paths`, newest first, that is not damaged; None if all are."""
    for path in paths:
        fault = damage(path)
        if fault is None:
            return path
        say(f"checkpoint {path} is damaged ({fault}); trying the one before it")
    return None


def newest_read(
    paths: Sequence[Path], read: Callable[[Path], Any], say: Callable[[str], None] = print
) -> tuple[Path, Any] | None:
    """(path, `read(path)`) of the first of `paths`, newest first, that is not damaged; None if all
    are. Damage that only the reading finds counts too."""
    left = list(paths)
    while good := newest_good(left, say):
        try:
            return good, read(good)
        except (Spoiled, FileNotFoundError) as error:
            say(f"checkpoint {good} is damaged ({error.strerror}); trying the one before it")
        left = left[left.index(good) + 1 :]
    return None


def read_meta(path: Path) -> dict:
    """The `meta` that was saved with the state of a good checkpoint."""
    raw = bucket.read_manifest(path) if is_remote(path) else (path / MANIFEST).read_bytes()
    return json.loads(raw)["meta"]


def _meta(path: Path) -> dict | None:
    """Like `read_meta`, but None if the manifest cannot be read."""
    try:
        return dict(read_meta(path))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def saved_config(path: Path) -> dict | None:
    """The resolved config of the run that wrote a checkpoint. None if its manifest cannot be read,
    or has no config because an older version wrote it."""
    config = (_meta(path) or {}).get("config")
    return config if isinstance(config, dict) else None


def as_os_error(error: Exception, path: Path) -> Exception:
    """An OSError for a full disk, which Orbax reports as a ValueError; other errors unchanged."""
    if not isinstance(error, OSError) and any(sign in str(error) for sign in _DISK_FULL):
        return OSError(errno.ENOSPC, "No space left on device", str(path))
    return error


def write_manifest(path: Path, meta: dict) -> None:
    """Hashes every file of a checkpoint on a file system into its manifest, written atomically."""
    names = processes.from_first("files", lambda: disk.names(path))
    hashes = processes.exchange("hashes", disk.hashes(path, processes.share(names)))
    if processes.is_first():
        files = {name: found for part in hashes for name, found in sorted(part.items())}
        write_atomic(path / MANIFEST, sealed(files, meta))


@contextlib.contextmanager
def writing_files(path: Path, meta: dict, lease: Lease) -> Iterator[Path]:
    """A new folder for the files of a checkpoint that one process writes without Orbax. At the end
    they become the checkpoint `path`."""
    if not is_remote(path):
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        yield path
        lease.confirm()
        write_manifest(path, meta)
        return
    home = scratch()
    try:
        yield home
        bucket.commit(path, home, bucket.new_name(lease), meta, lease)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def damage(path: Path) -> str | None:
    """Describes what is wrong with a finished checkpoint; None if nothing is."""
    faults = processes.exchange("damage", _place(path).damage_of_share(path))
    return next((fault for fault in faults if fault), None)


def restore_params(folder: Path, say: Callable[[str], None] = print) -> tuple[dict, dict]:
    """(parameters as numpy arrays, meta) of a run's newest good checkpoint, for any device.

    Raises FileNotFoundError if the run has no checkpoint, Damaged if all are damaged.
    """
    if not finished(folder):
        raise FileNotFoundError(f"{folder} holds no finished checkpoint; train the run first")
    read = newest_read(finished(folder), _read_params, say)
    if read is None:
        raise Damaged(f"every checkpoint in {folder} is damaged; train the run again")
    return read[1]


def _read_params(path: Path) -> tuple[dict, dict]:
    reader = ocp.StandardCheckpointer()
    with opened(path) as data:
        shapes = reader.metadata(data).item_metadata
        like = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), shapes)
        return reader.restore(data, like)["params"], read_meta(path)


def restore_until(
    folder: Path, like: Any, until: int, say: Callable[[str], None] = print
) -> tuple[Any, dict]:
    """(state, meta) of another run's newest good checkpoint of at most `until` steps, on the
    shardings of `like`. Does not change the folder. Raises Damaged if no checkpoint is good."""
    paths = [path for path in finished(folder) if int(path.name) <= until]
    read = newest_read(paths, lambda path: (_read(path, like), read_meta(path)), say)
    if read is None:
        raise Damaged(f"{folder} has no good checkpoint up to step {until}; train that run again")
    return read[1]


def opened(path: Path) -> contextlib.AbstractContextManager[Path]:
    """A folder with the files of a good checkpoint, for as long as they are read."""
    return _place(path).opened(path)


def _read(path: Path, like: dict[str, Any]) -> dict[str, Any]:
    """The entries of a good checkpoint that `like` has. Older versions saved more entries."""
    with opened(path) as data, ocp.StandardCheckpointer() as reader:
        held = reader.metadata(data).item_metadata
        more = {name: entry for name, entry in dict(held).items() if name not in like}
        more = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), more)
        tree = reader.restore(data, like | more)
    return {name: tree[name] for name in like}
