"""This file reads and writes the JSON files of runs, each whole or not at all."""

import json
from pathlib import Path
from typing import Any

from data.shards import write_atomic


def write_json(file: Path, content: Any) -> None:
    """Writes `content` in place of `file`, making its folder if need be."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(file, (json.dumps(content, indent=1, default=str) + "\n").encode())


def read_json(file: Path) -> dict | None:
    """The content of a JSON file; None if it is not there, ValueError if it is damaged."""
    try:
        return json.loads(file.read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"{file} is not valid JSON ({error}); delete it and run again") from None
