"""Tests of the language of --where and --sort."""

import math
from pathlib import Path

import pytest

from scaling.ranking.filters import keep, names, ordered, parse, row
from scaling.ranking.trials import Sweep, Trial


def trial(key: str, status: str = "done", loss: float | None = None, **settings) -> Trial:
    measured = {"metrics": {"loss": {"value": loss, "se": 0.1}}, "params": {"mlp": 7}}
    result = {"status": status, "tokens": 100} | measured if status != "waiting" else {}
    settings = {k.replace("__", "."): v for k, v in settings.items()}
    return Trial(key, Path(key), status, settings, result)


@pytest.fixture
def sweeps() -> list[Sweep]:
    common = {"optimizer__name": "muon", "data__corpora": ["stdlib"], "holdout": False}
    one = (
        trial("a", "done", 2.5, model__d_model=32, train__duration="1e9 flops", seed=0, **common),
        trial("b", "done", 2.0, model__d_model=64, train__duration="1e9 flops", seed=1, **common),
        trial("c", "diverged", 1.0, model__d_model=64, seed=0, **common),
        trial("d", "waiting", model__d_model=128, seed=0, **common),
    )
    two = (trial("e", "done", math.nan, model__d_model=64, schedule__name="wsd"),)
    varied = ("model.d_model", "train.duration")
    return [Sweep("one", Path("one"), one, varied), Sweep("two", Path("two"), two, ())]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("model.d_model == 64", "bce"),
        ("d_model == 64.0", "bce"),
        ("model.d_model != 64", "ad"),
        ("32 < d_model <= 64", "bce"),
        ("d_model in (32, 128)", "ad"),
        ("d_model not in [32, 128]", "bce"),
        ("status == 'done' and loss < 2.2", "b"),
        ("status == 'done' and not loss < 2.2", "ae"),  # a loss of nan is not below 2.2
        ("loss > -1", "ab"),  # a diverged trial has no result
        ("loss != 2.5", "b"),  # nor is an unknown loss other than 2.5
        ("loss == None", "cde"),
        ("tokens != None and params == 7", "abce"),
        ("duration == '1e9 flops'", "ab"),
        ("'flops' in duration", "ab"),
        ("data.corpora == ['stdlib'] or sweep == 'two'", "abcde"),
        ("not holdout and seed == 1", "b"),
        ("optimizer.name == 'muon' and id in ('a', 'd')", "ad"),
        ("(seed == 1 or d_model == 32) and True", "ab"),
    ],
)
def test_an_expression_keeps_the_trials_that_it_holds_for(sweeps, text, kept):
    assert "".join(t.id for sweep in keep(sweeps, [text]) for t in sweep.trials) == kept


def test_several_expressions_must_all_hold_and_empty_sweeps_are_left_out(sweeps):
    (left,) = keep(sweeps, ["d_model == 64", "loss < 3"])
    assert (left.name, [t.id for t in left.trials]) == ("one", ["b"])
    assert keep(sweeps, []) == sweeps


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model.d_modl == 64", "unknown name model.d_modl; did you mean model.d_model?"),
        ("lss < 2", "unknown name lss; did you mean loss?"),
        ("name == 'muon'", "did you mean optimizer.name or schedule.name?"),
        ("status == done", "text needs quotes"),
        ("zebra == 1", "use a key or seed, holdout, id, status, loss"),
        ("model == 64", "did you mean d_model?"),
        ("loss", "loss is 2.5, not true or false"),
        ("d_model == 64 and loss", "loss is 2.0, not true or false"),
        ("d_model < '64'", "32 and .*64.* cannot be compared"),
        ("d_model = 64", "is not an expression"),
        ("", "is not an expression"),
        ("__import__('os').system('true')", "is not part of the language"),
        ("loss.__class__ == 1", "unknown name loss.__class__"),
        ("[x for x in (1,)]", "is not part of the language"),
        ("loss < 1e3 ** 9", "is not part of the language"),
        ("-d_model < 3", "is not part of the language"),
        ("loss < 2j", "2j is no number"),
        ("(" * 400 + ")" * 400, "is not an expression"),
        ("not " * 400, "longer than 1000"),
        ("not " * 249 + "1", "not true or false"),
        ("d_model == 65", "holds for none of 5 trials"),
    ],
)
def test_a_wrong_expression_is_one_line_that_names_the_remedy(sweeps, text, message):
    with pytest.raises(ValueError, match=message) as raised:
        keep(sweeps, [text])
    assert "\n" not in str(raised.value) and str(raised.value).startswith("where=")


def test_the_short_name_of_a_varied_key_beats_an_equal_one_that_does_not_vary():
    both = trial("a", optimizer__name="x", schedule__name="y")
    assert "name" not in names([Sweep("s", Path("s"), (both,), ())])
    known = names([Sweep("s", Path("s"), (both,), ("schedule.name",))])
    assert known["name"] == "schedule.name" and known["loss"] == "loss"


def test_rows_are_sorted_with_unknown_values_last(sweeps):
    known = names(sweeps)
    rows = [row(t, sweep.name) for sweep in sweeps for t in sweep.trials]
    order = lambda text: "".join(one["id"] for one in ordered(rows, text, known))  # noqa: E731
    assert order("loss") == "bacde" and order("-loss") == "abcde"
    assert order("-d_model")[0] == "d" and order("id") == "abcde"
    mixed = [{"x": "b"}, {"x": 2}, {"x": None}, {"x": 1.5}, {"x": [1]}]
    found = [one["x"] for one in ordered(mixed, "x", {"x": "x"})]
    assert found == [1.5, 2, [1], "b", None]
    with pytest.raises(ValueError, match="sort=-los: unknown name los; did you mean loss"):
        ordered(rows, "-los", known)


def test_a_parsed_expression_reads_any_row():
    holds = parse("x in (1, 2) or y == 'a'", {"x": "long.x", "y": "y"})
    assert holds({"long.x": 2}) and holds({"y": "a"}) and not holds({"long.x": 3, "y": "b"})
