"""Made-up reviews with a sentiment that takes more than counting words.

    the soup was superb and the service was not bad .               positive
    the plot was brilliant but the ending was hardly perfect .      negative

A review has one to `clauses` clauses about one subject. "and" joins clauses of one sentiment, "but"
turns it round, and the review has that of its last clause. A negation ("not", "hardly", …) turns an
adjective round, so the same words make both sentiments. All draws follow from the seed and the
number of the review. As a corpus, the spec is 'synthetic_sentiment[:KEY=VALUE…]' with the keys of
`KEYS`; as running text, a document is the reviews of a page, without their labels.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from data.sources.specs.settings import settings

VERSION = 1  # of the grammar and the draws; part of a corpus's identity
SCHEME = "synthetic_sentiment"
LABELS = ("negative", "positive")
PAGE = 20  # reviews of a document of running text
SUBJECTS = {
    "film": "plot acting music script ending camera",
    "restaurant": "soup bread service menu wine kitchen",
    "hotel": "room breakfast lobby bed view pool",
    "phone": "screen battery price speaker charger design",
    "book": "chapter hero style cover prose pace",
}
GOOD = "good great fine lovely superb perfect nice charming brilliant splendid pleasant wonderful"
BAD = "bad poor awful dull weak ugly horrible boring terrible dreadful shabby annoying"
WORDS = {name: tuple(words.split()) for name, words in SUBJECTS.items()}
ADJECTIVES = (tuple(BAD.split()), tuple(GOOD.split()))
NEGATIONS = ("not", "hardly", "never", "not at all")
# Degrees go with the sentiment of their adjective, as "utterly awful" does in real text.
DEGREES = (("", "", "rather ", "utterly "), ("", "", "truly ", "really "))


@dataclass(frozen=True)
class Reviews:
    """A collection of reviews; its fields are the keys of a spec."""

    texts: int = 2000
    seed: int = 0
    clauses: int = 3
    negated: float = 0.2  # share of the clauses
    turned: float = 0.2  # share of the clauses after the first that "but" joins

    def labelled(self) -> Iterator[tuple[str, str]]:
        """(review, label) of each."""
        return (self.review(number) for number in range(self.texts))

    def documents(self) -> Iterator[str]:
        """The reviews as running text, page by page."""
        for first in range(0, self.texts, PAGE):
            last = min(first + PAGE, self.texts)
            yield "\n".join(self.review(number)[0] for number in range(first, last))

    def review(self, number: int) -> tuple[str, str]:
        """One review with its label."""
        draw = random.Random(f"{VERSION}/{self.seed}/{number}")
        subject = draw.choice(list(WORDS))
        positive, clauses = draw.random() < 0.5, []
        for part in range(draw.randint(1, self.clauses)):
            turned = part > 0 and draw.random() < self.turned
            positive ^= turned
            joined = ("", "but " if turned else "and ")[part > 0]
            clauses.append(joined + self._clause(draw, WORDS[subject], positive))
        return f"{' '.join(clauses)} .", LABELS[positive]

    def _clause(self, draw: random.Random, nouns: tuple[str, ...], positive: bool) -> str:
        negated = draw.random() < self.negated
        kind = positive ^ negated
        how = f"{draw.choice(NEGATIONS)} " if negated else draw.choice(DEGREES[kind])
        adjective = draw.choice(ADJECTIVES[kind])
        return f"the {draw.choice(nouns)} was {how}{adjective}"


KEYS = {  # key → (how it is read, what it means)
    "texts": (int, "reviews"),
    "seed": (int, "of the draws"),
    "clauses": (int, "most clauses of a review"),
    "negated": (float, "share of the clauses with a negation"),
    "turned": (float, "share of the later clauses that 'but' joins"),
}


def parse(spec: str) -> Reviews:
    """The reviews of a spec; ValueError for an unknown key or a bad value."""
    reviews = Reviews(**dict(settings(spec, spec.split(":")[1:], KEYS)))
    shares = reviews.negated, reviews.turned
    if reviews.texts < 1 or reviews.clauses < 1 or not 0 <= min(shares) <= max(shares) <= 1:
        raise ValueError(
            f"data.corpora={spec!r}: texts and clauses must be 1 or more, negated and turned from "
            "0 to 1"
        )
    return reviews
