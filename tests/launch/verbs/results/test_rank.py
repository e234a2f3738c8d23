"""Tests of `isoflop rank`: what it prints and writes, and how it refuses."""

import csv
import json

import pytest

from launch.__main__ import main
from launch.sweep.ranking import write_ranking
from scaling.ranking.ranking import rank
from tests.scaling.ranking.simulated import sweep

RATE = "optimizer.learning_rate"


def folder(home, losses, seeds=2, **more):
    """A finished sweep of one rate for each loss."""
    trials = {}
    for i, loss in enumerate(losses):
        for seed in range(seeds):
            overrides = {RATE: 0.01 * 2**i} | ({"seed": seed} if seed else {})
            trials[key := f"t-{i}-{seed}"] = {"overrides": overrides, "holdout": False}
            metrics = {"loss": {"value": loss + 0.001 * seed, "se": 0.02, "better": "lower"}}
            (home / key).mkdir(parents=True)
            result = {"status": "done", "metrics": metrics, "seed": seed} | more
            (home / key / "result.json").write_text(json.dumps(result))
    plan = {"config": "c.py", "base": {"seed": 0}, "trials": trials}
    (home / "sweep.json").write_text(json.dumps(plan))
    return home


def test_rank_prints_the_best_first_and_writes_what_it_prints(tmp_path, capsys):
    runs = folder(tmp_path / "s", [2.3, 2.1, 2.4])
    assert main(["rank", str(runs), f"--json={tmp_path / 'r.json'}"]) == 0
    out = capsys.readouterr().out
    rows = [line.split() for line in out.splitlines()]
    assert " ".join(rows[1]) == "learning_rate loss ± seeds seeds p eval error params tokens time"
    assert " ".join(rows[2]) == "1 = 0.02 2.1005 0.0007 2 — 0.0200 — — —"
    assert "best: learning_rate 0.02: loss 2.1005 ± 0.0007 (seed spread), over 2 seeds" in out
    assert "best learning_rate: 0.0" in out and "what each key does" in out
    assert f"ranking: {runs / 'report/ranking.csv'}" in out
    written = json.loads((runs / "report/ranking.json").read_text())
    assert written == json.loads((tmp_path / "r.json").read_text())
    table = list(csv.DictReader((runs / "report/ranking.csv").open()))
    assert [row["learning_rate"] for row in table] == ["0.02", "0.01", "0.04"]
    assert table[0]["trials"] == "t-1-0 t-1-1" and table[0]["metric_values"] == "2.1 2.101"
    assert float(table[0]["mean"]) == written["configurations"][0]["mean"]


def test_only_the_top_is_shown_unless_asked(tmp_path, capsys):
    runs = folder(tmp_path / "s", [2.0 + 0.01 * i for i in range(25)])
    main(["rank", str(runs)])
    out = capsys.readouterr().out
    assert "20  " in out and "… and 5 more; isoflop rank --top=0 shows all" in out
    main(["rank", str(runs), "--top=0"])
    assert "more; isoflop rank --top" not in capsys.readouterr().out
    main(["rank", str(runs), "--top=2"])
    assert "… and 23 more" in capsys.readouterr().out


def test_mixed_sweeps_are_ranked_apart(tmp_path, capsys):
    for name in ("a", "b"):
        folder(tmp_path / name, [2.3, 2.1])
    assert main(["rank", str(tmp_path), f"--json={tmp_path / 'r.json'}"]) == 0
    out = capsys.readouterr().out
    assert f"2 sweeps in {tmp_path}, each ranked on its own" in out and "\na:\n" in out
    assert [entry["sweep"] for entry in json.loads((tmp_path / "r.json").read_text())] == ["a", "b"]
    assert all((tmp_path / name / "report/ranking.csv").is_file() for name in ("a", "b"))
    main(["rank", str(tmp_path), f"--out={tmp_path / 'out'}"])
    assert (tmp_path / "out/b/ranking.json").is_file()


def test_equal_ranks_each_budget_apart(tmp_path, capsys):
    runs = folder(tmp_path / "s", [2.3, 2.1], flops={"6nd": 1e12}, tokens=100)
    assert main(["rank", "--equal", str(runs)]) == 0
    assert "s-1e12-flops:" in capsys.readouterr().out
    assert (runs / "report/s-1e12-flops/ranking.csv").is_file()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["{home}/nothing"], "--runs={home}/nothing holds no run"),
        (
            ["{home}/s", "--metric=bits"],
            "--metric=bits is in no result of {home}/s; they have loss",
        ),
        (["{home}/s", "--top=-1"], "--top"),
        ([], "--runs"),
        (["{home}/s", "--json=/dev/null/x"], "--json=/dev/null/x cannot be written"),
    ],
)
def test_bad_input_is_one_line(tmp_path, capsys, argv, message):
    folder(tmp_path / "s", [2.3, 2.1])
    assert main(["rank", *(arg.format(home=tmp_path) for arg in argv)]) == 2
    error = capsys.readouterr().err
    assert message.format(home=tmp_path) in error and error.count("\n") == 1


def test_names_from_files_cannot_move_the_cursor(tmp_path, capsys):
    from launch.sweep.ranking import show

    ranking = rank(sweep(({"x.name\x1b[2J": f"v\x1b[31m{i}"}, 2.0 + i) for i in range(2)))
    show(ranking)
    assert "\x1b" not in capsys.readouterr().out
    assert write_ranking(ranking, tmp_path).is_file()
