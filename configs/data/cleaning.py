"""Cleans raw text: what `isoflop clean` removes, stage by stage. docs/data.md explains it.

    isoflop clean --config=configs/data/cleaning.py --config.input.corpora=raw/ --out=clean
    isoflop train --config=configs/quickstart.py --config.data.corpora=clean/text --workdir=runs/a

A section is a stage; they run in this order. `on=False` switches a stage off, and the name of a
rule in `skip` switches off that rule alone. Bounds are those of the papers that
data/cleaning/rules.py names. 2 busy CPU cores: 4.0 MB/s for each core (2026-11, docs/data.md).
"""

from ml_collections import ConfigDict

from configs.sections.key import Key


def get_config(arg: str | None = None) -> ConfigDict:
    """English text for a language model."""
    keys = {
        name: {key: value.default if isinstance(value, Key) else value for key, value in of.items()}
        if isinstance(of, dict)
        else of
        for name, of in sections().items()
    }
    return ConfigDict(keys).lock()


def bounds() -> dict[str, Key]:
    """The bounds of dotted keys."""
    return {
        f"{name}.{key}": value
        for name, of in sections().items()
        if isinstance(of, dict)
        for key, value in of.items()
        if isinstance(value, Key)
    }


def sections() -> dict[str, object]:
    """Every key with its default; those with bounds are Keys."""
    return dict(
        skip=(),  # names of rules of data/cleaning/rules.py that remove and change nothing
        input=dict(
            # FILE | FOLDER; .txt, .jsonl, .parquet, .csv, .warc, .wet, … and .gz, .zst, .bz2, .xz
            corpora=("raw",),
            text_key="text",  # field of a row that holds the text
            unit_bytes=Key(32 << 20, least=1 << 10),  # of input on the disk that one worker takes
            max_expansion=Key(
                200.0, least=1
            ),  # files that unpack to more times their size: damaged
            max_damaged=Key(10, least=0),  # damaged files that are skipped; one more ends the run
            max_bad_rows=Key(
                0.01, least=0
            ),  # share of all rows that may be unreadable; they are skipped
        ),
        normalise=dict(
            on=True,
            form="NFC",  # NFC | NFKC | NFD | NFKD
            ftfy=False,  # True: repairs text that was decoded with a wrong encoding; slow
        ),
        language=dict(
            on=True,
            keep=("en",),  # ISO 639 codes
            min_probability=Key(0.65, least=0, below=1.01),
            characters=Key(300, least=20),  # looked at, in the middle of a document
        ),
        c4=dict(
            on=True,
            max_word_length=Key(1000, least=1),  # characters; a line with a longer word goes
            min_line_words=Key(5, least=0),
            min_sentences=Key(3, least=0),
            bad_words="",  # FILE with a word or phrase on each line; documents with one go
        ),
        **gopher(),
        exact=dict(on=True),
        minhash=dict(
            on=True,
            ngram=Key(5, least=1, below=65),  # words
            bands=Key(14, least=1, below=1025),
            rows=Key(8, least=1, below=1025),  # minima of a band, all equal in near duplicates
        ),
        spans=dict(
            on=True,
            sentences=Key(3, least=1, below=65),  # of a span that is removed where it occurs again
            min_sentences=Key(3, least=0),  # with fewer left, the rest of the document goes
            min_words=Key(50, least=0),
        ),
        decontaminate=dict(
            on=True,
            against=(),  # corpora of evaluation texts, as data.corpora names them; (): none
            text_key="text",  # field of their rows
            ngram=Key(13, least=1, below=257),  # words
            remove="document",  # document | span: the shared words and `around` characters
            around=Key(200, least=0),
        ),
        private=dict(  # the placeholders
            on=True,
            email="<EMAIL>",
            ip_address="<IP_ADDRESS>",
            credit_card="<CREDIT_CARD>",
            phone="<PHONE>",
        ),
        final=dict(
            on=True,
            lowercase=False,
            punctuation="keep",  # keep | ascii (quotes, dashes, ellipses) | remove
        ),
    )


def gopher() -> dict[str, object]:
    """Quality and repetition."""
    return dict(
        gopher_quality=dict(
            on=True,
            min_words=Key(50, least=0),
            max_words=Key(100_000, least=1),
            min_word_length=Key(3.0, least=0),  # characters, on average
            max_word_length=Key(10.0, least=0),
            max_symbols=Key(0.1, least=0),  # of # and of ellipses, for each word
            max_bullets=Key(0.9, least=0),  # share of lines
            max_ellipsis_ends=Key(0.3, least=0),  # share of lines
            min_alphabetic=Key(0.8, least=0),  # share of words with a letter
            min_stop_words=Key(2, least=0),
            stop_words=("the", "be", "to", "of", "and", "that", "have", "with"),
        ),
        gopher_repetition=dict(
            on=True,  # shares of lines, paragraphs or characters above which a document goes
            duplicate_lines=Key(0.3, least=0),
            duplicate_paragraphs=Key(0.3, least=0),
            duplicate_line_characters=Key(0.2, least=0),
            duplicate_paragraph_characters=Key(0.2, least=0),
            top_2_gram=Key(0.2, least=0),
            top_3_gram=Key(0.18, least=0),
            top_4_gram=Key(0.16, least=0),
            duplicate_5_grams=Key(0.15, least=0),
            duplicate_6_grams=Key(0.14, least=0),
            duplicate_7_grams=Key(0.13, least=0),
            duplicate_8_grams=Key(0.12, least=0),
            duplicate_9_grams=Key(0.11, least=0),
            duplicate_10_grams=Key(0.1, least=0),
        ),
    )
