"""The description of one field of a batch."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Field:
    """The shape and dtype of a field in one row of a batch, and the logical axes of its shape."""

    shape: tuple[int, ...]
    dtype: Any
    axes: tuple[str | None, ...]
