"""The record of a cluster: what `up` created, so that `down` deletes that and nothing else.

One JSON file a cluster, NAME.json, in the folder of --records. It is written before anything is
created and after each change, so an `up` that is killed leaves nothing unrecorded.
"""

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data.atomic import write_atomic
from data.local import parse_object
from launch.cluster.request import Request, request_of
from launch.errors import writing

TIME = "%Y-%m-%dT%H:%M:%SZ"  # in UTC
REMEDY = "it lists what a cluster created: delete that by hand, then the file"


@dataclass
class Record:
    """What is known of one cluster. `resources` are what it created or was about to create, each a
    dict that its provider reads; `given` are the options of the first `up`."""

    folder: Path
    name: str
    id: str
    on: str
    given: dict[str, Any]
    resources: list[dict[str, Any]] = field(default_factory=list)
    created: str = field(default_factory=lambda: time.strftime(TIME, time.gmtime()))

    @property
    def request(self) -> Request:
        """What the cluster was asked for."""
        return request_of(self.name, self.id, self.given, self.created)

    @property
    def file(self) -> Path:
        return self.folder / f"{self.name}.json"

    def save(self) -> None:
        """Writes the file; BadInput, which names --records, if that fails."""
        about = {key: value for key, value in vars(self).items() if key != "folder"}
        with writing("records", self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomic(self.file, (json.dumps(about, indent=1) + "\n").encode())

    def remove(self) -> None:
        with writing("records", self.folder):
            self.file.unlink()


def read(folder: Path, name: str) -> Record | None:
    """The record of a cluster; None without one, ValueError if it is damaged."""
    file = folder / f"{name}.json"
    try:
        found = parse_object(file.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"{file} is no record of a cluster ({error}); {REMEDY}") from None
    keys = {"name": str, "id": str, "on": str, "given": dict, "resources": list, "created": str}
    wrong = [key for key, kind in keys.items() if not isinstance(found.get(key), kind)]
    if wrong or set(found) - set(keys):
        raise ValueError(f"{file} is no record of a cluster ({', '.join(wrong)}); {REMEDY}")
    return Record(folder, **found)


def known(folder: Path) -> list[str]:
    """The names of the clusters that have a record."""
    return sorted(file.stem for file in folder.glob("*.json")) if folder.is_dir() else []
