"""Writes files whole or not at all."""

import os
from pathlib import Path


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
