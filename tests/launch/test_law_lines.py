"""Tests of the lines that the terminal shows of a law: nothing is left out silently."""

from launch.law.lines import MOST_HELD_OUT, MOST_MINIMA, holdout_lines, isoflop_lines


def number(value):
    return {"value": value, "lo": None, "hi": None}


def minima(count):
    return [
        {"flops": 10.0 ** (12 + i), "params": number(1e6), "loss": number(2.0)}
        for i in range(count)
    ]


def held_out(runs, registered=()):
    outcome = {"outcome": 1.5, "error": 0.01, "inside": True}
    return {
        "n": len(runs),
        "mean_error": 0.01,
        "max_error": 0.01,
        "runs": [{"run": run, "predicted": number(1.4)} | outcome for run in runs],
        "registered": [
            {"made": "2026", "target": {"run": run}, "loss": number(1.4)} | outcome
            for run in registered
        ],
    }


def test_more_minima_than_shown_are_counted():
    isoflop = {"reason": "too few", "minima": minima(MOST_MINIMA)}
    assert len(isoflop_lines(isoflop, {"reason": "x"})) == MOST_MINIMA + 2
    isoflop["minima"] = minima(MOST_MINIMA + 3)
    lines = isoflop_lines(isoflop, {"reason": "x"})
    assert sum("C = " in line for line in lines) == MOST_MINIMA
    assert lines[-2] == "  … and 3 more; --json writes all"


def test_held_out_runs_without_a_prediction_on_file_are_shown_too():
    lines = holdout_lines(held_out(["a", "b", "c"], registered=["b"]))
    assert [line.split(":")[0] for line in lines] == [
        "predicted 2026 for b",
        "held out a",
        "held out c",
        "held out 3",
    ]
    runs = [f"r{i}" for i in range(MOST_HELD_OUT + 2)]
    lines = holdout_lines(held_out(runs))
    assert sum(line.startswith("held out r") for line in lines) == MOST_HELD_OUT
    assert lines[-2] == "  … and 2 more; --json writes all"
