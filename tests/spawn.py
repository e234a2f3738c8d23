"""Starts `isoflop train` in a subprocess."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CACHE = "JAX_COMPILATION_CACHE_DIR"


def arguments(home: Path, name: str, keys: Mapping[str, Any]) -> list[str]:
    """The verb and flags of a run in `home`/`name` on the text of `text_folder`, unless the keys
    have another kind of data."""
    text = {"data.corpora": f"{home}/text.txt", "data.cache": f"{home}/cache"}
    keys = ({} if "data.kind" in keys else text) | dict(keys)
    given = [f"--config.{key}={value}" for key, value in keys.items()]
    return ["train", "--config=configs/base.py", f"--workdir={home}/{name}", *given]


def train(
    home: Path, name: str, keys: Mapping[str, Any], *flags: str, xla_flags: str = ""
) -> subprocess.Popen:
    """A run with these `arguments`. stdout and stderr share one pipe."""
    environment = {
        # Stripped because XLA reads flags that begin with a space as a file name.
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {xla_flags}".strip(),
        # The fixture `compiled_once` sets these for its module.
        CACHE: os.environ.get(CACHE, str(home / "compiled")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "launch", *arguments(home, name, keys), *flags],
        cwd=ROOT,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
