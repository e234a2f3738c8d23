"""Tests `isoflop clean`: its files, its page, its errors, and that it goes on after a kill."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launch import __main__ as command
from launch.checkout import ROOT
from tests.data.cleaning.test_pipeline import content, document

EVIL = "<script>alert(1)</script> \x1b[31m " * 9


@pytest.fixture
def raw(tmp_path) -> Path:
    folder = tmp_path / "raw"
    folder.mkdir()
    texts = [*(document(seed) for seed in range(9)), document(3), EVIL]
    (folder / "<b>.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
    (folder / "bad.jsonl.zst").write_bytes(b"no")
    (folder / "x.jsonl").write_text(json.dumps({"\x1b[31mred": "x"}))
    return folder


def test_text_counts_and_page(raw, tmp_path, without_pictures, monkeypatch, capsys):
    monkeypatch.setattr("scaling.report.frame.library", lambda: "")  # seconds of Vega's code
    out = tmp_path / "out"
    argv = ["clean", f"--config.input.corpora={raw}", f"--out={out}", "--workers=1"]
    assert command.main(argv) == 0
    printed = capsys.readouterr().out
    assert re.search(r"exact_duplicate +exact +1 +0", printed)
    assert "skipped bad.jsonl.zst: is damaged or not zstandard" in printed
    assert "11 documents" in printed and "9 documents" in printed and "\x1b" not in printed
    page = (out / "index.html").read_text()
    for text in ("exact_duplicate", "Largest groups of duplicates", "bad.jsonl.zst", "Languages"):
        assert text in page
    assert "&lt;script&gt;alert(1)" in page and "<script>alert(1)" not in page
    assert "&lt;b&gt;.jsonl" in page and "<b>.jsonl" not in page and "\x1b" not in page
    before = content(out)
    assert command.main(argv) == 0  # nothing is done again
    assert {k: v for k, v in content(out).items() if "html" not in k} == {
        k: v for k, v in before.items() if "html" not in k
    }


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "out is not given; add --out=FOLDER"),
        (["--out=OUT", "--config.input.corpora=nowhere"], "input.corpora='nowhere' does not exist"),
        (["--out=OUT", "--config=configs/quickstart.py"], "has no section skip; begin from"),
        (
            ["--out=OUT", "--config.c4.min_sentence=3"],
            "unknown key config.c4.min_sentence; did you",
        ),
        (
            ["--out=OUT", "--config.skip=nonsense"],
            "skip=nonsense is not a rule; rules are too_large",
        ),
        (["--out=ftp://bucket/x"], "out='ftp://bucket/x' is a remote address"),
        (
            ["--out=OUT", "--config.c4.bad_words=\x1b[31mx"],
            r"c4.bad_words=\x1b[31mx does not exist",
        ),
    ],
)
def test_bad_input_is_one_line(argv, message, tmp_path, capsys):
    argv = [arg.replace("OUT", str(tmp_path / "out")) for arg in argv]
    assert command.main(["clean", *argv]) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.strip().splitlines()) == 1


@pytest.mark.slow
def test_a_run_that_is_killed_at_any_time_ends_with_the_same_files(tmp_path):
    raw = tmp_path / "raw.jsonl"
    rows = (json.dumps({"text": document(seed % 500)}) + "\n" for seed in range(1500))
    raw.write_text("".join(rows))
    argv = [sys.executable, "-m", "launch", "clean", f"--config.input.corpora={raw}",
            "--config.input.unit_bytes=40000", "--workers=2"]  # fmt: skip
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([*argv, f"--out={tmp_path / 'whole'}"], env=env, cwd=ROOT, check=True)
    kills = 0
    while True:
        run = subprocess.Popen([*argv, f"--out={tmp_path / 'killed'}"], env=env, cwd=ROOT)
        done = len(list((tmp_path / "killed" / ".work").glob("*.json")))
        until = time.monotonic() + 60
        while run.poll() is None and time.monotonic() < until:
            if len(list((tmp_path / "killed" / ".work").glob("*.json"))) >= done + 15:
                run.send_signal(signal.SIGKILL)
                kills += 1
                break
            time.sleep(0.01)
        if run.wait() == 0:
            break
    assert kills >= 2
    whole, killed = (
        {
            k: v
            for k, v in content(tmp_path / name).items()
            if "html" not in k and "figures" not in k
        }
        for name in ("whole", "killed")
    )
    assert whole == killed
