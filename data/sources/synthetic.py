"""Synthetic languages of known entropy and scaling exponents, to compare models and fits with.

A language has M letters of probabilities p_i, S values, a value rate p, a noise ε and a seeded hash
h. Every step draws one *innovation*, independent of all others: with probability 1-p a letter (p_i)
and with probability p a value offset s, drawn from w: w_0 = 1-ε, each other ε/(S-1). A letter is
written as it is; an offset as the value token (s + h(word)) mod S, where `word` is the string of
letters since the last value or the start of the document, possibly empty.

*Entropy.* Given the past, tokens and innovations determine each other, so the entropy rate is

    H = H_b(p) + (1-p) H(letters) + p H(w)    nats/token,    H_b(p) = -p ln p - (1-p) ln(1-p),
    H(w) = H_b(ε) + ε ln(S-1),

and -ln P(token | past) is that of its innovation. To predict a value, a model must know h of the
word before it. h follows no rule, so every word must be memorised.

*Exponents.* A word u comes before a value with probability q_u = p Π(1-p)p_i over its letters. The
r-th most frequent word has q_r ~ r^-a, where Σ((1-p) p_i)^(1/a) = 1 (Zipf's law; Conrad &
Mitzenmacher 2004). A learner that knows only the N most frequent words, or those in D tokens, does
not know a share N^-α_N or D^-α_D of the values: α_N = a - 1, α_D = α_N/(1 + α_N)
(`data/sources/ideal.py`).

The defaults M = 4 equal letters, p = .384, S = 16, ε = .1 give H = 1.74877, α_N .349, α_D .259.

*As a corpus*, the spec is 'synthetic' or 'synthetic:KEY=VALUE:…', with the keys of `KEYS`. Letters
are written a, b, … and values A, B, …, so any tokenizer works; 'chars' has M + S + 2 tokens.

    isoflop tokenize --config.data.corpora=synthetic:p=.3:seed=1:tokens=1e8 \\
        --config.data.tokenizer=chars

Compare a model's loss with the oracle's on the same validation text (`oracle_of`), which differs
from H by chance. Evaluate the whole split (a large eval.sequences). Only the model's loss includes
the end of each document, at most (1 + ln L)/L per token with L = `document`, and the first value of
each window of T tokens, whose word began before it, up to (ln S - H(w))/T.
"""

import functools
import math
import string
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from data.shards import Split
from data.sources.specs.settings import settings
from data.tokenizer import Tokenizer

VERSION = 1  # of the draws and h; part of a corpus's identity
LETTERS = string.ascii_lowercase
VALUES = string.ascii_uppercase + string.digits
CHUNK = 1 << 18  # tokens per vectorised pass, so that its arrays fit in the cache


@dataclass(frozen=True)
class Word:
    """An unfinished word: its number of letters and their sum so far in the hash."""

    length: int = 0
    sum: int = 0


@dataclass(frozen=True)
class Language:
    """Tokens are uint8: letter i is i, value v is M + v. Raises ValueError for invalid numbers."""

    letters: tuple[float, ...] = (0.25,) * 4  # p_i, the probability of each letter among letters
    p: float = 0.384  # probability that a token is a value
    n_values: int = 16  # S
    noise: float = 0.1  # ε, probability that a value is not h(word)
    seed: int = 0  # of h

    def __post_init__(self):
        _require(2 <= len(self.letters) <= len(LETTERS), "M", len(self.letters), "2 to 26")
        total = sum(self.letters)
        good = min(self.letters) > 0 and abs(total - 1) < 1e-9
        _require(good, "letters", self.letters, "positive numbers that sum to 1")
        _require(0 < self.p < 1, "p", self.p, "a probability between 0 and 1, both excluded")
        _require(2 <= self.n_values <= len(VALUES), "S", self.n_values, "2 to 36")
        most = 1 - 1 / self.n_values
        _require(0 <= self.noise < most, "noise", self.noise, f"0 to below 1 - 1/S = {most:.4g}")
        _require(self.seed >= 0, "seed", self.seed, "0, 1, 2, …")

    @functools.cached_property
    def offsets(self) -> np.ndarray:
        """w [S]: the probability of each value offset s."""
        return np.array([1 - self.noise] + [self.noise / (self.n_values - 1)] * (self.n_values - 1))

    @functools.cached_property
    def innovation_probability(self) -> np.ndarray:
        """The probability of each innovation [M + S]: letters, then offsets."""
        return np.concatenate([(1 - self.p) * np.array(self.letters), self.p * self.offsets])

    @property
    def entropy(self) -> float:
        """H, the entropy rate in nats per token."""
        return entropy(self.innovation_probability)

    @property
    def zipf(self) -> float:
        """a, the exponent of word frequency against rank: Σ((1-p) p_i)^(1/a) = 1."""
        log_q = np.log1p(-self.p) + np.log(self.letters)
        low, high = 0.0, 1.0  # of 1/a: the sum falls from M to 1 - p
        for _ in range(60):
            middle = (low + high) / 2
            above = np.exp(middle * log_q).sum() > 1
            low, high = (middle, high) if above else (low, middle)
        return 2 / (low + high)

    @property
    def alpha_n(self) -> float:
        """The exponent of the loss above H in the number of words known."""
        return self.zipf - 1

    @property
    def alpha_d(self) -> float:
        """The exponent of the loss above H in the number of training tokens."""
        return self.alpha_n / (1 + self.alpha_n)

    def stream(self, n_tokens: int, sample: int = 0, chunk: int = CHUNK) -> Iterator[np.ndarray]:
        """`n_tokens` tokens of one endless text, in chunks; their size does not change the text."""
        draw, word = self._draws(sample), Word()
        for first in range(0, n_tokens, chunk):
            tokens, word = self._shift(draw(min(chunk, n_tokens - first)), +1, word)
            yield tokens

    def documents(self, n_tokens: int, length: int, sample: int = 0) -> Iterator[np.ndarray]:
        """The same innovations as texts of `length` tokens, each beginning with a new word."""
        draw = self._draws(sample)
        for first in range(0, n_tokens, length):
            yield self._shift(draw(min(length, n_tokens - first)), +1, Word())[0]

    def log_probabilities(self, tokens: np.ndarray) -> np.ndarray:
        """ln P(token | the tokens before it) [n] of a text [n] from its start: the oracle."""
        result = np.empty(len(tokens))
        log_probability = np.log(np.maximum(self.innovation_probability, 1e-300))
        word = Word()
        for first in range(0, len(tokens), CHUNK):
            innovation, word = self._shift(tokens[first : first + CHUNK], -1, word)
            result[first : first + CHUNK] = log_probability[innovation]
        return result

    def text(self, tokens: np.ndarray) -> str:
        """Tokens as characters."""
        return self._characters[tokens].tobytes().decode("ascii")

    def tokens(self, text: str) -> np.ndarray:
        """Characters as tokens; ValueError for a character that the language does not have."""
        place = np.full(256, 255, np.uint8)
        place[self._characters] = np.arange(len(self._characters))
        tokens = place[np.frombuffer(text.encode("ascii", "replace"), np.uint8)]
        if (tokens == 255).any():
            wrong = text[int(np.argmax(tokens == 255))]
            known = self.text(np.arange(len(self._characters)))
            raise ValueError(f"{wrong!r} is not a character of this language, which has {known}")
        return tokens

    @property
    def _characters(self) -> np.ndarray:
        used = LETTERS[: len(self.letters)] + VALUES[: self.n_values]
        return np.frombuffer(used.encode(), np.uint8)

    def _draws(self, sample: int) -> Callable[[int], np.ndarray]:
        """A function that draws the next n innovations. NumPy guarantees that these bits stay."""
        bits = np.random.PCG64(np.random.SeedSequence(sample, spawn_key=(1,)))
        # 63 bits, so that a bound of 1 can be represented.
        bound = (np.cumsum(self.innovation_probability)[:-1] * 2.0**63).astype(np.uint64)

        def draw(n: int) -> np.ndarray:
            return np.searchsorted(bound, bits.random_raw(n) >> 1, side="right").astype(np.uint8)

        return draw

    def _shift(self, symbols: np.ndarray, sign: int, word: Word) -> tuple[np.ndarray, Word]:
        """Shifts values by h(word): innovations to tokens (+1), or back (-1). Letters stay as is.

        `word` is the unfinished word before the symbols; returns the one after them as well.
        """
        at, before, word = self._hashes(symbols, word)
        shifted, m = symbols.copy(), len(self.letters)
        shifted[at] = m + (symbols[at].astype(np.int64) - m + sign * before) % self.n_values
        return shifted, word

    def _hashes(self, symbols: np.ndarray, word: Word) -> tuple[np.ndarray, np.ndarray, Word]:
        """Positions of the values [k], h of the word before each [k], and the unfinished word.

        h mixes Σ_j (1 + letter_j) b^j mod 2^64, letter_j being the word's j-th.
        """
        base, key = self._hash_key
        n, m = len(symbols), len(self.letters)
        at = np.flatnonzero(symbols >= m)
        begin = np.concatenate([[-word.length], at + 1])  # of each word; the last is unfinished
        place = np.arange(n) - np.repeat(begin, np.diff(np.concatenate([[0], at + 1, [n]])))
        power = np.full(place.max(initial=0) + 1, base, np.uint64)
        power[0] = 1
        digit = np.zeros(m + self.n_values, np.uint64)
        digit[:m] = np.arange(1, m + 1)
        total = np.cumsum(digit[symbols] * np.cumprod(power)[place])
        ends = np.concatenate([total[at], total[-1:]])
        sums = np.diff(ends, prepend=np.uint64(0))  # modulo 2^64, like all of this
        sums[:1] += np.array([word.sum], np.uint64)
        before = (_mix(sums[:-1] ^ key) >> np.uint64(32)) * np.uint64(self.n_values)
        left = Word(n - int(begin[-1]), int(sums[-1]))
        return at, (before >> np.uint64(32)).astype(np.int64), left

    @functools.cached_property
    def _hash_key(self) -> tuple[np.uint64, np.uint64]:
        base, key = np.random.SeedSequence(self.seed, spawn_key=(0,)).generate_state(2, np.uint64)
        return base | np.uint64(1), key


def _mix(x: np.ndarray) -> np.ndarray:
    """Every bit of the output depends on all of x (the finaliser of SplitMix64)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def entropy(probability: np.ndarray) -> float:
    """-Σ p ln p in nats."""
    positive = probability[probability > 0]
    return float(-(positive * np.log(positive)).sum())


def _require(good: bool, key: str, value: object, valid: str) -> None:
    if not good:
        raise ValueError(f"data.corpora: synthetic:{key}={value} is not valid; use {valid}")


@dataclass(frozen=True)
class Corpus:
    """A text of a language: `tokens` tokens in documents of `document` tokens each."""

    language: Language = Language()
    sample: int = 0
    tokens: int = 10_000_000
    document: int = 1 << 14

    def documents(self) -> Iterator[str]:
        """The documents. Fewer `tokens` give a prefix of them."""
        for tokens in self.language.documents(self.tokens, self.document, self.sample):
            yield self.language.text(tokens)


def _count(text: str) -> int:
    number = float(text)
    if not number.is_integer():
        raise ValueError
    return int(number)


def _equal(text: str) -> tuple[float, ...]:
    m = _count(text)
    if m > len(LETTERS):
        raise ValueError
    return (1 / m,) * m


def _shares(text: str) -> tuple[float, ...]:
    return tuple(float(share) for share in text.split("+"))


# The keys of a spec: the parser and the meaning of each.
KEYS = {
    "M": (_equal, "number of equal letters, 2 to 26"),
    "letters": (_shares, "probabilities of the letters, instead of M, such as .5+.3+.2"),
    "p": (float, "probability of a value"),
    "S": (_count, "number of values"),
    "noise": (float, "probability that a value is not h(word)"),
    "seed": (_count, "seed of h, the value of each word"),
    "sample": (_count, "seed of the text"),
    "tokens": (_count, "length of the text in tokens"),
    "document": (_count, "tokens per document"),
}
FIELDS = {"M": "letters", "S": "n_values"}  # set by keys of another name


def parse(spec: str) -> Corpus:
    """The corpus of 'synthetic[:KEY=VALUE…]'; ValueError for an unknown key or a bad value."""
    given: dict[str, object] = {}
    for key, value in settings(spec, spec.split(":")[1:], KEYS):
        field = FIELDS.get(key, key)
        if field in given:
            raise ValueError(f"data.corpora={spec!r}: {key} sets {field} again; give it once")
        given[field] = value
    about = {
        field: given.pop(field) for field in ("sample", "tokens", "document") if field in given
    }
    corpus = Corpus(Language(**given), **about)
    _require(corpus.sample >= 0, "sample", corpus.sample, "0, 1, 2, …")
    _require(corpus.tokens > 0, "tokens", corpus.tokens, "a number above 0, such as 1e7")
    _require(corpus.document > 0, "document", corpus.document, "a number above 0, such as 16384")
    return corpus


@dataclass(frozen=True)
class Measured:
    """A mean over a text in nats per token, and its standard error."""

    nats: float
    se: float
    tokens: int


def oracle(language: Language, texts: Iterator[np.ndarray]) -> Measured:
    """The oracle's loss on texts of tokens, each from its start."""
    nll = -np.concatenate([language.log_probabilities(tokens) for tokens in texts])
    return Measured(float(nll.mean()), float(nll.std() / math.sqrt(len(nll))), len(nll))


def oracle_of(spec: str, split: Split, tokenizer: Tokenizer) -> Measured:
    """The oracle's loss, nats per character, on a stored split of the corpus `spec`.

    End-of-document tokens are left out. Raises ValueError for a split without documents.
    """
    if not split.n_tokens:
        raise ValueError(f"data.corpora={spec!r}: the split is empty; use a larger data.validation")
    language = parse(spec).language
    stored = np.concatenate(split.shards)
    ends = np.flatnonzero(stored == tokenizer.eod)
    texts = (tokenizer.decode(part[part != tokenizer.eod]) for part in np.split(stored, ends + 1))
    return oracle(language, (language.tokens(text) for text in texts if text))
