"""Tests `isoflop index`, and sample, chat and evaluate with its indexes; bad input."""

import io
import json
import shutil

import numpy as np
import pytest

from data import tokenizer as tokenizers
from data.local import sealed
from data.retrieval import folder
from data.tokenizer_files.special_strings import SpecialString
from launch.__main__ import main
from launch.chat.template import prompt_of
from launch.chat.turns import Turns
from launch.retrieval import datastore, encoders, knn, scored
from launch.retrieval.retriever import Found, fitting, open_index, source_lines
from launch.retrieval.turns import Passages
from launch.verbs.models import sample
from tests.launch.retrieval.conftest import TEXTS
from tests.launch.trial.test_trial import TINY
from tests.scaling.design.test_planning import EPOCH, law_of
from train.evaluate import states

CONTEXT = TINY["model.context_length"]


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


def test_a_small_collection_is_searched(tmp_path):
    (tmp_path / "one.txt").write_text("the king fought\nthe sea is wide\n")
    made = ["index", f"--texts={tmp_path}/one.txt", "--lines=1", f"--out={tmp_path}/bm25"]
    assert main(made) == 0
    index = open_index(tmp_path / "bm25")
    assert [one.number for one in index.search("king", 2)] == [0]
    assert [one.number for one in index.search("the sea", 1, np.array([False, True]))] == [1]
    assert index.search("zebra", 2) == []


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


INDEX, SAMPLE = ["index", "--out=OUT"], ["sample", "--run=HOME/decoder"]
SCORE = ["evaluate", "--run=HOME/decoder"]
OTHER, STATES, KNN = "--texts=HOME/other", "--retrieve=HOME/states", "--kind=knn"
REFUSED = [
    ([*INDEX], "neither texts nor run is given"),
    ([*INDEX, KNN], "kind=knn stores what a model makes of the text; add --run"),
    ([*INDEX, OTHER, "--tokens=5"], "--tokens=5.0 means nothing with --kind=bm25"),
    ([*INDEX, OTHER, "--words=3", "--overlap=3"], "--overlap=3 and --words=3"),
    ([*INDEX, "--texts=HOME/none"], "isoflop index: data.corpora="),
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
    ([*SCORE, "--retrieve=HOME/bm25", "--passages=4"], "leave no token to a passage, as 2 follow"),
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


def test_a_run_of_packed_rows_has_no_datastore(home, tmp_path, capsys):
    (tmp_path / "packed").mkdir()
    for path in (home / "decoder").iterdir():
        (tmp_path / "packed" / path.name).symlink_to(path)
    config = json.loads((home / "decoder" / "config.json").read_text())
    config["data"]["rows"] = "packed"
    (tmp_path / "packed" / "config.json").unlink()
    (tmp_path / "packed" / "config.json").write_text(json.dumps(config))
    how = f"--run={tmp_path}/packed", f"--texts={home}/other", f"--out={tmp_path}/out"
    assert main(["index", "--kind=knn", *how]) == 2
    assert "was trained on data.rows=packed, one document" in capsys.readouterr().err
    assert main(["evaluate", f"--run={tmp_path}/packed", f"--retrieve={home}/states"]) == 2
    assert "was trained on data.rows=packed, one document" in capsys.readouterr().err


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


def test_evaluate_leaves_out_the_documents_that_are_scored(home, tmp_path, capsys):
    flags = f"--retrieve={tmp_path}/own", "--score_tokens=100", "--passage_tokens=6"
    assert main(["index", f"--run={home}/decoder", "--words=3", f"--out={tmp_path}/own"]) == 0
    own = open_index(tmp_path / "own")
    shutil.rmtree(tmp_path / "own")
    assert main(["index", f"--texts={home}/text.txt", "--words=3", f"--out={tmp_path}/own"]) == 0
    about = evaluated(home, tmp_path, *flags)
    every = open_index(tmp_path / "own")
    assert about["left_out"] == len(every.passages) - len(own.passages) > 0
    # With --data, those of its own documents.
    assert main(["evaluate", f"--run={home}/decoder", *flags, f"--data={home}/text.txt"]) == 2
    assert "holds only passages of the documents that are scored" in capsys.readouterr().err


@pytest.mark.parametrize("missing", ["params", "tokens", "total"])
def test_a_law_that_does_not_fit_the_run_is_refused_before_scoring(missing, tmp_path, capsys):
    law = law_of(EPOCH)
    if missing == "total":
        law["settings"]["params"] = "non_embedding"
    (tmp_path / "law.json").write_text(json.dumps(law))
    result = {"params": {"all": 1000}, "tokens": 5000}
    result.pop(missing, None)
    (tmp_path / "result.json").write_text(json.dumps(result))
    flags = f"--run={tmp_path}", "--retrieve=none", f"--law={tmp_path}/law.json"
    assert main(["evaluate", *flags]) == 2
    message = {"params": "with its parameters", "tokens": "with its tokens of training"}
    assert message.get(missing, "fit one with --params=total") in capsys.readouterr().err


def test_a_datastore_leaves_out_documents_that_it_holds(home, tmp_path, capsys):
    score = f"--retrieve={home}/states", "--neighbours=8"
    about = evaluated(home, tmp_path, *score, f"--data={home}/text.txt")
    model = datastore.open_scored(home / "decoder")
    eod = model.tokenizer.eod
    train = datastore.split(datastore.tokens_of(model, None)[0][0], eod)
    assert about["left_out"] == len(train) > 0 and len(scored.held_out(model)) > 0
    assert f"{len(train)} documents that it holds left out" in " ".join(
        capsys.readouterr().out.split()
    )
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "one.txt").write_text(model.tokenizer.decode(train[0][:-1]))
    assert main(["evaluate", f"--run={home}/decoder", *score, f"--data={tmp_path}/own"]) == 2
    assert "holds every document of data=" in capsys.readouterr().err


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


OF_FAMILY = {
    "encoder": {
        "model.family": "encoder", "objective.name": "masked", "data.kind": "masked_text",
        "model.n_layers": 1, "model.d_model": 16, "model.n_heads": 2, "model.context_length": 16,
        "train.duration": "4 steps", "train.batch_size": 4, "data.tokenizer": "words",
        "eval.sequences": 4, "eval.batch_size": 4,
    },
    "lsa": {
        "model.family": "lsa", "objective.name": "reconstruction", "data.kind": "documents",
        "data.tokenizer": "words", "data.document_words": 8, "model.d_model": 4,
        "eval.sequences": 4, "eval.batch_size": 4,
    },
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "made_from"), [("encoder", encoders.STATES), ("lsa", encoders.WORDS)]
)
def test_other_families_make_dense_indexes(name, made_from, home, tmp_path, capsys):
    text = " ".join(" ".join(TEXTS.values()).split())
    (tmp_path / "text.txt").write_text("\n\n".join(f"{text} {i}" for i in range(2000)))
    keys = {"data.corpora": tmp_path / "text.txt", "data.cache": tmp_path / "cache"}
    keys |= {"data.validation": 0.2, "log.tensorboard": "false"} | OF_FAMILY[name]
    given = [f"--config.{key}={value}" for key, value in keys.items()]
    train = ["train", "--config=configs/base.py", f"--workdir={tmp_path}/run", *given]
    assert main(train) == 0
    made = ["index", "--kind=dense", f"--run={tmp_path}/run", f"--texts={home}/other", "--lines=1"]
    assert main([*made, f"--out={tmp_path}/dense"]) == 0
    if made_from == encoders.WORDS:
        shutil.rmtree(tmp_path / "run")  # the index holds its word vectors
    index = open_index(tmp_path / "dense")
    assert index.encoder.made_from == made_from
    best = index.search("the sea is wide and the ships are small", 2)
    assert best[0].passage.text == "the sea is wide and the ships are small"
    assert best[0].score > best[1].score
    if made_from == encoders.STATES:
        shutil.rmtree(tmp_path / "run")
        with pytest.raises(FileNotFoundError, match="which is not there; put it back"):
            open_index(tmp_path / "dense")
