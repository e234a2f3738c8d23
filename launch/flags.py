"""Reads the command line: flags, and the `--config.key=value` among them."""

import difflib
import re
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from data.files import is_remote, path_of, to_path
from launch.config import imports
from launch.errors import BadInput, bad_input, writing
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


def require_writable(path: Path, name: str, is_file: bool = False) -> None:
    """BadInput if this process may not write into a folder, which need not exist yet, or, with
    `is_file`, into the folder of a file. Verbs ask it before long work."""
    folder = path.parent if is_file else path
    if is_remote(folder):
        from data.buckets import reach  # slow to import

        with bad_input():
            reach.require_writable(folder, f"--{name}")
        return
    from data import atomic  # most verbs that read results need none of it

    with writing(name, path):
        atomic.require_writable(folder)


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
        given = re.findall(r"^--?(\w+)(?:=.|$)", "\n".join(verb_args), re.MULTILINE)
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
    if "json" in values and values["json"].value:
        require_writable(to_path(values["json"].value), "json", is_file=True)
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
