"""Tests of single stages: normalisation, personal data, contamination, C4's line rules."""

import numpy as np
import pytest

from data.cleaning.text import c4, contamination, language, normalise, private
from data.cleaning.text.words import Vocabulary, ngram_hashes

PLACEHOLDERS = {kind: f"<{kind}>" for kind in private.KINDS}
C4 = {"max_word_length": 1000, "min_line_words": 5, "min_sentences": 3}


def test_normal_form_line_ends_and_control_characters():
    assert normalise.normalised("a\r\nb\rc\x00\x07\td\u2028e") == "a\nb\nc\td\ne"
    assert normalise.normalised("Ko\u0308ln \ufeffx\x85") == "Köln x"
    assert normalise.normalised("ﬁn", "NFC") == "ﬁn" and normalise.normalised("ﬁn", "NFKC") == "fin"


def test_final_forms():
    section = {"lowercase": True, "punctuation": "ascii"}
    assert normalise.final_form("“So”—he’d… WAIT", section) == '"so"-he\'d... wait'
    section = {"lowercase": False, "punctuation": "remove"}
    assert normalise.final_form("So, he_d: 5%!", section) == "So hed 5"
    section = {"lowercase": False, "punctuation": "keep"}
    assert normalise.final_form("“So”", section) == "“So”"


@pytest.mark.parametrize(
    ("text", "kind", "found"),
    [
        ("write to jo.e+x@mail.example.org.", "email", "jo.e+x@mail.example.org"),
        ("at 192.168.0.1, or", "ip_address", "192.168.0.1"),
        ("at 2001:db8::ff00:42:8329 or", "ip_address", "2001:db8::ff00:42:8329"),
        ("card 4111 1111 1111 1111 is", "credit_card", "4111 1111 1111 1111"),
        ("call +49 30 901820 today", "phone", "+49 30 901820"),
        ("call (555) 123-4567 today", "phone", "(555) 123-4567"),
        ("call 555-123-4567.", "phone", "555-123-4567"),
    ],
)
def test_personal_data_is_replaced(text, kind, found):
    left, listed = private.scrubbed(text, PLACEHOLDERS)
    assert listed == {kind: [found]} and left == text.replace(found, f"<{kind}>")
    others = {name: mark for name, mark in PLACEHOLDERS.items() if name != kind}
    assert private.scrubbed(text, others) == (text, {})


@pytest.mark.parametrize(
    "text",
    [
        "4111 1111 1111 1112 fails Luhn's check, 0000 0000 0000 0000 holds nothing",
        "from 1939-1945, 2020-01-02, 12:34:56, 3.14159265358979",
        "999.1.1.1 and 1.2.3 and std::vector and a:b:c",
        "user@localhost, @name, a @ b.com",
        "pages 100 200 300 400, 10,000,000 of them",
    ],
)
def test_other_numbers_stay(text):
    assert private.scrubbed(text, PLACEHOLDERS) == (text, {})


def test_c4_drops_lines_and_documents():
    good = "This line has enough words. It ends well."
    others = "No end here at all\nToo few.\nPlease enable javascript for this page."
    text = f"{good}\n{others}\n[12]{good}"
    left = c4.clean(text, C4)
    assert left.text == f"{good}\n{good}"
    assert dict(left.lines) == {
        "line_no_end": 1, "line_few_words": 1, "citations": 1, "line_javascript": 1,
    }  # fmt: skip
    assert left.sentences == 4
    kept = c4.clean(text, C4, skipped=["line_few_words", "line_javascript"])
    assert "Too few." in kept.text and "javascript" in kept.text
    assert c4.clean(f"{good} {{", C4, skipped=["line_no_end"]).rule == "curly_bracket"
    assert c4.clean(good + " lorem ipsum.", C4).rule == "lorem_ipsum"
    bad = c4.bad_words(["darn", "two words"])
    assert c4.clean("Oh Darn, this is quite a line.", C4, (), bad).rule == "bad_words"
    assert c4.clean("Darning is quite a fine hobby.", C4, (), bad).rule == ""


def test_ngrams_stay_within_a_document():
    hashes = np.arange(1, 8, dtype=np.uint64)
    grams, begins = ngram_hashes(hashes, np.array([3, 0, 4]), 3)
    assert begins.tolist() == [0, 3, 4]
    same = ngram_hashes(hashes[3:], np.array([4]), 3)[0]
    assert grams[1:].tolist() == same.tolist()  # the hash does not depend on the place


def test_contamination_ignores_case_and_punctuation():
    exam = "Why does the moon, when it is full, rise at the same time as sunset?"
    grams = contamination.grams_of([exam, "too short"], 13)
    assert len(grams) == len(exam.split()) - 12
    shared = "why does THE moon when it is full rise; at the same time as sunset."
    text = f"Before it all. {shared} After it."
    vocabulary = Vocabulary()
    words = vocabulary.split([text, text.replace("moon", "sun")])
    hashes, counts, _ = contamination.folded(words, vocabulary)
    assert contamination.contaminated(hashes, counts, 13, grams)[0].tolist() == [3, 0]
    left, spans = contamination.without_spans(text, 13, grams, 0)
    assert left == "Before it all.\nAfter it." and spans == [shared]
    assert contamination.without_spans(text, 13, grams, 6)[0] == "Before\nit."


def test_language():
    detect = language.detector(500)
    assert detect("The quick brown fox jumps over the lazy dog, and it runs away.")[0] == "en"
    code, share = detect("Die Köche präferieren süße Schokoladentörtchen.")
    assert code == "de" and 0.5 < share <= 1
    middle = "x" * 2000 + " Le chat mange la souris dans la maison de ma mère. " * 9 + "x" * 2000
    assert detect(middle)[0] == "fr"


def test_mojibake():
    assert normalise.repair()("schÃ¶n, “so”") == "schön, “so”"
