"""The processes that clean units. Results come in order, and with one worker from this process."""

import contextlib
import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np

from data.atomic import write_atomic
from data.build import exit_with_parent
from data.cleaning.duplicates import clusters, spans
from data.cleaning.filter_pass import Filter
from data.cleaning.input.units import Unit
from data.cleaning.write_pass import Writer
from data.local import sealed

KEPT = "kept.npy"  # in the folder of the work: which documents are compared for repeated spans


class Stages:
    """What a process does for one config; each pass is made when it is first needed."""

    def __init__(self, cfg: Mapping[str, Any], work: Path, out: Path):
        self.cfg, self.work, self.out = cfg, work, out
        self.grams = np.load(work / "grams.npy", mmap_mode="r", allow_pickle=False)
        self.filter: Filter | None = None

    def filtered(self, unit: Unit) -> tuple[int, dict[str, Any]]:
        """The number and the record of a unit after the first step."""
        self.filter = self.filter or Filter(self.cfg, self.grams)
        record = self.filter.unit(unit, self.work)
        write_atomic(filter_record(self.work, unit.number), sealed(record))
        return unit.number, record

    def edges(self, task: tuple, files: Sequence[Path], firsts: Sequence[int], columns: int):
        """A task of the second step, and its edges."""
        column, part, parts = task
        return task, clusters.edges(files, firsts, columns, column, part, parts)

    def repeated(self, files: Sequence[Path], sizes: Sequence[tuple], part: int, parts: int):
        """The repeated spans of a range of hashes."""
        kept = np.load(self.work / KEPT, mmap_mode="r", allow_pickle=False)
        return spans.repeated(files, sizes, kept, part, parts)

    def written(self, number: int, *rest: Any) -> tuple[int, dict[str, Any]]:
        """The number and the record of a unit after the last step."""
        record = Writer(self.cfg, self.grams).unit(number, *rest, self.work, self.out)
        write_atomic(write_record(self.work, number), sealed(record))
        return number, record


def filter_record(work: Path, unit: int) -> Path:
    """What the first step says of a unit; the unit is finished if this file is whole."""
    return work / f"{unit:06}.json"


def write_record(work: Path, unit: int) -> Path:
    """The same of the last step."""
    return work / f"{unit:06}.written.json"


_stages: Stages


def _start(cfg: Mapping[str, Any], work: Path, out: Path) -> None:
    global _stages
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    _stages = Stages(cfg, work, out)
    exit_with_parent()


def _call(name: str, arguments: tuple) -> Any:
    return getattr(_stages, name)(*arguments)


class Pool:
    """Runs the stages on many units; the order of the results is that of the units."""

    def __init__(self, workers: int, run: Callable[[str, Iterable[tuple]], Iterator[Any]]):
        self.workers, self.run = workers, run

    def filtered(self, units: Iterable[Unit]) -> Iterator[tuple[int, dict[str, Any]]]:
        """`Stages.filtered` of each unit."""
        return self.run("filtered", ((unit,) for unit in units))

    def edges(
        self, tasks: Iterable[tuple], files: Sequence[Path], firsts: Sequence[int], columns: int
    ) -> Iterator[tuple[tuple, np.ndarray]]:
        """`Stages.edges` of each task."""
        return self.run("edges", ((task, files, firsts, columns) for task in tasks))

    def repeated(
        self, files: Sequence[Path], sizes: Sequence[tuple], parts: int
    ) -> Iterator[np.ndarray]:
        """`Stages.repeated` of each range of hashes."""
        return self.run("repeated", ((files, sizes, part, parts) for part in range(parts)))

    def written(self, tasks: Iterable[tuple]) -> Iterator[tuple[int, dict[str, Any]]]:
        """`Stages.written` of each task."""
        return self.run("written", tasks)


@contextlib.contextmanager
def started(workers: int, cfg: Mapping[str, Any], work: Path, out: Path) -> Iterator[Pool]:
    """A pool of `workers` processes. OSError if one of them dies."""
    if workers == 1:
        stages = Stages(cfg, work, out)
        yield Pool(1, lambda name, tasks: (getattr(stages, name)(*task) for task in tasks))
        return
    # A fork would copy locks that other threads hold at that moment.
    context = multiprocessing.get_context("spawn")
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(workers, context, _start, (cfg, work, out))

    def run(name: str, tasks: Iterable[tuple]) -> Iterator[Any]:
        pending: deque = deque()
        for task in tasks:
            pending.append(pool.submit(_call, name, task))
            if len(pending) > 2 * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()

    try:
        yield Pool(workers, run)
    except BrokenProcessPool as error:
        raise OSError(
            f"a process that cleans {work.parent} died, perhaps out of memory; run the command "
            "again: finished units are kept"
        ) from error
    except BaseException:  # does not wait for unfinished tasks
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
