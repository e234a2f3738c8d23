"""Tests of the verb `pilot`: its proposals for a known law, and its errors."""

import json
import math
from pathlib import Path

import pytest

from launch.__main__ import main
from launch.files import read_json
from launch.runners import RUNNERS
from launch.sweep import expand
from tests.launch import known
from tests.launch.inline import Inline
from tests.scaling.design.test_planning import EPOCH, law_of

CONFIG = str(Path(__file__).parents[3] / "configs/study/ladder.py")


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> list[str]:
    """Flags for a small text that is prepared once."""
    folder = tmp_path_factory.mktemp("pilot")
    lines = [f"Line {i} says {i * i % 97} and {i % 13}.\n\n" for i in range(20000)]
    (folder / "text.txt").write_text("".join(lines))
    return [f"--config.data.corpora={folder}/text.txt", f"--config.data.cache={folder}/cache"]


@pytest.fixture
def pilot(text, tmp_path, monkeypatch):
    """A function that runs the verb with fake trials; returns the exit code and the folder."""
    monkeypatch.setitem(RUNNERS, "inline", Inline(known.run))
    monkeypatch.chdir(tmp_path)

    def run(*flags: str) -> tuple[int, Path]:
        given = [f"--config={CONFIG}", "--workdir=p", "--on=inline", *text]
        return main(["pilot", *given, *flags]), tmp_path / "p"

    return run


def expected(budget: float) -> float:
    return known.best_params(budget)


def test_the_proposed_ladder_brackets_the_known_minima_and_a_sweep_takes_it(pilot, capsys):
    code, folder = pilot("--json=about.json")
    assert code == 0
    about = read_json(folder.parent / "about.json")
    for rung in about["ladder"]:
        best, sizes = expected(rung["flops"]), [size["params"] for size in rung["sizes"]]
        assert len(sizes) >= 5 and sum(n < best for n in sizes) >= 2 <= sum(n > best for n in sizes)
        assert rung["params"]["lo"] < best < rung["params"]["hi"]
        assert rung["params"]["value"] == pytest.approx(best, rel=0.4)
    assert [rung["flops"] for rung in about["ladder"]] == [3e11, 9e11, 2.7e12]
    rate = about["pilot"]["learning_rate"]
    assert rate["middle"] == pytest.approx(known.BEST_RATE, rel=0.2) and not rate["moves"]
    assert 0.3 * known.NOISE < about["pilot"]["noise"] < 3 * known.NOISE
    assert about["share"] < 0.1
    widths = about["precision"][0]["widths"]
    assert all(width["lo"] < width["hi"] for width in widths.values())
    shown = capsys.readouterr().out
    assert "proposed ladder" in shown and "as proposed" in shown and "width of the 90 %" in shown
    planned = expand.plan(str(folder / "proposed.json"), {})
    assert len(planned.trials) >= 16
    (held_out,) = [trial for trial in planned.trials if trial.holdout]
    assert held_out.about["flops"]["6nd"] == pytest.approx(8.1e12, rel=0.02)
    rates = {trial.config.optimizer.learning_rate for trial in planned.trials}
    assert rates == {float(f"{rate['middle']:.2g}")}
    assert planned.base.data.corpora[0].endswith("text.txt")  # the command-line override is kept
    sizes = {rung["flops"]: {s["params"] for s in rung["sizes"]} for rung in about["ladder"]}
    for trial in planned.trials:
        if trial.holdout:
            continue
        nominal = min(sizes, key=lambda c: abs(math.log(c / trial.about["flops"]["6nd"])))
        assert trial.params in sizes[nominal]


@pytest.mark.slow
def test_a_grid_off_the_best_is_extended_and_said_and_the_same_command_goes_the_same_way(
    pilot, capsys
):
    low = ("--config.optimizer.learning_rate=0.004", "--share=0.1")
    assert pilot(*low)[0] == 0
    first = capsys.readouterr().out
    assert "the best lies at an edge: 5 more trials" in first
    folder = Path("p")
    about, ran = read_json(folder / "pilot.json"), len(list(folder.glob("trials/*/result.json")))
    assert about["pilot"]["learning_rate"]["middle"] == pytest.approx(known.BEST_RATE, rel=0.2)
    assert about["pilot"]["exponent"]["pilot"] is None and "one budget has no slope" in first
    before = {path: path.stat().st_mtime_ns for path in folder.glob("trials/*/result.json")}
    assert pilot(*low)[0] == 0 and len(before) == ran
    assert before == {path: path.stat().st_mtime_ns for path in folder.glob("trials/*/result.json")}
    assert read_json(folder / "pilot.json")["ladder"] == about["ladder"]


def test_a_rate_that_no_extension_reaches_is_refused(pilot, capsys):
    code, folder = pilot("--config.optimizer.learning_rate=1e-8", "--share=0.1")
    assert code == 2 and not (folder / "proposed.json").exists()
    assert "best at the largest learning rate tried" in capsys.readouterr().err


def test_seeds_and_sizes_are_proposed_as_asked_and_more_of_them_are_more_precise(pilot):
    assert pilot("--share=0.1", "--seeds=2", "--sizes=6", "--budgets=2e11,1e12,5e12")[0] == 0
    about = read_json(Path("p/pilot.json"))
    assert [rung["flops"] for rung in about["ladder"]] == [2e11, 1e12, 5e12]
    assert about["held_out"]["flops"] == pytest.approx(8.1e12)
    sizes = [len(rung["sizes"]) for rung in about["ladder"]]
    assert min(sizes) >= 6 and sizes == sorted(sizes)  # the less certain N* is, the more sizes
    assert len(expand.plan("p/proposed.json", {}).trials) == 2 * sum(sizes) + 1
    rows = {row["design"]: row for row in about["precision"]}
    a = {name: row["widths"]["a"]["value"] for name, row in rows.items()}
    assert a["twice the seeds"] < 0.8 * a["as proposed"]
    assert rows["a budget above"]["flops"] > rows["as proposed"]["flops"]


def test_a_dry_run_prints_the_trials_and_writes_nothing(pilot, capsys):
    code, folder = pilot("--dry_run")
    shown = capsys.readouterr().out
    assert code == 0 and not folder.exists()
    assert "30 trials (0 finished, 0 duplicates dropped)" in shown


@pytest.fixture
def law(tmp_path):
    path = tmp_path / "law.json"
    path.write_text(json.dumps(law_of(EPOCH)))
    return f"--law={path}"


def test_a_law_tells_the_precision_without_running_anything(tmp_path, law, capsys):
    flags = [law, "--budgets=1e19,1e20,1e21", "--sizes=7", "--noise=0.005"]
    assert main(["pilot", *flags, f"--json={tmp_path / 'about.json'}"]) == 0
    about = read_json(tmp_path / "about.json")
    rows = {row["design"]: row for row in about["precision"]}
    assert rows["as proposed"]["runs"] == 22 and rows["two more sizes"]["runs"] == 28
    assert rows["as proposed"]["noise"] == 0.005 and about["held_out"] == 3e21
    shown = capsys.readouterr().out
    assert "7 sizes from N*/3 to 3 N*" in shown and "a budget below" in shown


BUDGETS = "--budgets=1e12,3e12,1e13"
REFUSED = {
    ("--workdir=p",): "config is not given",
    (f"--config={CONFIG}",): "workdir is not given",
    ("--law=none.json", BUDGETS): "law=none.json does not exist",
    ("--law=none.json",): "budgets is not given",
    ("--law=none.json", BUDGETS, "--workdir=p"): "law=none.json runs nothing; drop --workdir",
    ("LAW", "--budgets=1e12,x"): "budgets=1e12,x is not a list of numbers",
    ("LAW", "--budgets=1e12,3e12"): "has 2 values; give 3 or more",
    ("LAW", "--budgets=-1,1e12,3e12"): "must be positive and finite",
    ("LAW", BUDGETS, "--held_out=1e12"): "held_out=1e+12 is not above the largest budget, 1e+13",
    ("LAW", BUDGETS, "--span=1"): "span=1 must be above 1",
    ("LAW", BUDGETS, "--noise=4"): "noise=4 is not a spread",
    ("LAW", BUDGETS, "--sizes=4"): "sizes",
    ("PILOT", "--share=2"): "share=2 is more than the ladder's smallest budget",
    ("PILOT", "--rates=1,3"): "rates=1,3 has 2 values; give 3 or more",
    ("PILOT", "--share=1e-4"): "the shapes of this config do not bracket N",
    ("PILOT", f"--config={CONFIG.replace('ladder', 'lr_grid')}"): "has 0 budgets in flops",
    ("PILOT", "--on=kube"): "on=kube is unknown; use one of local, ray",
    ("PILOT", "--config.model.d_modle=3"): "did you mean config.model.d_model",
}


@pytest.mark.parametrize(("flags", "message"), REFUSED.items())
def test_bad_input_is_one_line(flags, message, tmp_path, law, text, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    start = {"LAW": [law], "PILOT": [f"--config={CONFIG}", "--workdir=p", *text]}
    given = [flag for name in flags for flag in start.get(name, [name])]
    assert main(["pilot", *given]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "p").exists()


@pytest.mark.slow
def test_a_real_pilot_brackets_a_minimum_that_training_has(tmp_path, monkeypatch):
    """Two minutes of training on the standard library; the sizes bracket the measured minimum."""
    monkeypatch.chdir(tmp_path)
    flags = ["--budgets=3e10,9e10,2.7e11", "--share=1", "--config.data.max_bytes=4000000"]
    assert main(["pilot", f"--config={CONFIG}", "--workdir=p", *flags]) == 0
    about = read_json(Path("p/pilot.json"))
    cells = sorted(about["pilot"]["cells"], key=lambda cell: cell["loss"])
    (minimum,) = about["pilot"]["minima"]
    assert cells[1]["params"] / 2 < minimum["params"] < 2 * cells[1]["params"]
    sizes = [size["params"] for size in about["ladder"][0]["sizes"]]
    assert sizes[0] < cells[0]["params"] < sizes[-1]
    trials = expand.plan("p/proposed.json", {}).trials
    assert len(trials) >= 16 and sum(trial.holdout for trial in trials) == 1
