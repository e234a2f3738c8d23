"""Reads JSON objects; writes files whole or not at all."""

import json
import os
from pathlib import Path
from typing import Any


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file. ValueError in one line for other content; OSError without it."""
    try:
        content = json.loads(path.read_bytes())
    except RecursionError:
        raise ValueError(f"{path} is not valid JSON (it is nested too deeply)") from None
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error})") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no JSON object")
    return content


def write(path: Path, content: str | bytes) -> Path:
    """Replaces a file in one step; a reader sees the old or the new one, never half of it."""
    draft = draft_of(path, content)
    os.replace(draft, path)
    return path


def create(path: Path, content: str | bytes) -> bool:
    """Writes a file that must not exist yet; False where the name is taken."""
    draft = draft_of(path, content)
    try:
        os.link(draft, path)  # unlike a rename, fails where the name exists
    except FileExistsError:
        return False
    finally:
        draft.unlink()
    return True


def draft_of(path: Path, content: str | bytes) -> Path:
    """The content under a temporary name in the same folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_bytes(
        content.encode(errors="backslashreplace") if isinstance(content, str) else content
    )
    return draft
