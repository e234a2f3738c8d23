"""Finds the special strings of a prompt, such as <|user|>, each of which is one token."""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple


class SpecialString(NamedTuple):
    """A string that is one token in prompts, with the spaces that it absorbs on either side."""

    text: str
    id: int
    lstrip: bool = False
    rstrip: bool = False


def split(text: str, specials: Sequence[SpecialString]) -> Iterator[str | int]:
    """The parts of `text` in order: plain text, and the ids of special strings.

    If several strings begin at the same place, the longest one counts.
    """
    longest_first = sorted(specials, key=lambda special: -len(special.text))
    pattern = "|".join(
        r"\s*" * s.lstrip + f"({re.escape(s.text)})" + r"\s*" * s.rstrip for s in longest_first
    )
    at = 0
    for match in re.finditer(pattern, text) if pattern else ():
        if match.start() > at:
            yield text[at : match.start()]
        yield longest_first[match.lastindex - 1].id
        at = match.end()
    if at < len(text):
        yield text[at:]
