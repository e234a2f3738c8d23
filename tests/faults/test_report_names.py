"""Tests of hostile names and cells in tables, folders of runs, the page and points.csv."""

import json
import re
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest

from launch.verbs.results.fit import main
from scaling.csv_file import read_csv, to_csv
from scaling.report import page
from scaling.runs import read_runs
from scaling.table import Baseline
from tests.scaling.ladder import simulate, write_runs

pytest.importorskip("altair")
pytest.importorskip("vl_convert")

NAMES = (
    "<!--<script>", "</script><b>bold", "<img src=x onerror=alert(1)>", "&amp;&lt;", "]]>",
    "\x1b[2J\x1b[31mred", "\x07\x08\x7f\x9b", "\u202e\u2066turned", "\u2028\u2029", "\ufeffmark",
    "=cmd|' /C calc'!A0", "+1", "-1", "@SUM(1)", "'=1", "''=1", "\t=1", "\r=1", "\n=1", "＝1",
    "a\nb", "a\r\nb", "a\rb", '"quoted"', "a,b", "x" * 10_000, "🧪👨‍👩‍👧", "שלום",
    "$title ${specs}", "'; alert(1)//", "__proto__", "constructor", "NaN", "None", "<!--",
)  # fmt: skip
FACTS = {"dataset": "<!--<script>", "schedule": "=1\x1b", "device": "@x", "family": "</script>"}
HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]")


def named(names):
    """A ladder whose first runs, held-out run, baseline and facts have hostile names."""
    points = simulate(sizes=12)
    run = np.array([*names[1:], *points.run[len(names) - 1 : -1], names[0]])
    baseline = Baseline(names[0], names[1], 1e4, 1e6, 0.0, 3.0, 0.01)
    facts = tuple(row | FACTS for row in points.facts or ({},) * len(points))
    return replace(points, run=run, baselines=(baseline,), facts=facts)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Draws small pictures."""
    monkeypatch.setattr(page, "PNG_SCALE", 0.5)


def report(folder, source):
    """The report page of a source, and the specifications of its figures."""
    assert main([source, f"--out={folder / 'report'}", "--draws=10"]) == 0
    text = (folder / "report" / "index.html").read_text()
    return text, json.loads(re.search(r'id="specs">(.*)</script>$', text, re.M)[1])


FIGURES = {"prediction", "frontier", "isoflop", "optimal_params", "optimal_tokens", "plane"}
FIGURES |= {"residuals", "exponents_cloud", "floor_cloud", "sensitivity"}


def check(tmp_path, text, specs, figures):
    """Asserts that all figures are present and well-formed and that names are escaped."""
    assert set(specs) == figures
    assert set(re.findall(r'<div class="chart" id="(\w+)">', text)) == set(specs)
    for name in specs:
        ElementTree.parse(tmp_path / "report/figures" / f"{name}.svg")
        assert (tmp_path / "report/figures" / f"{name}.png").stat().st_size > 1000
    line = re.search(r'id="specs">(.*)</script>$', text, re.M)[1]
    assert "<" not in line and not HIDDEN.search(line)
    shown = [string for spec in specs.values() for string in strings(spec)]
    assert not [one for one in shown if HIDDEN.search(one)] and max(map(len, shown)) < 5000
    markup = re.sub(r"(<script[^>]*>).*?</script>", r"\1", text, flags=re.DOTALL)
    assert markup.count("<script") == 3
    for raw in ("<!--", "<b>bold", "<img", "</script><", "x" * 200):
        assert raw not in markup, raw
    assert not HIDDEN.search(markup)
    assert "&lt;!--&lt;script&gt;" in markup and "\\x1b[2J\\x1b[31mred" in markup
    assert "$title ${specs}" in markup and "👨‍👩‍👧" in markup


def strings(value):
    """Every string in nested lists and dicts."""
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list):
        return [text for item in value for text in strings(item)]
    return [value] if isinstance(value, str) else []


def test_a_table_of_hostile_names_keeps_every_figure(tmp_path):
    points, table = named(NAMES), tmp_path / "points.csv"
    table.write_bytes(to_csv(points).encode())
    check(tmp_path, *report(tmp_path, f"--table={table}"), FIGURES)
    again = read_csv(tmp_path / "report/points.csv")
    assert list(again.run) == list(points.run) and again.baselines == points.baselines
    assert again.facts == points.facts
    assert (tmp_path / "report/points.csv").read_bytes() == table.read_bytes()


@pytest.mark.slow
def test_runs_of_hostile_ids_keep_every_figure(tmp_path):
    """An unpaired surrogate, which no encoding can represent, is written as its escape."""
    points = named(NAMES)
    folder = write_runs(tmp_path / "runs", simulate(sizes=12))
    paths = sorted(folder.glob("*/result.json"))
    ids = [*points.run[:-2], "\ud800half", points.run[-1]]
    for path, name in zip(paths, ids, strict=True):
        result = json.loads(path.read_text()) | {"id": str(name)} | FACTS
        path.write_text(json.dumps(result))
    assert list(read_runs(folder).run) == ids
    text, specs = report(tmp_path, f"--runs={folder}")
    check(tmp_path, text, specs, FIGURES | {"loss_curves"})
    assert "\\ud800half" in text
    (row,) = (name for name in read_csv(tmp_path / "report/points.csv").run if "half" in name)
    assert row == "\\ud800half"
