"""The rules of C4 (Raffel et al. 2020, section 2.2), line by line and for whole documents."""

import itertools
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

CITATION = re.compile(r"\[\d*\]|\[edit\]|\[citation needed\]")
ENDS = (".", "?", "!", '"', "'")
POLICY = (
    "terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies",
    "use cookies",
)  # fmt: skip
# Where a sentence ends and another one begins: not after an ellipsis, a title or a single letter
# ("U.S."). Longer runs of closing marks would take quadratic time.
BOUNDARY = re.compile(
    r"[.!?。！？](?<!\.\.)(?!\.)(?<!\b[^\W\d_]\.)(?<!\b(?:Mr|Dr|Ms|Jr|Sr|St|vs|Co)\.)[^\w\s]{0,64}\s+(?=\S)"
)
LINE_END = re.compile(r"[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]\s*(?=\S)")  # those of splitlines


@dataclass
class Outcome:
    """What is left of a document: its text, the rule that removes it ("" if none does), its
    sentences, and by rule the number of lines or marks that were taken out, their bytes, and the
    first."""

    text: str
    rule: str = ""
    sentences: int = 0
    lines: Counter = field(default_factory=Counter)
    size: Counter = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)


def sentences(line: str) -> int:
    """The number of sentences in a line that is not empty."""
    return 1 + len(BOUNDARY.findall(line))


def split(text: str) -> list[str]:
    """The sentences of all lines, each with the white space behind it; those that `sentences`
    counts. Together they are the text without white space at its ends."""
    text = text.strip()
    begins = {match.end() for match in BOUNDARY.finditer(text)}
    begins.update(match.end() for match in LINE_END.finditer(text))
    places = [0, *sorted(begins), len(text)]
    return [text[begin:end] for begin, end in itertools.pairwise(places)] if text else []


def bad_words(words: Collection[str]) -> Callable[[str], Any]:
    """A search for any of the words in a text in lower case, each between characters that are
    neither letters nor digits. Nothing is found if there are no words."""
    listed = "|".join(re.escape(word.lower()) for word in sorted(words))
    return re.compile(rf"(?:\W|^)(?:{listed})(?:\W|$)").search if words else lambda text: None


def clean(
    text: str,
    section: Mapping[str, Any],
    skipped: Collection[str] = (),
    has_bad_word: Callable[[str], Any] = lambda text: None,
) -> Outcome:
    """Applies all rules except the minimum number of sentences, which the caller checks."""
    left, kept = Outcome(text), []
    lower = text.lower()
    lorem = "lorem ipsum" in lower and "lorem_ipsum" not in skipped
    bracket = "{" in text and "curly_bracket" not in skipped
    script = "javascript" in lower and "line_javascript" not in skipped
    policy = any(phrase in lower for phrase in POLICY) and "line_policy" not in skipped
    cited = "[" in text and "citations" not in skipped
    longest = section["max_word_length"] if "line_long_word" not in skipped else len(text)
    fewest = section["min_line_words"] if "line_few_words" not in skipped else 0
    needs_end = "line_no_end" not in skipped

    def drop(rule: str, line: str, times: int = 1, size: int = 0) -> None:
        left.lines[rule] += times
        left.size[rule] += size or len(line.encode()) + 1
        left.first.setdefault(rule, line)

    for line in text.splitlines():
        line = line.strip()
        if len(line) > longest and max(map(len, line.split())) > longest:
            drop("line_long_word", line)
            continue
        given = ""
        if cited and "[" in line:
            given = line  # its words are counted with their marks
            marks = CITATION.findall(line)
            if marks:
                drop("citations", line, len(marks), sum(map(len, marks)))
                line = CITATION.sub("", line)
        if needs_end and (not line.endswith(ENDS) or line.endswith("...")):
            if line:
                drop("line_no_end", line)
            continue
        if fewest and len((given or line).split(None, fewest - 1)) < fewest:
            drop("line_few_words", line)
            continue
        small = line.lower() if lorem or script or policy else ""
        if lorem and "lorem ipsum" in small:
            left.rule = "lorem_ipsum"
            return left
        if script and "javascript" in small:
            drop("line_javascript", line)
            continue
        if bracket and "{" in line:
            left.rule = "curly_bracket"
            return left
        if policy and any(phrase in small for phrase in POLICY):
            drop("line_policy", line)
            continue
        left.sentences += sentences(line) if line else 0
        kept.append(line)
    if "bad_words" not in skipped and has_bad_word(lower):
        left.rule = "bad_words"
    left.text = "\n".join(kept).strip()
    return left
