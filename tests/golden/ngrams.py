"""Writes ngrams.npz: the probabilities of nltk.lm on a small text, for each smoothing that it has.

python tests/golden/ngrams.py        2 s; nltk 3.10.4

The text repeats its beginning at its end, so that every n-gram has a token before it: nltk counts
the tokens that may follow a context without asking for that, and its Kneser-Ney probabilities sum
to more than 1 where a text begins with an n-gram that does not occur again.
"""

import itertools
from pathlib import Path

import numpy as np
from nltk.lm import models
from nltk.util import everygrams

V, ORDER = 12, 3  # nltk's vocabulary has one token more, the unknown one: number V here
DISCOUNT, K = 0.7, 0.3
UNKNOWN = "<UNK>"


def text() -> list[int]:
    """300 tokens whose frequencies differ, the first ORDER of them once more at the end."""
    random = np.random.default_rng(0)
    tokens = [0]
    while len(tokens) < 300:
        usual = (5 * tokens[-1] + 3) % V
        tokens.append(usual if random.random() < 0.5 else int(V * random.random() ** 2))
    return tokens + tokens[:ORDER]


def contexts(tokens: list[int]) -> list[list[int]]:
    """Contexts of 0 to 2 tokens that occur, that do not occur, and with the unknown token."""
    pairs = [list(tokens[i : i + 2]) for i in range(0, 40, 4)]
    seen = set(itertools.pairwise(tokens))
    absent = [[a, b] for a in range(V) for b in range(V) if (a, b) not in seen]
    return [[], *([a] for a in range(V + 1)), *pairs, *absent[:6], [V, 1], [1, V]]


def main() -> None:
    tokens = text()
    words = [str(token) for token in range(V)] + [UNKNOWN]
    made = {
        "add_k": models.Lidstone(K, ORDER),
        "laplace": models.Laplace(ORDER),
        "witten_bell": models.WittenBellInterpolated(ORDER),
        "absolute": models.AbsoluteDiscountingInterpolated(ORDER, discount=DISCOUNT),
        "kneser_ney": models.KneserNeyInterpolated(ORDER, discount=DISCOUNT),
    }
    chosen = contexts(tokens)
    found = {}
    for name, model in made.items():
        spelled = [str(token) for token in tokens]
        model.fit([list(everygrams(spelled, max_len=ORDER))], vocabulary_text=spelled)
        score = lambda w, context: model.score(w, [words[t] for t in context] or None)  # noqa: B023,E731
        found[name] = np.array([[score(word, context) for word in words] for context in chosen])
    padded = np.full((len(chosen), ORDER - 1), -1)
    for row, context in zip(padded, chosen, strict=True):
        row[: len(context)] = context
    np.savez_compressed(
        Path(__file__).parent / "ngrams.npz", text=tokens, contexts=padded, k=K, discount=DISCOUNT,
        **found,
    )  # fmt: skip


if __name__ == "__main__":
    main()
