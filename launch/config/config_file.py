"""Executes config files and applies `--config.key=value` to them."""

import contextlib
import difflib
import re
import sys
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

from data.files import BUCKETS, local_path, path_of, to_path
from launch.checkout import ROOT
from launch.config import casts, imports, sweep_file
from launch.errors import BadInput


def load_module(spec: str) -> tuple[ModuleType, str | None]:
    """Executes the config file of 'configs/x.py' or 'configs/x.py:arg'; returns it and the arg. A
    FILE.json, as `launch.config.sweep_file` describes it, becomes such a module.

    A path that does not exist here is looked up in the checkout. FileNotFoundError names the
    nearest config; ValueError says what is wrong with the file, and in which line.
    """
    path, file, arg = _located(spec)
    if path.suffix not in (".py", ".json") or not file.is_file():
        here = (ROOT / "configs").glob("*.py")
        known = sorted(f"configs/{p.name}" for p in here if b"def get_config" in p.read_bytes())
        near = difflib.get_close_matches(path.as_posix(), known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"use one of {', '.join(known)}"
        raise FileNotFoundError(f"config={spec}: there is no config file {path}; {hint}")
    if path.suffix == ".json":
        return _module_of(spec, sweep_file.read(file)), None
    with executing(spec):
        module = imports.module_of(file.read_bytes(), file, f"config_{path.stem}")
    if not hasattr(module, "get_config"):
        raise ValueError(f"config={spec} has no get_config(arg=None); see configs/quickstart.py")
    return module, arg


@contextlib.contextmanager
def executing(spec: str) -> Iterator[None]:
    """Turns an exception from a config file into a ValueError of one line that names the file and
    the line. A ValueError of other code, or of a `raise` in the file, passes through: its text says
    what is wrong.
    """
    try:
        yield
    except Exception as error:
        file = _located(spec)[1].resolve()
        frames = traceback.extract_tb(error.__traceback__)
        in_file = [Path(frame.filename).resolve() == file for frame in frames]
        lines = [frame.lineno for frame, inside in zip(frames, in_file, strict=True) if inside]
        if isinstance(error, SyntaxError) and Path(error.filename or "").resolve() == file:
            lines, text = [error.lineno], error.msg
        elif isinstance(error, BadInput | ValueError | OSError) and (
            not in_file[-1] or frames[-1].line.startswith("raise ")
        ):
            raise
        else:
            text = _brief_text(error)
        where = f", line {lines[-1]}" if lines else ""
        raise ValueError(f"config={spec}{where}: {type(error).__name__}: {text}") from error


def _brief_text(error: Exception) -> str:
    """The text of an error in a config file, without the list of keys that ConfigDict appends."""
    while error.args and isinstance(error.args[0], Exception):
        error = error.args[0]
    text = str(error.args[0] if isinstance(error, KeyError) else error)
    # ml_collections' messages about an unknown key, when it is set and when it is read.
    missing = re.match(r"""Key "(\w+)" does not exist|'(\w+)'\nDid you mean""", text)
    if not missing:
        return text
    name, known = missing[1] or missing[2], re.findall(r"(\w+)(?:'?: |\" instead)", text)
    near = difflib.get_close_matches(name, known, n=1)
    return f"there is no key {name!r}" + (f"; did you mean {near[0]!r}?" if near else "")


def base_of(spec: str, overrides: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The config file that `spec` builds on, as it is found from any folder, and all overrides on
    it: those of a sweep file, then the given ones. A file of the checkout is named from there."""
    _, file, arg = _located(spec)
    if file.suffix == ".json":
        content = sweep_file.read(file)
        return base_of(content["config"], content["overrides"] | dict(overrides))
    file = file.resolve()
    name = file.relative_to(ROOT) if file.is_relative_to(ROOT) else file
    return name.as_posix() + (f":{arg}" if arg else ""), dict(overrides)


def _located(spec: str) -> tuple[Path, Path, str | None]:
    """The path in a config's name, the file that it refers to, and the argument."""
    name, separator, arg = spec.partition(".py:")
    path = local_path(name + ".py" if separator else name, "config")
    return path, path if path.is_file() else ROOT / path, arg or None


def _module_of(spec: str, content: Mapping[str, Any]) -> ModuleType:
    """A module with the get_config and get_sweep of a sweep file."""

    def get_config() -> ConfigDict:
        try:
            return load_config(content["config"], content["overrides"])
        except (ValueError, FileNotFoundError) as error:
            raise ValueError(f"config={spec}: {error}") from error

    module = ModuleType("sweep_file", content["doc"])
    module.get_config = get_config
    module.get_sweep = lambda config: content["trials"]
    return module


def load_config(
    spec: str, overrides: Mapping[str, Any] | None = None, workdir: str | Path | None = None
) -> ConfigDict:
    """The locked config of 'configs/x.py:arg' with overrides {'model.d_model': '64', …} applied.

    Executes the files that it imports; those that are gone are read from the copies in `workdir`.
    """
    module, arg = load_module(spec)
    with executing(spec):
        config = module.get_config(arg) if arg else module.get_config()
    config.lock()
    overrides = dict(overrides or {})
    if "imports" in config:
        given = casts.cast("imports", overrides.pop("imports", ()), ())
        config.imports = imports.joined(config.imports, given)
        imports.execute(config, [to_path(workdir)] if workdir else [])
        from launch.config import sections  # imports jax

        sections.complete(config)
    source = config.get("train", {}).get("init_from", "")  # set in the file, it counts the same
    given = {"train.init_from": source} if source else {}
    _require_buckets({k: v for k, v in (given | overrides).items() if "," not in str(v)})
    for note in apply_overrides(config, given | overrides):
        print(note, file=sys.stderr)
    from train.flatten import flatten

    _require_buckets(flatten(config))
    return config


def _require_buckets(values: Mapping[str, Any]) -> None:
    """ValueError, in one line, for a bucket in a config that cannot be read."""
    if any(address in repr(value) for value in values.values() for address in BUCKETS):
        from data.buckets import reach  # slow to import

        reach.require_named(values.items())


def apply_overrides(config: ConfigDict, overrides: Mapping[str, Any]) -> list[str]:
    """Sets dotted keys in place. A value may be text from the command line or of the key's type.

    Choices that change a section's keys come first; the list has a line for each that drops keys.
    `~` in the paths of runs is expanded. Raises ValueError, naming the nearest key or the type, for
    an unknown key or a wrong type, and for a path with an unknown scheme.
    """
    # These import jax, which parsing the flags does not need.
    from launch.config import sections
    from launch.trial.identity import weights_named
    from train.flatten import flatten

    notes = sections.apply(config, overrides)
    for key, value in overrides.items():
        *path, leaf = key.split(".")
        node = config
        for section in path:
            node = node[section] if isinstance(node, ConfigDict) and section in node else None
        if not isinstance(node, ConfigDict) or leaf not in node:
            near = _nearest(key, list(flatten(config)))
            raise ValueError(f"unknown key config.{key}; {sections.elsewhere(config, key)}{near}")
        value = casts.cast(key, value, node[leaf])
        if type(value) is type(node[leaf]):
            node[leaf] = value
            continue
        with node.ignore_type():  # cast() has checked; a (float) key may hold 1 and be given 0.5
            node[leaf] = value
    objective = config.get("objective", {}).get("name", "")
    for key in (*weights_named(objective), "checkpoint.trunk"):
        section, leaf = key.split(".")
        if value := config.get(section, {}).get(leaf):
            config[section][leaf] = str(path_of(value, key))
    return notes


def _nearest(key: str, known: list[str]) -> str:
    """The hint that follows an unknown key: the same last name elsewhere, else the closest."""
    same_leaf = [name for name in known if name.split(".")[-1] == key.split(".")[-1]]
    near = same_leaf or difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    return f"did you mean config.{near[0]}?" if near else "configs/base.py lists every key"
