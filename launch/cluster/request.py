"""What `isoflop cluster` is asked for, before any provider is known."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from launch.cluster.accelerators import Accelerator, accelerator
from launch.errors import PREEMPTED

NAME = re.compile(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?")  # valid for every provider

# --job -> what the machines do with --config.
JOBS = {
    "sweep": "a sweep, scheduled by Ray on all machines",
    "train": "one large run on all hosts",
    "parts": "a sweep in static shares, without Ray",
}


AGAIN = [PREEMPTED, *range(127, 256)]
"""Exit codes after which a command is started again: preempted, killed by a signal, gone."""


@dataclass(frozen=True)
class Request:
    """The options of `isoflop cluster up`; '' and 0 stand for what is not given."""

    name: str
    id: str  # of this cluster, in the names and labels of all that it creates: 6 hex digits
    accelerator: Accelerator | None = None
    slices: int = 1
    nodes: int = 0
    zones: tuple[str, ...] = ()
    project: str = ""
    context: str = ""
    namespace: str = ""  # of `context`, as `up` found it
    spot: bool = False
    reservation: str = ""
    valid_until: str = ""
    image: str = ""
    workdir: str = ""
    job: str = "sweep"
    config: str = ""
    overrides: tuple[tuple[str, str], ...] = ()
    flags: tuple[str, ...] = ()  # more flags of the command that the machines run
    imports: tuple[str, ...] = ()
    queue: str = ""
    priority: str = ""
    time: str = ""
    code: str = ""  # where the machines find the checkout, once it is there
    created: str = ""  # when, in UTC: all machines install the newest packages of that time

    @property
    def labels(self) -> dict[str, str]:
        """What every created thing carries."""
        return {"isoflop-cluster": self.name, "isoflop-cluster-id": self.id}

    @property
    def home(self) -> str:
        """The folder in --workdir where the machines of this cluster meet."""
        return f"{self.workdir.rstrip('/')}/machines/{self.name}-{self.id}"

    def command(self, verb: str, *more: str) -> list[str]:
        """`isoflop VERB` on the config, with its overrides, imports and further flags."""
        given = [f"--config={self.config}", f"--workdir={self.workdir}"]
        given += [f"--import={file}" for file in self.imports]
        given += [f"--config.{key}={value}" for key, value in self.overrides]
        return ["isoflop", verb, *given, *more, *self.flags]

    @property
    def platform(self) -> str:
        """What the machines that do the work have: 'tpu', 'gpu' or 'cpu'."""
        if self.accelerator is None:
            return "cpu"
        return "tpu" if self.accelerator.tpu else "gpu"


@dataclass(frozen=True)
class Plan:
    """What a provider would do: `lines` to read, and `documents` to send, by file name.

    `resources` is what `up` creates; each is recorded before it is created.
    """

    lines: tuple[str, ...]
    documents: dict[str, str] = field(default_factory=dict)
    resources: tuple[dict, ...] = ()


def request_of(name: str, id: str, given: Mapping[str, Any], created: str = "") -> Request:
    """The request of the options in a record, or on a command line. ValueError for an accelerator
    that nobody has."""
    options = dict(given)
    if found := options.pop("accelerator", ""):
        options["accelerator"] = accelerator(found)
    zones = [zone.strip() for zone in options.pop("zone", "").split(",")]
    options["zones"] = tuple(filter(None, zones))
    options["overrides"] = tuple((key, value) for key, value in options.get("overrides", ()))
    options["imports"] = tuple(options.get("imports", ()))
    options["flags"] = tuple(options.get("flags", ()))
    return Request(name, id, created=created, **options)


def check_name(name: str) -> str:
    """The name; ValueError if it is not valid for every provider."""
    if not NAME.fullmatch(name):
        raise ValueError(
            f"name={name!r} is not valid; use up to 40 lower-case letters, digits and dashes that "
            "begin with a letter and end with a letter or a digit"
        )
    return name


def to_yaml(objects: list[dict[str, Any]]) -> str:
    """The objects as the documents of one YAML file."""
    return yaml.dump_all(objects, Dumper=_Plain, sort_keys=False, width=1000)


class _Plain(yaml.SafeDumper):
    """Writes what occurs twice in full, texts of several lines as blocks, numbers in one line."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _list(dumper: yaml.SafeDumper, items: list) -> yaml.Node:
    numbers = all(isinstance(item, int) for item in items)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=numbers)


_Plain.add_representer(str, _text)
_Plain.add_representer(list, _list)
