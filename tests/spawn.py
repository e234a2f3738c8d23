"""Starts `isoflop train` in a process of its own, for tests of what happens to it."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def train(
    home: Path, name: str, keys: Mapping[str, Any], *flags: str, xla_flags: str = ""
) -> subprocess.Popen:
    """A run in `home`/NAME on the text of the fixture `text_folder`; its output is one pipe."""
    keys = {"data.corpora": f"{home}/text.txt", "data.cache": f"{home}/cache"} | dict(keys)
    environment = {
        # Stripped: XLA takes a blank for the name of a file.
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {xla_flags}".strip(),
        "JAX_COMPILATION_CACHE_DIR": str(home / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "launch", "train", "--config=configs/base.py"),
            *(f"--workdir={home}/{name}", *flags),
            *(f"--config.{key}={value}" for key, value in keys.items()),
        ],
        cwd=ROOT,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
