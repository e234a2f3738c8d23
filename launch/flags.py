"""Reads the command line: flags, the config file, and `--config.key=value`."""

import contextlib
import difflib
import importlib.util
import re
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from data.files import BUCKETS, is_remote, local_path, path_of, to_path
from launch.checkout import ROOT
from launch.config import casts, imports, sweep_file
from launch.errors import BadInput, bad_input
from scaling.report.number_text import parse_amount

EXECUTED = (
    "A config FILE.py runs as Python code: read a config from someone else before you run it."
)


def define_path(
    name: str, default: str | None, help: str, flag_values: flags.FlagValues, read: Any = None
) -> None:
    """Defines a flag that takes a path on this machine, or in a bucket (gs://…, s3://…). `~` is
    expanded, another scheme is bad input, and an empty value is none. `read` replaces this."""
    flags.DEFINE(_Reader(name, read or _path), name, default, help, flag_values)


def define_amount(
    name: str, default: float | None, help: str, flag_values: flags.FlagValues
) -> None:
    """Defines a flag that takes a number, which may be written as 7e9, 7B, 1.5M or 30k."""
    flags.DEFINE(_Reader(name, _amount), name, default, help, flag_values)


def define_import(flag_values: flags.FlagValues) -> None:
    """Defines the flag --import, which `parse` acts on."""
    flags.DEFINE_multi_string(
        "import",
        [],
        "Python file that registers a family, an objective, an optimiser, a schedule, a law, … of "
        "your own; it runs as code; may be repeated",
        flag_values=flag_values,
    )


def define_where(flag_values: flags.FlagValues) -> None:
    """Defines --where, whose expressions `scaling.ranking.filters` reads."""
    meaning = "keep trials that this holds for; may be repeated"
    flags.DEFINE_multi_string("where", [], meaning, flag_values=flag_values)


class _Reader(flags.ArgumentParser):
    """Reads the value of one flag with a function of the value and the flag's name."""

    def __init__(self, name: str, read: Callable[[str, str], Any]):
        self.name, self.read = name, read

    def parse(self, argument: Any) -> Any:
        try:
            return self.read(argument, self.name) if isinstance(argument, str) else argument
        except ValueError as error:
            raise BadInput(error) from error


def _path(text: str, name: str) -> str | None:
    """The path of a flag as text. A bucket is asked first whether it can be read."""
    if not text:
        return None
    path = path_of(text, name)
    if is_remote(path):
        from data.buckets import reach  # slow to import

        reach.require_readable(path, f"--{name}")
    return str(path)


def require_writable(path: Path, name: str) -> None:
    """BadInput if this process may not write into a folder in a bucket. A folder on this machine is
    checked where it is written."""
    if is_remote(path):
        from data.buckets import reach  # slow to import

        with bad_input():
            reach.require_writable(path, f"--{name}")


def _amount(text: str, name: str) -> float:
    try:
        return parse_amount(text)
    except ValueError as error:
        raise ValueError(f"{name}={error}") from None


def parse(
    values: flags.FlagValues,
    argv: Sequence[str],
    doc: str,
    positional: str = "",
    bare: list[str] | None = None,
) -> dict[str, str]:
    """Parses a verb's flags into `values`; returns its `--config.key=value` overrides. The files of
    --import are one of them, or are executed here if no config is given.

    The flag `positional` may also be written as a bare argument: `rank runs/a` is
    `rank --runs=runs/a`. Where a verb takes any number of bare arguments, they are added to `bare`.
    On --help prints the help and raises SystemExit(0). BadInput if flags are unknown or missing.
    """
    if any(arg in ("-h", "-help", "--help", "--helpfull") for arg in argv):
        print(help_text(values, doc))
        raise SystemExit(0)
    verb_args, overrides = [], {}
    for arg in argv:
        if not arg.startswith(("--config.", "-config.")):
            verb_args.append(arg)
            continue
        key, equals, value = arg.lstrip("-").removeprefix("config.").partition("=")
        if not equals:
            raise BadInput(f"--config.{key} has no value; write --config.{key}=VALUE")
        if "config" not in values:
            raise BadInput(f"--config.{key}: this verb reads no config; drop it")
        overrides[key] = value
    values.set_gnu_getopt(bool(positional) or bare is not None)  # flags may follow bare arguments
    try:
        left = values(["isoflop", *verb_args])[1:]
    except flags.UnrecognizedFlagError as error:
        raise BadInput(_unknown(values, error)) from error
    except flags.Error as error:
        given = {arg.lstrip("-").partition("=")[0] for arg in verb_args if arg.startswith("-")}
        missing = [name for name in values if name not in given and _required(values[name])]
        raise BadInput(_missing(missing) if missing else error) from error
    if positional and left and not values[positional].present:
        values[positional].parse(left.pop(0))
    if bare is not None:
        bare += left
    elif left:
        raise BadInput(f"unexpected argument {left[0]}; flags are written --name=value")
    if positional and values[positional].value is None:
        raise BadInput(_missing([positional]))
    if "import" in values and (files := values["import"].value):
        if "config" in values and values.config:
            overrides["imports"] = tuple(files)
        else:
            with bad_input():
                imports.load(files)
    return overrides


def _unknown(values: flags.FlagValues, error: flags.UnrecognizedFlagError) -> str:
    """The message for an unknown flag: it suggests the config key of that name, or the nearest
    flag."""
    name, value = error.flagname, str(error.flagvalue).partition("=")[2]
    keys = []
    if "config" in values:
        from configs import base  # slow to import
        from train.flatten import flatten

        known = list(flatten(base.get_config()))
        keys = [key for key in known if key == name or key.endswith(f".{name}")]
    near = difflib.get_close_matches(name, values, n=1)
    if keys:
        hint = " or ".join(f"--config.{key}={value or 'VALUE'}" for key in keys)
    else:
        hint = f"--{near[0]}" if near else ""
    otherwise = "see --help"
    if "config" in values:
        otherwise += "; config keys are written --config.KEY=VALUE (configs/base.py lists them)"
    return f"unknown flag --{name}; " + (f"did you mean {hint}?" if hint else otherwise)


def _required(flag: flags.Flag) -> bool:
    """Whether a verb requires the flag and it is not given."""
    return flag.value is None and not all(check.checker(None) for check in flag.validators)


def _missing(names: Sequence[str]) -> str:
    """The message on required flags that are not given, with an example."""
    listed = " and ".join(f"--{name}" for name in names)
    example = " ".join(f"--{name}={_EXAMPLES.get(name, '…')}" for name in names)
    return f"{listed} {'is' if len(names) == 1 else 'are'} not given; add {example}"


_EXAMPLES = {
    "action": "up",
    "config": "configs/quickstart.py",
    "workdir": "runs/first",
    "run": "runs/first",
    "runs": "runs/quickstart",
}


def help_text(values: flags.FlagValues, doc: str) -> str:
    """A verb's docstring and its flags, in the order of their definition, with their defaults."""
    rows = []
    for name in values:
        flag = values[name]
        form = f"--[no]{name}" if flag.boolean else f"--{name}=…"
        meaning = flag.help.partition(";\n    repeat this option")[0]  # absl's, of DEFINE_multi_…
        if _required(flag):
            meaning += " (required)"
        elif flag.default not in (None, "", []):
            meaning += f" (default: {flag.default})"
        rows.append((form, meaning))
    if "config" in values:
        listing = values["config"].default or "configs/base.py"
        rows.append(("--config.KEY=VALUE", f"overrides one key; {listing} lists them all"))
    column = 2 + max(len(form) for form, _ in rows)
    wrapped = textwrap.TextWrapper(
        100, initial_indent="  ", subsequent_indent=" " * (column + 2), break_on_hyphens=False
    )
    lines = [wrapped.fill(f"{form:<{column}}{meaning}") for form, meaning in rows]
    if "config" in values:
        lines += ["", EXECUTED]
    return f"{doc.strip()}\n\n" + "\n".join(lines)


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
    module_spec = importlib.util.spec_from_file_location(f"config_{path.stem}", file)
    module = importlib.util.module_from_spec(module_spec)
    with executing(spec):
        module_spec.loader.exec_module(module)
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
