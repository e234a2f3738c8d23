"""Tests coding with models: tokens come back, tables are the model's, sizes are its bits."""

import functools

import jax
import numpy as np
import pytest

from model import families
from model.counted import ngram
from model.generation import coding
from model.recurrent import language_model as recurrent
from model.transformer import family as decoder
from model.transformer.config import ModelConfig
from model.transformer.decoder import Decoder
from tests.model.generation.test_sample import fresh

V, CONTEXT, END = 37, 16, 36
CFG = ModelConfig(
    vocab_size=V, context_length=CONTEXT, n_layers=2, d_model=16, n_heads=4, n_kv_heads=2,
    head_dim=6, d_ff=32, init_std=0.4,
)  # fmt: skip
GRU = recurrent.derive({"vocab_size": V, "cell": "gru", "n_layers": 1, "d_model": 8, "d_hidden": 8})
COUNTED = ngram.Config(V, context_length=CONTEXT, order=3)
USABLE = np.arange(V) != END
TOKENS = np.random.default_rng(0).integers(0, END, 101)  # 3 rows of 34, 34 and 33


def layout(tokens=101, rows=3, context=CONTEXT, overlap=6, again=()):
    return coding.Layout(tokens, rows, context, overlap, (*again, END), again)


def no_progress(share: float) -> None:
    assert 0 < share <= 1


@functools.cache
def params():
    return fresh(CFG)


@functools.cache
def made(name: str):
    """(a function of nothing that gives new tables, their layout) of each kind of model."""
    if name == "decoder":
        reader = families.reader(decoder)
        how = reader.prepare(params(), CFG), CFG, reader, USABLE, layout()
        return functools.partial(coding.Trained, *how), layout()
    endless = layout(context=0, overlap=0)
    if name == "recurrent":
        of_gru = recurrent.init(GRU, jax.random.key(0))
        how = of_gru, GRU, families.reader(recurrent), USABLE, endless
        return functools.partial(coding.Trained, *how), endless
    fitted = ngram.fit(COUNTED, [TOKENS[:40], np.array([END, 3, 4])])
    return functools.partial(coding.FromCounts, ngram, fitted, COUNTED, USABLE, endless), endless


@pytest.mark.parametrize(
    "name", ["decoder", pytest.param("recurrent", marks=pytest.mark.slow), "ngram"]
)
def test_tokens_come_back_at_the_size_of_the_models_bits(name):
    tables, how = made(name)
    coded = coding.encode(tables(), how, TOKENS, no_progress)
    found = coding.decode(tables(), how, coded.content, coded.checks, no_progress)
    assert found.tolist() == TOKENS.tolist()
    assert 8 * len(coded.content) == pytest.approx(coded.bits, rel=1e-4, abs=9)
    # Control: the bytes of other tokens give other tokens.
    other = coding.encode(tables(), how, TOKENS[::-1], no_progress)
    assert coding.decode(tables(), how, other.content, other.checks, no_progress).tolist() != (
        TOKENS.tolist()
    )


def test_tables_are_those_of_full_passes_over_each_window():
    """Window by window against a forward pass; a window one token later is no such."""
    tables, how = made("decoder")
    rows_BS = np.resize(TOKENS, (how.rows, how.steps))
    logp_SBV = [np.asarray(logp) for _, logp in coding._ahead(tables(), rows_BS)]
    text_BT = np.concatenate([np.full((how.rows, 1), END), rows_BS], axis=1)
    forward = jax.jit(lambda x: Decoder(CFG).apply({"params": params()}, x))

    def at(step: int, begin: int) -> np.ndarray:
        window = np.zeros((how.rows, CONTEXT), np.int32)
        window[:, : step + 1 - begin] = text_BT[:, begin : step + 1]
        return np.asarray(forward(window))[:, step - begin]

    begin = 0
    for step in range(how.steps):
        if step + 1 - begin > CONTEXT:
            begin = step + 1 - how.overlap
        wanted_BV = np.where(USABLE, at(step, begin), -np.inf)
        wanted_BV = np.asarray(jax.nn.log_softmax(wanted_BV))
        np.testing.assert_allclose(logp_SBV[step], wanted_BV, atol=2e-5)
        if step > begin:
            later_BV = np.where(USABLE, at(step, begin + 1), -np.inf)
            apart_BV = np.asarray(jax.nn.log_softmax(later_BV))[:, USABLE]
            assert np.abs(apart_BV - logp_SBV[step][:, USABLE]).max() > 1e-3
    assert begin > 2 * (CONTEXT - how.overlap)  # several windows were read


def test_frequencies_are_the_rounded_probabilities_of_usable_tokens():
    for name in ("decoder", "ngram"):
        sums_BV, logp_BV = made(name)[0]().first()
        counts_BV = np.diff(np.asarray(sums_BV, np.int64), axis=1)
        assert (counts_BV[:, END] == 0).all() and (counts_BV[:, USABLE] > 0).all()
        wanted_BV = np.exp(np.asarray(logp_BV, np.float64)) * coding.SCALE
        np.testing.assert_allclose(counts_BV, wanted_BV, rtol=1e-5, atol=1.001)


def test_a_model_that_differs_in_one_bit_is_noticed_at_once():
    tables, how = made("decoder")
    coded = coding.encode(tables(), how, TOKENS, no_progress)
    reader, changed = families.reader(decoder), jax.tree.map(np.array, params())
    kernel = changed["blocks"]["mlp"]["up"]["kernel"]
    kernel[0, 0] = np.nextafter(kernel[0, 0], 9.0)
    other = coding.Trained(reader.prepare(changed, CFG), CFG, reader, USABLE, how)
    with pytest.raises(coding.Different, match=r"other probabilities at step [0-7]$"):
        coding.decode(other, how, coded.content, coded.checks, no_progress)
    with pytest.raises(coding.Different):  # fewer checks than the file must have
        coding.decode(tables(), how, coded.content, coded.checks[:-1], no_progress)


def test_no_tokens_and_few_tokens():
    tables, _ = made("ngram")
    for count in (0, 1, 3):
        how = layout(count, 3, 0, 0)
        tables_of = lambda how=how: coding.FromCounts(  # noqa: E731
            ngram, tables().fitted, COUNTED, USABLE, how
        )
        coded = coding.encode(tables_of(), how, TOKENS[:count], no_progress)
        found = coding.decode(tables_of(), how, coded.content, coded.checks, no_progress)
        assert found.tolist() == TOKENS[:count].tolist() and len(coded.checks) == min(count, 1)


def test_tokens_before_every_window_are_read_again(monkeypatch):
    nothing = lambda *_: ((None, None), None)  # noqa: E731  # no model is needed
    monkeypatch.setattr(coding, "_programs", lambda: (nothing, nothing))
    again = (7, 9)
    how = layout(again=again)
    reader = families.reader(decoder)
    tables = coding.Trained(reader.prepare(params(), CFG), CFG, reader, USABLE, how)
    tables.first()
    for token in range(CONTEXT - 2):  # the last one does not fit any more
        tables.after(np.full(3, token))
    assert [int(tokens_B[0]) for tokens_B in tables.window] == [7, 9, 8, 9, 10, 11, 12, 13]


def test_impossible_layouts_and_models_without_probabilities_are_refused():
    for overlap in (0, CONTEXT, CONTEXT + 1):
        with pytest.raises(ValueError, match=f"overlap={overlap} is out of range; use 1 to 15"):
            layout(overlap=overlap)
    reader = families.reader(decoder)
    broken = jax.tree.map(lambda x: np.full_like(x, np.nan), params())
    tables = coding.Trained(reader.prepare(broken, CFG), CFG, reader, USABLE, layout())
    with pytest.raises(ValueError, match="no probabilities"):
        coding.encode(tables, layout(), TOKENS, no_progress)
