"""This file holds the house together: an import may point down a floor, never up or sideways."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("configs", "data", "launch", "model", "scaling", "train")

# What each room may import of ours, itself aside.
ARROWS = {
    "launch": {"train", "model", "data", "scaling", "configs"},
    "train": {"model", "data"},
    "model": set(),
    "data": set(),
    "scaling": set(),
    "configs": set(),
}
# What each ground-floor room may never import from outside.
FORBIDDEN = {
    "data": {"jax", "flax", "optax", "orbax", "torch", "ml_collections"},
    "scaling": {"jax", "flax", "optax", "orbax", "torch", "ml_collections"},
    "model": {"optax", "orbax", "torch", "ml_collections"},
    "configs": {"jax", "flax", "optax", "orbax", "torch", "numpy", "scipy"},
}


def imported(source: str) -> set[str]:
    """The top-level packages that a file imports, anywhere in it; '.' for a relative import."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add("." if node.level else node.module.split(".")[0])
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else node.func
            called = called.id if isinstance(called, ast.Name) else called
            if called in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                names.add(node.args[0].value.split(".")[0])
    return names


def wrong(room: str, source: str) -> set[str]:
    """The imports that a file of `room` may not have."""
    ours = set(ROOMS) | {"tests", "."}
    allowed = ARROWS[room] | {room}
    return imported(source) & ((ours - allowed) | FORBIDDEN.get(room, set()))


@pytest.mark.parametrize("room", ROOMS)
def test_every_arrow_points_down(room):
    files = sorted((ROOT / room).rglob("*.py"))
    assert files, f"{room}/ has no files: has the room moved?"
    found = {str(f.relative_to(ROOT)): wrong(room, f.read_text()) for f in files}
    assert {name: names for name, names in found.items() if names} == {}


def test_every_top_level_package_is_a_room():
    folders = {p.parent.name for p in ROOT.glob("*/*.py")}
    assert folders - {"tests"} == set(ROOMS)


@pytest.mark.parametrize(
    ("room", "source", "caught"),
    [
        ("model", "from data.loader import train_batch", "data"),
        ("data", "import scaling.fit", "scaling"),
        ("scaling", "from model import count", "model"),
        ("configs", "from model.config import ModelConfig", "model"),
        ("train", "from launch.trial import run", "launch"),
        ("train", "import configs.base", "configs"),
        ("train", "def f():\n    from scaling import fit", "scaling"),
        ("data", "if True:\n    import jax.numpy as jnp", "jax"),
        ("scaling", "import importlib\nimportlib.import_module('jax')", "jax"),
        ("model", "__import__('train.loop')", "train"),
        ("launch", "from tests.launch import fake", "tests"),
        ("model", "from ..data import order", "."),
    ],
)
def test_a_planted_import_is_caught(room, source, caught):
    assert wrong(room, source) == {caught}


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("launch", "import jax, train.loop, model.count, data.store, scaling.fit, configs.base"),
        ("train", "from model.transformer import Decoder\nfrom data.loader import train_batch"),
        ("model", "from model.config import ModelConfig\nimport jax"),
        ("data", '"""Unlike jax and model, …"""\nimport numpy'),
    ],
)
def test_a_good_import_passes(room, source):
    assert wrong(room, source) == set()
