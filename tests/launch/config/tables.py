"""Undoes what imported files add to the tables."""

import contextlib
from collections.abc import Iterator

from launch.config import imports


@contextlib.contextmanager
def restored() -> Iterator[None]:
    """On leaving, the tables have the entries that they had, and no file counts as executed."""
    before = {name: dict(table) for name, table in imports._tables().items()}
    executed = dict(imports._executed)
    imports._executed.clear()
    yield
    for name, table in imports._tables().items():
        table.clear()
        table.update(before[name])
    imports._executed.clear()
    imports._executed.update(executed)
