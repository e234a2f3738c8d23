"""Tests what `isoflop evaluate --retrieve` measures: kNN language models, retrieval in context."""

import json
import shutil

import numpy as np
import pytest

from data.retrieval import folder
from launch.__main__ import main
from launch.retrieval import datastore, in_context, knn, scored
from launch.retrieval.retriever import Found, open_index
from tests.launch.trial.test_trial import TINY
from tests.scaling.design.test_planning import EPOCH, law_of
from train.evaluate import states

CONTEXT = TINY["model.context_length"]


def test_a_datastore_has_the_state_before_each_token(home):
    index = folder.read(home / "states")
    model = datastore.open_scored(home / "decoder")
    text = datastore.tokens_of(model, None)[0][0]
    chosen = datastore.windows([text], CONTEXT, 8, 3000, 0)
    assert len(chosen) == 375 and index.about["tokens"] == 3000
    (keys, values), *_ = folder.shards(index, ["keys", "values"])
    for number in (0, 200):
        begin = chosen[number, 1]
        batch = {"tokens": text[None, begin : begin + CONTEXT].astype(np.int32)}
        x_TD = np.asarray(states(model.name, model.cfg, model.fitted, batch))[0]
        rows = slice(8 * number, 8 * number + 8)
        np.testing.assert_allclose(keys[rows], x_TD[-8:], rtol=2e-3, atol=2e-3)
        assert values[rows].tolist() == text[begin + CONTEXT - 7 : begin + CONTEXT + 1].tolist()
    # Smaller indexes are random parts of larger ones, and any text begins each of them.
    assert chosen[:100].tolist() == datastore.windows([text], CONTEXT, 8, 800, 0).tolist()
    assert chosen[:100, 1].max() > len(text) / 2


def test_the_neighbours_of_a_token_are_those_of_brute_force(tmp_path):
    rng = np.random.default_rng(0)
    keys, values = rng.normal(size=(3000, 4)).astype(np.float16), rng.integers(0, 9, 3000)
    with folder.building(tmp_path / "made", {}):
        for number in range(3):
            rows = slice(1000 * number, 1000 * number + 1000)
            for name, array in (("keys", keys), ("values", values.astype(np.uint16))):
                path = tmp_path / "made" / folder.shard_name(name, number)
                folder.write_array(path, array[rows])
        about = {"kind": "knn", "tokens": 3000}
        index = folder.finish(tmp_path / "made", {}, about)
    targets, nats = rng.integers(0, 9, 50), np.ones(50)
    asked = knn.Queries(rng.normal(size=(50, 4)), targets, nats, np.arange(50))
    square = np.square(asked.states[:, None] - keys[None].astype(float)).sum(-1)
    seen = []
    for size, near in knn.neighbourhoods(index, asked, 5, [500, 2200], "numpy", lambda share: None):
        nearest = np.argsort(square[:, :size], axis=1)[:, :5]
        weights = np.exp(-np.take_along_axis(square, nearest, 1) / 2.0)
        expected = (weights * (values[nearest] == targets[:, None])).sum(1) / weights.sum(1)
        np.testing.assert_allclose(near.probability(2.0), expected, atol=1e-4)
        assert np.abs(near.probability(0.2) - expected).max() > 0.05
        seen.append(size)
    assert seen == [500, 2200]


def test_constants_are_tuned_on_one_half_and_measured_on_the_other():
    count, k = 400, 4
    rng = np.random.default_rng(0)
    asked = knn.Queries(
        np.zeros((count, 1)),
        np.zeros(count, int),
        np.full(count, 2.0),
        np.repeat(np.arange(40), 10),
    )
    scores = -np.sort(rng.uniform(0, 1, (count, k)), axis=1)
    right = knn.Neighbourhood(scores, np.ones((count, k), bool))
    wrong = knn.Neighbourhood(scores, np.zeros((count, k), bool))
    helped, hurt = knn.measured(asked, right), knn.measured(asked, wrong)
    assert helped["weight"] == knn.WEIGHTS[-1] and helped["saved"] > 1.9
    assert (hurt["weight"], hurt["saved"]) == (0.0, 0.0)
    assert (helped["tuned_on"], helped["scored"]) == (200, 200)
    # Neighbours that are right in the first half only are trusted, and cost in the second.
    half = np.arange(count) < 200
    fooled = knn.measured(asked, knn.Neighbourhood(scores, np.repeat(half[:, None], k, 1)))
    assert fooled["saved"] < -1
    # λ p_kNN + (1 - λ) p_LM
    assert knn.mixed(np.log([2.0]), np.array([0.9]), 0.25) == pytest.approx(
        -np.log(0.25 * 0.9 + 0.75 * 0.5)
    )


def evaluated(home, tmp_path, *flags):
    assert main(["evaluate", f"--run={home}/decoder", f"--json={tmp_path}/e.json", *flags]) == 0
    return json.loads((tmp_path / "e.json").read_text())


def test_evaluate_measures_a_datastore(home, tmp_path, capsys):
    flags = f"--retrieve={home}/states", "--neighbours=8", "--sizes=500,all"
    small, whole = evaluated(home, tmp_path, *flags)["sizes"]
    recorded = json.loads((home / "decoder" / "result.json").read_text())
    assert [small["tokens"], whole["tokens"]] == [500, 3000]
    assert whole["base"] == pytest.approx(recorded["eval_loss"], rel=0.1)  # half of the sequences
    assert whole["base"] - whole["loss"] == pytest.approx(whole["saved"], abs=1e-9)
    assert whole["saved"] > 2 * whole["saved_se"] > 0  # the run has seen 40 steps of this text
    assert "λ and temperature tuned on" in capsys.readouterr().out


@pytest.mark.slow
def test_evaluate_writes_a_page(home, tmp_path, without_pictures):
    (tmp_path / "law.json").write_text(json.dumps(law_of(EPOCH)))
    flags = f"--retrieve={home}/states", "--neighbours=8", "--sizes=500,all"
    about = evaluated(
        home, tmp_path, *flags, f"--law={tmp_path}/law.json", f"--out={tmp_path}/page"
    )
    assert all(row["worth"]["never"] >= 0 for row in about["sizes"])
    page = (tmp_path / "page" / "index.html").read_text()
    assert "What an index saves" in page and "kNN language model" in page
    assert json.loads((tmp_path / "page" / "retrieval.json").read_text())["sizes"] == about["sizes"]


class Repeats:
    """A model for which a token that occurs before costs 1 nat, another one 5."""

    start = (0,)
    cfg = type("C", (), {"context_length": 16})
    tokenizer = type("T", (), {
        "encode": lambda self, text: np.array([ord(c) for c in text]),
        "decode": lambda self, ids: "".join(chr(i) for i in ids),
    })()  # fmt: skip

    def nats(self, tokens_BT, targets_BT):
        seen = [
            [t in row[: i + 1] for i, t in enumerate(of)]
            for row, of in zip(tokens_BT, targets_BT, strict=True)
        ]
        return np.where(seen, 1.0, 5.0)


class Finds:
    """An index whose only passage is a text that is given."""

    def __init__(self, text):
        self.text = text

    def search_all(self, queries, count, allowed=None):
        found = Found(0, 1.0, type("P", (), {"text": self.text}))
        return [[found] if query and (allowed is None or allowed[0]) else [] for query in queries]


def test_passages_take_the_place_of_the_oldest_tokens():
    how = in_context.How(stride=2, query=3, passages=1, room=6)
    text = np.array([ord(c) for c in "abcdefghijklmnopqrst"])
    (part,) = in_context.parts([text], (0,), 0)
    model, nothing = Repeats(), lambda share: None
    alone = in_context.score(model, None, [part], how, None, nothing)
    assert alone[0] == 5 * 20  # no letter occurs twice
    helped = in_context.score(model, Finds("efgh"), [part], how, None, nothing)
    assert helped[0] == 5 * 20 - 4 * 4
    assert in_context.score(model, Finds("efgh"), [part], how, np.array([False]), nothing)[0] == 100
    row = in_context.row_of(model, part, 19, 21, Finds("efghij").search_all(["x"], 1)[0], how)
    assert bytes(row.tolist()) == b"efgh\n\njklmnopqrst" and len(row) == 17
    assert (
        in_context.query_of(model, part, 3, how) == "ab"
        and in_context.query_of(model, part, 9, how) == "fgh"
    )
    found = in_context.measured([part], alone, helped)
    assert (found["base"], found["saved"], found["scored"]) == (5.0, 0.8, 20)
    with pytest.raises(ValueError, match="every=2 and passage_tokens=6 fill the context of 8"):
        how.check(8)


def test_a_share_of_each_text_is_scored():
    texts = [np.arange(100), np.arange(300), np.zeros(0, int)]
    found = in_context.parts(texts, (7,), 40)
    assert [(one.text, one.end - one.first) for one in found] == [(0, 10), (1, 30)]
    assert all(
        one.tokens[0] == 7 and one.first >= 1 and one.end <= len(one.tokens) for one in found
    )


def test_evaluate_leaves_out_the_documents_that_are_scored(home, tmp_path, capsys):
    flags = f"--retrieve={tmp_path}/own", "--score_tokens=100", "--passage_tokens=6"
    assert main(["index", f"--run={home}/decoder", "--words=3", f"--out={tmp_path}/own"]) == 0
    about = evaluated(home, tmp_path, *flags)
    assert about["left_out"] == 0 and about["sizes"][0]["scored"] >= 100
    own = open_index(tmp_path / "own")
    shutil.rmtree(tmp_path / "own")
    assert main(["index", f"--texts={home}/text.txt", "--words=3", f"--out={tmp_path}/own"]) == 0
    about = evaluated(home, tmp_path, *flags)
    every = open_index(tmp_path / "own")
    assert about["left_out"] == len(every.passages) - len(own.passages) > 0
    # With --data, those of its own documents.
    assert main(["evaluate", f"--run={home}/decoder", *flags, f"--data={home}/text.txt"]) == 2
    assert "holds only passages of the documents that are scored" in capsys.readouterr().err
    about = evaluated(home, tmp_path, *flags, f"--data={home}/other")
    assert about["left_out"] == 0 and "left out" not in capsys.readouterr().out


def test_a_stopped_datastore_goes_on_with_the_same_files(home, tmp_path, monkeypatch):
    monkeypatch.setattr(datastore, "KEYS", 800)
    how = (None, home / "decoder", 8, 3000, 0)
    calls, real = [], datastore.stored

    def fails(*given):
        calls.append(given)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*given)

    monkeypatch.setattr(datastore, "stored", fails)
    with pytest.raises(KeyboardInterrupt):
        datastore.build(tmp_path / "a", *how, lambda share: None)
    index, made = datastore.build(tmp_path / "a", *how, lambda share: None)
    assert made and len(calls) == 3 + 2  # two of the four files were there
    whole, _ = datastore.build(tmp_path / "b", *how, lambda share: None)
    assert index.about["files"] == whole.about["files"]


def test_scored_sequences_are_spread_over_the_validation_set(home):
    model = datastore.open_scored(home / "decoder")
    numbers = lambda most: [  # noqa: E731
        span[0] for *_, spans in scored.of_validation(model, most) for span in spans
    ]
    assert numbers(0) == list(range(16)) and numbers(4 * CONTEXT) == [0, 5, 10, 15]
    asked = knn.queries(model, scored.of_validation(model, 4 * CONTEXT), 4 * CONTEXT)
    assert np.unique(asked.texts).tolist() == [0, 5, 10, 15] and len(asked.nats) == 4 * CONTEXT
