"""Writes the functions and classes of the standard library as documents: short texts that have
nothing to do with their neighbours.

    python -m tests.bench.texts.functions functions.jsonl
"""

import ast
import json
import sys
from collections.abc import Iterator

from data.sources import corpus

LEAST, MOST = 200, 4000  # characters


def functions() -> Iterator[str]:
    """The source of every top-level function and class of LEAST to MOST characters."""
    for text in corpus.documents("stdlib"):
        try:
            tree = ast.parse(text)
        except SyntaxError:  # an example of another version of Python
            continue
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                source = ast.get_source_segment(text, node) or ""
                if LEAST <= len(source) <= MOST:
                    yield source


if __name__ == "__main__":
    with open(sys.argv[1], "w", encoding="utf-8") as file:
        for source in functions():
            file.write(json.dumps({"text": source}) + "\n")
