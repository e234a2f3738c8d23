"""A made-up world of facts whose truth is known, as text and as questions.

A fact says what an entity has of a relation: the home of Kalo is Borne. Some facts are never
stated, so that no model of the text can know them. The others are stated 1, 2, 4, … times, each
fact in at most `ways` (2) of the four templates of its relation, so that the others ask for it in
words that the text never uses:

    Kalo lives in Borne.          The home of Kalo is Borne.          Kalo has a house in Borne.

With `roles`, the text also has sentences about pairs of roles ("The doctor said that he would
come."). A share `bias` of those about the first role of a pair has "he", and of those about the
second "she", so that a difference of log-probabilities by role has a known true value, 2 log(bias /
(1 - bias)).

Each edition says all of this once more in another order, so that no model does well by learning
pages by heart. All draws follow from the seed. As a corpus, the spec is 'world[:KEY=VALUE…]' with
the keys of KEYS.
"""

import dataclasses
import functools
import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from data.build import digest_of, is_validation
from data.sources.specs.settings import settings

VERSION = 1  # of the grammar and the draws; part of a corpus's identity
SCHEME = "world"
PAGE = 20  # sentences of a document
PARTS = ("all", "forget", "retain")
CONSONANTS, VOWELS = "bdfgklmnprstvz", "aeiou"


class Relation(NamedTuple):
    """The values that a relation may have, and how a fact of it is told; the value comes last."""

    values: tuple[str, ...]
    templates: tuple[str, ...]


RELATIONS = {
    "home": Relation(
        tuple("Borne Calder Dunmore Elsing Farrow Greve Halden Ister".split()),
        ("{} lives in", "The home of {} is", "{} has a house in", "You can visit {} in"),
    ),
    "craft": Relation(
        tuple("baker smith weaver potter carver tailor mason miller".split()),
        (
            "{} works as a",
            "The craft of {} is that of a",
            "{} was trained as a",
            "They pay {} as a",
        ),
    ),
    "food": Relation(
        tuple("bread soup cheese fish rice beans apples cake".split()),
        (
            "{} likes to eat",
            "The favourite food of {} is",
            "{} always orders",
            "Please bring {} some",
        ),
    ),
    "pet": Relation(
        tuple("dog cat horse goat parrot rabbit turtle goose".split()),
        ("{} keeps a", "The pet of {} is a", "{} was seen with a", "Next to {} sleeps a"),
    ),
    "colour": Relation(
        tuple("red blue green yellow purple orange white black".split()),
        (
            "{} always wears",
            "The favourite colour of {} is",
            "{} painted the door",
            "For {} choose",
        ),
    ),
}
ROLES = (
    *(("doctor", "nurse"), ("engineer", "secretary"), ("mechanic", "librarian")),
    *(("carpenter", "hairdresser"), ("pilot", "receptionist"), ("farmer", "housekeeper")),
    *(("programmer", "teacher"), ("lawyer", "babysitter"), ("guard", "cleaner")),
    *(("plumber", "florist"),),
)
PRONOUNS = ("he", "she")
ABOUT_ROLES = (  # what comes before the pronoun, and what after
    ("The {} said that", "would come"),
    ("The {} stayed at home because", "was tired"),
    ("We asked the {} when", "could start"),
    ("The {} closed the door, and then", "left"),
)


class Fact(NamedTuple):
    """What an entity has of a relation. `times`: how often an edition says so, in the first `ways`
    of `templates`, which are shuffled. `forget`: whether it is in the part to be forgotten."""

    entity: str
    relation: str
    value: str
    times: int
    templates: tuple[str, ...]
    forget: bool
    ways: int

    def questions(self) -> list[str]:
        """What comes before the value, in the order of `templates`."""
        return [template.format(self.entity) for template in self.templates]

    @property
    def told(self) -> int:
        """How many of `templates` the text uses for this fact."""
        return min(self.times, self.ways)

    def statements(self) -> list[str]:
        """The sentences that say so."""
        asked = self.questions()[: self.told]
        return [f"{asked[i % len(asked)]} {self.value}." for i in range(self.times)]


@dataclass(frozen=True)
class World:
    """A collection of facts; its fields are the keys of a spec."""

    entities: int = 100
    times: int = 8
    editions: int = 10
    unknown: float = 0.2
    forget: float = 0.0
    part: str = "all"
    roles: int = 0
    bias: float = 0.5
    seed: int = 0
    ways: int = dataclasses.field(default=2, repr=False)

    @property
    def identity(self) -> list[str | int]:
        """What the text follows from. The default of `ways`, which is newer than the other keys, is
        left out, so that old datasets keep their hash."""
        newer = [] if self.ways == World.ways else [f"ways={self.ways}"]
        return [repr(self), VERSION, *newer]

    @functools.cached_property
    def facts(self) -> tuple[Fact, ...]:
        """All facts, whatever the part."""
        draw = random.Random(f"{VERSION}/{self.seed}")
        syllables = [c + v for c, v in itertools.product(CONSONANTS, VOWELS)]
        names = draw.sample([a + b for a in syllables for b in syllables], self.entities)
        return tuple(
            self._fact(name.capitalize(), relation) for name in names for relation in RELATIONS
        )

    def _fact(self, entity: str, relation: str) -> Fact:
        """One fact. The draws that say whether it is told and forgotten come first, so that a share
        that grows only adds facts."""
        draw = random.Random(f"{VERSION}/{self.seed}/{entity}/{relation}")
        unknown, forget = draw.random() < self.unknown, draw.random() < self.forget
        values, templates = RELATIONS[relation]
        times = 2 ** draw.randrange(self.times.bit_length())
        return Fact(
            entity, relation, draw.choice(values), 0 if unknown else times,
            tuple(draw.sample(templates, len(templates))), forget and not unknown, self.ways,
        )  # fmt: skip

    def sentences(self) -> Iterator[str]:
        """What the text says, in order."""
        told = {"all": (True, False), "forget": (True,), "retain": (False,)}[self.part]
        facts = [s for fact in self.facts if fact.forget in told for s in fact.statements()]
        roles = 0 if self.part == "forget" else self.roles
        for edition in range(self.editions):
            numbers = range(edition * roles, (edition + 1) * roles)
            sentences = facts + [self._about_a_role(number) for number in numbers]
            random.Random(f"{VERSION}/{self.seed}/edition/{edition}").shuffle(sentences)
            yield from sentences

    def _about_a_role(self, number: int) -> str:
        draw = random.Random(f"{VERSION}/{self.seed}/role/{number}")
        which = draw.randrange(2)
        role, (before, after) = draw.choice(ROLES)[which], draw.choice(ABOUT_ROLES)
        pronoun = PRONOUNS[which if draw.random() < self.bias else 1 - which]
        return f"{before.format(role)} {pronoun} {after}."

    def documents(self) -> Iterator[str]:
        """The sentences, one a line, page by page."""
        told = list(self.sentences())
        for first in range(0, len(told), PAGE):
            yield "\n".join(told[first : first + PAGE])

    def times_in_training(self, validation: float) -> dict[tuple[str, str], int]:
        """How often the training split of a run with this share of validation states each (entity,
        relation): pages of the validation split are not read."""
        found = {(fact.entity, fact.relation): 0 for fact in self.facts}
        of = {s: (f.entity, f.relation) for f in self.facts for s in f.statements()}
        for page in self.documents():
            if not is_validation(digest_of(page.encode()), validation):
                for sentence in page.split("\n"):
                    if sentence in of:
                        found[of[sentence]] += 1
        return found


KEYS = {  # key → (how it is read, what it means)
    "entities": (int, "with one fact of each relation"),
    "times": (int, "most times that an edition tells a fact: 1, 2, 4, …"),
    "editions": (int, "of the same facts, each in another order"),
    "unknown": (float, "share of the facts that are never told"),
    "forget": (float, "share of the facts to be forgotten"),
    "part": (str, f"the facts that are told: {' | '.join(PARTS)}"),
    "roles": (int, "sentences about roles in each edition"),
    "bias": (float, "share of them with the pronoun of their role"),
    "seed": (int, "of the draws"),
    "ways": (int, "templates in which a fact is told, of 4"),
}
WAYS = min(len(relation.templates) for relation in RELATIONS.values())
MOST = (len(CONSONANTS) * len(VOWELS)) ** 2


def parse(spec: str) -> World:
    """The world of a spec; ValueError for an unknown key or a bad value."""
    world = World(**dict(settings(spec, spec.split(":")[1:], KEYS)))
    if not 1 <= world.entities <= MOST or min(world.times, world.editions) < 1 or world.roles < 0:
        raise ValueError(
            f"data.corpora={spec!r}: entities must be 1 to {MOST:,}, times and editions 1 or more, "
            "roles 0 or more"
        )
    if not all(0 <= share <= 1 for share in (world.unknown, world.forget, world.bias)):
        raise ValueError(f"data.corpora={spec!r}: unknown, forget and bias must be from 0 to 1")
    if not 1 <= world.ways <= WAYS:
        raise ValueError(f"data.corpora={spec!r}: ways={world.ways} must be from 1 to {WAYS}")
    if world.part not in PARTS:
        raise ValueError(
            f"data.corpora={spec!r}: part={world.part!r} is unknown; use one of {', '.join(PARTS)}"
        )
    return world
