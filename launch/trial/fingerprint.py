"""The fingerprint of the code that trains: which files can change a number, and which have changed.

config.json keeps a hash of every such file. Comments, docstrings and formatting do not count.
"""

import ast
import functools
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from launch.checkout import ROOT, commit
from launch.files import AGAIN, read_config, read_json
from scaling import drafts

# Files and folders whose code can change the numbers of a trial.
TRAINING = (
    *("configs/base.py", "data", "model", "train"),
    *(f"launch/trial/{name}.py" for name in ("resolve", "start", "trunk")),
)
SWEEPS_CODE = "code.json"  # of a sweep whose trials several machines train
# What lies in them and changes none.
OTHER = ("model/generation/", "train/ahead_of_time/", "train/progress.py")


def file_hash(source: str) -> str:
    """12 hex digits of the SHA-256 of Python code without comments, docstrings and formatting."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            if isinstance(getattr(body[0].value, "value", None), str):
                body[0].value = ast.Constant("")
    return hashlib.sha256(ast.unparse(tree).encode()).hexdigest()[:12]


@functools.cache
def files(root: Path = ROOT) -> dict[str, str]:
    """Path in the checkout → hash, of every file that can change a number. Read once a process."""
    paths = [p for name in TRAINING for p in sorted((root / name).rglob("*.py")) or [root / name]]
    names = {path.relative_to(root).as_posix(): path for path in paths}
    return {
        name: file_hash(path.read_text("utf-8"))
        for name, path in names.items()
        if not name.startswith(OTHER)
    }


def of_files(hashes: dict[str, str]) -> str:
    """16 hex digits for the whole code."""
    return hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()[:16]


def changed(workdir: Path) -> list[str]:
    """The files that differ from those that the run in `workdir` was trained with; [] if there is
    no run, or one of a version that kept no fingerprint."""
    there = _kept(workdir).get("files")
    if not isinstance(there, dict):
        return []
    here = files()
    return sorted(name for name in there.keys() | here.keys() if there.get(name) != here.get(name))


def record(workdir: Path) -> dict[str, Any]:
    """What config.json says of the code from now on: its fingerprint, those that trained the run
    before it (`earlier`), and the hash of each file."""
    before, own = _kept(workdir), of_files(files())
    chain = [*before.get("earlier", ()), before.get("fingerprint", own)]
    return {
        "fingerprint": own,
        "earlier": [one for one in dict.fromkeys(chain) if one != own],
        "files": files(),
    }


def warning(workdir: Path, ended: bool) -> str:
    """A line for a run whose code has changed since; "" if it has not."""
    if not (names := changed(workdir)):
        return ""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    what = "was trained by other code than this" if ended else "goes on with other code"
    return (
        f"warning: {workdir} {what}; changed since: {', '.join(names[:5])}{more}. To train all of "
        "it with this code, choose another --workdir"
    )


def shared(sweep: Path) -> bool:
    """Whether several machines have trained in the folder of a sweep."""
    return (sweep / SWEEPS_CODE).exists()


def require_same(sweep: Path) -> None:
    """ValueError, with the first file that differs, unless this is the code of the drivers that
    trained in the folder of a sweep before. The first of them writes code.json."""
    here, file = files(), sweep / SWEEPS_CODE
    if not file.exists():
        known = (_kept(trial.parent) for trial in sorted(sweep.glob("*/config.json")))
        _require_files(here, next((one for one in known if "files" in one), {}), sweep)
        own = {"fingerprint": of_files(here), "commit": commit(), "files": here}
        drafts.create(file, json.dumps(own, indent=1) + "\n")
    _require_files(here, read_json(file, AGAIN) or {}, sweep)  # of the driver that was first


def _require_files(here: dict[str, str], kept: Mapping[str, Any], sweep: Path) -> None:
    """ValueError if a config.json or code.json lists other files than `here`."""
    there = kept.get("files")
    if not isinstance(there, dict) or there == here:
        return
    names = sorted(n for n in there.keys() | here.keys() if there.get(n) != here.get(n))
    more = len(names) - 1
    which = f"{names[0]} and {more} more differ" if more else f"{names[0]} differs"
    at = f" at commit {kept['commit'][:12]}" if kept.get("commit") else ""
    raise ValueError(
        f"--workdir={sweep} was trained by other code than this: {which}; "
        f"check out that code{at}, or choose another --workdir"
    )


def _kept(workdir: Path) -> dict[str, Any]:
    code = (read_config(workdir) or {}).get("code")
    return code if isinstance(code, dict) else {}
