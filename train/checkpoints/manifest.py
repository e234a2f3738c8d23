"""The manifest of a checkpoint: its files with their hashes, and the `meta` of its run."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

MANIFEST = "manifest.json"


class Spoiled(OSError):
    """A checkpoint is found to be damaged while it is read."""


def sealed(files: Mapping[str, str], meta: dict, **more: Any) -> bytes:
    """A manifest of `files` (name → SHA-256, 64 hex digits), with a hash of itself."""
    body = {"files": dict(files), **more, "meta": meta}
    body["sha256"] = sha256(json.dumps(body, sort_keys=True).encode())
    return json.dumps(body).encode()


def fault(content: bytes, step: str) -> str | None:
    """What is wrong with the manifest of the checkpoint at `step`; None if nothing is."""
    try:
        body = json.loads(content)
        stated = body.pop("sha256")
        if stated != sha256(json.dumps(body, sort_keys=True).encode()):
            return f"{MANIFEST} does not match its hash"
        meta, _ = body["meta"], sorted(body["files"])
        if step != str(meta["step"]):
            return f"it is the checkpoint of step {meta['step']}"
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        return f"{MANIFEST} cannot be read"
    return None


def sha256(content: bytes) -> str:
    """The SHA-256 of `content`, in hex."""
    return hashlib.sha256(content).hexdigest()


def is_step(name: str) -> bool:
    """Whether a folder of this name holds a checkpoint."""
    return name.isascii() and name.isdecimal()
