"""Tests stepwise generation on a family whose next token depends on the last two and the source."""

import itertools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.generation import stepwise
from model.generation.samplers import Sampler

V, N, END = 5, 4, 4
BATCH = {"source": jnp.arange(3)}
TABLE = 2 * jax.random.normal(jax.random.key(0), (3, V, V, V))  # source, the two last tokens, next


class Family:
    """A cache is (source, the last token), each [B]."""

    @staticmethod
    def start(cfg, params, batch, length):
        return batch["source"], jnp.full_like(batch["source"], END)

    @staticmethod
    def step(cfg, params, cache, tokens_B):
        source_B, before_B = cache
        return params[source_B, before_B, tokens_B], (source_B, tokens_B)


class Hashable(SimpleNamespace):
    __hash__ = object.__hash__


CFG = Hashable(vocab_size=V)
SEARCH = (Family, CFG, TABLE, BATCH, N)


def every_output(source: int) -> dict[tuple[int, ...], float]:
    """The log-probability of every output of up to N tokens that ends at END or at N tokens."""
    logp = np.asarray(jax.nn.log_softmax(TABLE[source]), np.float64)
    found = {}
    for count in range(1, N + 1):
        for tokens in itertools.product(range(V), repeat=count):
            if END in tokens[:-1] or (tokens[-1] != END and count < N):
                continue
            read = (END, END, *tokens)
            found[tokens] = sum(logp[read[i], read[i + 1], read[i + 2]] for i in range(count))
    return found


def tokens_of(beams, row: int, place: int = 0) -> tuple[int, ...]:
    return tuple(beams.tokens_PWN[row, place, : beams.lengths_PW[row, place]].tolist())


@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0])
def test_a_wide_beam_is_exhaustive(alpha):
    beams = 300  # more than there are outputs
    found = stepwise.search(*SEARCH, beams, END, length_penalty=alpha, stop=[END])
    for row in range(3):
        penalty = lambda tokens: ((5 + len(tokens)) / 6) ** alpha  # noqa: E731
        scores = {tokens: logp / penalty(tokens) for tokens, logp in every_output(row).items()}
        best = sorted(scores, key=scores.get, reverse=True)[:20]
        assert [tokens_of(found, row, place) for place in range(20)] == best
        expected = [scores[tokens] for tokens in best]
        np.testing.assert_allclose(found.scores_PW[row, :20], expected, rtol=1e-5)


def test_the_penalty_is_that_of_wu_et_al():
    assert stepwise.gnmt_penalty(7.0, 0.5) == pytest.approx(2**0.5)  # (12 / 6)^.5
    lengths = [
        stepwise.search(*SEARCH, 4, END, length_penalty=alpha, stop=[END]).lengths_PW[:, 0].sum()
        for alpha in (0.0, 3.0)
    ]
    assert lengths[0] < lengths[1]


def test_one_beam_is_greedy_and_greedy_is_the_argmax():
    greedy = stepwise.draw(*SEARCH, Sampler(temperature=0, stop=(END,)), END)
    one = stepwise.search(*SEARCH, 1, END, length_penalty=0.6, stop=[END])
    for row in range(3):
        expected, before = [], (END, END)
        while len(expected) < N and END not in expected:
            expected.append(int(TABLE[row][before].argmax()))
            before = before[1], expected[-1]
        assert tuple(expected) == tokens_of(one, row)
        assert expected == greedy.tokens_PN[row, : greedy.lengths_P[row]].tolist()
        logp = every_output(row)[tuple(expected)]
        assert greedy.logprobs_PN[row].sum() == pytest.approx(logp, rel=1e-5)


def test_draws_have_the_frequencies_of_the_model():
    many = {"source": jnp.zeros(4000, jnp.int32)}
    drawn = stepwise.draw(Family, CFG, TABLE, many, 1, Sampler(stop=(END,)), END, seed=1)
    shares = np.bincount(drawn.tokens_PN[:, 0], minlength=V) / 4000
    expected = jax.nn.softmax(TABLE[0, END, END])
    np.testing.assert_allclose(shares, expected, atol=0.03)
    other = stepwise.draw(Family, CFG, TABLE, many, 1, Sampler(stop=(END,)), END, seed=2)
    assert (other.tokens_PN != drawn.tokens_PN).any()
    narrow = stepwise.draw(Family, CFG, TABLE, many, 1, Sampler(vocab_size=2), END)
    assert narrow.tokens_PN.max() < 2


def test_a_row_counts_from_the_first_of_the_whole_list():
    """Rows that are drawn in two parts have the draws of one."""
    sampler = Sampler(stop=(END,))
    same = {"source": jnp.zeros(40, jnp.int32)}
    whole = stepwise.draw(Family, CFG, TABLE, same, N, sampler, END, seed=1)
    half = {"source": same["source"][:20]}
    later = stepwise.draw(Family, CFG, TABLE, half, N, sampler, END, seed=1, first=20)
    np.testing.assert_array_equal(later.tokens_PN, whole.tokens_PN[20:])
    assert (later.tokens_PN != whole.tokens_PN[:20]).any()


@pytest.mark.slow
def test_each_row_has_its_own_limit():
    limits = [2, 4, 3]
    greedy = Sampler(temperature=0)  # nothing else ends an output
    drawn = stepwise.draw(*SEARCH, greedy, END, limits=limits)
    assert drawn.lengths_P.tolist() == limits
    found = stepwise.search(*SEARCH, 3, END, stop=[END], limits=limits)
    for row, limit in enumerate(limits):
        alone = Family, CFG, TABLE, {"source": BATCH["source"][row : row + 1]}, limit
        np.testing.assert_array_equal(
            drawn.tokens_PN[row, :limit], stepwise.draw(*alone, greedy, END).tokens_PN[0]
        )
        one = stepwise.search(*alone, 3, END, stop=[END])
        for place in range(3):
            assert tokens_of(found, row, place) == tokens_of(one, 0, place)
        np.testing.assert_allclose(found.scores_PW[row], one.scores_PW[0], rtol=1e-6)
    unlimited = stepwise.search(*SEARCH, 3, END, stop=[END])
    assert (unlimited.lengths_PW.max(1) > limits).any()


def test_beams_are_at_least_one():
    with pytest.raises(ValueError, match="beams=0 is out of range; use 1 or more"):
        stepwise.search(*SEARCH, 0, END)
