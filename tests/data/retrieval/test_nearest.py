"""Tests the search for nearest neighbours against a sort of all scores."""

import numpy as np
import pytest

from data.retrieval import nearest
from data.retrieval.nearest import Neighbours

Q, N, D, K = 40, 700, 6, 8


def brute_force(queries, keys, distances, k=K):
    """(scores, ids) of the best keys of each query."""
    scores = queries @ keys.T
    if distances:
        scores = -np.square(queries[:, None] - keys[None]).sum(-1)
    ids = np.argsort(-scores, axis=1)[:, :k]
    return np.take_along_axis(scores, ids, 1), ids


@pytest.mark.parametrize("backend", nearest.BACKENDS)
@pytest.mark.parametrize("distances", [True, False])
def test_neighbours_are_those_of_a_sort(distances, backend, monkeypatch):
    if backend == "faiss":
        pytest.importorskip("faiss")
    monkeypatch.setattr(nearest, "BLOCK", 40 * 64)  # several blocks for each call of `add`
    rng = np.random.default_rng(0)
    queries, keys = rng.normal(size=(Q, D)), rng.normal(size=(N, D))
    found = Neighbours(queries, K, distances, backend)
    for begin, end in ((0, 3), (3, 300), (300, 300), (300, N)):  # fewer than K at first
        found.add(keys[begin:end])
    scores, ids = brute_force(queries, keys, distances)
    assert np.array_equal(found.ids, ids)
    np.testing.assert_allclose(found.scores, scores, atol=1e-4)
    assert not np.array_equal(found.ids, brute_force(-queries, keys, distances)[1])


def test_ids_and_too_few_keys():
    found = Neighbours(np.eye(2), 3, distances=False)
    found.add(np.array([[2.0, 0.0], [0.0, 1.0]]), np.array([10, 20]))
    assert found.ids.tolist() == [[10, 20, -1], [20, 10, -1]]
    assert found.scores[0].tolist() == [2.0, 0.0, -np.inf]


def test_an_unknown_backend_is_refused(monkeypatch):
    with pytest.raises(ValueError, match="backend='annoy' is unknown; use one of numpy, faiss"):
        Neighbours(np.eye(2), 1, distances=False, backend="annoy")
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    with pytest.raises(ValueError, match=r"pip install 'isoflop\[faiss\]'"):
        nearest.require_backend("faiss")
