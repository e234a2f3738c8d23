"""Tests of every reader of a JSON file: damage is one line that names the file, or is left out."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from configs import base
from data import build, shards
from data import tokenizer as tokenizers
from data.sources.formats import read_file
from data.tokenizer_files import added_tokens, exported, published
from launch import files
from launch.compile import docs_table
from launch.config import sweep_file
from launch.sweep import expand
from launch.sweep.followed import Followed
from launch.trial import fingerprint, folder, start, trunk
from model.huggingface import safetensors, weights
from scaling.design.planning import read_law
from scaling.design.prediction import read_predictions
from scaling.report.page import read_configs
from scaling.runs import read_runs
from tests.faults.test_data_faults import DAMAGED_JSON
from train import checkpoint, metrics

DAMAGED = DAMAGED_JSON | {"another object": b'{"a": [1]}', "of another shape": b'{"model": [1]}'}
ROW = next(iter(docs_table.COMPILED))
OBJECTS = {"object", "another object", "of another shape"}
"""Damage that is no damage to files whose keys may all be missing."""


def written(path: Path, raw: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(raw)
    return path


def header(path: Path) -> None:
    raw = path.read_bytes()
    path.write_bytes(len(raw).to_bytes(8, "little") + raw)
    safetensors.tensors(path.parent)


def trained_from(run: Path) -> Any:
    """The config of a trial that branches from `run`."""
    config = base.get_config()
    config.seed = 7
    config.checkpoint.trunk = str(run)
    return config


def sweep(path: Path) -> None:
    plan = SimpleNamespace(base=base.get_config(), trials=(), spec="s.py")
    expand.record(plan, path.parent)


def vocabulary(path: Path) -> None:
    written(path.with_name("tokenizer_config.json"), b'{"eos_token": "x"}')
    added_tokens.end_ids(path.parent)


def rows(path: Path) -> list[str]:
    return list(read_file(path, "text", single=True))


# A file -> what reads it, and the damage that it accepts because its keys are optional.
READERS: dict[str, tuple[str, Callable[[Path], Any], set[str]]] = {
    "config of a run": ("config.json", lambda p: files.read_model(p.parent, "run"), set()),
    "config in a workdir": (
        "config.json",
        lambda p: folder.require_same(trained_from(p.parent), trained_from(p.parent), p.parent),
        set(),
    ),
    "config of a trunk": (
        "config.json", lambda p: trunk.branch_until(trained_from(p.parent)), set(),
    ),
    "config of init_from": ("config.json", lambda p: start.model_section(p.parent), set()),
    "code of a run": (
        "config.json", lambda p: fingerprint.warning(p.parent, True), OBJECTS,
    ),
    "result": ("result.json", lambda p: files.ended(p.parent), set()),
    "result of a run to fit": ("a/result.json", lambda p: read_runs(p.parents[1]), set()),
    "sweep": ("sweep.json", sweep, set()),
    "file of a sweep": ("proposed.json", sweep_file.read, set()),
    "law": ("law.json", read_law, set()),
    "prediction": ("prediction.json", lambda p: read_predictions([p]), set()),
    "report of compile": (
        f"{ROW}.json", lambda p: docs_table._report(ROW, p.parent), OBJECTS,
    ),
    "manifest of a dataset": ("manifest.json", lambda p: shards.read_manifest(p.parent), set()),
    "saved tokenizer": ("tokenizer.json", lambda p: tokenizers.read_saved(p.parent), set()),
    "Hugging Face config": (
        "config.json", lambda p: weights.load(p.parent), set(),
    ),
    "index of weights": (safetensors.INDEX, lambda p: safetensors.tensors(p.parent), set()),
    "header of weights": (safetensors.SINGLE, header, {"object"}),
    "ends in config": ("config.json", lambda p: added_tokens.end_ids(p.parent), OBJECTS),
    "ends": ("generation_config.json", lambda p: added_tokens.end_ids(p.parent), OBJECTS),
    "end of a tokenizer": (
        "tokenizer_config.json", lambda p: added_tokens.end_ids(p.parent), OBJECTS,
    ),
    "map of special tokens": (
        "special_tokens_map.json", lambda p: added_tokens.end_ids(p.parent), OBJECTS,
    ),
    "added tokens": (
        "added_tokens.json", lambda p: added_tokens.added_tokens(p.parent), {"object"},
    ),
    "vocabulary": ("vocab.json", vocabulary, OBJECTS),
    "tokenizer settings": (
        "tokenizer_config.json", lambda p: added_tokens.added_tokens(p.parent), OBJECTS,
    ),
    "rows": ("rows.jsonl", rows, {"empty"}),
    "array of rows": ("rows.json", rows, {"array"}),
}  # fmt: skip


@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_is_one_line_that_names_it(name, tmp_path):
    file, read, optional = READERS[name]
    for damage, raw in DAMAGED.items():
        path = written(tmp_path / file, raw)
        if damage in optional:
            read(path)
            continue
        with pytest.raises(ValueError) as refusal:
            read(path)
        line = str(refusal.value)
        assert path.name in line or str(tmp_path) in line, (damage, line)
        assert "\n" not in line and len(line) < 600, damage


# A file that can be left out, or is written again -> what reads it, and what it says then.
LEFT_OUT: dict[str, tuple[str, Callable[[Path], Any], Any]] = {
    "metrics": ("metrics.jsonl", metrics.read, []),
    "manifest of a checkpoint": (
        "10/manifest.json", lambda p: checkpoint.saved_config(p.parent), None,
    ),
    "record of a build": ("0.json", lambda p: build._finished_record(p.parent, "0"), None),
    "exported tokenizer": (
        "tokenizer.json", lambda p: exported.parse_exported(p.read_bytes()), None,
    ),
    "tokenizer of a corpus": ("tokenizer.json", lambda p: tokenizers._is_saved(p.parent), False),
}  # fmt: skip


@pytest.mark.parametrize("name", LEFT_OUT)
def test_a_damaged_file_that_is_not_needed_is_left_out(name, tmp_path):
    file, read, wanted = LEFT_OUT[name]
    for damage, raw in DAMAGED.items():
        assert read(written(tmp_path / file, raw)) == wanted, damage


def test_a_damaged_checkpoint_a_row_and_settings_are_left_out(tmp_path, capsys):
    for raw in DAMAGED.values():
        path = written(tmp_path / "10/manifest.json", raw)
        assert checkpoint.damage(path.parent) == "manifest.json cannot be read"
        file = written(tmp_path / "metrics.jsonl", b'{"step": 1}\n' + raw + b"\n")
        assert set(Followed(file).look().row) <= {"step", "a", "model"}
        written(tmp_path / "runs/x/config.json", raw)
        points = SimpleNamespace(folder=tmp_path / "runs", run=["x"])
        assert len(read_configs(points)) == (b'{"a": ' in raw or b"{}" == raw or b'"model"' in raw)
        assert capsys.readouterr().err.count("\n") <= 1


@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer_config.json", "config.json"])
def test_a_damaged_tokenizer_of_a_checkpoint_is_a_fault_of_one_line(file, tmp_path):
    written(tmp_path / "tokenizer.json", b"{}")
    for damage, raw in DAMAGED.items():
        path = written(tmp_path / file, raw)
        tokenizer, faults = published.read(tmp_path, 97)
        assert tokenizer is None and faults and all("\n" not in fault for fault in faults)
        assert path.name in "; ".join(faults) or damage in OBJECTS, faults
