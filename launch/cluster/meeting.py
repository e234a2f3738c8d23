"""The folder of the shared --workdir in which the machines of a cluster meet."""

import json
from pathlib import Path

from data.atomic import write_atomic

HEAD, EXIT = "head.json", "exit.json"
"""The address of Ray's head with the token that it asks for; the exit code of the command."""


def read(home: Path, name: str) -> dict | None:
    """A file of the folder; None if it is not there, or half-written."""
    try:
        return json.loads((home / name).read_text())
    except (OSError, ValueError):
        return None


def write(home: Path, name: str, content: dict) -> None:
    """Replaces a file of the folder in one step."""
    home.mkdir(parents=True, exist_ok=True)
    write_atomic(home / name, json.dumps(content).encode())
