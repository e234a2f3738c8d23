"""Tests the faults that are added to real text: every kind, in its share, by the seed."""

import collections

import pytest

from configs.data import cleaning
from data.cleaning import pipeline
from data.sources import corpus, corrupted

TEXT = "\n".join(
    f"In the year {1000 + n} the king of the {n}th valley had {n * 7 % 31} ships and 's sailed to "
    f"the island of {n * n % 97} trees, where nobody had been before him."
    for n in range(900)
)


@pytest.fixture
def book(tmp_path):
    path = tmp_path / "book.txt"
    path.write_text(TEXT)
    return path


def test_without_faults_the_text_is_cut_into_pages(book):
    spec = f"corrupted:{book}:copied=0:framed=0:garbled=0:junk=0:size=3000"
    pages = list(corpus.documents(spec))
    assert "".join(pages).replace("\n", "") == TEXT.replace("\n", "")
    assert all(3000 <= len(page) < 3400 for page in pages[:2]) and len(pages) > 30


def test_every_fault_is_there_in_its_share(book):
    clean = set(corpus.documents(f"corrupted:{book}:copied=0:framed=0:garbled=0:junk=0"))
    n = len(clean)

    def found(**keys):
        settings = {"copied": 0, "framed": 0, "garbled": 0, "junk": 0} | keys
        given = "".join(f":{key}={value}" for key, value in settings.items())
        return list(corpus.documents(f"corrupted:{book}{given}"))

    copies = collections.Counter(found(copied=1, altered=0))
    assert set(copies) == clean and n * 1.5 < copies.total() < n * 5
    changed = [page for page in found(copied=1, altered=1) if page not in clean]
    assert len(changed) > n / 2
    framed = [page for page in found(framed=0.5) if page not in clean]
    assert 0.3 * n < len(framed) < 0.7 * n
    assert any(line in page for page in framed for line in corrupted.ABOVE)
    assert all("â€™s" in page for page in found(garbled=1))
    junk = [page for page in found(junk=1) if page not in clean]
    assert len(junk) == n
    assert all(any(kind in page for page in junk) for kind in ("casino", "getElementById"))


def test_the_seed_decides(book):
    one, again = (list(corpus.documents(f"corrupted:{book}:seed=1")) for _ in range(2))
    other = list(corpus.documents(f"corrupted:{book}:seed=2"))
    assert one == again != other
    assert corpus.identity(f"corrupted:{book}:seed=1") != corpus.identity(
        f"corrupted:{book}:seed=2"
    )
    before = corpus.identity(f"corrupted:{book}")
    book.write_text(TEXT[:-1])
    assert corpus.identity(f"corrupted:{book}") != before


def test_cleaning_removes_them(book, tmp_path):
    cfg = cleaning.get_config().to_dict()
    cfg["gopher_repetition"]["on"] = False  # the text itself repeats much
    cfg["input"]["corpora"] = [f"corrupted:{book}:copied=.5:junk=.5"]
    about = pipeline.clean(cfg, tmp_path / "out", 1)
    assert about["rules"]["exact_duplicate"]["documents"] > 5
    left = list(corpus.documents(str(tmp_path / "out" / "text")))
    assert left and not any("casino" in text or "getElementById" in text for text in left)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("corrupted", "names no text"),
        ("corrupted:seed=1", "names no text"),
        ("corrupted:book.txt:colour=1", "'colour=1' is not KEY=VALUE.*copied"),
        ("corrupted:book.txt:junk=x", "junk='x' is not valid"),
        ("corrupted:book.txt:junk=2", "junk=2.0 must be 0 to 1"),
        ("corrupted:nowhere.txt", "does not exist"),
    ],
)
def test_a_bad_spec_is_refused(spec, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        corpus.identity(spec)
