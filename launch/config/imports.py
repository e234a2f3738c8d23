"""Executes a user's own Python files, which add entries to the tables of isoflop.

A file is executed once in a process, before the config that names it is resolved. It assigns to a
table, as in `SCHEDULES["mine"] = mine`, and may replace no entry. The SHA-256 of its bytes is part
of a trial's id, so even another comment makes another trial. A run keeps a copy in RUN/imports/.
Files in the folder of a run are executed only where the user names them, or to resume that run.
"""

import hashlib
import importlib
import sys
import traceback
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

from ml_collections import ConfigDict

from data.files import local_path, to_path
from launch.errors import BadInput

FOLDER = "imports"  # of a run and of a sweep: the copies
# Table → its module, and the members that an entry must have.
TABLES = {
    "FAMILIES": ("model.families", ("Config", "INPUTS", "derive", "flops")),
    "OBJECTIVES": (
        "train.objectives",
        ("FIELDS", "NEEDS", "TRAINED", "METRICS", "configure", "loss", "evaluate"),
    ),
    "KINDS": ("data.kinds", ("FIELDS", "prepare", "spec", "tokens", "vocab_size")),
    "OPTIMIZERS": ("train.optimizers.optimizer", ("__call__",)),
    "SCHEDULES": ("train.optimizers.schedule", ("__call__",)),
    "LAWS": ("scaling.laws", ("formula", "inputs", "coordinates", "function", "grid")),
    "SEARCHES": ("launch.sweep.search", ("SEQUENTIAL", "ENDS", "ask")),
    "RUNNERS": ("launch.runners", ("resources", "slots", "run")),
}

_executed: dict[str, tuple[str, bytes]] = {}  # hash → name and bytes of the files executed here


def execute(config: ConfigDict, folders: Sequence[Path] = ()) -> None:
    """Executes the files that `config.imports` names and fills in `config.imports_hash`, in place.

    A file that is gone, or that has changed since `imports_hash` was filled in, is read from the
    copy in one of `folders`. Raises ValueError or FileNotFoundError if there is no copy, and
    BadInput with a traceback for a file that fails.
    """
    named, stated = tuple(config.get("imports", ())), tuple(config.get("imports_hash", ()))
    if stated and len(stated) != len(named):
        raise ValueError(
            f"imports_hash holds {len(stated)} hashes for the {len(named)} files of imports; "
            "leave it empty, it is filled in"
        )
    if named:
        hashes = stated or [""] * len(named)
        config.imports_hash = tuple(
            _execute(path, hash, folders) for path, hash in zip(named, hashes, strict=True)
        )


def load(files: Iterable[str]) -> None:
    """Executes files that no config names, such as those of `isoflop fit --import=FILE`."""
    for path in joined((), files):
        _execute(path, "", ())


def joined(named: Iterable[str], given: Iterable[str]) -> tuple[str, ...]:
    """The imports of a config with those of the command line, which replace files of equal name.
    ValueError if two of the command line have one name."""
    files = {to_path(path).name: path for path in named}
    names = [to_path(path).name for path in given]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"two imports are called {twice[0]}; rename one, or give it once")
    return tuple((files | dict(zip(names, given, strict=True))).values())


def keep(config: ConfigDict, folder: Path) -> None:
    """Writes the files of a config, as they were executed, to imports/ of a run or a sweep."""
    from data.atomic import write_atomic  # verbs that read points load nothing of data

    for path, hash in zip(config.get("imports", ()), config.get("imports_hash", ()), strict=True):
        (folder / FOLDER).mkdir(parents=True, exist_ok=True)
        write_atomic(folder / FOLDER / to_path(path).name, _executed[hash][1])


def executed() -> dict[str, str]:
    """Name → hash of the files that this process has executed."""
    return {name: hash for hash, (name, _) in _executed.items()}


def remedy(folder: Path) -> str:
    """How to read a run or a sweep that kept imports, to follow the message on a name that is
    unknown without them; "" if it kept none."""
    kept = sorted(folder.glob(f"{FOLDER}/*.py")) or sorted(folder.glob(f"*/{FOLDER}/*.py"))
    copies = {path.name: path for path in kept}
    if not copies:
        return ""
    named = " ".join(f"--import={path}" for path in copies.values())
    return (
        f". {folder} was made with files of its author, which run as code: read "
        f"{'them' if len(copies) > 1 else 'it'} first, then add {named}"
    )


def difference(folder: Path) -> str:
    """What a run or sweep says that was made with other imports than those given, and the remedy,
    in words."""
    kept = sorted(folder.glob(f"{FOLDER}/*.py"))
    if not kept:
        return "it was made without these imports; choose another --workdir"
    listed = ", ".join(path.name for path in kept)
    again = " ".join(f"--import={path}" for path in kept)
    return (
        f"it was made with another {listed}; add {again} to go on with what it was made with, or "
        "choose another --workdir"
    )


def module_of(content: bytes, place: Path, name: str) -> ModuleType:
    """Executes a file's content as a module. It is not imported: Python's cache of bytecode would
    miss an edit of equal length within a second."""
    module = ModuleType(name)
    module.__file__ = str(place)
    sys.modules[name] = module  # dataclasses look their module up
    exec(compile(content, str(place), "exec", dont_inherit=True), vars(module))
    return module


def _execute(path: str, stated: str, folders: Sequence[Path]) -> str:
    """Executes one file unless it was; returns its hash."""
    place, content = _read(path, stated, folders)
    hash = _hash(content)
    if hash in _executed:
        return hash
    before = {name: dict(table) for name, table in _tables().items()}
    name = f"imports_{place.stem}_{hash}"
    try:
        module_of(content, place, name)
        _check(path, before)
    except (Exception, SystemExit) as error:
        for name, table in _tables().items():
            table.clear()
            table.update(before[name])
        sys.modules.pop(name, None)
        if isinstance(error, _Refused):
            raise ValueError(str(error)) from None
        raise _failure(path, place, error) from error
    _executed[hash] = place.name, content
    return hash


def _read(path: str, stated: str, folders: Sequence[Path]) -> tuple[Path, bytes]:
    """The file, or its copy where it is gone or has another hash than the stated one."""
    original = local_path(path, "imports")
    found = []
    for place in (original, *(folder / FOLDER / original.name for folder in folders)):
        try:
            content = place.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise ValueError(
                f"import={path} cannot be read ({error.strerror}); name a Python file"
            ) from None
        found.append(place)
        if stated in ("", _hash(content)):
            if place != original and _hash(content) not in _executed:
                gone = "has changed" if original in found else "is gone"
                print(f"import={path} {gone}; using the copy {place}", file=sys.stderr)
            return place, content
    if found:
        raise ValueError(
            f"import={path} has changed: its hash is not {stated}; restore the file, or start anew "
            "in another --workdir"
        )
    raise FileNotFoundError(
        f"import={path}: there is no such file; give a Python file, or the copy that a run keeps: "
        f"--import=RUN/{FOLDER}/{original.name}"
    )


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _tables() -> dict[str, dict[str, Any]]:
    return {
        name: getattr(importlib.import_module(module), name) for name, (module, _) in TABLES.items()
    }


class _Refused(Exception):
    """What is wrong with the entries of a file that itself ran well."""


def _check(path: str, before: Mapping[str, Mapping[str, Any]]) -> None:
    """_Refused unless the file has added entries that are complete, and replaced none."""
    added = 0
    for name, table in _tables().items():
        for key, entry in before[name].items():
            if table.get(key) is not entry:
                raise _Refused(
                    f"import={path} replaces {name}[{key!r}], which exists; choose another name"
                )
        for key in table.keys() - before[name].keys():
            missing = [one for one in TABLES[name][1] if not hasattr(table[key], one)]
            if missing == ["__call__"]:
                raise _Refused(f"import={path}: {name}[{key!r}] is not a function; give it one")
            if missing:
                raise _Refused(
                    f"import={path}: {name}[{key!r}] has no {', '.join(missing)}; "
                    "docs/extending.md shows a complete one"
                )
            added += 1
    if not added:
        raise _Refused(
            f"import={path} adds nothing to {', '.join(TABLES)}; assign an entry to one of them, "
            "as docs/extending.md shows"
        )


def _failure(path: str, place: Path, error: BaseException) -> BadInput:
    """BadInput of one line with file, line and error, and the traceback from that file on."""
    inside: TracebackType | None = error.__traceback__
    while inside is not None and inside.tb_frame.f_code.co_filename != str(place):
        inside = inside.tb_next
    lines = [one.lineno for one in traceback.extract_tb(inside) if one.filename == str(place)]
    if isinstance(error, SyntaxError) and error.filename == str(place):
        lines = [error.lineno]
    where = f", line {lines[-1]}" if lines else ""
    text = error.msg if isinstance(error, SyntaxError) else error
    return BadInput(
        f"import={path}{where}: {type(error).__name__}: {text}",
        "".join(traceback.format_exception(type(error), error, inside)).rstrip(),
    )
