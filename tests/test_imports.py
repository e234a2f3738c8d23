"""Tests the structure of the code: imports only point down, no cycles, bounded sizes."""

import pytest

from tests import house
from tests.house import ROOMS, ROOT

# The other rooms that each room may import.
ARROWS = {
    "launch": {"train", "model", "data", "scaling", "configs"},
    "train": {"model", "data"},
    "model": set(),
    "data": set(),
    "scaling": set(),
    "configs": set(),
}
# The third-party packages that each room must not import.
FORBIDDEN = {
    "data": {"jax", "flax", "optax", "orbax", "torch", "ml_collections"},
    "scaling": {"jax", "flax", "optax", "orbax", "torch", "ml_collections"},
    "model": {"optax", "orbax", "torch", "ml_collections"},
    "configs": {"jax", "flax", "optax", "orbax", "torch", "numpy", "scipy"},
}
# Allowances for sizes above the limits: lower or remove them, never raise them.
FOLDERS_ABOVE: dict[str, int] = {}
FILES_ABOVE: dict[str, int] = {}
FUNCTIONS_ABOVE: dict[str, int] = {}
# Import cycles that are still allowed.
CYCLES: list[list[str]] = []
FREE = ("tests/golden",)  # folders that may hold any number of files

MOST_FILES, MOST_LINES, MOST_FUNCTION_LINES = 12, 400, 80


def wrong(room: str, source: str) -> set[str]:
    """The imports that are forbidden in a file of `room`."""
    ours = set(ROOMS) | {"tests", "."}
    allowed = ARROWS[room] | {room}
    packages = {name.partition(".")[0] or "." for name in house.names(source)}
    return packages & ((ours - allowed) | FORBIDDEN.get(room, set()))


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


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    found = house.sources()
    assert {file.partition("/")[0] for file in found} == {*ROOMS, "tests"}
    return found


def test_no_circle_of_files(texts):
    assert house.cycles(house.imports(texts)) == CYCLES


@pytest.mark.parametrize(
    ("planted", "circle"),
    [
        ({"data/a.py": "import data.b", "data/b.py": "from data import a"}, ["a", "b"]),
        (
            {
                "data/a.py": "from data.b import f",
                "data/b.py": "def f():\n    from data.c.d import g",
                "data/c/d.py": "if TYPE_CHECKING:\n    from data.a import x",
            },
            ["a", "b", "c/d"],
        ),
        (
            {"data/a/__init__.py": "import data.b", "data/b.py": "from data.a import TABLE"},
            ["a/__init__", "b"],
        ),
        (
            {"data/a.py": "import data.b", "data/b.py": "import_module('data.a')"},
            ["a", "b"],
        ),
    ],
)
def test_a_planted_circle_is_caught(texts, planted, circle):
    found = house.cycles(house.imports(texts | planted))
    assert found == sorted([*CYCLES, [f"data/{name}.py" for name in circle]])
    straight = planted | {list(planted)[-1]: "import numpy"}
    assert house.cycles(house.imports(texts | straight)) == CYCLES


def verb_imports(texts: dict[str, str]) -> dict[str, set[str]]:
    """The verbs that import other verbs, with the verbs that they import."""
    verbs = set(house.inside(texts, "launch/verbs"))
    graph = house.imports(texts)
    return {file: found for file in verbs if (found := graph[file] & verbs)}


def test_no_verb_imports_another(texts):
    assert verb_imports(texts) == {}
    planted = {"launch/verbs/new.py": "def f():\n    from launch.verbs.results import fit"}
    assert verb_imports(texts | planted) == {"launch/verbs/new.py": {"launch/verbs/results/fit.py"}}


def test_a_circle_through_two_rooms_is_caught(texts):
    planted = {"train/a.py": "import launch.b", "launch/b.py": "def f():\n    import train.a"}
    found = house.cycles(house.imports(texts | planted))
    assert ["launch/b.py", "train/a.py"] in found


def above(sizes: dict[str, int], most: int, allowed: dict[str, int]) -> dict[str, int]:
    """Sizes above both `most` and their allowance, and sizes that no longer need an allowance."""
    wrong = {name: size for name, size in sizes.items() if size > max(most, allowed.get(name, 0))}
    unused = {name: sizes.get(name, 0) for name in allowed if sizes.get(name, 0) <= most}
    return wrong | unused


def test_no_folder_holds_more_than_twelve_files(texts):
    sizes = {k: n for k, n in house.folder_sizes(texts).items() if k not in FREE}
    assert above(sizes, MOST_FILES, FOLDERS_ABOVE) == {}
    full = dict.fromkeys((f"data/new/f{n}.py" for n in range(13)), "x = 1\n")
    sizes |= house.folder_sizes(full)
    assert above(sizes, MOST_FILES, FOLDERS_ABOVE) == {"data/new": 13}


def test_no_file_is_longer_than_400_lines(texts):
    sizes = {file: house.lines(text) for file, text in texts.items()}
    assert above(sizes, MOST_LINES, FILES_ABOVE) == {}
    sizes["data/long.py"] = house.lines("x = 1\n" * 401)
    assert above(sizes, MOST_LINES, FILES_ABOVE) == {"data/long.py": 401}


def test_no_function_is_longer_than_80_lines(texts):
    assert above(house.function_sizes(texts), MOST_FUNCTION_LINES, FUNCTIONS_ABOVE) == {}
    long = "class A:\n  def f(self):\n" + "    x = 1\n" * 80 + "  def g(self): pass\n"
    sizes = house.function_sizes(texts | {"data/long.py": long})
    assert above(sizes, MOST_FUNCTION_LINES, FUNCTIONS_ABOVE) == {"data/long.py:f": 81}


def test_an_allowance_shrinks():
    assert above({"a": 14}, 12, {"a": 13}) == {"a": 14}  # worse than allowed
    assert above({"a": 13}, 12, {"a": 13}) == {}
    assert above({"a": 12}, 12, {"a": 13}) == {"a": 12}  # fixed: remove the allowance
    assert above({}, 12, {"a": 13}) == {"a": 0}  # the file is gone


def test_floors_are_the_longest_chain():
    chain = {"data/a.py": "import data.b", "data/b.py": "import data.c", "data/c.py": "x = 1"}
    assert house.levels(house.imports(chain)) == 3
    assert house.levels(house.imports(chain | {"data/d.py": "import data.c"})) == 3
    circle = chain | {"data/c.py": "import data.b"}  # b and c are one level of two files
    assert house.levels(house.imports(circle)) == 3
    assert house.levels({}) == 0


def test_the_table_counts_every_line_once(texts):
    rows = {line.split()[0]: line.split()[1:] for line in house.table(ROOT).splitlines()}
    product, tests = (
        sum(house.lines(text) for file, text in texts.items() if file.startswith("tests/") == those)
        for those in (False, True)
    )
    assert rows["all"][-2:] == [str(product), str(tests)] and rows["tests"][-1] == str(tests)
    assert sum(int(rows[room][-2]) for room in ROOMS) == product
