"""Tests of every verb that writes, on a disk that cannot be written: one line names the flag."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from launch import __main__ as command
from launch.compile import docs_table, variants
from scaling.csv_file import to_csv
from tests import disks
from tests.model import golden
from tests.scaling.design.test_planning import EPOCH, law_of
from tests.scaling.ladder import simulate
from tests.scaling.report.test_sweep_page import write_sweep

HF = golden.FOLDER / "hf" / "llama_gqa"
TEXT = ("--config.data.corpora=book.txt", "--config.data.validation=0.3")
BASE = ("--config=configs/base.py", *TEXT)
SWEEP = """from configs import base
def get_config(arg=None):
    config = base.get_config()
    config.data.corpora, config.data.validation = ("book.txt",), 0.3
    return config
def get_sweep(config):
    return [{"model.d_model": 16, "train.duration": "5 steps"}]
"""
PAGE = f"{docs_table.BEGIN}\n{docs_table.END}\n"

DRAWN = {"prompt": "a", "responses": ["b"], "scores": [1.0]}
ANSWERS = {"run": "run", "tasks": [{"tokens": 9, "temperature": 1.0, "responses": [DRAWN]}]}

CLUSTER = ["cluster", "up", "--on=slurm", "--name=a", "--nodes=1", "--config=configs/base.py"]

# The flag or key that each command cannot write -> the command; DISK is read-only.
COMMANDS = [
    ("workdir", ["train", *BASE, "--workdir=DISK/x"]),
    ("workdir", ["sweep", "--config=sweep.py", "--workdir=DISK/x"]),
    ("workdir", ["pilot", *BASE, "--workdir=DISK/x", "--budgets=1e14,3e14,9e14"]),
    *(
        ("data.cache", [*argv, "--config.data.cache=DISK/x"])
        for argv in (
            ["train", *BASE, "--workdir=x"],
            ["sweep", "--config=sweep.py", "--workdir=x"],
            ["pilot", *BASE, "--workdir=x", "--budgets=1e14,3e14,9e14"],
            ["tokenize", *BASE],
            ["tokenize", *BASE, "--config.data.tokenizer=chars"],
            ["ngram", *BASE],
        )
    ),
    *(
        (flag, [*argv, f"--{flag}=DISK/x"])
        for flag, argv in (
            ("out", ["fit", "--table=points.csv", "--draws=0"]),
            ("out", ["predict", "--table=points.csv", "--params=1M", "--tokens=9M", "--draws=9"]),
            ("out", ["report", "trials"]),
            ("out", ["rank", "trials"]),
            ("json", ["rank", "trials", "--out=ranked"]),
            ("csv", ["runs", "trials"]),
            ("out", ["export", "trials", "--to=csv"]),
            ("out", ["compress", "book.txt", "--run=RUN"]),
            ("out", ["overoptimisation", "--samples=rewards.npz", "--draws=0"]),
            ("out", ["rewards", "--answers=answers.json", "--policy=answers.json"]),
            ("out", ["index", "--texts=book.txt"]),
            ("out", ["inspect", "--run=RUN", "--text=ab", "--noablate"]),
            ("out", ["probe", "--run=RUN", "--pairs=pairs.jsonl"]),
            ("out", ["compare", "points.csv", "points.csv", "--draws=0"]),
            ("out", ["clean", "--config.input.corpora=book.txt"]),
            ("out", ["tokenize", "--compare=bytes"]),
            ("to", ["convert", f"--from_hf={HF}"]),
            ("to", ["synthesise", "--count=10"]),
            ("to_hf", ["convert", "--from=RUN"]),
            ("to_gguf", ["convert", "--from=RUN"]),
            ("to", ["quantise", "RUN"]),
            ("curve", ["quantise", "RUN"]),
            ("to", ["extend", "--run=RUN", "--token=<|a|>"]),
            ("hlo", ["compile", *BASE, "--topology=v5e:2x2"]),
        )
    ),
    ("records", [*CLUSTER, "--workdir=/shared/x", "--records=DISK/x"]),
    ("workdir", [*CLUSTER, "--workdir=DISK/x", "--records=x"]),
    ("out", ["predict", "--table=DISK/points.csv", "--params=1M", "--tokens=9M", "--draws=9"]),
    ("table", ["compile", "--table=DISK/page.md"]),
]


@pytest.fixture(scope="module")
def disk(tmp_path_factory):
    files = {"points.csv": to_csv(simulate()), "page.md": PAGE}
    with disks.read_only(tmp_path_factory.mktemp("disk") / "disk", files) as folder:
        yield folder


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A folder with what the commands read."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "book.txt").write_text("".join(f"Paragraph {i}.\n\n" for i in range(3000)))
    (folder / "sweep.py").write_text(SWEEP)
    (folder / "points.csv").write_text(to_csv(simulate()))
    write_sweep(folder / "trials")
    np.savez(folder / "rewards.npz", proxy=np.eye(4, 9), gold=np.eye(4, 9))
    (folder / "answers.json").write_text(json.dumps(ANSWERS))
    (folder / "law.json").write_text(json.dumps(law_of(EPOCH)))
    assert command.main(["convert", f"--from_hf={HF}", f"--to={folder / 'run'}"]) == 0
    return folder


@dataclasses.dataclass
class Program:
    text: str = "HloModule"


@pytest.fixture
def quick(monkeypatch):
    """Replaces what takes seconds before anything is written: compiling, drawing, simulating."""
    monkeypatch.setattr("launch.cluster.slurm.preflight", lambda _: None)
    monkeypatch.setattr("train.parallel.sharding.make_mesh", lambda *_: None)
    monkeypatch.setattr("train.ahead_of_time.topology.devices", lambda _: [])
    monkeypatch.setattr("train.ahead_of_time.compiled.compile_chunk", lambda *_: Program())
    monkeypatch.setattr("train.ahead_of_time.compiled.describe", lambda *_: {})

    def compile_apart(variant, _):
        variant.report = {"fits": True}

    monkeypatch.setattr(variants, "compile_apart", compile_apart)
    monkeypatch.setattr("launch.coding.coder.open_run", lambda _: None)
    monkeypatch.setattr("launch.coding.coder.compress", lambda *_: SimpleNamespace(file=b""))


@pytest.mark.parametrize(("flag", "argv"), COMMANDS)
def test_a_disk_that_cannot_be_written_is_one_line_that_names_the_flag(
    flag, argv, home, disk, quick, monkeypatch, capsys
):
    monkeypatch.chdir(home)
    places = {"DISK": str(disk), "RUN": str(home / "run")}
    for name, place in places.items():
        argv = [part.replace(name, place) for part in argv]
    capsys.readouterr()
    assert command.main(argv) == 2
    error = capsys.readouterr().err
    last = error.splitlines()[-1]
    assert f"{flag}={disk}" in last or flag == "table", error
    assert f"{flag}=" in last and "cannot be written (" in last, error
    assert "Errno" not in error and "Traceback" not in error


def test_every_flag_for_a_file_to_write_is_tried():
    written = {"workdir", "csv", "out", "to", "to_hf", "to_gguf", "curve", "hlo", "records"}
    tried = {(argv[0], flag) for flag, argv in COMMANDS} | {("export", "to")}  # names a format
    tried.add(("decompress", "out"))  # it needs a compressed file: tests/launch/coding
    tried.add(("evaluate", "out"))  # a page, which needs an index
    tried.add(("phases", "out"))  # it needs a run that answers
    for verb in command.VERBS:
        made = set(command.module_of(verb).make_flags()) & written
        assert made <= {flag for one, flag in tried if one == verb}, verb
