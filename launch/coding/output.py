"""Where `isoflop compress` and `isoflop decompress` write."""

from pathlib import Path

from data.files import is_remote, to_path

SUFFIX = ".iso"


def output(given: str | None, usual: Path, source: Path) -> Path:
    """The file to write: `given`, which is replaced, or else `usual`, which must not exist.
    ValueError, in one line, if it is not a file, or is `source`, the file that is read."""
    out = to_path(given) if given else usual
    if not given and out.exists():
        raise ValueError(f"out={out} exists; delete it, or name it with --out to replace it")
    if out.exists() and not out.is_file():
        kind = "a folder" if out.is_dir() else "a device or a pipe"
        raise ValueError(f"out={out} is {kind}, which is not replaced; name a file")
    local = not is_remote(out) and not is_remote(source)
    if out == source or (local and out.exists() and out.samefile(source)):
        raise ValueError(f"out={out} is the file that is read; name another one")
    return out
