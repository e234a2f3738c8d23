"""Runs the command-line tools of providers: one line where one is missing or fails."""

import shutil
import subprocess
from collections.abc import Sequence


def require(tool: str, on: str, remedy: str) -> None:
    """ValueError, with the remedy, where a tool is not on the PATH."""
    if shutil.which(tool) is None:
        raise ValueError(f"on={on} needs {tool}, which is not on the PATH; {remedy}")


def run(argv: Sequence[str], stdin: str = "", timeout: float = 120.0) -> str:
    """The output of a command. ValueError, in one line, with what it says if it fails or takes
    longer than `timeout` seconds."""
    shown = " ".join(argv[:4])
    try:
        done = subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        raise ValueError(f"{shown} … did not answer within {timeout:.0f} s; run it again") from None
    except OSError as error:
        raise ValueError(f"{argv[0]} cannot be run ({error.strerror})") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or ["it said nothing"]
        raise ValueError(f"{shown} … failed ({done.returncode}): {' '.join(said[-3:])}")
    return done.stdout
