"""A made-up translation task: a regular grammar with a lexicon, reordering and agreement.

    the small dogs see a cat near the house      subject verb object, adjectives before nouns
    dogs the small, cat a, house the near, see   subject object verb, adjectives after nouns

The target's determiners, nouns and adjectives agree in gender (three, a property of each noun, so
the source does not show it), number and case (subject, object); the verb, which ends its clause,
agrees with its subject in gender and number. The target puts the determiner after the noun,
adjectives last and in reverse order, a preposition after what it governs, and an adverb first. So
the translation of a sentence is unique, and every word of it can be predicted from the source.

As a corpus, the spec is 'synthetic_pairs' or 'synthetic_pairs:KEY=VALUE:…' with the keys of `KEYS`;
`size` names a lexicon in SIZES. A sentence has 1 to `clauses` clauses of 3 to 15 words, joined by a
conjunction. The words are syllables drawn by the seed.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from data.sources.specs.settings import settings

VERSION = 1  # of the grammar and the draws; part of a corpus's identity


@dataclass(frozen=True)
class Size:
    """Words of each kind in a lexicon."""

    nouns: int
    adjectives: int
    verbs: int
    prepositions: int
    adverbs: int


SIZES = {
    "small": Size(nouns=12, adjectives=6, verbs=6, prepositions=2, adverbs=2),
    "medium": Size(nouns=60, adjectives=30, verbs=30, prepositions=6, adverbs=8),
    "large": Size(nouns=300, adjectives=120, verbs=120, prepositions=12, adverbs=24),
}
GENDERS = 3
ENDINGS = (("o", "oni"), ("a", "ani"), ("u", "uni"))  # of the target, by gender and number
OBJECT = "k"  # ends what belongs to an object
CONSONANTS, VOWELS = "bdfglmnprstvz", "aeiou"
SOURCE_ENDS, TARGET_ENDS = "kt", "shl"  # of stems, so that no word is in both languages


@dataclass(frozen=True)
class Word:
    """A word of the source and its stem in the target."""

    source: str
    target: str
    gender: int  # of nouns


@dataclass(frozen=True)
class NounPhrase:
    """A noun with what belongs to it."""

    noun: Word
    plural: bool
    determiner: int
    adjectives: tuple[Word, ...]
    place: "tuple[Word, NounPhrase] | None"  # a preposition and what it governs


@dataclass(frozen=True)
class Clause:
    """Subject, verb and perhaps an object and an adverb."""

    subject: NounPhrase
    verb: Word
    object: NounPhrase | None
    adverb: Word | None


@dataclass(frozen=True)
class Task:
    """`sentences` pairs of sentences."""

    size: str = "small"
    sentences: int = 20_000
    clauses: int = 3  # of a sentence, at most
    seed: int = 0  # of the lexicon
    sample: int = 0  # of the sentences

    @cached_property
    def lexicon(self) -> dict[str, tuple[Word, ...]]:
        """The words by kind; all differ."""
        rng, known = random.Random(f"lexicon {self.seed}"), set()

        def stem(ends: str) -> str:
            while True:
                syllables = [rng.choice(CONSONANTS) + rng.choice(VOWELS) for _ in range(2)]
                word = "".join(syllables) + rng.choice(ends)
                if word not in known:
                    known.add(word)
                    return word

        numbers = vars(SIZES[self.size]) | {"determiners": 2, "conjunctions": 2}
        return {
            kind: tuple(
                Word(stem(SOURCE_ENDS), stem(TARGET_ENDS), rng.randrange(GENDERS))
                for _ in range(number)
            )
            for kind, number in numbers.items()
        }

    def pairs(self) -> Iterator[tuple[str, str]]:
        """The pairs. Fewer `sentences` give a prefix of them."""
        rng = random.Random(f"sentences {self.seed} {self.sample}")
        for _ in range(self.sentences):
            clauses = [self._clause(rng) for _ in range(rng.randint(1, self.clauses))]
            joints = [rng.choice(self.lexicon["conjunctions"]) for _ in clauses[1:]]
            source, target = self.source(clauses[0]), self.target(clauses[0])
            for joint, clause in zip(joints, clauses[1:], strict=True):
                source += [joint.source, *self.source(clause)]
                target += [joint.target, *self.target(clause)]
            yield " ".join(source), " ".join(target)

    def _clause(self, rng: random.Random) -> Clause:
        pick = lambda kind: rng.choice(self.lexicon[kind])  # noqa: E731
        subject, verb = self._phrase(rng, 0.25), pick("verbs")
        direct = self._phrase(rng, 0.25) if rng.random() < 0.75 else None
        return Clause(subject, verb, direct, pick("adverbs") if rng.random() < 0.3 else None)

    def _phrase(self, rng: random.Random, placed: float) -> NounPhrase:
        """A noun phrase; with the probability `placed` it has another one in it."""
        pick = lambda kind: rng.choice(self.lexicon[kind])  # noqa: E731
        noun, plural, determiner = pick("nouns"), rng.random() < 0.5, rng.randrange(2)
        adjectives = tuple(pick("adjectives") for _ in range(rng.choice((0, 0, 1, 2))))
        place = (pick("prepositions"), self._phrase(rng, 0.0)) if rng.random() < placed else None
        return NounPhrase(noun, plural, determiner, adjectives, place)

    def source(self, clause: Clause) -> list[str]:
        """The words of a clause in the source language."""

        def phrase(of: NounPhrase) -> list[str]:
            words = [self.lexicon["determiners"][of.determiner].source]
            words += [adjective.source for adjective in of.adjectives]
            words.append(of.noun.source + "s" * of.plural)
            return words + ([of.place[0].source, *phrase(of.place[1])] if of.place else [])

        words = [*phrase(clause.subject), clause.verb.source]
        words += phrase(clause.object) if clause.object else []
        return words + ([clause.adverb.source] if clause.adverb else [])

    def target(self, clause: Clause) -> list[str]:
        """The words of a clause in the target language."""

        def phrase(of: NounPhrase, case: str) -> list[str]:
            ending = ENDINGS[of.noun.gender][of.plural] + case
            words = [of.noun.target + ending]
            words.append(self.lexicon["determiners"][of.determiner].target + ending)
            words += [adjective.target + ending for adjective in reversed(of.adjectives)]
            return words + ([*phrase(of.place[1], ""), of.place[0].target] if of.place else [])

        words = [clause.adverb.target] if clause.adverb else []
        words += phrase(clause.subject, "")
        words += phrase(clause.object, OBJECT) if clause.object else []
        agreeing = ENDINGS[clause.subject.noun.gender][clause.subject.plural]
        return [*words, f"{clause.verb.target}{agreeing}"]


def _count(text: str) -> int:
    number = float(text)
    if not number.is_integer() or number < 0:
        raise ValueError
    return int(number)


# The keys of a spec: the parser and the meaning of each.
KEYS = {
    "size": (str, f"of the lexicon: {', '.join(SIZES)}"),
    "sentences": (_count, "number of pairs"),
    "clauses": (_count, "clauses of a sentence, at most"),
    "seed": (_count, "seed of the lexicon"),
    "sample": (_count, "seed of the sentences"),
}


def parse(spec: str) -> Task:
    """The task of 'synthetic_pairs[:KEY=VALUE…]'; ValueError for an unknown key or a bad value."""
    task = Task(**dict(settings(spec, spec.split(":")[1:], KEYS)))
    if task.size not in SIZES:
        raise ValueError(f"data.corpora={spec!r}: size={task.size!r}; use {', '.join(SIZES)}")
    if task.sentences < 1 or task.clauses < 1:
        raise ValueError(f"data.corpora={spec!r}: sentences and clauses must be 1 or more")
    return task
