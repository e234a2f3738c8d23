"""2,000 documents, made up from a seed, that lie on both sides of every rule of C4 and Gopher."""

import functools
import random
from collections.abc import Callable

WORDS = """the of and to in a is that for it was on with as his he be by at from this have or not
are but had which you all an they were one we there been has their more will when who out so what
up said about than into them can only other time new some could these two may first then any like
our over man me even most made after also did many before must through back years where much your
way well down should because each just those people how too little state good very make world
still own see men work long get here between both life being under never day same another know
while last might us great old year off come since against go came right used take three water
government harbour library morning evening number system children question reason river mountain
language machine science engine village weather history company report money market
doctor""".split()
ODD = ["don't", "it's", "U.S.", "e.g.", "Mr.", "well-known", "3.5", "10,000", "1999", "“quoted”",
       "(aside)", "C++", "state-of-the-art", "example.com", "naïve", "Köln", "they'll", "A.M.",
       "rock'n'roll", "50%", "$3.20", "and/or", "—", "o'clock", "J."]  # fmt: skip
ENDS = [".", ".", ".", ".", "?", "!", '."', "...", "", ";"]
SIZE = 2000


class Draw:
    """Draws that are the same in every version of Python."""

    def __init__(self, seed: int):
        self.random = random.Random(seed).random

    def below(self, n: int) -> int:
        return int(self.random() * n)

    def one(self, items: list) -> object:
        return items[self.below(len(items))]

    def between(self, low: int, high: int) -> int:
        return low + self.below(high - low + 1)


def sentence(draw: Draw, odd: float = 0.03, ends: list[str] = ENDS) -> str:
    """A sentence of 3 to 18 words, some of them unusual."""
    words = []
    for _ in range(draw.between(3, 18)):
        # Squared, so that the first words of the list are the commonest.
        word = draw.one(ODD) if draw.random() < odd else WORDS[int(len(WORDS) * draw.random() ** 2)]
        words.append(word + "," * (draw.random() < 0.06))
    text = " ".join(words)
    return text[:1].upper() + text[1:] + draw.one(ends)


def lines(draw: Draw, n: int, **how) -> list[str]:
    """Lines of one to four sentences, some followed by a blank line."""
    found = [" ".join(sentence(draw, **how) for _ in range(draw.between(1, 4))) for _ in range(n)]
    return [line + "\n" * (draw.random() < 0.3) for line in found]


def document(number: int) -> str:
    """Document `number`: plain text, or text with one or two faults."""
    draw = Draw(number)
    text = "\n".join(lines(draw, draw.between(2, 16)))
    for _ in range(draw.below(3)):
        text = draw.one(FAULTS)(draw, text)
    return text


def _each_line(change: Callable[[str], str], share: float) -> Callable[[Draw, str], str]:
    def apply(draw: Draw, text: str) -> str:
        bound = share * 2 * draw.random()
        return "\n".join(change(x) if draw.random() < bound else x for x in text.split("\n"))

    return apply


def _repeat_lines(draw: Draw, text: str) -> str:
    parts = text.split("\n")
    return "\n".join(parts + [draw.one(parts) for _ in range(draw.below(len(parts) + 1))])


def _repeat_words(draw: Draw, text: str) -> str:
    words, n = text.split(" "), draw.between(2, 12)
    start = draw.below(max(1, len(words) - n))
    phrase = words[start : start + n]
    for _ in range(draw.below(len(words) // n + 1)):
        at = draw.below(len(words))
        words[at:at] = phrase
    return " ".join(words)


def _sprinkle(draw: Draw, text: str, marks: list[str]) -> str:
    words, bound = text.split(" "), 0.3 * draw.random()
    return " ".join(w + " " + draw.one(marks) if draw.random() < bound else w for w in words)


def _cut(draw: Draw, text: str) -> str:
    return text[: draw.between(1, 700)]


def _long_words(draw: Draw, text: str) -> str:
    words, bound = text.split(" "), draw.random() ** 2
    return " ".join(w * draw.between(1, 5) if draw.random() < bound else w for w in words)


FAULTS: list[Callable[[Draw, str], str]] = [
    _repeat_lines,
    _repeat_words,
    _cut,
    _long_words,
    lambda draw, text: _sprinkle(draw, text, ["#", "#tag", "…", "..."]),
    lambda draw, text: _sprinkle(draw, text, ["12", "3,4", "|", "&", "--", "7/8"]),
    lambda draw, text: _sprinkle(draw, text, ["[1]", "[edit]", "[citation needed]", "{x}"]),
    lambda draw, text: text + "\n" + draw.one(
        ["Lorem ipsum dolor sit amet.", "Please enable Javascript to see this page.",
         "We have a privacy policy and a cookie policy.", "This is {a} template of the page.",
         "x" * 1200 + " is a long word in this line of text."]),
    lambda draw, text: text.lower().replace("the ", "").replace("of ", "").replace("and ", ""),
    lambda draw, text: "\n\n".join(text.split("\n")[:3] * draw.between(1, 3)),
    _each_line(lambda line: "- " + line, 0.6),
    _each_line(lambda line: "  • " + line, 0.6),
    _each_line(lambda line: line.rstrip(".?!\"") + "...", 0.3),
    _each_line(lambda line: line.rstrip(".?!\""), 0.5),
]  # fmt: skip


@functools.cache
def documents() -> list[str]:
    """All of them."""
    return [document(number) for number in range(SIZE)]


@functools.cache
def repeating() -> list[str]:
    """400 of them, most with lines of earlier ones, some of these in capitals or without commas."""
    found: list[str] = []
    for number in range(400):
        draw, parts = Draw(SIZE + number), document(number).split("\n")
        for _ in range(draw.below(3) if found else 0):
            other = draw.one(found).split("\n")
            begin, at, kind = draw.below(len(other)), draw.below(len(parts) + 1), draw.below(10)
            passage = "\n".join(other[begin : begin + draw.between(1, 6)])
            passage = passage.upper() if kind == 0 else passage
            parts[at:at] = [passage.replace(",", "") if kind == 1 else passage]
        found.append("\n".join(parts))
    return found
