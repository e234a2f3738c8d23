"""The sections of a config whose keys depend on a choice: the family, the objective, the data kind.

Choosing another one swaps the section: a key that both have keeps a value that was set, every other
key of the new one gets its default, and the rest is dropped.
"""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from configs import base
from data.files import path_of
from data.kinds import KINDS
from model import families
from model.families import FAMILIES
from train.objectives import OBJECTIVES

# Section → (the key that chooses, what there is, the keys that configs/base.py lists).
CHOICES = {
    "model": ("family", FAMILIES, base.MODELS),
    "objective": ("name", OBJECTIVES, base.OBJECTIVES),
    "data": ("kind", KINDS, base.DATA),
}

ARGUMENTS = {"model": "family", "objective": "objective", "data": "kind"}  # of base.get_config


def keys_of(section: str, choice: str) -> dict[str, Any]:
    """The keys of a section with their defaults; ValueError lists the choices there are."""
    key, known, listed = CHOICES[section]
    if choice not in known:
        raise ValueError(f"{section}.{key}={choice!r} is unknown; use one of {', '.join(known)}")
    if choice in listed:
        return base.defaults(listed[choice]())
    return families.keys(known[choice]) if hasattr(known[choice], "Config") else {}


def swap(config: ConfigDict, section: str, choice: str) -> str:
    """Gives a section the keys of another choice, in place. Returns a line about the dropped keys
    that were not at their default; '' if there are none."""
    key, _, _ = CHOICES[section]
    before = config[section].to_dict()
    if before.get(key) == choice:
        return ""
    usual, wanted = keys_of(section, before[key]), keys_of(section, choice)
    given = {name: value for name, value in before.items() if value != usual.get(name)}
    kept = {name: given.get(name, default) for name, default in wanted.items()}
    replace(config, section, {key: choice} | kept)
    lost = {k: v for k, v in before.items() if k != key and k not in kept and v != usual.get(k)}
    if not lost:
        return ""
    listed = ", ".join(f"{name}={value!r}" for name, value in lost.items())
    return f"{section}.{key}={choice} has no {listed}: dropped"


def complete(config: ConfigDict) -> None:
    """Adds the keys that a section lacks because its choice is not listed in configs/base.py, with
    their defaults, in place. ValueError for a key that the choice does not have."""
    for section, (key, _, listed) in CHOICES.items():
        given = config[section].to_dict()
        if (choice := given[key]) in listed:
            continue
        keys = {key: choice} | keys_of(section, choice)
        if unknown := [name for name in given if name not in keys]:
            raise ValueError(
                f"{section}.{key}={choice!r} has no key {unknown[0]}; set it in get_config by "
                f"base.get_config({ARGUMENTS[section]}={choice!r}), or give "
                f"--config.{section}.{key}={choice}"
            )
        replace(config, section, keys | given)


def elsewhere(config: ConfigDict, key: str) -> str:
    """The other choices whose section has a dotted key that this config lacks, as the beginning of
    a hint; '' without any."""
    section, _, leaf = key.partition(".")
    if section not in CHOICES:
        return ""
    chooses, known, _ = CHOICES[section]
    if chooses not in config.get(section, {}):
        return ""
    having = [choice for choice in known if leaf in keys_of(section, choice)]
    if not having:
        return ""
    listed = ", ".join(having)
    return f"{section}.{chooses}={config[section][chooses]} has none, and these have: {listed}; "


def replace(config: ConfigDict, section: str, keys: dict[str, Any]) -> None:
    """Puts other keys in a section of a locked config."""
    with config.unlocked():
        config[section] = ConfigDict(keys)
    config[section].lock()


def apply(config: ConfigDict, overrides: Mapping[str, Any]) -> list[str]:
    """Swaps the sections that the overrides choose, in place. Weights to start from bring their own
    section `model`. Returns a line for each choice that drops keys."""
    lines = [
        swap(config, section, str(overrides[f"{section}.{key}"]))
        for section, (key, _, _) in CHOICES.items()
        if f"{section}.{key}" in overrides
    ]
    if source := overrides.get("train.init_from"):
        from launch.trial.start import model_section  # slow imports

        section = model_section(path_of(source, "train.init_from"))
        before = config.model.to_dict()
        usual = keys_of("model", before["family"])
        replace(config, "model", keys_of("model", section["family"]) | section)
        lost = {k: v for k, v in before.items() if v not in (usual.get(k), section.get(k))}
        if lost:
            listed = ", ".join(f"{name}={value!r}" for name, value in lost.items())
            lines.append(
                f"train.init_from={source} brings its own model, without {listed}: dropped"
            )
    return [line for line in lines if line]
