"""Writes decisions.json.xz: what datatrove decides about the documents of sample.py.

    pip install datatrove==0.10.1 spacy nltk regex    # in an environment of its own
    python -m tests.golden.cleaning.make_decisions

For each document and each of datatrove's filters (C4 with 3 sentences and 5 words a line, Gopher's
quality, Gopher's repetition) the reason of its removal or "". "spacy" is datatrove as it is, with
spaCy's words and sentences; "ours" is datatrove with the words and sentences of data/cleaning/text,
which separates the rules from the words that they count.
"""

import hashlib
import json
import lzma
from pathlib import Path

from tests.golden.cleaning import sample

FILE = Path(__file__).with_name("decisions.json.xz")


def decisions() -> dict[str, dict[str, list[str]]]:
    """Reasons by the kind of words and the filter."""
    from datatrove.data import Document
    from datatrove.pipeline.filters import c4_filters, gopher_quality_filter
    from datatrove.pipeline.filters import gopher_repetition_filter as repetition

    from data.cleaning.text import c4
    from data.cleaning.text.words import TOKEN

    found = {}
    for kind in ("spacy", "ours"):
        if kind == "ours":
            gopher_quality_filter.split_into_words = lambda text, _: TOKEN.findall(text)
            repetition.split_into_words = lambda text, _: TOKEN.findall(text)
            c4_filters.split_into_sentences = lambda line, _: [""] * c4.sentences(line)
        filters = {
            "c4": c4_filters.C4QualityFilter(min_num_sentences=3, min_words_per_line=5),
            "gopher_quality": gopher_quality_filter.GopherQualityFilter(),
            "gopher_repetition": repetition.GopherRepetitionFilter(),
        }
        found[kind] = {name: [] for name in (*filters, "c4_text")}
        for number, text in enumerate(sample.documents()):
            for name, one in filters.items():
                given = Document(text=text, id=str(number))
                kept = one.filter(given)
                found[kind][name].append("" if kept is True else kept[1])
                if name == "c4":
                    after = hashlib.sha256(given.text.encode()).hexdigest()[:8]
                    found[kind]["c4_text"].append(after if kept is True else "")
    return found


if __name__ == "__main__":
    FILE.write_bytes(lzma.compress(json.dumps(decisions()).encode(), preset=9))
    print(FILE, FILE.stat().st_size)
