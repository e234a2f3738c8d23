"""Tests the made-up reviews: their labels follow from their words by the rule that is stated."""

import itertools

import pytest

from data.sources import corpus, sentiment


def label_of(review: str) -> str:
    """The sentiment of the last clause."""
    last = review.removesuffix(" .").replace(" but ", " and ").split(" and ")[-1]
    words = last.split()
    negated = any(word in words for word in ("not", "hardly", "never"))
    return sentiment.LABELS[(words[-1] in sentiment.ADJECTIVES[1]) ^ negated]


def test_the_last_clause_decides_and_negation_turns_it_round():
    reviews = list(sentiment.parse("synthetic_sentiment:texts=500:seed=3").labelled())
    assert all(label == label_of(text) for text, label in reviews)
    without = [(t.replace(" not", "").replace(" hardly", "").replace(" never", ""), x) for t, x in reviews]  # fmt: skip  # noqa: E501
    assert sum(label != label_of(text) for text, label in without) > 25  # it is needed
    assert 0.4 < sum(label == "positive" for _, label in reviews) / 500 < 0.6


def test_but_joins_opposites_and_and_equals():
    for text, _ in sentiment.Reviews(texts=300, seed=1).labelled():
        clauses = text.removesuffix(" .").replace(" but ", "|-").replace(" and ", "|+").split("|")
        for one, other in itertools.pairwise(clauses):
            same = label_of(one.lstrip("+-")) == label_of(other.lstrip("+-"))
            assert same == (other[0] == "+")


def test_reviews_depend_on_the_seed_and_are_also_running_text():
    one, other = (sentiment.Reviews(seed=seed).review(5) for seed in (0, 1))
    assert one != other and one == sentiment.Reviews().review(5)
    pages = list(corpus.documents("synthetic_sentiment:texts=50"))
    assert [page.count("\n") + 1 for page in pages] == [20, 20, 10]


@pytest.mark.parametrize("spec", ["texts", "words=3", "texts=x", "texts=0", "negated=2"])
def test_a_bad_spec_is_refused(spec):
    with pytest.raises(ValueError, match="synthetic_sentiment"):
        sentiment.parse(f"synthetic_sentiment:{spec}")
