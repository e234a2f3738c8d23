"""Tests the kind `conversations`: formats, targets, packing, lengths and what is refused."""

import gzip
import json

import numpy as np
import pytest

from data.chat import chat_files, demonstrations
from data.tasks import TASKS


def talk(*said: str) -> dict:
    roles = ("user", "assistant")
    return {"messages": [{"role": roles[n % 2], "content": text} for n, text in enumerate(said)]}


MANY = [talk(f"q{n}", f"a{n}" * (1 + n % 3)) for n in range(40)]


def supervised(dataset, batch, row):
    """The text of the targets that count in a row."""
    tokens = batch["targets"][row][batch["weights"][row] > 0]
    return "|".join(part for part in dataset.tokenizer.decode(tokens).split("\0"))


def test_three_formats_are_one(written):
    share = {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yes"}]}
    alpaca = {"instruction": "Hi", "output": "Yes"}
    parts = {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]},
                          {"role": "assistant", "content": "Yes"}]}  # fmt: skip
    path = written([talk("Hi", "Yes"), share, alpaca, alpaca | {"input": ""}, parts])
    found = [one.messages for one in chat_files.conversations(str(path))]
    assert found == [talk("Hi", "Yes")["messages"]] * 5
    both = written([alpaca | {"input": "there", "system": "Be nice"}])
    said = next(chat_files.conversations(str(both))).messages
    assert [one["role"] for one in said] == ["system", "user", "assistant"]
    assert said[1]["content"] == "Hi\n\nthere"
    packed = path.with_suffix(".jsonl.gz")
    packed.write_bytes(gzip.compress(both.read_bytes() * 2))
    assert len(list(chat_files.conversations(str(packed)))) == 2


def test_only_the_assistant_counts_in_every_turn_with_its_end(written, opened):
    rows = [talk("ab", "cd", "ef", "gh") for _ in range(1)] + MANY
    dataset = opened("conversations", written(rows), validation=0.3, template="chatml", length=128)
    numbers = [
        n
        for split in ("train", "validation")
        for n, where in enumerate(dataset.store.where[split])
        if where.endswith(" line 1")
    ]
    split = next(s for s in ("train", "validation")
                 if any(w.endswith(" line 1") for w in dataset.store.where[s]))  # fmt: skip
    batch = dataset._filled(split, np.array(numbers), np.zeros(1, int), np.zeros(1, int), 1)
    row_tokens, row_targets = batch["tokens"][0], batch["targets"][0]
    counted = row_targets[batch["weights"][0] > 0]
    assert bytes(counted.tolist()) == b"cd\xffgh\xff"
    n = int(np.flatnonzero(batch["weights"][0])[-1]) + 1
    assert np.array_equal(row_tokens[1:n], row_targets[: n - 1])
    assert (row_tokens[n:] == 255).all() and not batch["weights"][0][n:].any()


def test_packed_rows_hold_the_same_conversations(written, opened):
    path = written(MANY)
    padded, packed = (opened("conversations", path, rows=rows) for rows in ("padded", "packed"))
    assert len(packed.rows) < len(padded.rows)
    kept = [[], []]
    for found, dataset in zip(kept, (padded, packed), strict=True):
        for number in range(len(dataset.rows)):
            batch = dataset._filled("train", *dataset.rows.of(np.array([number])), 1)
            segments = batch.get("segments", (batch["weights"].cumsum() > -1)[None].astype(int))[0]
            for segment in range(1, segments.max() + 1):
                here = segments == segment
                weights = batch["weights"][0][here] > 0
                found.append(bytes(batch["targets"][0][here][weights].tolist()))
                if "positions" in batch:
                    assert np.array_equal(batch["positions"][0][here], np.arange(here.sum()))
    assert sorted(kept[0]) == sorted(kept[1]) and len(kept[0]) > 30


def test_batches_are_pure_and_rows_are_a_part(written, opened):
    dataset = opened("conversations", written(MANY), rows="packed")
    whole, again = dataset.batch("train", 3, 5), dataset.batches("train", 3, 4, 2)
    part = dataset.batch("train", 3, 5, rows=[1])
    for name in dataset.spec():
        assert np.array_equal(whole[name], again[name][1])
        assert np.array_equal(whole[name][1:], part[name])
    assert any(not np.array_equal(whole[n], dataset.batch("train", 4, 5)[n]) for n in whole)


def test_evaluation_counts_each_conversation_once(written, opened):
    dataset = opened("conversations", written(MANY), rows="packed", validation=0.4)
    batches = list(dataset.examples("validation"))
    n = len(dataset.store.splits["validation"])
    weights = np.concatenate([batch["weights"] for batch in batches])
    assert (weights.sum(1) > 0).sum() == n and len(weights) == 2 * len(batches)
    texts = np.concatenate([batch["bytes"] for batch in batches])
    assert np.array_equal(texts, np.maximum(weights.sum(1) - 1, 0))  # the end has no bytes


def test_too_long_ones_are_named_and_treated_as_asked(written, opened):
    rows = [*MANY, talk("q", "x" * 100), talk("q" * 100, "x")]
    path = written(rows)
    with pytest.raises(ValueError, match=r"2 of 39 conversations \(train\) .* line 41 with 1") as e:
        opened("conversations", path, validation=0.05)
    assert "data.too_long=drop or truncate" in str(e.value)
    dropped = opened("conversations", path, validation=0.05, too_long="drop")
    assert len(dropped.rows) == len(dropped.store.splits["train"]) - 2
    assert "line 41" in dropped.notes[0] and dropped.notes[0].endswith("dropped")
    with pytest.raises(ValueError, match=r"1 conversations have nothing .* line 42; use a longer"):
        opened("conversations", path, validation=0.05, too_long="truncate")
    cut = opened("conversations", written(rows[:-1], "b.jsonl"), validation=0.05,
                 too_long="truncate")  # fmt: skip
    assert cut.lengths["train"].max() == 65 and "truncated" in cut.notes[0]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([talk("a", "b"), talk("a"), talk("c")], r"2 conversations have nothing to train on.*"
         r"chat.jsonl line 2, .*line 3; complete"),
        ([talk("a", "")], "line 1 has an empty message of the role 'assistant'"),
        ([{"messages": [{"role": "tool", "content": "x"}]}], "a message of the role 'tool'"),
        ([{"messages": "x"}], "'messages' is no list"),
        ([{"text": "x"}], "line 1 is no conversation: its keys are text"),
        ([{"instruction": 3, "output": "x"}], "line 1: 'instruction' is no text"),
        ([{"instruction": "a", "input": ["b"], "output": "x"}], "line 1: 'input' is no text"),
        ([7], "is no conversation: its keys are none"),
        ([talk("a", "b") | {"messages": [{"role": "user", "content": 3}]}], "content is no text"),
        ([], "is empty"),
        ([{"messages": [{"role": role, "content": "b"} for role in ("assistant", "system")]}],
         "line 1: the chat template 'data.template' refuses .* the system message must be the fi"),
    ],
)  # fmt: skip
def test_bad_lines_are_named(rows, message, written, opened):
    with pytest.raises(ValueError, match=message) as caught:
        opened("conversations", written(rows))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("corpus", "changes", "message"),
    [
        ("no.jsonl", {}, "does not exist"),
        ("task:addition", {}, "names no task"),
        ("task:sorting:n=3", {}, "'n=3' is not KEY=NUMBER"),
        ("task:sorting", {"rows": "long"}, "data.rows='long' is unknown"),
        ("task:sorting", {"wrong_share": 1.5}, "must be from 0 to 1"),
        ("task:sorting", {"tokenizer": "chars"}, "is trained on text, but data.kind='conv"),
        ("task:sorting", {"template": "vicuna"}, "data.template='vicuna' is unknown; use plain"),
    ],
)
def test_bad_sections(corpus, changes, message, opened):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        opened("conversations", corpus, **changes)


def test_wrong_share_needs_made_up_answers(written, opened):
    with pytest.raises(ValueError, match="needs answers that are made up"):
        opened("conversations", written(MANY), wrong_share=0.1)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_known_share_of_the_demonstrations_is_wrong(share):
    made = demonstrations.parse("task:sorting:examples=200:seed=1")
    scores = []
    for _, messages in made.conversations(share):
        prompt, answer = (message["content"] for message in messages)
        right = " ".join(sorted(prompt[5:-1].split(), key=int))
        scores.append(TASKS["sorting"].score(prompt, right, answer))
    assert sum(scores) == 200 - round(200 * share)


def test_a_prompt_is_in_the_split_that_the_kind_tasks_gives_it(opened):
    from data.tasks.draws import in_validation

    dataset = opened("conversations", "task:sorting:examples=200", validation=0.3)
    for split in ("train", "validation"):
        examples = dataset.store.splits[split]
        for begin, n in zip(examples.begins_NK[:, 0], examples.lengths_NK[:, 0], strict=True):
            text = dataset.tokenizer.decode(examples.tokens[begin : begin + n])
            prompt = text.removeprefix("USER: ").partition("\n")[0]
            assert in_validation(prompt, 0.3) == (split == "validation")


@pytest.mark.parametrize("kind", ["conversations", "preferences"])
def test_fewer_examples_are_the_first_of_those_for_training(kind, opened):
    """What is held out stays; every row of an epoch is one of the first."""
    corpus = "task:sorting:examples=60"
    every, few = opened(kind, corpus), opened(kind, corpus, examples=6)
    whole, first = every.kept["train"][0], few.kept["train"][0]
    assert len(whole) > 6 and np.array_equal(first, whole[:6])
    assert np.array_equal(few.kept["validation"][0], every.kept["validation"][0])
    assert every.evaluated == few.evaluated and every.hash == few.hash
    assert few.epochs(3) == 1 and every.epochs(3) < 1
    name = next(iter(few.spec()))
    rows = {row.tobytes() for step in range(12) for row in few.batch("train", 0, step)[name]}
    others = {row.tobytes() for step in range(27) for row in every.batch("train", 0, step)[name]}
    assert len(rows) == 6 and rows < others
    with pytest.raises(ValueError, match=r"data\.examples=61 is more than"):
        opened(kind, corpus, examples=61)


def test_a_damaged_cache_is_named(written, opened, tmp_path):
    path = written(MANY)
    opened("conversations", path)
    (file,) = tmp_path.glob("cache/*/train.tokens.npy")
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(raw)
    with pytest.raises(ValueError, match="has changed; delete it"):
        opened("conversations", path)
    (about,) = tmp_path.glob("cache/*/chat.json")
    about.write_text(json.dumps({}))
    with pytest.raises(ValueError, match="damaged"):
        opened("conversations", path)
