"""Tests the tasks: right answers, wrong answers, scores and disjoint splits."""

import numpy as np
import pytest

from data.tasks import TASKS, draws, style

EACH = pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)


@EACH
def test_right_and_wrong_answers_score_so(task):
    rng = np.random.default_rng(0)
    for _ in range(200):
        prompt, answer = task.example(rng)
        assert task.score(prompt, answer, f" {answer}\n") == 1
        bad = task.wrong(rng, prompt, answer)
        assert 0 <= task.score(prompt, answer, bad) < 1, (prompt, bad)
        for strange in ("", "\0", "é" * 50, "9" * 500, "<b>"):
            assert 0 <= task.score(prompt, answer, strange) < 1


@EACH
def test_draws_follow_from_the_seed(task):
    first, again, other = (task.example(np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert first == again
    many = {task.example(np.random.default_rng(seed)) for seed in range(50)}
    assert len(many) > 20 and other in many


@pytest.mark.parametrize(
    ("name", "prompt", "answer"),
    [
        ("addition_reversed", "128+367=", "594"),
        ("sorting", "sort 52 7 31:", "7 31 52"),
        ("spelling_backwards", "reverse tolami:", "imalot"),
        ("letter_counting", "count a in balama:", "3"),
        ("style", "describe rain and town:", "The soft rain falls over a quiet town."),
    ],
)
def test_examples_of_the_docstrings(name, prompt, answer):
    assert TASKS[name].score(prompt, answer, answer) == 1
    assert prompt in TASKS[name].__doc__ and answer in TASKS[name].__doc__


def test_answers_are_right_by_another_way():
    rng = np.random.default_rng(1)
    for _ in range(100):
        prompt, answer = TASKS["addition_reversed"].example(rng, 5)
        assert str(eval(prompt.rstrip("="))) == answer[::-1]
        prompt, answer = TASKS["sorting"].example(rng, 6)
        assert {*prompt[5:-1].split()} == {*answer.split()}
        prompt, answer = TASKS["letter_counting"].example(rng, 40)
        letter, word = prompt[:-1].removeprefix("count ").split(" in ")
        assert sum(one == letter for one in word) == int(answer) < 10


def test_size_sets_the_longest_prompt():
    def longest(size):
        rng = np.random.default_rng(0)
        return max(len(TASKS["addition_reversed"].example(rng, size)[0]) for _ in range(300))

    assert [longest(size) for size in (1, 2, 6)] == [4, 6, 14]


def test_the_judge_of_style_is_graded():
    good = "The soft rain falls over a quiet town."
    scores = [
        style.score("describe rain and town:", "", text) for text in (good, good[:-1], "rain", "")
    ]
    assert scores == sorted(scores, reverse=True) and len(set(scores)) == 4
    assert style.score("describe snow and town:", "", good) == pytest.approx(0.9)


@EACH
def test_splits_have_no_prompt_in_common(task):
    kinds = [{draws.draw(task, 0, 0.3, split, seed, number)[0] for number in range(150)
              for seed in (0, 1)} for split in ("train", "validation")]  # fmt: skip
    assert all(len(prompts) > 2 for prompts in kinds) and not kinds[0] & kinds[1]
    # Without the rule they share prompts, at least where a task has few.
    rng = np.random.default_rng(0)
    free = [{style.example(rng)[0] for _ in range(150)} for _ in range(2)]
    assert free[0] & free[1]


def test_draws_are_pure_and_a_split_may_be_empty():
    task = TASKS["sorting"]
    one, two = (draws.draw(task, 0, 0.3, "train", 5, 9)[:2] for _ in range(2))
    assert one == two != draws.draw(task, 0, 0.3, "train", 5, 10)[:2]
    with pytest.raises(ValueError, match=r"data\.validation=0\.0 leaves no prompts"):
        draws.draw(task, 0, 0.0, "validation", 0, 0)
    found = draws.different(task, 0, 0.3, "validation", 0, 100)
    assert len({prompt for prompt, _ in found}) == 100
