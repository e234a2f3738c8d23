"""Every rule of cleaning as data: its stage, what it measures, which key of the config bounds it.

A stage is a section of the config of `isoflop clean` (`configs/data/cleaning.py`). Rules with a
measure remove a document whose measure lies beyond the bound; the others say what a stage removes
or changes, so that every change of the text is counted under one name of this table.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

C4 = "Raffel et al. 2020, section 2.2"
GOPHER = "Rae et al. 2021, table A1"
GPT3 = "Brown et al. 2020, appendix C"
BRODER = "Broder 1997; Lee et al. 2022"


@dataclass(frozen=True)
class Rule:
    """A rule: removes documents, removes lines or replaces text, as `what` says.

    With a `measure` it removes documents whose measure is "below" or "above" the value of `key`.
    """

    name: str
    stage: str
    what: str
    measure: str = ""
    side: str = ""  # below | above
    key: str = ""
    paper: str = ""


def _bound(name: str, stage: str, what: str, measure: str, side: str, key: str) -> Rule:
    paper = C4 if stage == "c4" else GOPHER if stage.startswith("gopher") else ""
    return Rule(name, stage, what, measure, side, key, paper)


_QUALITY = (
    ("few_words", "fewer words than", "words", "below", "min_words"),
    ("many_words", "more words than", "words", "above", "max_words"),
    ("short_words", "mean word length below", "word_length", "below", "min_word_length"),
    ("long_words", "mean word length above", "word_length", "above", "max_word_length"),
    ("hashes", "# for each word above", "hashes", "above", "max_symbols"),
    ("ellipses", "ellipses for each word above", "ellipses", "above", "max_symbols"),
    ("bullet_lines", "lines that begin with a bullet above", "bullets", "above", "max_bullets"),
    ("ellipsis_lines", "lines that end with an ellipsis above", "ellipsis_ends", "above",
     "max_ellipsis_ends"),
    ("few_letters", "words with a letter below", "alphabetic", "below", "min_alphabetic"),
    ("few_stop_words", "distinct stop words below", "stop_words", "below", "min_stop_words"),
)  # fmt: skip
_REPETITION = (
    *((f"duplicate_{name}", f"{name} that occurred before, share of {of}, above",
       f"duplicate_{name}", "above", f"duplicate_{name}")
      for name, of in (("paragraphs", "paragraphs"), ("paragraph_characters", "characters"),
                       ("lines", "lines"), ("line_characters", "characters"))),
    *((f"top_{n}_gram", f"characters in the commonest {n}-gram above", f"top_{n}_gram", "above",
       f"top_{n}_gram") for n in (2, 3, 4)),
    *((f"duplicate_{n}_grams", f"characters in repeated {n}-grams above", f"duplicate_{n}_grams",
       "above", f"duplicate_{n}_grams") for n in range(5, 11)),
)  # fmt: skip

RULES: tuple[Rule, ...] = (
    Rule("too_large", "input", "documents of more than 16 MiB"),
    Rule("other_encoding", "input", "bytes that are not UTF-8, read as Windows-1252"),
    Rule("unicode", "normalise", "text changed by NFC, line ends and control characters"),
    Rule("mojibake", "normalise", "text repaired by ftfy"),
    Rule("empty", "normalise", "documents without a visible character"),
    Rule("other_language", "language", "documents in a language that is not listed"),
    Rule("unsure_language", "language", "documents whose language is unsure"),
    Rule("line_long_word", "c4", "lines with a word of more characters than", key="max_word_length",
         paper="C4's code"),
    Rule("line_no_end", "c4", "lines that do not end in . ! ? or a quotation mark", paper=C4),
    Rule("line_few_words", "c4", "lines with fewer words than", key="min_line_words", paper=C4),
    Rule("line_javascript", "c4", "lines that mention JavaScript", paper=C4),
    Rule("line_policy", "c4", "lines about cookies, privacy or terms of use", paper=C4),
    Rule("citations", "c4", "Wikipedia's citation marks", paper=C4),
    Rule("lorem_ipsum", "c4", "documents with “lorem ipsum”", paper=C4),
    Rule("curly_bracket", "c4", "documents with a curly bracket", paper=C4),
    Rule("bad_words", "c4", "documents with a word of the list", key="bad_words", paper=C4),
    _bound("few_sentences", "c4", "fewer sentences than", "sentences", "below", "min_sentences"),
    *(_bound(name, "gopher_quality", *rest) for name, *rest in _QUALITY),
    *(_bound(name, "gopher_repetition", *rest) for name, *rest in _REPETITION),
    Rule("exact_duplicate", "exact", "documents equal to an earlier one"),
    Rule("near_duplicate", "minhash", "documents that resemble an earlier one", paper=BRODER),
    Rule("repeated_span", "spans", "spans that occurred before; sentences of a span:",
         key="sentences", paper=C4),
    Rule("few_sentences_left", "spans", "after that, fewer sentences than", key="min_sentences"),
    Rule("few_words_left", "spans", "after that, fewer words than", key="min_words"),
    Rule("contaminated", "decontaminate", "n-grams of words of evaluation sets", paper=GPT3),
    *(Rule(name, "private", what) for name, what in (
        ("email", "e-mail addresses"), ("ip_address", "IP addresses"),
        ("credit_card", "numbers of credit cards (Luhn)"), ("phone", "telephone numbers"))),
    Rule("final_form", "final", "text changed by lowercasing or by the handling of punctuation"),
)  # fmt: skip
BY_NAME = {rule.name: rule for rule in RULES}


def judged(
    measures: Mapping[str, np.ndarray],
    stage: str,
    section: Mapping[str, Any],
    skipped: Collection[str] = (),
) -> tuple[np.ndarray, list[Rule]]:
    """(the index of the first rule of `stage` that removes each document, or -1 [D], the rules).

    `measures` are arrays [D]; `section` has the bounds. Rules named in `skipped` and rules whose
    measure is missing remove nothing.
    """
    rules = [rule for rule in RULES if rule.stage == stage and rule.measure in measures]
    rules = [rule for rule in rules if rule.name not in skipped]
    n = len(next(iter(measures.values())))
    first = np.full(n, -1)
    for index in reversed(range(len(rules))):
        values, bound = measures[rules[index].measure], section[rules[index].key]
        beyond = values < bound if rules[index].side == "below" else values > bound
        first[beyond] = index
    return first, rules
