"""Measures the structure of the code: imports between files, import cycles, sizes.

    python -m tests.house [CHECKOUT]

prints one row per folder, subfolders included: Python files in the folder itself and in total,
levels (files in the longest chain of imports inside it), cycles (groups of files that import each
other), lines of product code, and lines of the tests in the folder of the same name.
"""

import ast
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

import numpy as np
from scipy.sparse.csgraph import connected_components

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("configs", "data", "launch", "model", "scaling", "train")

Graph = Mapping[str, set[str]]
"""The files that each file imports; paths are relative to the checkout."""


@cache
def names(source: str) -> frozenset[str]:
    """Dotted names that a file imports, inside functions too; '.' stands for a relative import."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level:
            found.add(".")
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else node.func
            called = called.id if isinstance(called, ast.Name) else called
            if called in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                found.add(node.args[0].value)
    return frozenset(found)


def sources(root: Path = ROOT) -> dict[str, str]:
    """The text of every Python file of the rooms and the tests, except empty files."""
    paths = [path for room in (*ROOMS, "tests") for path in sorted((root / room).rglob("*.py"))]
    texts = {path.relative_to(root).as_posix(): path.read_text() for path in paths}
    return {file: text for file, text in texts.items() if text}


def imports(texts: Mapping[str, str]) -> Graph:
    """The imports between the files `texts`. A name imported from a file counts as that file."""
    return {
        file: {target for name in names(text) if (target := _file(name, texts))} - {file}
        for file, text in texts.items()
    }


def _file(name: str, texts: Mapping[str, str]) -> str | None:
    """The file of 'a.b.c', which may be a module, a package, or a name in one of them."""
    whole = name.replace(".", "/")
    tried = (f"{path}{end}" for path in (whole, whole.rpartition("/")[0]) for end in _ENDS)
    return next((file for file in tried if file in texts), None)


_ENDS = (".py", "/__init__.py")


def groups(graph: Graph) -> dict[str, frozenset[str]]:
    """For each file, all files in an import cycle with it, including the file itself."""
    number = {file: i for i, file in enumerate(graph)}
    matrix = np.zeros((len(graph), len(graph)), bool)
    for file in graph:
        for to in graph[file] & graph.keys():
            matrix[number[file], number[to]] = True
    labels = connected_components(matrix, connection="strong")[1]
    members = defaultdict(set)
    for file, label in zip(graph, labels, strict=True):
        members[label].add(file)
    return {file: frozenset(group) for group in members.values() for file in group}


def cycles(graph: Graph) -> list[list[str]]:
    """Groups of files that import each other, directly or indirectly."""
    return sorted(sorted(group) for group in set(groups(graph).values()) if len(group) > 1)


def levels(graph: Graph) -> int:
    """Number of files in the longest chain of imports; every file of a cycle counts."""
    group_of = groups(graph)

    @cache
    def height(group: frozenset[str]) -> int:
        below = {group_of[to] for file in group for to in graph[file] & graph.keys()} - {group}
        return len(group) + max(map(height, below), default=0)

    return max(map(height, group_of.values()), default=0)


def inside(files: Iterable[str], folder: str) -> list[str]:
    """The files in a folder and its subfolders."""
    return [file for file in files if file.startswith(f"{folder}/")]


def folder_sizes(files: Iterable[str]) -> dict[str, int]:
    """Number of files directly in each folder."""
    parents = [file.rpartition("/")[0] for file in files]
    return {folder: parents.count(folder) for folder in sorted(set(parents))}


def lines(text: str) -> int:
    return text.count("\n")


def function_sizes(texts: Mapping[str, str]) -> dict[str, int]:
    """Lines of each function or method, from its `def` on, by 'file:function'.

    If several share a name, the longest counts.
    """
    sizes: dict[str, int] = {}
    for file, text in texts.items():
        for function, size in _functions(text):
            name = f"{file}:{function}"
            sizes[name] = max(size, sizes.get(name, 0))
    return sizes


@cache
def _functions(source: str) -> list[tuple[str, int]]:
    """The name and the lines of each function of a file."""
    return [
        (node.name, node.end_lineno - node.lineno + 1)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def table(root: Path) -> str:
    """The rows that `python -m tests.house` prints."""
    texts = sources(root)
    graph, here = imports(texts), folder_sizes(texts)
    parents = {str(parent) for file in texts for parent in Path(file).parents[:-1]}
    rows = [("folder", "files", "in all", "levels", "cycles", "lines", "of tests")]
    for folder in [*sorted(folder for folder in parents if folder.split("/")[0] in ROOMS), "tests"]:
        below = inside(texts, folder)
        part = {file: graph[file] for file in below}
        tests = below if folder == "tests" else inside(texts, f"tests/{folder}")
        product = 0 if folder == "tests" else sum(lines(texts[file]) for file in below)
        sizes = (here.get(folder, 0), len(below), levels(part), len(cycles(part)), product)
        rows.append((folder, *sizes, sum(lines(texts[file]) for file in tests)))
    product = {file: graph[file] for file in texts if not file.startswith("tests/")}
    in_all = (len(product), levels(product), len(cycles(product)))
    rows.append(
        ("all rooms", "", *in_all, sum(lines(texts[file]) for file in product), rows[-1][-1])
    )
    return "\n".join(f"{row[0]:<24}" + "".join(f"{cell:>9}" for cell in row[1:]) for row in rows)


if __name__ == "__main__":
    checkout = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT
    print(table(checkout))
    for cycle in cycles(imports(sources(checkout))):
        print("cycle:", ", ".join(cycle))
