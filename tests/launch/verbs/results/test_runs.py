"""Tests of the verb `runs`."""

import csv
import json
import os
import statistics

import pytest

from launch.__main__ import main
from launch.trial.folder import locked
from launch.verbs.results import runs as verb

LOSSES = {"a0": 2.0, "a1": 2.2, "b0": 1.5, "c0": 9.0}


def write(file, content) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """runs/s: two seeds of one rate, one of another, a diverged and a waiting trial; runs/x: a run
    without a sweep."""
    monkeypatch.chdir(tmp_path)
    home = tmp_path / "runs"
    base = {"seed": 0, "model": {"d_model": 32}, "optimizer": {"learning_rate": 0.1}}
    trials = {
        name: {"overrides": {"optimizer.learning_rate": rate, "seed": int(name[1])}}
        for name, rate in (("a0", 0.1), ("a1", 0.1), ("b0", 0.2), ("c0", 0.4), ("d0", 0.5))
    }
    write(home / "s/sweep.json", {"config": "x.py", "base": base, "trials": trials})
    for name, loss in LOSSES.items():
        result = {"status": "diverged" if name == "c0" else "done", "params": {"mlp": 1500}}
        result |= {"metrics": {"loss": {"value": loss, "se": 0.25}}, "tokens": 3e6, "seconds": 61}
        write(home / "s" / name / "result.json", result)
    write(home / "s/d0/config.json", base)
    write(home / "x/config.json", base)
    write(home / "x/result.json", {"status": "done", "eval_loss": float("nan")})
    return home


def table(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_a_sweep_is_listed_with_its_keys_losses_and_labelled_spreads(runs, capsys):
    assert main(["runs", "runs/s"]) == 0
    title, head, *rows, _ = table(capsys.readouterr().out + "\n")
    assert " ".join(title) == "runs/s: 3 done, 1 diverged, 1 unfinished"
    assert head == ["trial", "status", "learning_rate", "seed", "loss", "±", "of", "params",
                    "tokens", "time"]  # fmt: skip
    spread = f"{statistics.stdev([2.0, 2.2]):.4f}"
    assert rows[0] == ["b0", "done", "0.2", "0", "1.5000", "0.2500", "eval", "1.5k", "3M", "1:01"]
    assert rows[1][4:8] == ["2.0000", spread, "2", "seeds"] and rows[2][0] == "a1"
    assert [row[:2] for row in rows[3:]] == [["c0", "diverged"], ["d0", "unfinished"]]
    assert "9.0000" not in str(rows)  # the last loss of a diverged trial is no result


def test_a_trial_that_a_process_trains_is_running(runs, capsys):
    with locked(runs / "s/d0"):
        assert main(["runs", "--runs=runs/s", "--where=status == 'running'"]) == 0
        assert json.loads((runs / "s/d0/lock").read_text())["process"] == os.getpid()
    assert table(capsys.readouterr().out)[2][:2] == ["d0", "running"]


def test_several_sweeps_are_listed_apart_and_said(runs, capsys):
    assert main(["runs"]) == 0  # the folder runs is the default
    text = capsys.readouterr().out
    assert text.startswith("2 sweeps, each by itself\n")
    assert "runs/s: 3 done" in text and "\nruns: 1 done\n" in text
    assert main(["runs", "--where=learning_rate == 0.2"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("2 sweeps, each by itself, 1 of them without a matching trial\n")
    assert "one seed each, so the spread over seeds is unknown" in text


def test_where_sort_and_top(runs, capsys):
    def shown(*flags: str) -> str:
        assert main(["runs", "runs/s", *flags]) == 0
        return " ".join(row[0] for row in table(capsys.readouterr().out)[2:])

    assert shown("--sort=-loss") == "a1 a0 b0 c0 d0"
    assert shown("--sort=-optimizer.learning_rate", "--where=seed == 0") == "d0 c0 b0 a0"
    assert shown("--where=loss < 2.1", "--where=learning_rate < 0.2") == "a0"
    assert shown("--top=1").startswith("b0 4")  # 4 more
    # The spread is that of the whole configuration, whatever is shown of it.
    assert main(["runs", "runs/s", "--where=id == 'a0'"]) == 0
    assert "2 seeds" in capsys.readouterr().out


def test_csv_and_json_have_every_row_with_all_digits(runs, capsys):
    assert main(["runs", "runs", "--csv=out/a.csv", "--json=out/a.json", "--top=1"]) == 0
    with open("out/a.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == ["b0", "a0", "a1", "c0", "d0", "x"]
    assert float(rows[1]["spread"]) == statistics.stdev([2.0, 2.2])
    assert (rows[1]["spread_of"], rows[1]["seeds"], rows[0]["spread_of"]) == (
        *("seeds", "2"), "evaluation"
    )  # fmt: skip
    assert (rows[0]["optimizer.learning_rate"], rows[3]["loss"], rows[5]["loss"]) == ("0.2", "", "")
    about = json.loads((runs.parent / "out/a.json").read_text())
    first, second = about["sweeps"]
    assert first["varied"] == ["optimizer.learning_rate", "seed"] and second["name"] == "runs"
    assert first["trials"][0]["varied"] == {"optimizer.learning_rate": 0.2, "seed": 0}
    assert second["trials"][0]["loss"] is None  # NaN has no place in JSON


def test_files_are_written_before_anything_is_printed(runs, monkeypatch):
    monkeypatch.setattr(verb, "show", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["runs", "runs/s", "--csv=a.csv", "--json=a.json"])
    assert (runs.parent / "a.csv").is_file() and (runs.parent / "a.json").is_file()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["runs/s", "--where=model.d_modl == 64"], "did you mean model.d_model?"),
        (["runs/s", "--where=loss = 2"], "--where=loss = 2 is not an expression"),
        (["runs/s", "--sort=learning_rat"], "--sort=learning_rat: unknown name"),
        (["runs/s", "--where=loss < 0"], "holds for none of 5 trials"),
        (["nowhere"], "--runs=nowhere holds no run"),
        (["runs/s", "--json=/dev/null/x"], "--json=/dev/null/x cannot be written"),
        (["runs/s", "--top=-1"], "top"),
    ],
)
def test_bad_input_is_one_line(runs, capsys, flags, message):
    assert main(["runs", *flags]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_names_from_outside_do_not_reach_the_terminal(runs, capsys):
    write(runs / "s/\x1b[31mred/config.json", {})
    plan = json.loads((runs / "s/sweep.json").read_text())
    plan["trials"]["\x1b[31mred"] = {"overrides": {"optimizer.learning_rate": "[b]\x07"}}
    write(runs / "s/sweep.json", plan)
    assert main(["runs", "runs/s"]) == 0
    text = capsys.readouterr().out
    assert "\x1b" not in text and "\\x1b[31mred" in text and "[b]\\x07" in text
