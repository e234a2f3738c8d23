"""Reads JSON, with one-line errors, and seals it with a checksum."""

import hashlib
import json


def parse_json(raw: bytes | str) -> object:
    """The value of a JSON text; ValueError in one line if it is damaged or nested too deeply."""
    try:
        return json.loads(raw)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def parse_object(raw: bytes) -> dict:
    """The JSON object in `raw`; ValueError in one line for anything else."""
    value = parse_json(raw)
    if not isinstance(value, dict):
        raise ValueError(f"it holds {type(value).__name__}, not an object")
    return value


def sealed(about: dict) -> bytes:
    """`about` as JSON, with a checksum that `unsealed` verifies."""
    return json.dumps({**about, "checksum": _checksum(about)}, indent=1).encode()


def unsealed(raw: bytes) -> dict:
    """Parses what `sealed` returned, checksum included; ValueError if it has changed."""
    about = parse_object(raw)
    try:
        same = about.get("checksum") == _checksum(about)
    except RecursionError:
        same = False
    if not same:
        raise ValueError("its checksum does not match")
    return about


def _checksum(about: dict) -> str:
    content = {key: value for key, value in about.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
