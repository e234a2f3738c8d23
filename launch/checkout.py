"""The checkout that runs: its folder and its commit."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMMIT = "COMMIT"  # the file that holds the commit of a copy of this checkout, made for a cluster


def commit() -> str | None:
    """The commit of this checkout, with '+' if tracked files have changed; None outside git."""
    if (kept := ROOT / COMMIT).exists():
        return kept.read_text() or None
    answers = []
    for command in (("rev-parse", "HEAD"), ("status", "--porcelain", "-uno")):
        try:
            git = ["git", "-C", str(ROOT), *command]
            answers.append(subprocess.run(git, capture_output=True, text=True, check=True).stdout)
        except (OSError, subprocess.CalledProcessError):
            return None
    return answers[0].strip() + ("+" if answers[1].strip() else "")
