"""Writing a sentence about two things, judged by rules of style, with many right answers.

    describe rain and town:      The soft rain falls over a quiet town.

The score is the mean of RULES, so it is graded. It is the gold judge where a learned reward is
studied: a reward model sees comparisons of it, never the rules. `size` is the most adjectives
before each noun of an answer that `example` writes.
"""

import re
from collections.abc import Sequence

import numpy as np

from data.tasks.words import pick

VERSION, SIZE = 1, 2
TOPICS = (
    "rain snow wind sea sun moon road tree bird stone river field town hill shore cloud lamp boat "
    "garden bridge"
).split()
ADJECTIVES = "soft quiet cold warm bright tall small wide slow gentle pale dark".split()
VERBS = "falls waits sings turns moves shines rests calls".split()
PREPOSITIONS = "over near by under behind above".split()
LEAST, MOST = 6, 12  # words of a sentence that is neither too short nor too long


def example(rng: np.random.Generator, size: int = 0) -> tuple[str, str]:
    """Two topics, and a sentence whose score is 1: each noun has an adjective or more."""
    one, other = _different(rng, TOPICS, 2)
    most = min(size or SIZE, 3)
    counts = [int(rng.integers(1, most + 1)) for _ in "ab"]
    chosen = _different(rng, ADJECTIVES, sum(counts))
    words = ["The", *chosen[: counts[0]], one, pick(rng, VERBS)]
    words += [pick(rng, PREPOSITIONS), "a", *chosen[counts[0] :], other]
    return f"describe {one} and {other}:", f"{' '.join(words)}."


def _different(rng: np.random.Generator, words: Sequence[str], count: int) -> list[str]:
    """`count` different words."""
    chosen: list[str] = []
    while len(chosen) < count:
        if (word := pick(rng, words)) not in chosen:
            chosen.append(word)
    return chosen


def _topics(topics: list[str], text: str, words: list[str]) -> float:
    """The share of the topics that the text names."""
    return sum(topic in words for topic in topics) / len(topics)


def _capital(topics: list[str], text: str, words: list[str]) -> float:
    return float(text[:1].isupper())


def _full_stop(topics: list[str], text: str, words: list[str]) -> float:
    return float(text.endswith(".") and text.count(".") == 1)


def _length(topics: list[str], text: str, words: list[str]) -> float:
    """1 between LEAST and MOST words, less in proportion outside."""
    count = len(words)
    return min(1.0, count / LEAST, MOST / max(count, 1))


def _variety(topics: list[str], text: str, words: list[str]) -> float:
    """The share of the words that are different."""
    return len(set(words)) / max(len(words), 1)


RULES = (_topics, _capital, _full_stop, _length, _variety)


def score(prompt: str, answer: str, response: str) -> float:
    """The mean of RULES; the answer is one example and does not count."""
    topics = prompt.removeprefix("describe ").rstrip(": \n").split(" and ")
    text = response.strip()
    words = re.findall(r"[a-z]+", text.lower())
    return sum(rule(topics, text, words) for rule in RULES) / len(RULES)


def wrong(rng: np.random.Generator, prompt: str, answer: str) -> str:
    """The answer with one or more of the rules broken."""
    words = answer.rstrip(".").split()
    broken = (
        answer.lower(),
        answer.rstrip("."),
        f"{words[0]} {words[-1]}.",
        f"{answer.rstrip('.')} {' '.join(words[1:])}.",
        f"{answer} {answer}",
        answer.lower().rstrip("."),
    )
    return broken[int(rng.integers(len(broken)))]
