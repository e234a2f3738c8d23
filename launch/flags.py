"""Reads the command line: flags, the config file, and `--config.key=value`."""

import ast
import difflib
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from launch import sweep_file
from launch.checkout import ROOT
from launch.errors import BadInput

_TRUTH = {"true": True, "false": False, "1": True, "0": False}


def parse(values: flags.FlagValues, argv: Sequence[str], doc: str) -> dict[str, str]:
    """Parses a verb's flags into `values`; returns its `--config.key=value` overrides.

    On --help prints the help and raises SystemExit(0). Raises BadInput for anything unknown.
    """
    if any(arg in ("-h", "-help", "--help", "--helpfull") for arg in argv):
        print(help_text(values, doc))
        raise SystemExit(0)
    own, overrides = [], {}
    for arg in argv:
        if not arg.startswith(("--config.", "-config.")):
            own.append(arg)
            continue
        key, equals, value = arg.lstrip("-").removeprefix("config.").partition("=")
        if not equals:
            raise BadInput(f"--config.{key} has no value; write --config.{key}=VALUE")
        if "config" not in values:
            raise BadInput(f"--config.{key}: this verb reads no config; drop it")
        overrides[key] = value
    try:
        left = values(["isoflop", *own])[1:]
    except flags.Error as error:
        raise BadInput(error) from error
    if left:
        raise BadInput(f"unexpected argument {left[0]}; flags are written --name=value")
    return overrides


def help_text(values: flags.FlagValues, doc: str) -> str:
    """A verb's docstring and its flags with their defaults."""
    rows = []
    for name in sorted(values):
        flag = values[name]
        form = f"--[no]{name}" if flag.boolean else f"--{name}=…"
        default = "" if flag.default in (None, "", []) else f" (default: {flag.default})"
        rows.append(f"  {form:<22} {' '.join(flag.help.split())}{default}")
    if "config" in values:
        rows.append(
            f"  {'--config.KEY=VALUE':<22} overrides one key; configs/base.py lists them all"
        )
    return f"{doc.strip()}\n\n" + "\n".join(rows)


def load_module(spec: str) -> tuple[ModuleType, str | None]:
    """Imports the config file of 'configs/x.py' or 'configs/x.py:arg'; returns it and the arg. A
    FILE.json, as `launch.sweep_file` describes it, becomes such a module.

    A path that does not exist here is looked up in the checkout. FileNotFoundError names the
    nearest config; ValueError says what is wrong with the file.
    """
    path, file, arg = _located(spec)
    if path.suffix not in (".py", ".json") or not file.is_file():
        here = (ROOT / "configs").glob("*.py")
        known = sorted(f"configs/{p.name}" for p in here if "def get_config" in p.read_text())
        near = difflib.get_close_matches(path.as_posix(), known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"use one of {', '.join(known)}"
        raise FileNotFoundError(f"config={spec}: there is no config file {path}; {hint}")
    if path.suffix == ".json":
        return _module_of(spec, sweep_file.read(file)), None
    module_spec = importlib.util.spec_from_file_location(f"config_{path.stem}", file)
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise ValueError(f"config={spec} has no get_config(arg=None); see configs/quickstart.py")
    return module, arg


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
    """The path that a config's name gives, the file that it means, and its argument."""
    name, found, arg = spec.partition(".py:")
    path = Path(name + ".py" if found else name)
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


def load_config(spec: str, overrides: Mapping[str, Any] | None = None) -> ConfigDict:
    """The locked config of 'configs/x.py:arg' with overrides {'model.d_model': '64', …} applied."""
    module, arg = load_module(spec)
    config = module.get_config(arg) if arg else module.get_config()
    config.lock()
    source = config.get("train", {}).get("init_from", "")  # set in the file, it counts the same
    given = {"train.init_from": source} if source else {}
    for note in apply_overrides(config, given | dict(overrides or {})):
        print(note, file=sys.stderr)
    return config


def apply_overrides(config: ConfigDict, overrides: Mapping[str, Any]) -> list[str]:
    """Sets dotted keys in place. A value may be text from the command line or of the key's type.

    Choices that change a section's keys come first; the list has a line for each that drops keys.
    Raises ValueError, naming the nearest key or the type, for an unknown key or a wrong type.
    """
    from launch import sections  # imports jax, which parsing the flags does not need
    from train.flatten import flatten

    notes = sections.apply(config, overrides)
    for key, value in overrides.items():
        *path, leaf = key.split(".")
        node = config
        for section in path:
            node = node[section] if isinstance(node, ConfigDict) and section in node else None
        if not isinstance(node, ConfigDict) or leaf not in node:
            raise ValueError(f"unknown key config.{key}; {_nearest(key, list(flatten(config)))}")
        with node.ignore_type():  # cast() has checked; a (float) key may hold 1 and be given 0.5
            node[leaf] = cast(key, value, node[leaf])
    return notes


def cast(key: str, value: Any, current: Any) -> Any:
    """`value` as the type of the key's `current` value; ValueError says what would be valid."""
    if isinstance(current, ConfigDict):
        raise ValueError(f"config.{key} is a section; set one of its keys: {', '.join(current)}")
    try:
        return _CASTS.get(type(current), _literal)(value, current)
    except (ValueError, SyntaxError, TypeError):
        kind = _KINDS.get(type(current), "a Python literal")
        raise ValueError(f"config.{key}={value} is not {kind}, such as {current!r}") from None


def _bool(value: Any, current: bool) -> bool:
    if isinstance(value, str) and value.lower() in _TRUTH:
        return _TRUTH[value.lower()]
    if not isinstance(value, bool):
        raise ValueError
    return value


def _int(value: Any, current: int) -> int:
    number = _literal(value, current)
    if isinstance(number, bool) or not isinstance(number, int):
        raise ValueError
    return number


def _float(value: Any, current: float) -> float:
    if isinstance(value, bool):
        raise ValueError
    return float(value)


def _str(value: Any, current: str) -> str:
    if not isinstance(value, str):
        raise ValueError
    return value


def _tuple(value: Any, current: tuple) -> tuple:
    """'(1, 2)', 'a,b' or a sequence; its elements take the type of the current first one."""
    if isinstance(value, str):
        parts = value.split(",") if value else []
        value = ast.literal_eval(value) if value[:1] in ("(", "[") else [p.strip() for p in parts]
    if not isinstance(value, tuple | list):
        raise ValueError
    like = current[0] if current else None
    return tuple(_CASTS.get(type(like), _literal)(item, like) for item in value)


def _literal(value: Any, current: Any) -> Any:
    """Text as a Python literal; other text is returned as it is where the key takes any type."""
    if not isinstance(value, str):
        return value
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError):
        if current is None:
            return value
        raise


_KINDS = {
    bool: "a bool",
    int: "an int",
    float: "a float",
    str: "a str",
    tuple: "a tuple",
    list: "a list",
}
_CASTS = {bool: _bool, int: _int, float: _float, str: _str, tuple: _tuple, list: _tuple}


def _nearest(key: str, known: list[str]) -> str:
    """The hint that follows an unknown key: the same last name elsewhere, else the closest."""
    same_leaf = [name for name in known if name.split(".")[-1] == key.split(".")[-1]]
    near = same_leaf or difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    return f"did you mean config.{near[0]}?" if near else "configs/base.py lists every key"
