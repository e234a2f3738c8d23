"""Tests the kind `preferences`: fields, formats, and what is refused."""

import numpy as np
import pytest

from data.chat import chat_files, demonstrations
from data.tasks import TASKS

ROWS = [{"prompt": f"q{n}", "chosen": f"good{n}", "rejected": f"bad{n}" * 2, "margin": n / 4}
        for n in range(30)]  # fmt: skip


def answers(batch, side, row):
    """The tokens that the weights of a side point at: those after them."""
    counted = np.flatnonzero(batch[f"{side}_weights"][row])
    return bytes(batch[side][row][counted + 1].tolist())


@pytest.mark.parametrize("template", ["plain", "chatml", ""])
def test_weights_point_at_the_answers_with_their_end(template, written, opened):
    dataset = opened("preferences", written(ROWS), template=template, length=80)
    batch, seen = dataset.batch("train", 0, 3), 0
    for row in range(2):
        number = int(bytes(answers(batch, "chosen", row)).strip(b" god\xff"))
        space = b" " if template == "plain" else b""
        assert answers(batch, "chosen", row) == space + f"good{number}".encode() + b"\xff"
        assert answers(batch, "rejected", row) == space + f"bad{number}".encode() * 2 + b"\xff"
        assert batch["margin"][row] == number / 4
        first = [int(np.flatnonzero(batch[f"{side}_weights"][row])[0]) + 1
                 for side in ("chosen", "rejected")]  # fmt: skip
        assert first[0] == first[1]
        prompt = batch["chosen"][row][: first[0]]
        assert np.array_equal(prompt, batch["rejected"][row][: first[0]])
        assert f"q{number}".encode() in bytes(prompt.tolist())
        # Nothing follows the end of an answer but padding.
        last = int(np.flatnonzero(batch["chosen_weights"][row])[-1]) + 1
        assert (batch["chosen"][row][last:] == 255).all()
        seen += 1
    assert seen == 2 and {k: v.dtype.name for k, v in batch.items()} == {
        "chosen": "int32", "rejected": "int32", "margin": "float32",
        "chosen_weights": "float32", "rejected_weights": "float32"}  # fmt: skip


def test_formats(written):
    user, good, bad = (
        {"role": role, "content": text}
        for role, text in (("user", "q"), ("assistant", "a"), ("assistant", "b"))
    )
    rows = [
        {"prompt": "q", "chosen": "a", "rejected": "b"},
        {"prompt": [user], "chosen": [good], "rejected": [bad]},
        {"prompt": [user], "chosen": good, "rejected": bad},
        {"chosen": [user, good], "rejected": [user, bad]},
        {"prompt": "q", "chosen": [user, good], "rejected": [user, bad]},
        {"prompt": [user], "chosen": [user, good], "rejected": [bad]},
    ]
    found = list(chat_files.preferences(str(written(rows))))
    assert [one[1:] for one in found] == [([user], [good], [bad], 0.0)] * 6


def test_turns_before_the_answer_do_not_count(written, opened):
    said = [("user", "a"), ("assistant", "bb"), ("user", "c")]
    prompt = [{"role": role, "content": text} for role, text in said]
    rows = [*ROWS, {"prompt": prompt, "chosen": "dd", "rejected": "e"}]
    dataset = opened("preferences", written(rows), validation=0.2)
    split = next(s for s in ("train", "validation") if any(
        where.endswith("line 31") for where in dataset.store.where[s]))  # fmt: skip
    batch = dataset._rows(split, np.array([len(dataset.store.where[split]) - 1]))
    assert answers(batch, "chosen", 0) == b" dd\xff" and b"bb" in bytes(batch["chosen"][0].tolist())


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "q", "chosen": "a", "rejected": "a"}, "equal answers.*line 31; delete"),
        ({"prompt": "q", "chosen": "a"}, "line 31 has no 'rejected'; its keys: prompt, chosen"),
        ({"prompt": "q", "chosen": "a", "rejected": ""}, "empty message of the role 'assistant'"),
        ({"chosen": "a", "rejected": "b"}, "has no prompt"),
        (
            {"prompt": "q", "chosen": [{"role": "user", "content": "x"}], "rejected": "b"},
            "line 31: 'chosen' begins with the role 'user' after the prompt",
        ),
        (
            {"prompt": "q", "chosen": "a", "rejected": [{"role": "user", "content": "q"}]},
            "line 31: 'rejected' is empty after the prompt",
        ),
        (ROWS[0] | {"margin": float("nan")}, "margin nan"),
        (ROWS[0] | {"margin": "x"}, "no finite number"),
        (ROWS[0] | {"chosen": "x" * 90}, r"1 of \d+ preferences .* line 31 with 111; use model"),
    ],
)
def test_bad_lines_are_named(row, message, written, opened):
    with pytest.raises(ValueError, match=message):
        opened("preferences", written([*ROWS, row]))


def test_long_ones_are_dropped_where_asked(written, opened):
    rows = [*ROWS, ROWS[0] | {"chosen": "x" * 90}]
    dataset = opened("preferences", written(rows), too_long="drop")
    assert len(dataset.notes) == 1 and dataset.notes[0].endswith("dropped")
    with pytest.raises(ValueError, match="'truncate' is unknown; use one of refuse, drop"):
        opened("preferences", written(rows), too_long="truncate")


@pytest.mark.parametrize("share", [0.0, 0.25])
def test_a_known_share_of_a_tasks_preferences_is_exchanged(share):
    made = demonstrations.parse("task:letter_counting:examples=80")
    task, right = TASKS["letter_counting"], 0
    for one in made.preferences(share):
        prompt = one.prompt[0]["content"]
        letter, word = prompt[6], prompt[11:-1]
        scores = [task.score(prompt, str(word.count(letter)), answer[0]["content"])
                  for answer in (one.chosen, one.rejected)]  # fmt: skip
        assert sum(scores) == 1
        right += scores[0]
    assert right == 80 * (1 - share)


def test_evaluation_pads_with_rows_that_do_not_count(written, opened):
    dataset = opened("preferences", written(ROWS), validation=0.5)
    batches = list(dataset.examples("validation"))
    counted = sum(int((batch["chosen_weights"].sum(1) > 0).sum()) for batch in batches)
    assert counted == len(dataset.store.splits["validation"])
