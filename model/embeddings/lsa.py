"""Words and documents as vectors of counts: bag of words, TF-IDF and latent semantic analysis.

    bag_of_words  x_dw = the number of times that document d has word w
    tfidf         x_dw · (1 + log((1 + n) / (1 + df_w))), each document scaled to length 1, where
                  df_w of the n documents have w: Salton & Buckley 1988, smoothed as scikit-learn's
    lsa           the tfidf matrix [documents, V] ≈ U S Vᵀ of rank `d_model`: Deerwester et al. 1990

A word's vector is its row of V S, or its column of the matrix without a decomposition. Scikit-learn
computes both (the extra "vectors"). There is no probability of a word: the loss is the share of
the squared length of held-out documents that the vectors do not explain, ‖x - x V Vᵀ‖² / ‖x‖². It
is 0 without a decomposition, which discards nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, BinaryIO

import numpy as np
from scipy import sparse

from model.conventions import CONVENTIONS
from model.keys import Unfit, check, key

INPUTS = ("documents",)
OBJECTIVE = "reconstruction"


@dataclass(frozen=True)
class Config:
    """The keys of the family. Raises ValueError that names the key, its value and valid values."""

    vocab_size: int = key(0, least=1)  # words; 0: the tokenizer's
    representation: str = key("lsa", choices=("bag_of_words", "tfidf", "lsa"))
    d_model: int = key(128, least=1, needs={"representation": ("lsa",)})  # rank of the lsa
    __post_init__ = check


@dataclass(frozen=True)
class DocumentVectors:
    """A fitted representation. `idf` [V] is 1 for a bag of words; `components` [D, V] has
    orthonormal rows, and is None without a decomposition; `words` [V, D], dense or sparse, holds
    the vectors of the words."""

    scaled: bool  # each document to length 1
    idf: np.ndarray
    components: np.ndarray | None
    words: Any

    def weights(self, texts: Sequence[np.ndarray]) -> sparse.csr_matrix:
        """The weighted counts [documents, V] of tokens [N] of each document."""
        x = counts(texts, len(self.idf)) @ sparse.diags(self.idf)
        if not self.scaled:
            return x
        length = np.sqrt(x.power(2).sum(1).A1)
        return (sparse.diags(1 / np.maximum(length, 1e-300)) @ x).tocsr()

    def documents(self, texts: Sequence[np.ndarray]) -> Any:
        """The vectors [documents, D] of documents: x V, or x itself."""
        x = self.weights(texts)
        return x if self.components is None else x @ self.components.T


def derive(keys: Mapping[str, Any]) -> Config:
    """The Config of a `model` section."""
    return Config(**keys)


def flops(cfg: Config) -> dict[str, float]:
    """One addition per word, by every convention; no decomposition, which depends on the text."""
    return dict.fromkeys(CONVENTIONS, 1.0)


def counts(texts: Sequence[np.ndarray], vocab_size: int) -> sparse.csr_matrix:
    """How often each document [N] has each word, float64 [documents, V]."""
    ends = np.cumsum([0, *map(len, texts)])
    words = np.concatenate([np.empty(0, np.int64), *texts])
    shape = (len(texts), vocab_size)
    made = sparse.csr_matrix((np.ones(len(words)), words, ends), shape)
    made.sum_duplicates()
    return made


def fit(cfg: Config, texts: Sequence[np.ndarray]) -> DocumentVectors:
    """Fits the representation to documents. Unfit if there are too few for the rank."""
    x = counts(texts, cfg.vocab_size)
    if cfg.representation == "bag_of_words":
        return DocumentVectors(False, np.ones(cfg.vocab_size), None, x.T.tocsr())
    weigh = _sklearn("feature_extraction.text").TfidfTransformer()
    x = weigh.fit_transform(x)
    if cfg.representation == "tfidf":
        return DocumentVectors(True, weigh.idf_, None, x.T.tocsr())
    if cfg.d_model >= (most := min(x.shape)):
        raise Unfit(
            f"model.d_model={cfg.d_model} is not below the {len(texts)} documents and "
            f"{cfg.vocab_size} words; use at most {most - 1}, or cut documents by "
            "data.document_words"
        )
    # arpack is exact; its start is random.
    svd = _sklearn("decomposition").TruncatedSVD(cfg.d_model, algorithm="arpack", random_state=0)
    svd.fit(x)
    words = svd.components_.T * svd.singular_values_
    return DocumentVectors(True, weigh.idf_, svd.components_, words)


def _sklearn(name: str) -> ModuleType:
    """A module of scikit-learn; Unfit names the extra if it is not installed."""
    import importlib

    try:
        return importlib.import_module(f"sklearn.{name}")
    except ImportError:
        raise Unfit(
            "model.family='lsa' needs scikit-learn: pip install 'isoflop[vectors]'"
        ) from None


def count(model: DocumentVectors) -> dict[str, int]:
    """Numbers of a fitted model by component; of sparse vectors those that are not 0."""
    return {"word_vectors": int(model.words.size), "idf": len(model.idf) * model.scaled}


def rows(model: DocumentVectors, texts: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """The sums that the objective `reconstruction` needs, for each document [documents]."""
    x = model.weights([text for text in texts if len(text)])
    whole = x.power(2).sum(1).A1
    if model.components is None:
        return {"unexplained": np.zeros(len(whole)), "length": whole}
    explained = np.square(x @ model.components.T).sum(1)
    return {"unexplained": np.maximum(whole - explained, 0), "length": whole}


def vectors(cfg: Config, model: DocumentVectors) -> Any:
    """The word vectors [V, D], dense or sparse."""
    return model.words


def save(model: DocumentVectors, file: BinaryIO) -> None:
    """Writes the arrays as .npz."""
    arrays = {"scaled": np.bool_(model.scaled), "idf": model.idf}
    if model.components is not None:
        arrays |= {"components": model.components, "words": model.words}
    else:
        arrays |= {name: getattr(model.words, name) for name in ("data", "indices", "indptr")}
        arrays["shape"] = np.array(model.words.shape)
    np.savez(file, **arrays)


def load(file: BinaryIO) -> DocumentVectors:
    """Reads the model that `save` wrote."""
    with np.load(file, allow_pickle=False) as arrays:
        scaled, idf = bool(arrays["scaled"]), arrays["idf"]
        if "components" in arrays:
            return DocumentVectors(scaled, idf, arrays["components"], arrays["words"])
        parts = tuple(arrays[name] for name in ("data", "indices", "indptr"))
        words = sparse.csr_matrix(parts, tuple(arrays["shape"]))
        return DocumentVectors(scaled, idf, None, words)
