"""Tests of the live view: its table, its lines, and what it reads while trials run."""

import io
import json
from types import SimpleNamespace

import pytest
import rich.console

from launch.errors import BadInput
from launch.runners.tasks import Event
from launch.screen.sparkline import sparkline
from launch.sweep import expand
from launch.sweep.followed import Followed
from launch.sweep.live import Live

RATES = (0.01, 0.04)


def planned(name: str, **overrides) -> expand.Planned:
    about = {"params": {"mlp": 1000}, "tokens": 5000, "steps": 10}
    about["flops"] = {expand.CONVENTION: 100.0}
    config = {"model": {"d_model": 32}, "seed": 0, "holdout": False, "optimizer": {"b2": 0.95}}
    return expand.Planned(name, overrides, config, about)


@pytest.fixture
def trials() -> list[expand.Planned]:
    """Four trials: two rates, the second with two widths; one seed differs."""
    return [
        planned("a", **{"optimizer.learning_rate": RATES[0], "optimizer.b2": 0.95}),
        planned("b", **{"optimizer.learning_rate": RATES[1], "optimizer.b2": 0.95, "seed": 1}),
        planned("c", **{"optimizer.learning_rate": RATES[1], "model.d_model": 64}),
        planned("d", **{"optimizer.learning_rate": RATES[1], "model.d_model": 64, "seed": 1}),
    ]


def write(folder, name: str, losses: list[float], status: str = "", final: float = 0.0) -> None:
    home = folder / name
    home.mkdir(exist_ok=True)
    rows = [{"step": n, "loss": loss, "tokens_per_second": 7.0} for n, loss in enumerate(losses, 1)]
    (home / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if status:
        (home / "result.json").write_text(json.dumps({"status": status, "eval_loss": final}))


def on_a_terminal(view: Live, width: int, height: int = 24) -> io.StringIO:
    """Replaces the console of a view by a terminal of this size; returns what is shown on it."""
    shown = io.StringIO()
    view.console = view.live.console = rich.console.Console(
        file=shown, force_terminal=True, width=width, height=height, color_system=None
    )
    return shown


def table(view: Live, keys: list[str], most: int = 40) -> list[str]:
    with view.console.capture() as caught:
        view.console.print(view._table(keys, most))
    return caught.get().splitlines()


def test_the_table_has_a_column_for_each_varied_key_and_fits(trials, tmp_path):
    write(tmp_path, "a", [4.0, 3.0, 2.0], "done", 2.25)
    write(tmp_path, "b", [4.0, 3.5])
    view = Live(tmp_path, trials, {"a": "done"})
    view.event(Event("started", "b", 1), "running")
    on_a_terminal(view, 100)
    head, first, second, note = table(view, ["a", "b"])
    # b2 is 0.95 in all: where a trial does not set it, in its config. So it is not varied.
    assert head.split() == [
        *("trial", "status", "learning_rate", "d_model", "seed", "loss", "curve", "tokens/s")
    ]
    assert first.split() == ["a", "done", "0.01", "32", "0", "2.2500", "█▅▁", "7"]
    assert second.split() == ["b", "━━", "0.04", "32", "1", "3.5000", "█▁", "7"]
    assert note.startswith("loss: of running trials") and max(map(len, [head, note])) <= 100


def test_columns_that_do_not_fit_are_named(trials, tmp_path):
    view = Live(tmp_path, trials, {})
    on_a_terminal(view, 38)
    head, _, *note = table(view, ["a"])
    assert head.split() == ["trial", "status", "d_model", "loss", "curve"] and len(head) <= 38
    assert "no room for learning_rate, seed, tokens/s" in " ".join(map(str.strip, note))
    on_a_terminal(view, 60)
    assert "learning_rate" in table(view, ["a"])[0]


def test_names_from_outside_are_shown_as_text(tmp_path):
    one, two = (planned("x", **{"data.corpora": v}) for v in ("[red]a\x1b[2J", "b"))
    view = Live(tmp_path, [one, expand.Planned("y", two.overrides, two.config, two.about)], {})
    on_a_terminal(view, 80)
    assert "[red]a\\x1b[2J" in "\n".join(table(view, ["x"]))


def test_trials_are_sorted_as_asked_and_running_ones_are_always_shown(trials, tmp_path):
    for name, final in (("a", 2.0), ("b", 1.5), ("c", 3.0)):
        write(tmp_path, name, [4.0], "done", final)
    write(tmp_path, "d", [9.0])
    states = dict.fromkeys("abc", "done")
    for sort, wanted in (
        ("loss", "bacd"),
        ("-loss", "dcab"),
        ("learning_rate", "adbc"),
        ("-model.d_model", "dcab"),
        ("-trial", "dcba"),
    ):
        view = Live(tmp_path, trials, states, sort)
        view.event(Event("started", "d", 1), "running")
        on_a_terminal(view, 100)
        assert "".join(view._present()) == wanted, sort
    on_a_terminal(view, 100, height=7)
    view.sort = "loss"
    assert view._present() == ["b", "d"]  # two rows: the one that runs, and the best


def test_an_unknown_sort_names_the_nearest(trials, tmp_path):
    with pytest.raises(ValueError, match="sort=-los: unknown name los; did you mean loss"):
        Live(tmp_path, trials, {}, "-los")
    with pytest.raises(ValueError, match="did you mean learning_rate"):
        Live(tmp_path, trials, {}, "learning_rat")


def test_a_wrong_sort_ends_a_sweep_before_it_trains(tmp_path, monkeypatch):
    from launch.sweep import execution

    sweep = expand.Plan("x.py", SimpleNamespace(get=lambda *_: {}), (), 0)
    monkeypatch.setattr(execution.expand, "record", lambda *_: None)
    monkeypatch.setattr(execution.folder, "require_locks", lambda *_: None)
    machine = SimpleNamespace(compiling_into=lambda *_: SimpleNamespace(several=False))
    with pytest.raises(BadInput, match="sort=zzz: unknown name zzz"):
        execution.run_sweep(sweep, tmp_path, machine, sort="zzz")


def test_a_pipe_gets_one_fresh_line_for_each_finished_trial(trials, tmp_path, capsys):
    view = Live(tmp_path, trials, {})
    write(tmp_path, "b", [9.0])
    view.event(Event("started", "b", 1), "running")
    view.tick()
    write(tmp_path, "b", [9.0, 8.0], "done", 1.2345)  # the metrics say 8, the result 1.2345
    view.event(Event("finished", "b", 1, 0), "done")
    write(tmp_path, "c", [9.0, 8.0], "diverged", 8.0)
    view.event(Event("finished", "c", 1, 43), "diverged")
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "[1/4] b: done, loss 1.2345, learning_rate=0.04, d_model=32, seed=1",
        "[2/4] c: diverged, learning_rate=0.04, d_model=64, seed=0",
    ]


def test_the_table_of_all_trials_stays_at_the_end(trials, tmp_path):
    write(tmp_path, "a", [4.0], "done", 2.0)
    view = Live(tmp_path, trials, {"a": "done"})
    shown = on_a_terminal(view, 100)
    with view:
        write(tmp_path, "b", [4.0], "done", 1.0)
        view.event(Event("finished", "b", 1, 0), "done")
    lines = [line.split() for line in shown.getvalue().splitlines()]
    first, second = [line for line in lines if line[:1] in (["a"], ["b"])]
    assert (first[0], second[0]) == ("b", "a")  # the best first; trials that never started are not
    assert not any(line[:1] == ["c"] for line in lines)
    view.states = dict.fromkeys("abcd", "done")
    assert table(view, list("abcd"), most=1)[-1] == f"3 more: isoflop runs {tmp_path}"


def test_ended_trials_are_read_once_and_running_ones_grow(trials, tmp_path, monkeypatch):
    write(tmp_path, "a", [4.0], "done", 2.0)
    view = Live(tmp_path, trials, {"a": "done"}, "loss")
    on_a_terminal(view, 100)
    looked = []
    look = Followed.look
    monkeypatch.setattr(Followed, "look", lambda f: looked.append(f.file.parent.name) or look(f))
    write(tmp_path, "b", [4.0])
    view.event(Event("started", "b", 1), "running")
    for losses in ([4.0, 3.0], [4.0, 3.0, 2.0]):
        write(tmp_path, "b", losses)
        view.shown = 0.0
        view.tick()
        assert view._row("b")["loss"] == losses[-1]
    assert looked.count("a") == 1 and looked.count("b") >= 2 and not {"c", "d"} & set(looked)


def test_a_file_is_followed_from_where_it_was_read_last(tmp_path):
    file = tmp_path / "metrics.jsonl"
    followed = Followed(file)
    assert followed.look().row == {} and followed.losses == []
    rows = [json.dumps({"step": step, "loss": 1 / step, "pad": "x" * 200}) for step in range(1, 99)]
    file.write_text("\n".join(rows) + '\n{"step": 99, "lo')
    assert followed.look().row["step"] == 98 and len(followed.losses) == 98
    with open(file, "a") as stream:
        stream.write('ss": 0.5, "eval_loss": 0.75}\nnull\n[1]\n{"loss": "x"}\n')
    assert followed.look().row["step"] == 99 and followed.losses[-2:] == [1 / 98, 0.5]
    assert followed.row["eval_loss"] == 0.75
    # A run that resumes replaces the file.
    (tmp_path / "new").write_text('{"step": 1, "eval_loss": 3.0}\n')
    (tmp_path / "new").rename(file)
    assert followed.look().row == {"step": 1, "eval_loss": 3.0} and followed.losses == [3.0]


def test_a_sparkline_is_logarithmic_and_has_the_means_of_its_shares():
    assert sparkline([8, 4, 2, 1]) == "█▆▃▁"  # equal factors are equal steps
    assert sparkline([4, 3, 2, 1, 0]) == "█▇▅▃▁"  # not all positive: linear
    assert sparkline([1, 3, 8, 8], width=2) == sparkline([2, 8])
    assert sparkline([2.0, float("nan"), 2.0]) == "▁▁" and sparkline([]) == ""
    assert sparkline([4, 2, 1], encoding="latin-1") == "#=_"
