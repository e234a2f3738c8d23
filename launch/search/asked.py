"""What a search has asked for so far, and what came of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Asked:
    """One configuration that a search has asked for.

    `status` is "done", "diverged", "stopped", "failed", "running" (also: about to start) or
    "invalid", for one that no model can have. `loss`, in nats, is the mean over its seeds: the
    final one, or where it was stopped the one after `tokens`.
    """

    overrides: Mapping[str, Any]
    status: str = "running"
    loss: float | None = None
    tokens: int = 0
