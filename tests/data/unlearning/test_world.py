"""Tests of the made-up world, of the statements to be forgotten and of their batches."""

import collections
import dataclasses
import re

import numpy as np
import pytest

from configs import base
from data import kinds
from data.build import digest_of, is_validation
from data.kinds.unlearning import forgotten
from data.kinds.unlearning.statements import statements
from data.sources import corpus, world
from data.tokenizer import from_spec, train

SPEC = "world:entities=12:times=4:editions=3:roles=30:bias=0.8:forget=0.3"


@pytest.fixture(scope="module")
def made():
    return world.parse(SPEC)


def test_each_fact_is_stated_as_often_as_it_says(made):
    told = collections.Counter(s for page in corpus.documents(SPEC) for s in page.split("\n"))
    for fact in made.facts:
        counts = [told[f"{question} {fact.value}."] for question in fact.questions()]
        assert sum(counts) == 3 * fact.times
        assert [count > 0 for count in counts] == [way < fact.told for way in range(4)]
        others = set(world.RELATIONS[fact.relation].values) - {fact.value}
        assert not any(told[f"{q} {other}."] for q in fact.questions() for other in others)
    assert {fact.times for fact in made.facts} == {0, 1, 2, 4}
    assert sum("said" in s or "because" in s for s in told) > 0


def test_ways_are_the_templates_in_which_a_fact_is_told(made):
    """More ways only add templates, and the default leaves the identity of old text as it was."""
    more = world.parse(f"{SPEC}:ways=4")
    assert [f.told for f in more.facts] == [min(f.times, 4) for f in made.facts]
    for fewer, one in zip(made.facts, more.facts, strict=True):
        assert (one.templates, one.value) == (fewer.templates, fewer.value)
        assert set(fewer.statements()) <= set(one.statements())
        assert len(one.statements()) == one.times and len(set(one.statements())) == one.told
    assert made.identity == [repr(made), world.VERSION] and "ways" not in repr(made)
    assert world.parse(f"{SPEC}:ways=2").identity == made.identity != more.identity
    for ways in (0, 5):
        with pytest.raises(ValueError, match=rf"ways={ways} must be from 1 to 4"):
            world.parse(f"{SPEC}:ways={ways}")


def test_parts_divide_what_is_told(made):
    whole, forget, retain = (
        collections.Counter(dataclasses.replace(made, part=part).sentences())
        for part in world.PARTS
    )
    assert whole == forget + retain and not forget & retain and forget
    assert dataclasses.replace(made, part="forget").facts == made.facts
    more = world.parse(SPEC.replace("forget=0.3", "forget=0.5"))
    assert {f for f in made.facts if f.forget} <= {f for f in more.facts if f.forget}


def test_roles_have_their_pronouns_by_the_bias():
    text = list(world.parse("world:entities=1:editions=1:roles=3000:bias=0.8").sentences())
    own = [
        which
        for pair in world.ROLES
        for which, role in enumerate(pair)
        for s in text
        if f" {role} " in s and f" {world.PRONOUNS[which]} " in s
    ]
    assert len(own) / 3000 == pytest.approx(0.8, abs=0.03)


def test_what_the_training_split_states(made):
    found = made.times_in_training(0.4)
    pages = [p for p in made.documents() if not is_validation(digest_of(p.encode()), 0.4)]
    for fact in made.facts:
        said = sum(s in fact.statements() for page in pages for s in page.split("\n"))
        assert found[fact.entity, fact.relation] == said
    assert made.times_in_training(0.0) != found


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("world:cities=3", "'cities=3' is not KEY=VALUE"),
        ("world:entities=no", "entities='no' is not valid"),
        ("world:entities=0", "entities must be 1 to 4,900"),
        ("world:bias=2", "must be from 0 to 1"),
        ("world:part=some", "part='some' is unknown; use one of all, forget, retain"),
    ],
)
def test_a_bad_world_is_refused(spec, message):
    with pytest.raises(ValueError, match=message) as refused:
        list(corpus.documents(spec))
    assert "\n" not in str(refused.value)


def config(tmp_path, **changes):
    found = base.get_config(objective="unlearn", kind="unlearning")
    found.data.update(forget=(SPEC,), corpora=(f"{SPEC}:part=retain",), cache=str(tmp_path))
    found.data.update(validation=0.2, forget_share=0.25)
    found.model.context_length, found.train.batch_size = 64, 8
    found.eval.batch_size, found.eval.sequences = 8, 4
    found.update(changes)
    return found


def test_rows_hold_statements_and_weigh_their_answers(made):
    tokenizer = from_spec("bytes")
    found = statements((SPEC,), tokenizer)
    told = {(q, f" {f.value}") for f in made.facts if f.forget for q in f.questions()[: f.told]}
    rows = found.rows(np.arange(len(found)), found.longest)
    seen = set()
    for tokens, targets, weights in zip(*rows.values(), strict=True):
        answer = tokenizer.decode(targets[weights > 0])
        text = tokenizer.decode(tokens[1:])
        seen.add((text[: text.index(answer)], answer))
        assert tokens[0] == tokenizer.eod and (tokens[1:] == targets[:-1]).all()
    assert seen == told and len(found) == len(told)


def test_batches_have_both_parts(tmp_path):
    cfg = config(tmp_path)
    dataset = kinds.KINDS["unlearning"].prepare(cfg.data, progress=False).for_run(cfg)
    spec = dataset.spec()
    chunk = dataset.batches("train", 1, 3, 2)
    assert {name: x.shape[2:] for name, x in chunk.items()} == {
        name: field.shape for name, field in spec.items()
    }
    assert chunk["forget"].tolist() == [[1, 1, 0, 0, 0, 0, 0, 0]] * 2
    assert (chunk["weights"][:, 2:] == 1).all() and (chunk["weights"][:, :2].mean() < 0.5)
    for name, x in dataset.batches("train", 1, 4, 1, np.array([5, 0, 1])).items():
        assert (x[0] == chunk[name][1][[5, 0, 1]]).all(), name
    for rows in (slice(0, 2), slice(2, 8)):
        part = dataset.batches("train", 1, 3, 2, rows)
        assert all((part[name] == chunk[name][:, rows]).all() for name in part)
    count = len(dataset.statements)
    an_epoch = [dataset.batch("train", 1, step)["tokens"][:2] for step in range(-(-count // 2))]
    rows = np.concatenate(an_epoch)[:count]
    assert len(np.unique(rows, axis=0)) == count
    examples = list(dataset.examples("validation"))
    weighed = sum((batch["weights"].sum(1) > 0).sum() for batch in examples if batch["forget"][0])
    assert weighed == count and not examples[-1]["forget"].any()


def test_what_is_refused(tmp_path):
    (tmp_path / "f.jsonl").write_text('{"prompt": "a", "reply": "b"}\n')
    tokenizer = from_spec("bytes")
    for spec, message in (
        (str(tmp_path / "f.jsonl"), "line 1 has no prompt and answer"),
        (str(tmp_path / "g.jsonl"), "does not exist"),
        ("world:entities=3", "forgets nothing; give it forget=0.1"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            statements((spec,), tokenizer)
    words = train("words", ["Rome lies in Italy"])
    rome = '{"prompt": "Rome lies in", "answer": " Italy"}\n'
    for answer, message in (
        ("", "line 2 has an empty answer to 'Rome lies in'"),
        (" ", "line 2 has an empty answer"),
        (" Peru", "line 2 has the answer ' Peru', which has words that the vocabulary lacks"),
    ):
        (tmp_path / "f.jsonl").write_text(rome + rome.replace(" Italy", answer))
        with pytest.raises(ValueError, match=re.escape(f"{tmp_path / 'f.jsonl'} {message}")):
            statements((str(tmp_path / "f.jsonl"),), words)
    (tmp_path / "f.jsonl").write_text(rome.replace("Rome", "Lima"))  # control: only answers count
    assert len(statements((str(tmp_path / "f.jsonl"),), words)) == 1
    cfg = config(tmp_path)
    dataset = forgotten.prepare(cfg.data, progress=False)
    cfg.model.context_length = 8
    with pytest.raises(ValueError, match=r"statement of \d+ tokens, above model.context_length=8"):
        dataset.for_run(cfg)
    cfg.model.context_length, cfg.train.batch_size = 64, 1
    with pytest.raises(ValueError, match="both parts need a row"):
        dataset.for_run(cfg)
    cfg.data.forget_share = 1.0
    with pytest.raises(ValueError, match=r"forget_share=1\.0 must be above 0 and below 1"):
        forgotten.prepare(cfg.data)
