"""Tests `isoflop index`, and sample, chat and evaluate with its indexes, on a tiny trained run."""

import io
import json
import shutil

import numpy as np
import pytest

from configs import base
from data import tokenizer as tokenizers
from data.local import sealed
from data.retrieval import folder
from data.tokenizer_files.special_strings import SpecialString
from launch.__main__ import main
from launch.chat.template import prompt_of
from launch.chat.turns import Turns
from launch.retrieval import datastore, encoders, in_context, knn
from launch.retrieval.retriever import Found, fitting, open_index, source_lines
from launch.retrieval.turns import Passages
from launch.trial import run as trial
from launch.verbs.models import sample
from model import families
from model.counted import ngram
from tests.launch.trial.test_trial import TINY
from tests.scaling.design.test_planning import EPOCH, law_of
from train.evaluate import states

CONTEXT = TINY["model.context_length"]
TEXTS = {
    "king.txt": "the king of sparta fought\nand won the war",
    "sea\x1b[31m.txt": "the sea is wide and the ships are small",
    "bread.txt": "bread needs flour and water\nand an oven",
}


def trained(folder, name, **changes):
    """A run of a few steps on text.txt."""
    config = base.get_config()
    keys = {"data.corpora": (f"{folder}/text.txt",), "data.cache": f"{folder}/cache"}
    keys |= {"data.validation": 0.2, "log.tensorboard": False} | TINY | changes
    if name == "ngram":
        config.model = dict(family="ngram", **families.keys(ngram) | {"order": 3})
        keys = {k: v for k, v in keys.items() if not k.startswith("model.")}
        keys["model.context_length"] = CONTEXT
    config.update_from_flattened_dict(keys)
    assert trial.run(config, folder / name) == 0


@pytest.fixture(scope="module")
def home(text_folder, compiled_once):
    """A folder with text.txt, the runs `decoder` and `ngram` on it, `other/` with TEXTS, and the
    indexes `bm25` and `states`."""
    trained(text_folder, "decoder")
    trained(text_folder, "ngram")
    (text_folder / "other").mkdir()
    for name, text in TEXTS.items():
        (text_folder / "other" / name).write_text(text)
    made = ["index", f"--texts={text_folder}/other", f"--out={text_folder}/bm25", "--lines=1"]
    assert main(made) == 0
    how = f"--run={text_folder}/decoder", "--kind=knn", "--tokens=3000", "--stride=8"
    assert main(["index", *how, f"--out={text_folder}/states"]) == 0
    return text_folder


@pytest.fixture(scope="module")
def wide(home):
    """A run whose context holds a conversation with a passage."""
    trained(home, "wide", **{"model.context_length": 64})
    return home / "wide"


def test_an_index_is_made_once_and_finds_passages(home, capsys):
    again = ["index", f"--texts={home}/other", f"--out={home}/bm25", "--lines=1"]
    assert main(again) == 0
    assert capsys.readouterr().out.startswith("kept: ")
    found = open_index(home / "bm25").search("WAR, they won", 2)
    assert [one.passage.text for one in found] == ["and won the war"]
    assert (found[0].passage.source, found[0].passage.line) == ("king.txt", 2)
    assert open_index(home / "bm25").search("zebra", 2) == []
    assert main([*again[:-1], "--lines=2"]) == 2
    assert "holds another index" in capsys.readouterr().err


def test_a_dense_index_finds_the_passage_itself(home, tmp_path):
    how = f"--texts={home}/other", "--kind=dense", f"--run={home}/decoder", "--words=4"
    assert main(["index", *how, f"--out={tmp_path}/dense"]) == 0
    index = open_index(tmp_path / "dense")
    assert index.encoder.made_from == encoders.STATES
    for passage in index.passages:
        best = index.search(passage.text, 1)[0]
        assert best.passage == passage and best.score == pytest.approx(1, abs=1e-4)
    allowed = np.ones(len(index.passages), bool)
    allowed[0] = False
    assert index.search(index.passages[0].text, 1, allowed)[0].number != 0
    # The weights are part of the index.
    about = dict(index.index.about, weights="0" * 16)
    with pytest.raises(ValueError, match="was encoded by other weights"):
        encoders.of_index(folder.Index(index.index.folder, about))


def test_word_vectors_weigh_rare_words_and_need_no_run():
    tokenizer = type("T", (), {"encode": lambda self, text: np.array([ord(c) % 4 for c in text])})()
    plain = encoders.OfWords(np.eye(4, dtype=np.float32), tokenizer, "")
    weighed = plain.weighed(["abc", "ab", "a"])  # tokens 1 2 3, 1 2, 1
    assert weighed.table.diagonal() == pytest.approx(np.log([4, 1, 4 / 3, 2]))
    assert plain(["ab", ""]).tolist() == [[0, 0.5, 0.5, 0], [0, 0, 0, 0]]


def test_passages_are_text_before_the_prompt(home):
    tokenizer = tokenizers.load(home / "decoder" / "tokenizer")
    about = tokenizers.Tokenizer("bytes", "bytes", specials=[SpecialString("<s>", 255)])
    assert prompt_of(home / "decoder", tokenizer, "b", before="a") == ([97, 98], set())
    tokens, _ = prompt_of(home / "decoder", about, "<s>b", before="<s>a\n")
    assert bytes(tokens) == b"<s>a\n\xffb"  # a passage that spells a special string is text
    given = sample.make_flags()
    given(["isoflop", "--run=x", f"--retrieve={home}/bm25", "--prompt=sea", "--passages=2"])
    before, found = sample.passages(given, len, 1000)
    assert before == found[0].passage.text + "\n\n" and before.startswith("the sea is")
    assert sample.most_of_prompt(given, 64) == 48


@pytest.mark.slow
def test_a_sample_follows_its_passages_and_names_their_sources(home, wide, tmp_path, capsys):
    draw = ["sample", f"--run={wide}", "--tokens=2", "--temperature=0", "--nostream"]
    retrieve = f"--retrieve={home}/bm25", f"--json={tmp_path}/s.json"
    assert main([*draw, "--prompt=sea", *retrieve, "--passages=2"]) == 0
    printed = capsys.readouterr()
    about = json.loads((tmp_path / "s.json").read_text())
    one = about["retrieved"][0]
    assert one["text"].startswith("the sea is") and one["source"] == "sea\x1b[31m.txt"
    assert r"[1] sea\x1b[31m.txt:1" in printed.err and "\x1b" not in printed.err + printed.out
    assert "1 of 2 passages" in printed.err
    # The same as a prompt with that text.
    prompt = f"--prompt={one['text']}\n\nsea"
    assert main([*draw, prompt, f"--json={tmp_path}/p.json"]) == 0
    plain = json.loads((tmp_path / "p.json").read_text())
    assert plain["samples"][0]["logprobs"] == pytest.approx(about["samples"][0]["logprobs"])
    assert main([*draw, "--prompt=sea", f"--json={tmp_path}/n.json"]) == 0
    alone = json.loads((tmp_path / "n.json").read_text())
    assert alone["samples"][0]["logprobs"] != pytest.approx(about["samples"][0]["logprobs"])
    assert alone["retrieved"] == []


def test_a_conversation_gets_passages_before_its_last_message_only(home):
    index = open_index(home / "bm25")
    turns = Turns(home / "decoder", tokenizers.load(home / "decoder" / "tokenizer"))
    turns.amend = put = Passages(index, 2, turns, longest=56)
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]
    messages.append({"role": "user", "content": "oven"})
    prompt = bytes(turns.prompt(messages)).decode(errors="replace")
    assert (
        prompt.index("hi") < prompt.index("and an oven\n\noven") < prompt.index("ASSISTANT:", -12)
    )
    assert [one.passage.source for one in put.found] == ["bread.txt"]
    assert messages[-1]["content"] == "oven"
    turns.prompt([{"role": "user", "content": "zebra"}])
    assert put.found == [] and source_lines(put.found) == []


@pytest.mark.slow
def test_chat_takes_an_index(home, wide, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO("oven\n"))
    talk = ["chat", f"--run={wide}", "--tokens=2", "--temperature=0"]
    assert main([*talk, f"--retrieve={home}/bm25"]) == 0
    assert "[1] bread.txt:2" in capsys.readouterr().out


def test_as_many_passages_as_fit():
    found = [
        Found(i, 1.0, type("P", (), {"text": text})) for i, text in enumerate(["ab", "cdefgh"])
    ]
    assert fitting(found, len, 12) == ("cdefgh\n\nab\n\n", found)
    assert fitting(found, len, 11) == ("ab\n\n", found[:1])
    assert fitting(found, len, 3) == ("a\n\n", found[:1])
    assert fitting(found, len, 2) == ("", []) == fitting([], len, 9)


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


INDEX, SAMPLE = ["index", "--out=OUT"], ["sample", "--run=HOME/decoder"]
SCORE = ["evaluate", "--run=HOME/decoder"]
OTHER, STATES, KNN = "--texts=HOME/other", "--retrieve=HOME/states", "--kind=knn"
REFUSED = [
    ([*INDEX], "neither texts nor run is given"),
    ([*INDEX, KNN], "kind=knn stores what a model makes of the text; add --run"),
    ([*INDEX, OTHER, "--tokens=5"], "--tokens=5.0 means nothing with --kind=bm25"),
    ([*INDEX, OTHER, "--words=3", "--overlap=3"], "--overlap=3 and --words=3"),
    ([*INDEX, "--texts=HOME/none"], "does not exist"),
    ([*INDEX, KNN, "--run=HOME/ngram"], "has no hidden states"),
    ([*INDEX, OTHER, "--kind=dense", "--run=HOME/ngram"], "has no hidden states"),
    ([*INDEX, KNN, "--run=HOME/decoder", "--stride=99"], "--stride=99 is above the model's"),
    ([*SAMPLE, "--prompt=a", STATES], "no passages"),
    ([*SAMPLE, "--prompt=a", "--retrieve=HOME"], "holds no index"),
    ([*SAMPLE, "--retrieve=HOME/bm25"], "add --prompt=TEXT"),
    ([*SAMPLE, "--prompt=a", "--passages=2"], "means nothing without --retrieve"),
    ([*SCORE, "--sizes=all"], "--sizes means nothing without --retrieve"),
    ([*SCORE, STATES, "--ngram=2"], "--ngram means nothing with --retrieve"),
    ([*SCORE, STATES, "--sizes=9M"], "from 1 to 3,000"),
    ([*SCORE, STATES, "--backend=x"], "--backend='x' is unknown"),
    ([*SCORE, "--retrieve=HOME/bm25", "--every=12"], "fill the context of 16"),
    (["evaluate", "--run=HOME/ngram", "--retrieve=HOME/bm25"], "reads no window of text"),
    ([*SCORE, STATES, "--tasks=sorting"], "--retrieve means nothing with --tasks"),
]


@pytest.mark.parametrize(("argv", "message"), REFUSED)
def test_bad_input_is_one_line(argv, message, home, tmp_path, capsys):
    places = {"HOME": str(home), "OUT": str(tmp_path / "out")}
    for name, place in places.items():
        argv = [part.replace(name, place) for part in argv]
    capsys.readouterr()
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1, error


def test_an_index_of_another_tokenizer_or_model_is_refused(home, tmp_path, capsys):
    shutil.copytree(home / "states", tmp_path / "states")
    index = folder.read(tmp_path / "states")
    score = ["evaluate", f"--run={home}/decoder", f"--retrieve={tmp_path}/states"]
    for key, message in (
        ("tokenizer", "which makes other tokens; build it again"),
        ("weights", "has other weights"),
    ):
        about = {k: v for k, v in index.about.items() if k != "checksum"} | {key: "0" * 16}
        (tmp_path / "states" / folder.MANIFEST).write_bytes(sealed(about))
        assert main(score) == 2
        assert message in capsys.readouterr().err
    (tmp_path / "states" / "keys-00000.npy").write_bytes(b"\x93NUMPY")
    assert main(score) == 2
    assert "keys-00000.npy is cut short" in capsys.readouterr().err
