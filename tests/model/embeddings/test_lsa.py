"""Tests LSA, TF-IDF and bags of words against scikit-learn."""

import io

import numpy as np
import pytest

from model.embeddings import lsa

text = pytest.importorskip("sklearn.feature_extraction.text")
decomposition = pytest.importorskip("sklearn.decomposition")
WORDS = [f"w{i:02d}" for i in range(40)]


@pytest.fixture(scope="module")
def documents() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.zipf(1.4, rng.integers(5, 60)) % 40 for _ in range(50)]


def spelt(documents) -> list[str]:
    return [" ".join(WORDS[i] for i in document) for document in documents]


def fitted(documents, **keys) -> lsa.DocumentVectors:
    return lsa.fit(lsa.Config(40, **keys), documents[:35])


@pytest.fixture(scope="module")
def theirs(documents):
    """(the tfidf of the training documents, that of the others, the decomposition)."""
    weigh = text.TfidfVectorizer(vocabulary=WORDS)
    train, other = (
        weigh.fit_transform(spelt(documents[:35])),
        weigh.transform(spelt(documents[35:])),
    )
    svd = decomposition.TruncatedSVD(6, algorithm="arpack", random_state=1).fit(train)
    return train, other, svd


def test_lsa_is_that_of_sklearn_up_to_sign(documents, theirs):
    _, other, svd = theirs
    ours = fitted(documents, d_model=6)
    words = svd.components_.T * svd.singular_values_
    sign = np.sign((ours.words * words).sum(0))
    np.testing.assert_allclose(ours.words * sign, words, atol=1e-9)
    np.testing.assert_allclose(
        ours.documents(documents[35:]) * sign, svd.transform(other), atol=1e-9
    )
    swapped = ours.words[:, [1, 0, 2, 3, 4, 5]]
    assert np.abs(np.abs(swapped) - np.abs(words)).max() > 1e-2


def test_tfidf_and_bag_of_words_are_those_of_sklearn(documents, theirs):
    ours = fitted(documents, representation="tfidf")
    np.testing.assert_allclose(ours.words.T.toarray(), theirs[0].toarray(), atol=1e-12)
    np.testing.assert_allclose(
        ours.documents(documents[35:]).toarray(), theirs[1].toarray(), atol=1e-12
    )
    counted = text.CountVectorizer(vocabulary=WORDS).transform(spelt(documents[:35])).toarray()
    bag = fitted(documents, representation="bag_of_words")
    np.testing.assert_array_equal(bag.words.T.toarray(), counted)
    assert np.abs(ours.words.T.toarray() - counted).max() > 0.1


def test_the_loss_is_the_unexplained_share(documents, theirs):
    _, other, svd = theirs
    rows = lsa.rows(fitted(documents, d_model=6), documents[35:])
    x = other.toarray()
    left = x - svd.transform(other) @ svd.components_
    np.testing.assert_allclose(rows["unexplained"], np.square(left).sum(1), atol=1e-9)
    np.testing.assert_allclose(rows["length"], 1)
    assert (
        lsa.rows(fitted(documents, representation="tfidf"), documents[35:])["unexplained"] == 0
    ).all()


@pytest.mark.parametrize("representation", ["lsa", "tfidf", "bag_of_words"])
def test_what_is_saved_is_loaded(documents, representation):
    keys = {"d_model": 6} if representation == "lsa" else {}
    model, file = fitted(documents, representation=representation, **keys), io.BytesIO()
    lsa.save(model, file)
    file.seek(0)
    loaded = lsa.load(file)
    dense = lambda x: x if isinstance(x, np.ndarray) else x.toarray()  # noqa: E731
    np.testing.assert_array_equal(dense(loaded.words), dense(model.words))
    one, other = (dense(m.documents(documents)) for m in (model, loaded))
    np.testing.assert_array_equal(one, other)


def test_too_few_documents_for_the_rank_say_how_many(documents):
    with pytest.raises(ValueError, match=r"model\.d_model=35 is not below the 35 documents"):
        fitted(documents, d_model=35)
