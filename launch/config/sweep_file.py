"""A sweep as a JSON file: a config file, overrides on it, and the trials one by one.

    {"config": "configs/quickstart.py", "overrides": {"seed": 1}, "trials": [{"model.d_model": 64}]}

"overrides" and each trial map the dotted keys of the config to values, as `--config.KEY=VALUE` does
on the command line. "doc" may say where the file comes from.
"""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data.local import parse_json

KEYS = ("config", "overrides", "trials", "doc")


def write(
    path: Path, doc: str, config: str, overrides: Mapping[str, Any], trials: Sequence[Mapping]
) -> Path:
    """Writes a sweep file; returns its path."""
    from launch.files import write_json  # imports models, which reading a config does without

    content = {"doc": doc, "config": config, "overrides": dict(overrides), "trials": list(trials)}
    write_json(path, content)
    return path


def read(path: Path) -> dict[str, Any]:
    """The four KEYS of a sweep file; "overrides" and "doc" may be missing there.

    ValueError, in one line with the file, the key and the remedy, for anything else.
    """
    try:
        content = parse_json(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"config={path} is not valid JSON: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f'config={path} is not a sweep; write {{"config": …, "trials": […]}}')
    for key in content:
        if key not in KEYS:
            near = difflib.get_close_matches(key, KEYS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"use {', '.join(KEYS)}"
            raise ValueError(f"config={path}: unknown key {key}; {hint}")
    for key in ("config", "trials"):
        if key not in content:
            raise ValueError(f"config={path}: {key} is missing; {_EXPECTED[key]}")
    content = {"overrides": {}, "doc": ""} | content
    _require(path, "doc", isinstance(content["doc"], str))
    spec = content["config"]
    _require(path, "config", isinstance(spec, str) and ".py" in spec)
    _require(path, "overrides", isinstance(content["overrides"], dict))
    _refuse_sections(path, "overrides", content["overrides"])
    trials = content["trials"]
    _require(path, "trials", isinstance(trials, list) and trials != [])
    for number, trial in enumerate(trials):
        _require(path, "trials", isinstance(trial, dict))
        _refuse_sections(path, f"trials[{number}]", trial)
    return content


_EXPECTED = {
    "doc": "write text",
    "config": "name the base config: configs/FILE.py or configs/FILE.py:ARG",
    "overrides": 'write {"section.key": value, …}',
    "trials": 'write a list of one or more {"section.key": value, …}',
}


def _require(path: Path, key: str, holds: bool) -> None:
    if not holds:
        raise ValueError(f"config={path}: {key} is not valid; {_EXPECTED[key]}")


def _refuse_sections(path: Path, where: str, overrides: Mapping[str, Any]) -> None:
    """ValueError where a key is written as a section, {"model": {"d_model": 64}}."""
    for key, value in overrides.items():
        if isinstance(value, dict):
            inner = next(iter(value), "KEY")
            raise ValueError(f"config={path}: {where}.{key} is a section; write {key}.{inner}")
