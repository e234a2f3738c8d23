"""Tests the kind `tasks`: batches, splits, checkers by import path, and what is refused."""

import json

import numpy as np
import pytest

from configs import base
from data.kinds import KINDS
from data.tasks import TASKS, checkers
from launch.chat.template import filled


def opened(length=128, **changes):
    config = base.get_config(kind="tasks")
    config.model.context_length = length
    config.train.batch_size = config.eval.batch_size = 4
    config.data.update(changes)
    return KINDS["tasks"].prepare(filled(config.data)).for_run(config)


def strings(dataset, batch):
    """(prompt, answer) of each row."""
    encoder, width = dataset.encoder, batch["prompt"].shape[1]
    return [
        (
            encoder.prompt_of(batch["prompt"][row][width - batch["prompt_length"][row] :]),
            encoder.response_of(batch["answer"][row][: batch["answer_length"][row]]).strip(),
        )
        for row in range(len(batch["prompt"]))
    ]


@pytest.mark.parametrize(
    ("task", "template"),
    [
        *((task, "plain") for task in TASKS),
        ("style", "chatml"),
        ("sorting", "gemma"),
        ("style", ""),
    ],
)
def test_rows_give_back_the_prompts(task, template):
    dataset = opened(task=task, template=template, prompt_length=80, answer_length=64, length=144)
    batch = dataset.batch("train", 0, 1)
    for row, (prompt, answer) in enumerate(strings(dataset, batch)):
        assert TASKS[task].score(prompt, answer, answer) == 1
        assert batch["answer"][row][batch["answer_length"][row] - 1] == dataset.encoder.end
        padding = batch["prompt"][row][: 80 - batch["prompt_length"][row]]
        assert (padding == 255).all()
    fields = [batch[n] for n in ("prompt", "prompt_length", "answer", "answer_length")]
    right = dataset.scorer(*fields, batch["answer"], batch["answer_length"])
    assert right.tolist() == [1] * 4 and right.dtype == np.float32
    assert (dataset.scorer(*fields, batch["answer"] * 0 + 65, batch["answer_length"]) < 1).all()


def test_batches_are_pure_and_splits_disjoint():
    dataset = opened(task="sorting", validation=0.3)
    whole, again = dataset.batch("train", 1, 7), dataset.batches("train", 1, 6, 2)
    part = dataset.batch("train", 1, 7, rows=[2])
    for name in dataset.spec():
        assert np.array_equal(whole[name], again[name][1])
        assert np.array_equal(whole[name][2:3], part[name])
    assert strings(dataset, whole) != strings(dataset, dataset.batch("train", 2, 7))
    held_out = []
    for batch in dataset.examples("validation"):
        held_out += np.array(strings(dataset, batch))[batch["counts"] > 0].tolist()
    trained = {prompt for step in range(40) for prompt, _ in
               strings(dataset, dataset.batch("train", 0, step))}  # fmt: skip
    prompts = {prompt for prompt, _ in held_out}
    assert len(prompts) == len(held_out) == 256 and not prompts & trained
    assert dataset.epochs(1000) == 0.0


def test_files_of_prompts_with_a_checker(tmp_path, monkeypatch, capsys):
    rows = [{"prompt": f"{n} times 2", "answer": 2 * n} for n in range(60)]
    path = tmp_path / "sums.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    dataset = opened(corpora=(str(path),), validation=0.3)
    batch = dataset.batch("train", 0, 0)
    fields = [batch[n] for n in ("prompt", "prompt_length", "answer", "answer_length")]
    for prompt, answer in strings(dataset, batch):
        assert int(answer) == 2 * int(prompt.split()[0])
    assert dataset.scorer(*fields, batch["answer"], batch["answer_length"]).tolist() == [1] * 4
    assert dataset.epochs(10) > 0.5
    (tmp_path / "my_checker.py").write_text(
        "def check(prompt, answer, response):\n    return 0.5 if 'x' in response else 1 / 0\n"
        "def much(prompt, answer, response):\n    return float('nan')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    mine = opened(corpora=(str(path),), validation=0.3, checker="my_checker:check")
    assert mine.hash == dataset.hash
    response = np.frombuffer(b"xbbb", np.uint8).astype(np.int32)[:, None]
    found = mine.scorer(*fields, response, np.ones(4, np.int32))
    assert found.tolist() == [0.5, 0, 0, 0]
    assert (mine.checker.failures, mine.checker.calls) == (3, 4)
    assert "ZeroDivisionError" in mine.checker.first_traceback
    shown = capsys.readouterr().err
    assert shown.count("Traceback") == 1 and "counts as 0" in shown
    much = checkers.from_spec("sorting", "my_checker:much")
    assert much("a", "b", "c") == 0 and "nan" in much.first_traceback


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "chess"}, "data.task='chess' is unknown; use one of addition_reversed"),
        ({"checker": "no.such:check"}, "cannot be imported .*package.module:function"),
        ({"checker": "math"}, "is no function"),
        ({"validation": 0.0}, "must be above 0"),
        (
            {"prompt_length": 20},
            r"\d+ of 256 examples \(train\) are longer than data.prompt_length",
        ),
        ({"answer_length": 3}, "longer than data.answer_length=3"),
        ({"length": 32}, "need 64 tokens, more than model.context_length=32"),
        ({"corpora": ("none.jsonl",)}, "does not exist"),
        ({"tokenizer": "bpe"}, "is trained on text, but data.kind='tasks'"),
    ],
)
def test_bad_sections(changes, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        opened(**changes)


@pytest.mark.parametrize("row", ['{"prompt": ""}', '{"question": "a"}', "3", '{"prompt": 1}'])
def test_bad_lines_are_named(row, tmp_path):
    (tmp_path / "a.jsonl").write_text(f'{{"prompt": "a", "answer": "b"}}\n{row}\n')
    with pytest.raises(ValueError, match="line 2 is not"):
        opened(corpora=(str(tmp_path / "a.jsonl"),))
