"""Tests of the three scorers of CORE on a small bundle, with numbers worked by hand."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest

from data.tokenizer import Tokenizer
from launch.benchmarks import bundle, continuations
from launch.benchmarks.continuations import Scored

BYTES = Tokenizer("bytes", "bytes")
YAML = """icl_tasks:
-
  label: capitals
  dataset_uri: world/capitals.jsonl
  num_fewshot: [1]
  icl_task_type: multiple_choice
-
  label: who
  dataset_uri: who.jsonl
  num_fewshot: [0]
  icl_task_type: schema
-
  label: recall
  dataset_uri: recall.jsonl
  num_fewshot: 2
  icl_task_type: language_modeling
  continuation_delimiter: "\\nAnswer: "
"""
ROWS = {
    "world/capitals.jsonl": [
        {"query": "Capital of France:", "choices": ["Paris", "Pari"], "gold": 0},
        {"query": "Capital of Italy:", "choices": ["Paris", "Rome", "Oslo"], "gold": 1},
    ],
    "who.jsonl": [
        {"context_options": ["The cat ate", "The rock ate"], "continuation": "a fish", "gold": 0}
    ],
    "recall.jsonl": [
        {"context": f"The word is {word}. ", "continuation": word} for word in ("ab", "cd", "ef")
    ],
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "core.yaml").write_text(YAML)
    for name, rows in ROWS.items():
        path = tmp_path / "eval_data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def test_a_bundle_is_read_with_its_baselines(folder):
    capitals, who, recall = bundle.read(folder)
    assert (capitals.type, capitals.shots, capitals.delimiter) == ("multiple_choice", 1, " ")
    # 1/2 of a guess among two and 1/3 among three
    assert capitals.baseline == pytest.approx((1 / 2 + 1 / 3) / 2)
    assert who.baseline == 0.5 and recall.baseline == 0 and recall.shots == 2
    table = "Eval Task,Task Category,Random baseline\ncapitals,world knowledge,25\n"
    (folder / "eval_meta_data.csv").write_text(table)
    assert bundle.read(folder)[0].baseline == 0.25


def test_the_texts_of_each_type(folder):
    capitals, who, recall = bundle.read(folder)
    (before, paris), (again, rome), _ = bundle.texts(capitals, capitals.rows[1], capitals.rows[:1])
    assert before == again == "Capital of France: Paris\n\nCapital of Italy: "
    assert (paris, rome) == ("Paris", "Rome")
    assert bundle.texts(who, who.rows[0], who.rows) == [
        ("The cat ate a fish\n\nThe cat ate ", "a fish"),
        ("The cat ate a fish\n\nThe rock ate ", "a fish"),
    ]
    # The space after a context is dropped, in the solved examples too.
    solved = "The word is ab.\nAnswer: ab\n\n"
    asked = "The word is cd.\nAnswer: "
    assert bundle.texts(recall, recall.rows[1], recall.rows[:1]) == [(solved + asked, "cd")]


def decoded(task, row, shots=()):
    found = bundle.pairs(task, BYTES, row, shots)
    return [(BYTES.decode(before), BYTES.decode(after)) for before, after in found]


def test_what_the_options_do_not_share_is_scored(folder):
    capitals, who, recall = bundle.read(folder)
    found = decoded(capitals, capitals.rows[1])
    assert found[0] == ("Capital of Italy: ", "Paris") and found[1][1] == "Rome"
    # "Pari" begins "Paris": one token of it is left, since no mean is over no token.
    assert decoded(capitals, capitals.rows[0]) == [
        ("Capital of France: Par", "is"),
        ("Capital of France: Par", "i"),
    ]
    assert decoded(who, who.rows[0]) == [
        ("The cat", " ate a fish"),
        ("The rock", " ate a fish"),
    ]  # the common end of both texts
    # The white space at the end of the context belongs to what is generated.
    assert decoded(recall, recall.rows[0]) == [("The word is ab.\nAnswer:", " ab")]


def test_the_lowest_mean_decides_not_the_lowest_sum(folder):
    capitals, who, recall = bundle.read(folder)
    long, short = Scored(np.array([-1.0, -1.0, -1.0]), False), Scored(np.array([-2.0]), False)
    assert long.logprob < short.logprob  # the sum would choose the other
    assert bundle.right(capitals, {"gold": 0}, [long, short])
    assert not bundle.right(capitals, {"gold": 1}, [long, short])
    assert bundle.right(who, {"gold": 1}, [short, long])
    one = np.array([-3.0, -3.0])
    assert bundle.right(recall, {}, [Scored(one, True)])
    assert not bundle.right(recall, {}, [Scored(one, False)])


def test_centred_accuracy():
    assert bundle.centred(0.7, 0.25) == pytest.approx(0.6)
    assert bundle.centred(0.25, 0.25) == 0 and bundle.centred(1, 0.5) == 1
    parts = [{"centred": 0.6, "centred_se": 0.03}, {"centred": -0.2, "centred_se": 0.04}]
    whole = bundle.overall(parts)
    assert whole["centred"] == pytest.approx(0.2)
    assert whole["centred_se"] == pytest.approx(math.hypot(0.03, 0.04) / 2)


def test_evaluate_counts_right_rows(folder, monkeypatch):
    """A model that likes the letter s best: Paris beats Pari, Oslo beats Paris and Rome."""
    capitals = bundle.read(folder)[0]
    seen = []

    def score(model, pairs, advance):
        seen.extend(BYTES.decode(before) for before, _ in pairs)
        logprobs = [np.array([0.0 if t == ord("s") else -1.0 for t in after]) for _, after in pairs]
        return [Scored(one, False) for one in logprobs]

    monkeypatch.setattr(continuations, "score", score)
    model = SimpleNamespace(tokenizer=BYTES)
    found = bundle.evaluate(model, capitals, 0, 0, lambda share: None)
    assert found["accuracy"] == 0.5 and found["rows"] == 2
    assert found["accuracy_se"] == pytest.approx(0.5)  # sd of (1, 0) over √2
    assert found["centred"] == pytest.approx((0.5 - 5 / 12) / (7 / 12))
    # The shot of a row is the other row.
    assert all("Italy" in text for text in seen[:2]) and all("France" in text for text in seen[2:])
    assert bundle.evaluate(model, capitals, 1, 0, lambda share: None)["rows"] == 1


def odd(folder, **change):
    """Changes a row of a file."""
    row = json.dumps(ROWS["who.jsonl"][0] | change)
    (folder / "eval_data" / "who.jsonl").write_text(row)


def baseline(folder, text):
    (folder / "eval_meta_data.csv").write_text(f"Eval Task,Random baseline\nwho,{text}\n")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / "core.yaml").unlink(), "has no core.yaml"),
        (lambda f: (f / "core.yaml").write_text("icl_tasks: 3"), "does not list icl_tasks"),
        (lambda f: (f / "core.yaml").write_text("a: ["), "does not list icl_tasks"),
        (lambda f: (f / "core.yaml").write_text(YAML.replace("schema", "guess")), "use one of"),
        (lambda f: (f / "core.yaml").write_text(YAML.replace("[1]", "[2]")), "too few for num_f"),
        (lambda f: (f / "core.yaml").write_text(YAML.replace("who.js", "../who.js")), "not exist"),
        (lambda f: (f / "eval_data" / "who.jsonl").unlink(), "who.jsonl does not exist"),
        (lambda f: (f / "eval_data" / "who.jsonl").write_text("{}\n"), "line 1 lacks context_opt"),
        (lambda f: (f / "eval_data" / "who.jsonl").write_text("{\n"), "line 1 is not JSON"),
        (
            lambda f: (f / "eval_data" / "who.jsonl").write_text(
                json.dumps(ROWS["who.jsonl"][0] | {"gold": 2})
            ),
            "gold=2, which is not the number of one of its options; use 0 to 1",
        ),
        (lambda f: (f / "core.yaml").write_text("icl_tasks: []"), "icl_tasks is empty"),
        (lambda f: odd(f, context_options=["a", 3]), "line 1 has context_options that are not"),
        (lambda f: odd(f, continuation=3), "line 1 has continuation=3, which is not a text"),
        (lambda f: odd(f, gold=True), "line 1 has gold=True, which is not"),
        (lambda f: baseline(f, "100"), "line 2 has Random baseline=100; it must be"),
        (lambda f: baseline(f, "-1"), "line 2 has Random baseline=-1; it must be"),
        (lambda f: baseline(f, "much"), "line 2 has Random baseline=much; it must be"),
        (lambda f: (f / "eval_meta_data.csv").write_text("a,b\n1,2\n"), "needs the columns"),
    ],
)
def test_damaged_bundles_are_one_line(folder, change, message):
    change(folder)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        bundle.read(folder)
    assert "\n" not in str(caught.value)
