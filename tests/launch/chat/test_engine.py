"""Tests of continuous batching, against `sample`, which draws for one request at a time."""

import json
import queue

import jax
import numpy as np
import pytest

from data import tokenizer
from launch.chat import engine as engines
from launch.chat import request as requests
from launch.chat import warm
from launch.chat.engine import Busy, Ended, Engine, TooLong, cache_bytes
from launch.chat.opened import open_run
from launch.chat.request import Request, whole
from model.generation import sample, slots
from model.generation.samplers import Sampler
from tests.launch.chat.runs import DECODER, RECURRENT, untrained

SLOTS = 3
PROMPTS = ["ab", "a much longer prompt than the others, of more than 32 tokens", "c", "dd", "ab"]


@pytest.fixture(
    scope="module",
    params=[DECODER, pytest.param(RECURRENT, marks=pytest.mark.slow)],
    ids=["decoder", "recurrent"],
)
def opened(request, tmp_path_factory, compiled_once):
    run = untrained(tmp_path_factory.mktemp("runs") / "a", request.param)
    return open_run(run, 96 if request.param is RECURRENT else 0)


@pytest.fixture
def engine(opened):
    made = Engine(opened.model, SLOTS, opened.length, waiting=8)
    yield made
    made.close()


def sampler(opened, **how):
    """How to draw, without an end token: replies have the length that is asked for."""
    return Sampler(vocab_size=opened.model.tokenizer.vocab_size, **how)


def asked(opened, prompt, n_tokens=12, how=None, **options):
    """A request and the queue of its pieces."""
    pieces = queue.Queue()
    tokens = opened.model.tokenizer.encode_prompt(prompt).tolist()
    drawn_by = sampler(opened, **(how or {"temperature": 0.0}))
    return Request(tokens, n_tokens, drawn_by, pieces.put, **options), pieces


def finished(pieces):
    found = []
    while not found or found[-1].end is None:
        found.append(pieces.get(timeout=300))
    assert pieces.empty()
    return whole(found)


def answered(engine, *pairs):
    engine.submit(*(request for request, _ in pairs))
    return [finished(pieces) for _, pieces in pairs]


def ids(piece):
    return [token.id for token in piece.tokens]


def by_sample(opened, prompt, how=None, seed=0):
    """The 12 tokens that `isoflop sample` draws for each of two rows, with 4 likeliest ones."""
    model = opened.model
    prompts = [model.tokenizer.encode_prompt(prompt).tolist()]
    drawn = sampler(opened, **(how or {"temperature": 0.0}))
    return sample.sample(
        model.params, model.cfg, prompts, 12, drawn, n=2, seed=seed, top=4, reader=model.reader
    )


def test_greedy_replies_are_the_same_alone_among_others_and_in_sample(opened, engine):
    alone = [answered(engine, asked(opened, prompt))[0] for prompt in PROMPTS]
    others = [asked(opened, "x", 30, {"temperature": 2.0}, seed=seed) for seed in range(3)]
    pairs = [asked(opened, prompt) for prompt in PROMPTS]
    crowd = answered(engine, *others, *pairs)
    for prompt, one, other in zip(PROMPTS, alone, crowd[3:], strict=True):
        assert one == other  # to the last bit of the log-probabilities
        expected = by_sample(opened, prompt)
        np.testing.assert_array_equal(ids(one), expected.tokens_BN[0])
        told = [token.logprob for token in one.tokens]
        np.testing.assert_allclose(told, expected.logprobs_BN[0], atol=1e-4)
    assert alone[0] == alone[4] and ids(alone[0]) != ids(alone[2])


@pytest.mark.parametrize(
    "how",
    [
        {"temperature": 1.0},
        {"temperature": 0.7, "top_k": 5},
        {"temperature": 1.3, "top_p": 0.8, "repetition_penalty": 1.5},
        {"temperature": 1.0, "min_p": 0.05, "typical": 0.9},
    ],
)
def test_a_seed_draws_what_sample_draws(opened, engine, how):
    """Requests with other samplers draw at the same time."""
    rows = [asked(opened, "ab", how=how, seed=5, row=row) for row in range(2)]
    other = asked(opened, "ab", how={"temperature": 0.9, "top_k": 3}, seed=5)
    *drawn, differently = answered(engine, *rows, other)
    expected = by_sample(opened, "ab", how, seed=5)
    for row, piece in enumerate(drawn):
        np.testing.assert_array_equal(ids(piece), expected.tokens_BN[row])
    assert ids(drawn[0]) != ids(drawn[1]) and ids(drawn[0]) != ids(differently)


def test_requests_join_while_others_draw(opened, engine):
    pairs = [asked(opened, "ab", n, {"temperature": 1.0}, seed=n) for n in (60, *[9] * 6)]
    before = engine.steps
    drawn = sum(len(piece.tokens) for piece in answered(engine, *pairs))
    assert drawn == 60 + 6 * 9
    assert engine.steps - before <= 63  # one after another: as many steps as tokens


def test_likeliest_tokens_are_those_of_sample(opened, engine):
    pair = asked(opened, "ab", 12, {"temperature": 1.0}, seed=1, top=4)
    piece, _ = answered(engine, pair, asked(opened, "c", 6))
    expected = by_sample(opened, "ab", {"temperature": 1.0}, seed=1)
    for step, token in enumerate(piece.tokens):
        assert [id for id, _ in token.top] == expected.top_tokens_BNM[0, step].tolist()
        told = [logprob for _, logprob in token.top]
        np.testing.assert_allclose(told, expected.top_logprobs_BNM[0, step], atol=1e-4)


def test_text_ends_before_a_stop_string_and_after_the_last_token(opened, engine):
    free = answered(engine, asked(opened, "ab", 20, {"temperature": 1.0}, seed=3))[0]
    spelled = opened.model.tokenizer.decode(ids(free))
    assert free.text == spelled and free.end == "length"
    stop = next(c for c in spelled[3:] if c.isascii())
    pair = asked(opened, "ab", 20, {"temperature": 1.0}, seed=3, stops=[stop])
    piece = answered(engine, pair)[0]
    assert piece.text == spelled.partition(stop)[0] and piece.end == "stop"
    assert ids(piece) == ids(free)[: len(ids(piece))]
    lead = asked(opened, "ab", 20, {"temperature": 1.0}, seed=3, lead=spelled[:2])
    assert answered(engine, lead)[0].text == spelled[2:]


def test_an_end_token_ends_a_request(opened, engine):
    free = answered(engine, asked(opened, "ab"))[0]
    request, pieces = asked(opened, "ab")
    request.sampler = request.sampler.replace(stop=(ids(free)[4],))
    first = ids(free).index(ids(free)[4])
    piece = answered(engine, (request, pieces))[0]
    assert (ids(piece), piece.end) == (ids(free)[:first], "stop")
    assert request.drawn == first + 1


def test_cancelled_requests_free_their_slots(opened, engine):
    pairs = [asked(opened, "ab", 90, {"temperature": 1.0}) for _ in range(SLOTS + 8)]
    engine.submit(*(request for request, _ in pairs))
    with pytest.raises(Busy, match="try later"):
        engine.submit(asked(opened, "ab")[0])
    engine.cancel(*(request for request, _ in pairs))
    assert {finished(pieces).end for _, pieces in pairs} <= {"cancelled", "length", "stop"}
    assert "cancelled" in {request.ended for request, _ in pairs}
    assert answered(engine, asked(opened, "ab"))[0].end in ("length", "stop")
    assert engine.active()[1] == 0


def test_closing_ends_all_requests(opened):
    engine = Engine(opened.model, 1, opened.length)
    pairs = [asked(opened, "ab", 90) for _ in range(3)]
    engine.submit(*(request for request, _ in pairs))
    engine.close()
    assert {finished(pieces).end for _, pieces in pairs} & {"cancelled"}
    with pytest.raises(Ended, match="ended"):
        engine.submit(asked(opened, "ab")[0])


def test_an_error_of_the_device_fails_its_requests_only(opened, engine, monkeypatch):
    real = slots.advance

    def out_of_memory(*_):
        monkeypatch.setattr(slots, "advance", real)
        raise MemoryError("no memory")

    monkeypatch.setattr(slots, "advance", out_of_memory)
    failed = answered(engine, asked(opened, "ab"))[0]
    assert (failed.end, failed.error) == ("failed", "MemoryError: no memory")
    assert answered(engine, asked(opened, "ab"))[0].end in ("length", "stop")


def test_a_text_that_cannot_be_spelled_fails_and_the_engine_goes_on(opened, engine, monkeypatch):
    def damaged(*_):
        raise ValueError("no such\npiece")

    with monkeypatch.context() as patch:
        patch.setattr(requests.Continuation, "news", damaged)
        failed = answered(engine, asked(opened, "ab"))[0]
    assert (failed.end, failed.error) == ("failed", "ValueError: no such")
    assert answered(engine, asked(opened, "ab"))[0].end in ("length", "stop")


def test_logits_that_are_not_finite_end_a_request(opened, engine, monkeypatch):
    real = slots.advance

    def damaged(*args):
        state, drawn = real(*args)
        return state, drawn.replace(logprobs_B=drawn.logprobs_B * np.nan)

    monkeypatch.setattr(slots, "advance", damaged)
    assert "not finite" in answered(engine, asked(opened, "ab"))[0].error


def test_what_does_not_fit_is_refused(opened, engine):
    how = sampler(opened, temperature=0.0)
    engine.check([1] * 90, 6, how)
    with pytest.raises(TooLong, match=r"90 tokens.*may have 7.*holds 96.*at most 6"):
        engine.check([1] * 90, 7, how)
    for prompt, count, drawn_by, top, text in (
        ([], 1, how, 0, "prompt is empty"),
        ([1], 0, how, 0, "tokens=0"),
        ([300], 1, how, 0, "token 300"),
        ([1], 1, how, 21, "top=21"),
        ([1], 1, how.replace(temperature=float("nan")), 0, "temperature=nan"),
    ):
        with pytest.raises(ValueError, match=text):
            engine.check(prompt, count, drawn_by, top)


def test_the_bytes_of_the_cache_are_known_before_it_is_made(opened, engine):
    made = sum(x.nbytes for x in jax.tree.leaves(engine.slots))
    assert cache_bytes(opened.model, SLOTS, opened.length) == made
    assert cache_bytes(opened.model, 10**8, opened.length) > 10**10


def test_prompts_are_padded_to_few_lengths():
    assert [engines.bucket_of(n) for n in (0, 1, 32, 33, 64, 65, 1000)] == [
        32, 32, 32, 64, 64, 128, 1024,
    ]  # fmt: skip


def test_a_warm_engine_compiles_nothing_for_its_first_requests(opened, engine, monkeypatch):
    fresh = Engine(opened.model, 2, opened.length)
    assert fresh.buckets() == [32, 64, 96]  # of 96 tokens
    shares = []
    warm.whole(fresh, shares.append)
    assert shares == [1 / 5, 2 / 5, 3 / 5]
    texts = ["ab", "a" * 40, "a" * 80]
    asked_of = [asked(opened, text, 4) for text in texts]
    wanted = [ids(*answered(engine, asked(opened, text, 4))) for text in texts]
    missing = lambda *_, **__: 1 / 0  # noqa: E731
    monkeypatch.setattr(slots, "admit", missing)
    assert [ids(*answered(fresh, one)) for one in asked_of] == wanted
    fresh.programs.clear()  # control: without them a request needs what is missing
    assert answered(fresh, asked(opened, "ab"))[0].end == "failed"
    fresh.close()


def test_log_probabilities_are_over_the_tokens_of_the_tokenizer(opened):
    """Of 300 rows of the head 44 pad the vocabulary."""
    model = opened.model
    how = sampler(opened, temperature=1.0)
    drawn = sample.sample(model.params, model.cfg, [[1, 2]], 3, how, top=256, reader=model.reader)
    assert np.exp(drawn.top_logprobs_BNM).sum(-1) == pytest.approx(np.ones((1, 3)), abs=1e-5)
    assert model.cfg.vocab_size == 300 and drawn.top_tokens_BNM.max() == 255


def test_a_family_without_steps_is_refused_by_name(tmp_path):
    tokenizer.from_spec("bytes").save(tmp_path / "tokenizer")
    for section, text in (
        ({"vocab_size": 300, "family": "encoder", "d_ff": 32}, "'encoder', which continues no"),
        ({"vocab_size": 300, "family": "ngram", "order": 2}, "'ngram', which is counted"),
    ):
        (tmp_path / "config.json").write_text(json.dumps({"model": section}))
        with pytest.raises(ValueError, match=text):
            open_run(tmp_path)


def test_a_context_longer_than_the_models_is_refused(tmp_path, compiled_once):
    run = untrained(tmp_path / "a", DECODER)
    with pytest.raises(ValueError, match=r"length=97 exceeds model.context_length=96"):
        open_run(run, 97)
