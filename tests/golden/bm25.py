"""Writes bm25.json: passages, queries and their scores under rank_bm25 0.2.2, the oracle of
data/retrieval/bm25.py.

    pip install rank_bm25==0.2.2
    python tests/golden/bm25.py

The words have Zipf's frequencies, so that one of them is in more than half of the passages:
BM25Okapi floors its idf, which would be negative. Queries repeat words and contain unknown
ones. BM25L is left out: rank_bm25 0.2.2 multiplies its weight by the count once more than the cited
paper.
"""

import json
from pathlib import Path

import numpy as np

PASSAGES, WORDS = 60, 80


def main() -> None:
    import rank_bm25

    rng = np.random.default_rng(16)
    p = 1 / np.arange(1, WORDS + 1)
    names = np.array([f"w{i}" for i in range(WORDS)])
    draw = lambda n: rng.choice(names, n, p=p / p.sum()).tolist()  # noqa: E731
    passages = [draw(int(rng.integers(1, 40))) for _ in range(PASSAGES)]
    passages[7] = []  # a passage without words
    queries = [["w0"], ["w0", "w5", "w5", "unknown"], ["unknown"], *(draw(6) for _ in range(5))]
    scores = {}
    for name, made in (
        ("okapi", rank_bm25.BM25Okapi(passages)),
        ("okapi_k1_0.9_b_0.4", rank_bm25.BM25Okapi(passages, k1=0.9, b=0.4)),
        ("bm25+", rank_bm25.BM25Plus(passages)),
    ):
        scores[name] = [made.get_scores(query).tolist() for query in queries]
    floored = rank_bm25.BM25Okapi(passages)
    share = {word: sum(word in one for one in passages) / PASSAGES for word in names}
    assert max(share.values()) > 0.5, "no word is in more than half of the passages"
    about = {
        "package": "rank_bm25 0.2.2",
        "passages": passages,
        "queries": queries,
        "idf_floor": floored.epsilon * floored.average_idf,
        "scores": scores,
    }
    Path(__file__).with_suffix(".json").write_text(json.dumps(about) + "\n")


if __name__ == "__main__":
    main()
