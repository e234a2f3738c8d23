"""Tests of the synthetic languages: entropy, oracle, sampling, and use as a corpus."""

import itertools
import json
import math
import time

import numpy as np
import pytest

from data import store
from data.sources import corpus, synthetic
from data.sources.synthetic import Language, oracle
from launch.__main__ import main

ISSUED = Language()  # M = 4 equal letters, p = .384, S = 16
LANGUAGES = [
    ISSUED,
    Language(letters=(0.6, 0.3, 0.1), p=0.2, n_values=5, noise=0.3, seed=3),
    Language(letters=(0.5, 0.5), p=0.7, n_values=2, noise=0.0, seed=4),
]
MASK = (1 << 64) - 1


def whole(language, n, **arguments):
    return np.concatenate(list(language.stream(n, **arguments)))


def test_entropy_and_exponents_of_the_issued_settings():
    assert round(ISSUED.entropy, 5) == 1.74877
    assert (round(ISSUED.alpha_d, 3), math.floor(ISSUED.alpha_n * 1e3) / 1e3) == (0.259, 0.349)
    # By hand: H_b(p) + (1-p) ln 4 + p (H_b(.1) + .1 ln 15).
    h_b = [-x * math.log(x) - (1 - x) * math.log(1 - x) for x in (0.384, 0.1)]
    by_hand = h_b[0] + 0.616 * math.log(4) + 0.384 * (h_b[1] + 0.1 * math.log(15))
    assert ISSUED.entropy == pytest.approx(by_hand, abs=1e-12)
    assert round(Language(noise=0.11).entropy, 5) != 1.74877


@pytest.mark.parametrize("language", LANGUAGES)
def test_zipf_exponent_solves_its_equation(language):
    letters = (1 - language.p) * np.array(language.letters)
    assert (letters ** (1 / language.zipf)).sum() == pytest.approx(1, abs=1e-12)
    assert language.alpha_d == pytest.approx(language.alpha_n / language.zipf)


def test_words_are_as_frequent_as_zipf_says():
    tokens = whole(ISSUED, 600_000)
    ends = np.flatnonzero(tokens >= 4)
    lengths = np.diff(ends) - 1
    for longest in range(6):
        n = (4 ** (longest + 1) - 1) // 3  # words of up to `longest` letters: the most frequent
        rarer = lengths > longest
        se = rarer.std() / math.sqrt(len(rarer))
        assert abs(rarer.mean() - (3 * n + 1) ** -ISSUED.alpha_n) < 4 * se
        assert abs(rarer.mean() - (3 * n + 1) ** -(ISSUED.alpha_n + 0.05)) > 4 * se


@pytest.mark.parametrize("language", LANGUAGES)
def test_oracle_loss_is_the_entropy_within_three_standard_errors(language):
    measured = oracle(language, language.stream(1_000_000, sample=5, chunk=1_000_000))
    assert abs(measured.nats - language.entropy) < 3 * measured.se < 0.005


def test_the_oracle_of_another_hash_pays_where_the_hashes_differ():
    language, other = ISSUED, Language(seed=1)
    text = whole(language, 400_000)
    one, two = (each._hashes(text, synthetic.Word())[1] for each in (language, other))
    hit, miss = language.offsets[:2]
    price = language.p * (one != two).mean() * (hit - miss) * math.log(hit / miss)
    measured = oracle(other, [text])
    assert price > 1
    assert abs(measured.nats - language.entropy - price) < 4 * measured.se


@pytest.mark.parametrize("language", LANGUAGES)
def test_oracle_probabilities_of_all_next_tokens_sum_to_one(language):
    n_tokens = len(language.letters) + language.n_values
    text = whole(language, 60)
    for end in (0, 1, 7, 30, 59):
        following = [np.append(text[:end], np.uint8(token)) for token in range(n_tokens)]
        log_p = [language.log_probabilities(tokens)[-1] for tokens in following]
        assert np.exp(log_p).sum() == pytest.approx(1, abs=1e-12)


def slow_log_probabilities(language, tokens, forget=True):
    """The oracle as a loop over tokens, with Python integers; `forget=False` never ends a word."""
    base, key = (int(number) for number in language._hash_key)
    m, word, log_p = len(language.letters), [], []
    for token in map(int, tokens):
        if token < m:
            log_p.append(math.log((1 - language.p) * language.letters[token]))
            word.append(token)
            continue
        x = sum((1 + letter) * pow(base, j, 1 << 64) for j, letter in enumerate(word)) & MASK ^ key
        x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & MASK
        x = (x ^ x >> 27) * 0x94D049BB133111EB & MASK
        h = ((x ^ x >> 31) >> 32) * language.n_values >> 32
        log_p.append(math.log(language.p * language.offsets[(token - m - h) % language.n_values]))
        word = [] if forget else word
    return np.array(log_p)


@pytest.mark.parametrize("language", LANGUAGES[:2])
def test_vectorised_oracle_is_the_loop(language, monkeypatch):
    monkeypatch.setattr(synthetic, "CHUNK", 200)  # so that words run across chunks
    tokens = whole(language, 900)
    found = language.log_probabilities(tokens)
    assert np.allclose(found, slow_log_probabilities(language, tokens), rtol=0, atol=1e-12)
    assert not np.allclose(found, slow_log_probabilities(language, tokens, forget=False))


def test_stream_is_the_same_whatever_the_chunk():
    text = whole(ISSUED, 5000)
    for chunk in (1, 7, 1000, 4999):
        assert np.array_equal(whole(ISSUED, 5000, chunk=chunk), text)
    assert np.array_equal(whole(ISSUED, 9000)[:5000], text)
    assert not np.array_equal(whole(ISSUED, 5000, sample=1), text)


def test_seed_changes_values_and_nothing_else():
    text, other = whole(ISSUED, 5000), whole(Language(seed=1), 5000)
    is_value = text >= 4
    assert np.array_equal(text[~is_value], other[~is_value])
    assert 0.02 < (text == other)[is_value].mean() < 0.2  # 1/16 of the words by chance


def test_texts_stay_the_same_for_ever():
    """If the text changes, increase VERSION too, since cached corpora are then out of date."""
    golden = "MbdcKMdCcJMMbGaabMcdcGNMabHcdNbGdFabdNMdCcddaaaBddbbJdaaCbcaccdFMaccbAMMbbKcaNPc"
    assert ISSUED.text(whole(ISSUED, 80)) == golden
    assert synthetic.VERSION == 1


def test_hash_is_uniform_over_words():
    language = Language(noise=0.0)
    words = [w for length in range(7) for w in itertools.product(range(4), repeat=length)]
    text = np.concatenate([[*word, 4] for word in words]).astype(np.uint8)
    values = language._hashes(text, synthetic.Word())[1]
    assert len(values) == len(words) == 5461
    expected = len(words) / 16
    assert ((np.bincount(values, minlength=16) - expected) ** 2 / expected).sum() < 45  # 15 dof
    doubles = (values[1:] == values[:-1]).mean()
    assert abs(doubles - 1 / 16) < 4 * math.sqrt(15 / 256 / len(words))


def test_generator_makes_three_million_tokens_a_second():
    started = time.process_time()
    n = sum(len(tokens) for tokens in ISSUED.stream(2_000_000))
    assert n / (time.process_time() - started) > 3e6


def test_text_reads_back():
    tokens = whole(ISSUED, 3000)
    assert np.array_equal(ISSUED.tokens(ISSUED.text(tokens)), tokens)
    with pytest.raises(
        ValueError, match="'é' is not a character of this language, which has abcdA"
    ):
        ISSUED.tokens("abéA")


def test_documents_begin_words_afresh():
    tokens = list(ISSUED.documents(1000, 300))
    assert [len(part) for part in tokens] == [300, 300, 300, 100]
    stream = np.split(whole(ISSUED, 1000), [300, 600, 900])
    nll = [-ISSUED.log_probabilities(part).mean() for part in tokens]
    assert max(nll) < ISSUED.entropy + 0.5
    differ = [np.flatnonzero(a != b) for a, b in zip(tokens, stream, strict=True)]
    # Only the value that ends a word begun in the previous document may differ.
    assert all(len(places) <= 1 for places in differ) and sum(map(len, differ)) > 0


SPEC = "synthetic:M=3:S=5:p=.3:noise=.2:seed=7:tokens=200000:document=2000"


@pytest.mark.parametrize("tokenizer", ["bytes", "chars"])
def test_corpus_is_stored_split_and_known_to_the_oracle(config, tokenizer):
    dataset = store.prepare(config(corpora=(SPEC,), tokenizer=tokenizer), progress=False)
    assert dataset.n_tokens["train"] + dataset.n_tokens["validation"] == 200_100
    assert 5 < dataset.n_documents["validation"] < 40
    split = dataset.components[0].splits["validation"]
    measured = synthetic.oracle_of(SPEC, split, dataset.tokenizer)
    assert measured.tokens == split.n_bytes
    assert abs(measured.nats - synthetic.parse(SPEC).language.entropy) < 3 * measured.se
    wrong = synthetic.oracle_of(SPEC.replace("seed=7", "seed=8"), split, dataset.tokenizer)
    assert wrong.nats - measured.nats > 10 * measured.se


def test_corpus_is_the_same_however_it_is_spelled_and_longer_ones_go_on(config):
    short = list(corpus.documents(SPEC))
    assert list(corpus.documents("synthetic:seed=7:" + SPEC[10:].replace(":seed=7", ""))) == short
    longer = list(corpus.documents(SPEC.replace("200000", "3e5")))
    assert longer[: len(short)] == short and len(longer) == 150
    assert len(list(corpus.documents(SPEC, max_bytes=10_000))) == 5
    assert list(corpus.documents(SPEC.replace("seed=7", "seed=8"))) != short
    one, two = (
        store.prepare(config(corpora=(SPEC,), cache=config().cache + name), progress=False)
        for name in "ab"
    )
    assert one.hash == two.hash


def test_shares_of_letters_are_read():
    language = synthetic.parse("synthetic:letters=.5+.3+.2").language
    counts = np.bincount(whole(language, 100_000))[:3]
    assert np.allclose(counts / counts.sum(), (0.5, 0.3, 0.2), atol=0.01)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("synthetic:p=2", "synthetic:p=2.0 is not valid"),
        ("synthetic:p=nan", "synthetic:p=nan is not valid"),
        ("synthetic:M=1", "synthetic:M=1 is not valid; use 2 to 26"),
        ("synthetic:M=1e9", "M='1e9' is not valid (number of equal letters, 2 to 26)"),
        ("synthetic:letters=.5+.6", "positive numbers that sum to 1"),
        ("synthetic:S=40", "synthetic:S=40 is not valid; use 2 to 36"),
        ("synthetic:S=2:noise=.5", "synthetic:noise=0.5 is not valid; use 0 to below 1 - 1/S"),
        ("synthetic:tokens=1.5", "tokens='1.5' is not valid (length of the text in tokens)"),
        ("synthetic:tokens=0", "synthetic:tokens=0 is not valid"),
        ("synthetic:words=3", "'words=3' is not KEY=VALUE; the keys: M (number"),
        ("synthetic:p=.3:p=.4", "p sets p again"),
        ("synthetic:", "'' is not KEY=VALUE"),
    ],
)
def test_bad_specs_are_one_line_and_exit_code_2(spec, message, tmp_path, capsys):
    cache = tmp_path / "cache"
    arguments = [f"--config.data.corpora={spec}", f"--config.data.cache={cache}"]
    assert main(["tokenize", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not cache.exists()


def test_tokenize_verb_says_what_the_oracle_loses(tmp_path, capsys):
    cache = f"--config.data.cache={tmp_path / 'cache'}"
    spec, out = f"--config.data.corpora={SPEC}", tmp_path / "out.json"
    assert main(["tokenize", spec, cache, "--config.data.tokenizer=chars", f"--json={out}"]) == 0
    printed = capsys.readouterr().out
    assert "chars, 10 tokens" in printed  # 3 letters, 5 values and two special tokens
    known = json.loads(out.read_text())["corpora"][0]["entropy"]
    assert known["rate"] == synthetic.parse(SPEC).language.entropy
    assert 0 < abs(known["validation"] - known["rate"]) < 3 * known["validation_se"]
    assert f"{known['rate']:.5f} nats/character" in printed
    assert main(["tokenize", spec, cache, "--config.data.validation=0"]) == 0
    assert "nats" not in capsys.readouterr().out
