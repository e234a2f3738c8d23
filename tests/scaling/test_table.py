"""Tests reading points: round trips, counting conventions, and all errors."""

import csv
import json
import re
from dataclasses import replace

import numpy as np
import pytest

from scaling.csv_file import read_csv, to_csv
from scaling.fits.analysis import analyse
from scaling.laws import LAWS
from scaling.runs import read_runs
from scaling.settings import Settings
from scaling.table import Baseline, count, sha256
from tests.scaling.ladder import components, simulate, write_runs

GOOD = "params,tokens,loss\n1e6,2e7,3.1\n2e6,2e7,3.0\n"


def test_runs_become_points(tmp_path):
    truth = simulate()
    points = read_runs(write_runs(tmp_path / "runs", truth))
    assert points.tokens == pytest.approx(truth.tokens)
    assert points.params == pytest.approx(truth.params, rel=1e-4)
    assert points.holdout.sum() == 1 and points.holdout[-1]
    assert points.curves[0].shape == (10, 3)
    assert points.fact("learning_rate")[0] == 3e-3


def test_unfinished_runs_are_counted_not_used(tmp_path):
    folder = write_runs(tmp_path / "runs", simulate())
    names = sorted(path.name for path in folder.iterdir())
    for name, status in zip(names[:3], ("failed", "diverged", "failed"), strict=True):
        path = folder / name / "result.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"status": status}))
    (folder / names[3] / "result.json").unlink()
    points = read_runs(folder)
    assert points.left_out == {"failed": 2, "diverged": 1, "unfinished": 1}
    assert not set(names[:4]) & set(points.run)


def test_csv_round_trip(tmp_path):
    points = read_runs(write_runs(tmp_path / "runs", simulate()))
    path = tmp_path / "points.csv"
    path.write_text(to_csv(points))
    again = read_csv(path)
    assert sha256(again) == sha256(points)
    assert to_csv(again) == to_csv(points)
    assert np.array_equal(again.holdout, points.holdout)
    assert again.facts == points.facts


def test_hash_follows_the_data_not_their_order():
    points = simulate()
    backwards = points.select(np.arange(len(points)))
    order = np.arange(len(points))[::-1]
    for name in ("run", "params", "tokens", "flops", "loss", "loss_se"):
        object.__setattr__(backwards, name, getattr(points, name)[order])
    assert sha256(backwards) == sha256(points)
    backwards.loss[0] *= 1 + 1e-12
    assert sha256(backwards) != sha256(points)


def test_conventions_recount_the_same_runs(tmp_path):
    points = read_runs(write_runs(tmp_path / "runs", simulate()))
    parts = components(float(simulate().params[0]))
    bare = count(points, "non_embedding")
    assert bare.params[0] == parts["attention"] + parts["mlp"] + parts["norm"]
    assert bare.flops == pytest.approx(6 * bare.params * points.tokens)
    # The head is tied, so it counts as many parameters as the embedding.
    assert count(points, "with_head").params[0] == bare.params[0] + parts["embedding"]
    assert count(points, "total", "kaplan").flops == pytest.approx(points.flops * 5.6 / 6, rel=1e-3)


def test_conventions_without_components_are_refused():
    points = simulate()
    with pytest.raises(ValueError, match="needs the columns embedding, position"):
        count(points, "non_embedding")
    with pytest.raises(ValueError, match="needs the column flops_palm"):
        count(points, "total", "palm")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("params,loss\n1e6,3\n", "lacks the columns tokens: it has params, loss; it needs params"),
        ("params,tokens,loss\n", "a header but no rows"),
        ("params,tokens,loss\n1e6,2e7,3\n1e6,-2e7,3\n", "tokens must be positive .* in row 3"),
        ("params,tokens,loss\n1e6,2e7,nan\n1e6,3e7,inf\n", "loss must be .* in row 2, row 3"),
        ("params,tokens,loss\n1e6,2e7,\n", "loss must be positive .* is nan in row 2"),
        ("params,tokens,loss\n1e6,many,3\n", "tokens is not a number in row 2 .found 'many'"),
        (GOOD + "1e6,2e7,3.1\n", "the same run is listed twice, in row 2 and row 4"),
        ("run,params,tokens,loss\na,1e6,2e7,3\na,1e6,2e7,2.9\n", "run a is listed twice, in row 2"),
        ("params,tokens,loss\n1e8,2.5,3\n1e8,5,2.9\n", "tokens .* looks like millions or billions"),
        ("params,tokens,loss\n7,2e9,3\n13,2e9,2.9\n", "params .* looks like millions or billions"),
        ("params,tokens,loss\n1e6,2e7,22\n1e6,3e7,18\n", "looks like perplexity"),
        (
            "params,tokens,flops,loss\n1e6,2e7,1.2e5,3\n1e6,3e7,2e5,3\n",
            "it must be the training FLO",
        ),
        (
            "params,tokens,loss,bits_per_byte\n1e6,2e7,1.5,1.5\n1e6,3e7,1.4,1.4\n",
            r"loss equals bits_per_byte, so it looks like bits; .* --loss_unit=bits",
        ),
        ("params,tokens,loss,holdout\n1e6,2e7,3,maybe\n", "holdout='maybe' in row 2"),
        ("params,tokens,loss\n70,2e9,3\n160,2e9,2.9\n", "params .*billions"),
        ("params,tokens,loss\n700,2e10,3\n1600,4e10,2.9\n", "tokens per parameter .* params looks"),
        ("params,tokens,loss\n7e9,2e4,3\n7e9,4e4,2.9\n", "tokens per parameter .* tokens looks"),
        ("params,tokens,loss,loss_se\n1e6,2e7,3,-0.1\n", "loss_se must not be negative .* row 2"),
        ("params,tokens,loss,loss_se\n1e6,2e7,3,inf\n", "loss_se must not be negative or infin"),
        ("params,tokens,loss,mlp\n1e6,2e7,3,\n", "mlp .* is nan in row 2; .* write 0 if"),
        ("params,tokens,loss,mlp\n1e6,2e7,3,-5\n", "mlp must not be negative .* in row 2"),
        ("params,tokens,loss,flops_palm\n1e6,2e7,3,0\n", "flops_palm must be positive .* row 2"),
        ("params,tokens,loss,loss\n1e6,2e7,3,9\n", "has two columns loss"),
        ("N,D,loss\n1e6,-2e7,3\n", "tokens must be positive .* in row 2"),
        ("N,N,D,loss\n1e6,1e6,2e7,3\n", "has two columns params"),
        (GOOD + "\n\n1e6,many,3\n", "tokens is not a number in row 6 .found 'many'"),
        ("\n\nparams,tokens,loss\n1e6,0,3\n", "tokens must be positive .* in row 4"),
        ('run,params,tokens,loss\n"a\nb",1e6,2e7,3\nc,1e6,0,3\n', "tokens .* in row 4"),
        ('run,params,tokens,loss\r\n\r\n"a\r\nb",1e6,2e7,3\r\nc,1e6,0,3\r\n', "tokens .* row 5"),
        ("\nparams,tokens,loss\n1e6,2e7,3\n\n1,000,000,2e7,3\n", "row 5 has more cells"),
        ("params,tokens,loss,seed\n1e6,2e7,3,1\n1e6,2e7,3,1\n", "same run is listed twice"),
        ("run,seed,params,tokens,loss\na,1,1e6,2e7,3\na,1,1e6,2e7,2.9\n", "add a column seed"),
        ("\x1b[2J,\u202etokens\n1,2\n", r"it has \\x1b\[2J, \\u202etokens; it needs"),
        ("params,tokens,loss\n1,000,000,2e7,3\n", "row 2 has more cells than the header"),
    ],
)
def test_bad_tables_are_refused(tmp_path, text, message):
    path = tmp_path / "points.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        read_csv(path)
    assert "\n" not in str(caught.value)


def test_a_count_that_is_as_good_as_infinite_is_no_wrong_unit(tmp_path):
    path = tmp_path / "points.csv"
    path.write_text("params,tokens,loss\n1e5,1e20,3\n1e6,1e20,2.9\n1e7,1e20,2.8\n")
    assert len(read_csv(path)) == 3


def test_a_good_table_is_read(tmp_path):
    path = tmp_path / "points.csv"
    path.write_text(GOOD)
    points = read_csv(path)
    assert points.flops == pytest.approx([1.2e14, 2.4e14])
    assert list(points.run) == ["row-2", "row-3"]


@pytest.mark.parametrize("column", ["seed", "replicate"])
def test_seeds_tell_runs_of_one_name_apart(tmp_path, column):
    """A name stays as it is if only one run has it."""
    path = tmp_path / "points.csv"
    rows = ("a,1,1e6,1e7,3.2", "a,1,1e6,2e7,3.1", "a,2,1e6,2e7,3.0", "b,1,2e6,2e7,2.9")
    path.write_text("\n".join([f"run,{column},params,tokens,loss", *rows]))
    points = read_csv(path)
    names = [f"a-{column}-1", f"a-{column}-1", f"a-{column}-2", "b"]
    assert list(points.run) == names and list(points.loss) == [3.2, 3.1, 3.0, 2.9]
    path.write_text(to_csv(points))
    assert list(read_csv(path).run) == names and sha256(read_csv(path)) == sha256(points)


def test_seeds_tell_runs_without_names_apart(tmp_path):
    path = tmp_path / "points.csv"
    path.write_text("params,tokens,loss,seed\n1e6,2e7,3,1\n1e6,2e7,3,2\n")
    assert list(read_csv(path).run) == ["row-2", "row-3"]


def test_every_seed_is_a_point_of_the_fit(tmp_path):
    """Each name appears with two seeds; every row is a separate run and point."""
    points, path = simulate(held_out=0), tmp_path / "points.csv"
    rows = [
        f"r{i},{seed},{points.params[i]:.9g},{points.tokens[i]:.9g},{loss * (1 + seed / 1e3):.9g}"
        for seed in (0, 1)
        for i, loss in enumerate(points.loss)
    ]
    path.write_text("\n".join(["run,seed,params,tokens,loss", *rows]))
    law = analyse(read_csv(path), Settings(draws=0))
    assert law["points"]["n"] == law["points"]["runs"] == 2 * len(points)
    found = [name for m in law["isoflop"]["minima"] for name in m["runs"]]
    assert len(set(found)) == len(found) == 2 * len(points)


def test_headers_as_papers_write_them(tmp_path):
    path = tmp_path / "points.csv"
    path.write_text("N,D,C,loss\n1e6,2e7,1e14,3.1\n2e6,2e7,2e14,3.0\n")
    points = read_csv(path)
    assert list(points.params) == [1e6, 2e6] and list(points.tokens) == [2e7, 2e7]
    assert list(points.flops) == [1e14, 2e14]
    # If the table has a column params, its column N is ignored.
    path.write_text("N,params,D,loss\n7,1e6,2e7,3.1\n7,2e6,2e7,3.0\n")
    assert list(read_csv(path).params) == [1e6, 2e6]
    # A user's law may have an input named N.
    own = replace(LAWS["parametric"], inputs=("params", "tokens", "N"))
    path.write_text("N,params,tokens,loss\n7,1e6,2e7,3.1\n8,2e6,2e7,3.0\n")
    assert list(read_csv(path, law=own).other["N"]) == [7, 8]


HOSTILE = (
    "=1+1", "+1", "-1", "@a", "'=x", "''-x", "'x", "\t=1", "\r=1", "\n=1", "＝1", 'a"b', "a,b",
    "a\nb", "a\r\nb", "a\rb", "\x1b[31m", "\u202eb", "</script>", "🧪", " =1 ", "x" * 10_000,
)  # fmt: skip


def test_formulas_are_text_in_points_csv_and_read_back_the_same(tmp_path):
    points = simulate(sizes=9, held_out=0)
    named = replace(
        points,
        run=np.array([*HOSTILE, *points.run[len(HOSTILE) :]]),
        facts=({"schedule": "=1", "device": "@x"}, *({},) * (len(points) - 1)),
        baselines=(Baseline("=b", "-f", 1.0, 1e6, 1.0, 3.0, 0.1),),
    )
    path = tmp_path / "points.csv"
    path.write_bytes(to_csv(named).encode())
    again = read_csv(path)
    assert list(again.run) == list(named.run) and sha256(again) == sha256(named)
    assert again.facts[0] == named.facts[0] and again.baselines == named.baselines
    assert to_csv(again) == to_csv(named)
    with open(path, newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    texts = [c for c in cells if not re.fullmatch(r"-?[\d.e+-]+", c)]
    assert not [c for c in texts if c.startswith(tuple("=+-@＝\t\r\n"))]


def test_missing_inputs_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_csv(tmp_path / "none.csv")
    with pytest.raises(FileNotFoundError, match=r"contains no \*/result.json"):
        read_runs(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "result.json").write_text("{")
    with pytest.raises(ValueError, match="not valid JSON"):
        read_runs(tmp_path)
