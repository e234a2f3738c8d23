"""Tests of `evaluate --tasks` with drawn answers, on n-grams whose answers have known odds."""

import json

import numpy as np
import pytest

from data import tokenizer
from launch.__main__ import main
from launch.benchmarks import chosen
from model.counted import ngram
from train.checkpoint import write_manifest
from train.counting import MODEL as COUNTS

# The answer to a= is y three times of four, that to b= is z once of four, that to c= never right.
TEXT = "a=y\na=x\na=y\na=y\nb=z\nb=w\nb=w\nb=w\nc=w\n" * 30
ODDS = {"a=": 0.75, "b=": 0.25, "c=": 0.0}
LINES = [{"prompt": p, "answer": a} for p, a in (("a=", "y"), ("b=", "z"), ("c=", "q"))]
CHAT = "USER: 1+1=\nASSISTANT: 2\xff\n" * 30
ASKED = [{"prompt": "1+1=", "answer": "2"}]


def counted(folder, text: str, order: int):
    """A run of n-grams of bytes, nearly without smoothing; ÿ stands for the end of a document."""
    cfg = ngram.Config(256, context_length=64, order=order, smoothing="add_k", k=1e-9)
    (folder / "checkpoints" / "1").mkdir(parents=True)
    with open(folder / "checkpoints" / "1" / COUNTS, "wb") as file:
        read = np.frombuffer(text.encode("latin1"), np.uint8)
        ngram.save(ngram.fit(cfg, [read]), file)
    write_manifest(folder / "checkpoints" / "1", {"step": 1})
    config = {"model": {"family": "ngram"} | vars(cfg), "data": {"tokenizer": "bytes"}}
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer.from_spec("bytes").save(folder / "tokenizer")
    return folder


def listed(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Runs `odds` and `chat`, the latter with a chat template, and files of prompts."""
    from configs.chat import TEMPLATES

    home = tmp_path_factory.mktemp("home")
    counted(home / "odds", TEXT, 3)
    counted(counted_chat := home / "chat", CHAT, 10)
    (counted_chat / "chat_template.jinja").write_text(TEMPLATES["plain"])
    listed(home / "odds.jsonl", LINES)
    listed(home / "chat.jsonl", ASKED)
    return home


def evaluated(home, tmp_path, *flags):
    assert main(["evaluate", f"--json={tmp_path / 'e.json'}", *flags]) == 0
    return json.loads((tmp_path / "e.json").read_text())


def test_pass_at_k_is_that_of_the_known_odds(home, tmp_path, capsys):
    flags = (f"--run={home / 'odds'}", f"--tasks={home / 'odds.jsonl'}", "--samples=80", "--k=1,4")
    about = evaluated(home, tmp_path, *flags)
    (task,) = about["tasks"]
    assert (task["prompts"], task["samples"], about["step"]) == (3, 80, 1)
    for k, one in zip((1, 4), task["pass_at_k"], strict=True):
        wanted = np.mean([1 - (1 - p) ** k for p in ODDS.values()])
        assert one["value"] == pytest.approx(wanted, abs=0.07) and one["k"] == k
        assert one["lo"] < one["value"] < one["hi"]
    one, four = (found["value"] for found in task["pass_at_k"])
    assert four > one + 0.1
    for row, (prompt, odds) in zip(task["responses"], ODDS.items(), strict=True):
        assert row["prompt"] == prompt and len(row["responses"]) == len(row["scores"]) == 80
        assert np.mean(row["scores"]) == pytest.approx(odds, abs=0.16)
        assert all("\n" not in text for text in row["responses"])  # an answer is one line
    printed = capsys.readouterr().out
    assert f"{one:.1%} [" in printed and "no chat template" in printed
    assert "right  a= → y" in printed and "wrong  a= → x   (right: y)" in printed
    again = evaluated(home, tmp_path, *flags)
    assert again["tasks"] == about["tasks"]
    other = evaluated(home, tmp_path, *flags, "--seed=1")
    assert other["tasks"][0]["responses"] != task["responses"]


def test_greedy_answers_are_all_the_same(home, tmp_path):
    about = evaluated(
        home, tmp_path, f"--run={home / 'odds'}", f"--tasks={home / 'odds.jsonl'}",
        "--samples=2", "--temperature=0", "--prompts=2",
    )  # fmt: skip
    (task,) = about["tasks"]
    assert [one["k"] for one in task["pass_at_k"]] == [1]  # of the default 1,8
    assert [row["responses"] for row in task["responses"]] == [["y", "y"], ["w", "w"]]


def test_a_run_answers_through_its_chat_template(home, tmp_path, capsys):
    flags = (f"--run={home / 'chat'}", f"--tasks={home / 'chat.jsonl'}", "--samples=4", "--k=1")
    task = evaluated(home, tmp_path, *flags)["tasks"][0]
    assert task["pass_at_k"][0]["value"] == 1 and task["template"]
    assert task["responses"][0]["responses"][0].strip() == "2"
    assert "its chat template" in capsys.readouterr().out
    plain = evaluated(home, tmp_path, *flags, "--template=none")["tasks"][0]
    assert plain["pass_at_k"][0]["value"] == 0 and not plain["template"]


def test_generated_tasks_are_held_out_prompts(home, tmp_path):
    from data.tasks import draws

    flags = (f"--run={home / 'odds'}", "--samples=1", "--k=1", "--prompts=6", "--tokens=2")
    about = evaluated(home, tmp_path, *flags, "--tasks=addition_reversed,sorting")
    assert [task["task"] for task in about["tasks"]] == ["addition_reversed", "sorting"]
    for task in about["tasks"]:
        prompts = [row["prompt"] for row in task["responses"]]
        assert len(set(prompts)) == 6
        assert all(draws.in_validation(prompt, 0.1) for prompt in prompts)
        assert task["pass_at_k"][0] == {
            "k": 1, "value": 0, "se": 0, "lo": 0, "hi": pytest.approx(1 - 0.1 ** (1 / 6))
        }  # fmt: skip


def test_a_checker_of_the_user_s_is_called_and_its_failures_counted(home, tmp_path, capsys):
    flags = (f"--run={home / 'odds'}", f"--tasks={home / 'odds.jsonl'}", "--samples=2", "--k=1")
    here = "tests.launch.benchmarks.test_tasks"
    about = evaluated(home, tmp_path, *flags, f"--checker={here}:half")
    assert about["tasks"][0]["score"] == 0.5 and about["tasks"][0]["solved"] == 0
    about = evaluated(home, tmp_path, *flags, f"--checker={here}:broken")
    assert about["tasks"][0]["checker_failures"] == 6
    assert "ZeroDivisionError" in about["tasks"][0]["checker_traceback"]
    printed = capsys.readouterr()
    assert "failed for 6 responses" in printed.out and printed.err.count("Traceback") == 1


def half(prompt, answer, response):
    return 0.5


def broken(prompt, answer, response):
    return 1 / 0


def test_what_is_shown_cannot_move_the_cursor(home, tmp_path, capsys):
    listed(tmp_path / "bad.jsonl", [{"prompt": "a=\x1b[31m", "answer": "\x1b[2J"}])
    flags = (f"--run={home / 'odds'}", f"--tasks={tmp_path / 'bad.jsonl'}", "--samples=1", "--k=1")
    evaluated(home, tmp_path, *flags)
    printed = capsys.readouterr().out
    assert "\x1b" not in printed and r"\x1b[31m" in printed


BAD = [
    ("--tasks=sortig", "tasks='sortig' is unknown; use one of addition_reversed"),
    ("--tasks=", "has an empty name"),
    ("--tasks=core:", "has an empty name"),
    ("--tasks=sorting,sorting", "names sorting twice"),
    ("--tasks=core:nowhere", "has no core.yaml"),
    ("--tasks=none.jsonl", "none.jsonl' does not exist"),
    ("--tasks=sorting --k=8 --samples=4", "k=8 must lie between 1 and --samples=4"),
    ("--tasks=sorting --k=a", "no list of whole numbers"),
    ("--tasks=sorting --data=x.txt", "data means nothing with --tasks"),
    ("--samples=4", "samples means nothing without --tasks"),
    ("--tasks=lm_eval:mine", "lm_eval_path is not given"),
    ("--tasks=sorting --lm_eval_path=x", "lm_eval_path means nothing without --tasks=lm_eval:"),
    ("--tasks=sorting --checker=json:nothing", "--checker='json:nothing' cannot be imported"),
    ("--tasks=sorting --template=huh", "template='huh' is unknown"),
]


@pytest.mark.parametrize(("flags", "message"), BAD, ids=[flags for flags, _ in BAD])
def test_bad_flags_are_one_line(home, capsys, flags, message):
    assert main(["evaluate", f"--run={home / 'odds'}", *flags.split()]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1, error


def test_names_are_sorted_by_what_evaluates_them():
    names = chosen.names_of("sorting, core:a/b,lm_eval:mine,my.jsonl")
    assert names == chosen.Names(("sorting", "my.jsonl"), ("a/b",), ("mine",))


def test_a_bundle_is_evaluated_beside_a_task(home, tmp_path, capsys):
    """After a= the n-grams prefer y to x; after b= greedy decoding gives w, never z."""
    entry = "- {{label: {0}, dataset_uri: {0}.jsonl, num_fewshot: [0], icl_task_type: {1}"
    entry += ', continuation_delimiter: ""}}\n'
    kinds = (("choice", "multiple_choice"), ("recall", "language_modeling"))
    lines = "".join(entry.format(*kind) for kind in kinds)
    (tmp_path / "core.yaml").write_text(f"icl_tasks:\n{lines}")
    rows = [{"query": "\na=", "choices": ["x", "y"], "gold": gold} for gold in (1, 0)]
    listed(tmp_path / "choice.jsonl", rows)
    rows = [{"context": "a\nb=", "continuation": after} for after in ("w", "z", "w\n")]
    listed(tmp_path / "recall.jsonl", rows)
    tasks = f"--tasks=core:{tmp_path},{home / 'odds.jsonl'}"
    about = evaluated(home, tmp_path, f"--run={home / 'odds'}", tasks, "--samples=1", "--k=1")
    (core,), (task,) = about["core"], about["tasks"]
    choice, recall = core["tasks"]
    assert (choice["accuracy"], choice["baseline"], choice["centred"]) == (0.5, 0.5, 0)
    assert recall["accuracy"] == pytest.approx(2 / 3) == recall["centred"]
    assert core["centred"] == pytest.approx(1 / 3) and task["prompts"] == 3
    printed = capsys.readouterr().out
    assert "mean of the centred accuracies: 0.3333 ±" in printed
