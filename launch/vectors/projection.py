"""A map of the most frequent words of a run: their vectors in two dimensions."""

from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from launch.vectors.word_vectors import WordVectors


def pca(x_ND: np.ndarray) -> tuple[np.ndarray, str, list[str]]:
    """(coordinates [N, 2], how they were found, titles of the axes): the two directions of the
    largest variance, by the singular value decomposition."""
    centred = x_ND - x_ND.mean(0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    shares = np.square(s[:2]) / max(np.square(s).sum(), 1e-30)
    titles = [
        f"component {n}, {share:.0%} of the variance" for n, share in enumerate(shares, start=1)
    ]
    return u[:, :2] * s[:2], "projected on two principal components", titles


def tsne(x_ND: np.ndarray) -> tuple[np.ndarray, str, list[str]]:
    """The same by t-SNE (van der Maaten & Hinton 2008); ValueError without scikit-learn."""
    try:
        from sklearn.manifold import TSNE
    except ImportError:
        raise ValueError(
            "projection=tsne needs scikit-learn: pip install 'isoflop[vectors]'; or use pca"
        ) from None
    perplexity = min(30.0, (len(x_ND) - 1) / 3)
    found = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(x_ND)
    return found, "arranged by t-SNE, where only near distances have a meaning", ["", ""]


PROJECTIONS = {"pca": pca, "tsne": tsne}


def word_map(vectors: WordVectors, run: Path, projection: str, n: int) -> dict[str, Any]:
    """The content of a map (scaling/report/word_map.py) of the first `n` words of the vocabulary
    that hold a letter. ValueError with fewer than three of them."""
    chosen = [i for i, word in enumerate(vectors.words) if any(map(str.isalpha, word))][:n]
    if len(chosen) < 3:
        raise ValueError(f"run={run} has {len(chosen)} words with letters, too few for a map")
    rows = vectors.unit[chosen]
    found, how, axes = PROJECTIONS[projection](rows.toarray() if sparse.issparse(rows) else rows)
    words = [
        {"word": vectors.words[i], "x": round(float(x), 5), "y": round(float(y), 5)}
        for i, (x, y) in zip(chosen, found, strict=True)
    ]
    return {"run": run.name, "projection": how, "axes": axes, "words": words}
