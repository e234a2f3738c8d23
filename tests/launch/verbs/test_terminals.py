"""Tests of terminal output: encodings, files that are written first, and progress lines."""

import io
import json
import os
import subprocess
import sys
import time

import pytest

from launch import __main__ as command
from launch import alive
from launch.checkout import ROOT
from scaling.csv_file import to_csv
from tests.scaling.design.test_planning import EPOCH, law_of
from tests.scaling.ladder import simulate


@pytest.fixture
def table(tmp_path):
    (tmp_path / "points.csv").write_text(to_csv(simulate()))
    return tmp_path / "points.csv"


@pytest.fixture
def terminal(monkeypatch):
    """A function that replaces stdout by a terminal with an encoding and returns its bytes."""
    monkeypatch.setenv("PYTHONIOENCODING", "latin-1")

    def start(encoding: str) -> io.BytesIO:
        written = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding, write_through=True))
        return written

    return start


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_every_help_can_be_read_on_any_terminal(terminal, encoding):
    for verb in command.VERBS:
        written = terminal(encoding)
        command.replace_unknown_characters()
        with pytest.raises(SystemExit) as left:
            command.main([verb, "--help"])
        assert left.value.code == 0
        shown = written.getvalue().decode(encoding)
        assert "isoflop" in shown and "--" in shown and "=..." in shown
    assert os.environ["PYTHONIOENCODING"] == "latin-1:replace"  # workers inherit it


def test_letters_that_a_terminal_lacks_are_spelled(terminal):
    for encoding, shown in (
        ("ascii", "alpha ~ 3 x 2 - ? ..."),
        ("latin-1", "alpha ~ 3 × 2 - ? ..."),
        ("utf-8", "α ∝ 3 × 2 — 語 …"),
    ):
        written = terminal(encoding)
        command.replace_unknown_characters()
        print("α ∝ 3 × 2 — 語 …", end="")
        assert written.getvalue().decode(encoding) == shown


def test_a_law_is_fitted_in_a_locale_without_greek_letters(table, tmp_path):
    environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    environment.pop("PYTHONIOENCODING", None)
    argv = ["fit", f"--table={table}", "--draws=20", f"--json={tmp_path / 'law.json'}"]
    done = subprocess.run(
        [sys.executable, "-m", "launch", *argv], cwd=ROOT, env=environment, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    assert b"A N^-alpha + B D^-beta" in done.stdout and done.stdout.isascii()
    assert json.loads((tmp_path / "law.json").read_bytes())["parametric"]["alpha"]["value"] > 0


BOOK = ("--config.data.corpora=book.txt", "--config.data.validation=0.3")


class Gone(Exception):
    """Raised by a write to a closed terminal."""


class Broken(io.StringIO):
    def write(self, text):
        raise Gone


@pytest.mark.parametrize(
    ("argv", "files"),
    [
        (["fit", "--table=points.csv", "--json=law.json", "--out=out"],
         ["law.json", "out/law.json", "out/points.csv"]),
        (["predict", "--table=points.csv", "--params=1M", "--tokens=100M"],
         ["points.prediction.json"]),
        (["compare", "points.csv", "points.csv", "--json=c.json", "--out=out"],
         ["c.json", "out/comparison.json"]),
        (["plan", "--law=epoch.json", "--flops=1e21", "--json=plan.json"], ["plan.json"]),
        (["pilot", "--law=epoch.json", "--budgets=1e18,3e18,1e19", "--json=p.json"], ["p.json"]),
        (["ngram", "--order=2", "--json=n.json", *BOOK,
          "--config.model.context_length=8", "--config.eval.sequences=2"], ["n.json"]),
        (["tokenize", "--json=t.json", *BOOK], ["t.json"]),
    ],
)  # fmt: skip
def test_files_are_written_before_anything_is_printed(table, tmp_path, monkeypatch, argv, files):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "epoch.json").write_text(json.dumps(law_of(EPOCH)))
    (tmp_path / "book.txt").write_text("".join(f"Paragraph {i}.\n\n" for i in range(2000)))
    quick = ["--draws=20"] if argv[0] in ("fit", "predict", "compare") else []
    monkeypatch.setattr("scaling.report.frame.DRAWING", ("no_such_package",))
    monkeypatch.setattr(sys, "stdout", Broken())
    with pytest.raises(Gone):
        command.main([*argv, *quick])
    assert [name for name in files if not (tmp_path / name).is_file()] == []


def test_a_command_that_takes_long_says_so_on_a_terminal(monkeypatch):
    shown = io.StringIO()
    shown.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", shown)
    monkeypatch.setattr(alive, "QUIET", 0.02)
    monkeypatch.setattr(alive, "EVERY", 0.02)
    with alive.alive("fitting") as detail:
        detail("bootstrap 3/8")
        time.sleep(0.3)
    first, *_, last = shown.getvalue().split("\r")[1:]
    assert first == "fitting bootstrap 3/8 … 0 s\033[K" and last == "\033[K"


def test_a_command_that_is_quick_or_not_on_a_terminal_prints_no_progress(monkeypatch):
    for terminal in (True, False):
        shown = io.StringIO()
        shown.isatty = lambda terminal=terminal: terminal
        monkeypatch.setattr(sys, "stderr", shown)
        monkeypatch.setattr(alive, "QUIET", 60.0 if terminal else 0.0)
        with alive.alive("fitting"):
            time.sleep(0.05)
        assert shown.getvalue() == ""
    monkeypatch.setattr(alive, "SELDOM", 0.02)
    with alive.alive("fitting"):
        time.sleep(0.1)
    assert shown.getvalue().startswith("fitting … 0 s\n")
