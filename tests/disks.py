"""Disks that are small or cannot be written, for tests of what happens there."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def small(folder: Path, size: str) -> Iterator[Path]:
    """An empty disk of this size, such as "600k", at `folder`. Skips where mounting is not
    allowed."""
    folder.mkdir()
    _mount(folder, f"size={size}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@contextlib.contextmanager
def read_only(folder: Path, files: dict[str, str] | None = None) -> Iterator[Path]:
    """A folder with `files` {name: text} that cannot be written: a read-only disk for root, for
    whom permissions do not count, and otherwise a folder without the permission."""
    if os.geteuid() == 0:
        with small(folder, "1m"):
            _fill(folder, files)
            _mount(folder, "remount,ro")
            yield folder
        return
    folder.mkdir()
    _fill(folder, files)
    folder.chmod(0o500)
    yield folder
    folder.chmod(0o700)


def _fill(folder: Path, files: dict[str, str] | None) -> None:
    for name, text in (files or {}).items():
        (folder / name).write_text(text)


def _mount(folder: Path, options: str) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this machine does not let us mount a disk")
