"""Writes decisions.json.xz: what datatrove decides about the documents of sample.py.

    pip install datatrove==0.10.1 spacy nltk regex tokenizers    # in an environment of its own
    python -m tests.golden.cleaning.make_decisions

For each document and each of datatrove's filters (C4 with 3 sentences and 5 words a line, Gopher's
quality, Gopher's repetition) the reason of its removal or "". "spacy" is datatrove as it is, with
spaCy's words and sentences; "ours" is datatrove with the words and sentences of data/cleaning/text,
which separates the rules from the words that they count.

"spans" has what datatrove's SentenceDedup leaves of `sample.repeating()`: the hash of the words of
each document, or "" if it is removed. "as_is" compares sentences without punctuation, digits and
accents, "lower" in lower case alone, "ours" does so with our sentences and words.
"""

import hashlib
import itertools
import json
import lzma
import tempfile
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


def spans() -> dict[str, list[str]]:
    """What SentenceDedup leaves, by the way in which it compares."""
    from datatrove.data import Document
    from datatrove.pipeline.dedup import sentence_dedup
    from datatrove.utils.hashing import HashConfig
    from datatrove.utils.text import TextNormConfig

    from data.cleaning.text import c4
    from data.cleaning.text.words import TOKEN

    class Ours:
        """Our sentences and words, for datatrove."""

        sent_tokenize = staticmethod(c4.split)
        word_tokenize = staticmethod(TOKEN.findall)

        def span_tokenize(self, text: str) -> list[tuple[int, int]]:
            begin = len(text) - len(text.lstrip())
            sizes = (len(sentence) for sentence in c4.split(text))
            return list(itertools.pairwise(itertools.accumulate(sizes, initial=begin)))

    lower, sha1 = TextNormConfig(True, False, False, False, False), HashConfig(hash_fc="sha1")
    found = {}
    for kind, norm in (("as_is", TextNormConfig()), ("lower", lower), ("ours", lower)):
        if kind == "ours":
            sentence_dedup.load_word_tokenizer = lambda language: Ours()
            sentence_dedup.split_into_sentences = lambda text, language: c4.split(text)
        config = sentence_dedup.SentDedupConfig(norm_config=norm, hash_config=sha1)
        texts = sample.repeating()
        given = [Document(text=text, id=str(number)) for number, text in enumerate(texts)]
        with tempfile.TemporaryDirectory() as folder:
            signatures, repeated = f"{folder}/signatures", f"{folder}/repeated"
            sentence_dedup.SentenceDedupSignature(signatures, config=config).run(given)
            sentence_dedup.SentenceFindDedups(signatures, repeated, config=config).run()
            kept = list(sentence_dedup.SentenceDedupFilter(repeated, config=config).run(given))
        left = {int(one.id): words_hash(one.text) for one in kept}
        found[kind] = [left.get(number, "") for number in range(len(texts))]
    return found


def words_hash(text: str) -> str:
    """The hash of a text, whatever its white space is."""
    return hashlib.sha256(" ".join(text.split()).encode()).hexdigest()[:8]


if __name__ == "__main__":
    content = decisions() | {"spans": spans()}
    FILE.write_bytes(lzma.compress(json.dumps(content).encode(), preset=9))
    print(FILE, FILE.stat().st_size)
