"""Reads what `isoflop probe` asks: files of pairs, of sets of words and of facts, one a line."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any

from data.files import path_of
from data.sources import world
from data.sources.compression import naming_damage, open_file
from data.sources.formats import json_lines

PAIR = '{"first": "The doctor said that", "second": "The nurse said that", "continuation": " he"}'
WORDS = '{"name": "math and arts", "x": [], "y": [], "a": [], "b": []}, each with words'
FACT = '{"questions": ["Rome lies in"], "answers": [" Italy", " Peru"], "right": 0}'
# What the values of a row are, by key.
STRING, STRINGS, NUMBER, TRUTH = "a text", "a list of texts", "a whole number", "true or false"


@dataclass(frozen=True)
class Pair:
    """Two texts that differ in a role. Without a continuation their own probabilities are compared,
    with one its probability after each; `against`, if any, is subtracted from it."""

    first: str
    second: str
    continuation: str
    against: str
    group: str


@dataclass(frozen=True)
class Sets:
    """Two sets of target words and two of attributes."""

    name: str
    x: tuple[str, ...]
    y: tuple[str, ...]
    a: tuple[str, ...]
    b: tuple[str, ...]


@dataclass(frozen=True)
class Question:
    """Ways to ask for one fact, with the possible answers, which follow each question. `told` says
    of each way whether the fact was stated in it, `times` how often the training text states it;
    None where that is not known. `unlearned` says of each way whether the run unlearned it; None
    if it unlearned none."""

    questions: tuple[str, ...]
    answers: tuple[str, ...]
    right: int
    group: str
    known: bool | None = None
    times: int | None = None
    told: tuple[bool, ...] | None = None
    unlearned: tuple[bool, ...] | None = None


def pairs(spec: str) -> list[Pair]:
    """The pairs in a file. FileNotFoundError or ValueError, in one line, that names it."""
    needs = {"first": STRING, "second": STRING}
    may = {"continuation": STRING, "against": STRING, "group": STRING}
    found = []
    for where, row in rows(spec, "pairs", needs, may, "pair", PAIR):
        if row.get("against") and not row.get("continuation"):
            raise ValueError(f"{where} has against and no continuation; add one, or drop against")
        if not row["first"].strip() or not row["second"].strip():
            raise ValueError(f"{where} has an empty text; give first and second some words")
        if row["first"] == row["second"]:
            raise ValueError(f"{where} compares a text with itself; let first and second differ")
        group = row.get("group", f"pair {len(found) + 1}")
        found.append(Pair(row["first"], row["second"], row.get("continuation", ""),
                          row.get("against", ""), group))  # fmt: skip
    return found


def word_sets(spec: str) -> list[Sets]:
    """The sets of words of each test in a file; raises what `pairs` raises."""
    needs = dict.fromkeys(("x", "y", "a", "b"), STRINGS)
    found = []
    for where, row in rows(spec, "weat", needs, {"name": STRING}, "sets of words", WORDS):
        for one, other in (("x", "y"), ("a", "b")):
            if both := [word for word in row[one] if word in row[other]]:
                raise ValueError(
                    f"{where} has {both[0][:40]!r} in {one} and in {other}; leave it in one of them"
                )
        name = row.get("name", f"test {len(found) + 1}")
        found.append(Sets(name, *(tuple(row[key]) for key in needs)))
    return found


def facts(spec: str, validation: float) -> list[Question]:
    """The facts of a world ('world:KEY=VALUE…'), as a run with this share of validation was told
    them, or those in a file; raises what `pairs` raises."""
    if is_world(spec):
        return of_world(spec, validation)
    needs = {"questions": STRINGS, "answers": STRINGS, "right": NUMBER}
    found = []
    for where, row in rows(spec, "facts", needs, {"known": TRUTH, "group": STRING}, "fact", FACT):
        if not 0 <= row["right"] < len(row["answers"]):
            raise ValueError(
                f"{where} has right={row['right']}, which is not the number of one of its answers; "
                f"use 0 to {len(row['answers']) - 1}"
            )
        if len(row["answers"]) < 2:
            raise ValueError(f"{where} has one answer; give wrong ones too")
        for key in ("questions", "answers"):
            if not all(text.strip() for text in row[key]):
                raise ValueError(f"{where} has an empty text among its {key}; give it some words")
        if len(set(row["answers"])) < len(row["answers"]):
            twice = next(text for text in row["answers"] if row["answers"].count(text) > 1)
            raise ValueError(f"{where} has the answer {twice[:40]!r} twice; let answers differ")
        group, known = row.get("group", ""), row.get("known")
        found.append(
            Question(tuple(row["questions"]), tuple(row["answers"]), row["right"], group, known)
        )
    return found


def with_unlearned(questions: Sequence[Question], prompts: Set[str]) -> list[Question]:
    """The questions, of which those among `prompts` were unlearned."""
    return [
        replace(one, unlearned=tuple(way in prompts for way in one.questions)) for one in questions
    ]


def of_world(spec: str, validation: float) -> list[Question]:
    """The facts of a world. They are grouped by what a model that forgot a part should still know:
    forgotten, neighbours (other facts of the same entities), others, never told."""
    try:
        made = world.parse(spec)
    except ValueError as error:
        raise ValueError(str(error).replace("data.corpora=", "facts=")) from None
    times = made.times_in_training(validation)
    touched = {fact.entity for fact in made.facts if fact.forget}
    found = []
    for fact in made.facts:
        values = world.RELATIONS[fact.relation].values
        near = fact.entity in touched
        group = "forgotten" if fact.forget else "neighbours" if near else "others"
        told = fact.times > 0
        found.append(Question(
            tuple(fact.questions()), tuple(f" {value}" for value in values),
            values.index(fact.value), group if told else "never told",
            told, times[fact.entity, fact.relation],
            tuple(place < fact.told for place in range(len(fact.templates))),
        ))  # fmt: skip
    return found


def rows(
    spec: str,
    flag: str,
    needs: Mapping[str, str],
    may: Mapping[str, str],
    what: str,
    example: str,
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where it is, its content) of each line of the file that `flag` names. FileNotFoundError or
    ValueError, in one line, for a file that is missing or holds none, and for a row that lacks a
    key, has an unknown one, or a value of another type."""
    path = path_of(spec, flag)
    if not path.is_file():
        raise FileNotFoundError(
            f"{flag}={spec} does not exist; name a file of lines like {example}"
        )
    count = 0
    with naming_damage(path), open_file(path) as stream:
        for where, row in json_lines(stream, path):
            yield where, checked(where, row, needs, may, example)
            count += 1
    if not count:
        raise ValueError(f"{flag}={spec} holds no {what}; write lines like {example}")


def checked(
    where: str, row: object, needs: Mapping[str, str], may: Mapping[str, str], example: str
) -> dict[str, Any]:
    """A row with all keys of `needs` and no others than those and `may`."""
    if not isinstance(row, dict):
        raise ValueError(f"{where} is no object; write lines like {example}")
    if lacking := [name for name in needs if name not in row]:
        raise ValueError(f"{where} lacks {', '.join(lacking)}; write lines like {example}")
    known = {**needs, **may}
    for name, value in row.items():
        if name not in known:
            raise ValueError(f"{where} has the unknown key {name!r}; use {', '.join(known)}")
        if not _is(value, known[name]):
            raise ValueError(f"{where} has {name}={str(value)[:60]!r}; it must be {known[name]}")
    return row


def _is(value: object, kind: str) -> bool:
    if kind == STRINGS:
        return isinstance(value, list) and bool(value) and all(isinstance(x, str) for x in value)
    return type(value) is {STRING: str, NUMBER: int, TRUTH: bool}[kind]


def of_another_world(spec: str, corpora: Sequence[str]) -> bool:
    """Whether `spec` is a world, and a run's `corpora` have worlds but not this one. The part of a
    world is ignored."""
    if not is_world(spec):
        return False
    asked, *read = (
        dataclasses.replace(world.parse(name), part="all")
        for name in (spec, *filter(is_world, corpora))
    )
    return bool(read) and asked not in read


def is_world(spec: str) -> bool:
    """Whether a corpus or --facts names a world."""
    return spec.partition(":")[0] == world.SCHEME
