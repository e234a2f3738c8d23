"""Tests `isoflop inspect` on untrained runs: its numbers, its page, what it refuses."""

import base64
import dataclasses
import json
import re
import shutil

import jax
import numpy as np
import pytest

from data import tokenizer as tokenizers
from launch.__main__ import main
from launch.errors import BadInput
from launch.evaluation.scored_model import open_model
from launch.inspection import measured
from launch.inspection import text as texts
from model.counted import ngram
from scaling.report.inspection.page import page
from tests.launch.chat.runs import DECODER, RECURRENT, untrained
from tests.launch.verbs.models.test_sample import counted_run

TEXT = 'a <b>"&\n</script> ü'
IDS = list(TEXT.encode())


@pytest.fixture(scope="module")
def home(tmp_path_factory, compiled_once):
    """Runs of three families whose tokens are bytes."""
    folder = tmp_path_factory.mktemp("runs")
    untrained(
        folder / "decoder", DECODER | {"n_layers": 2, "context_length": 24, "attention": "splash"}
    )
    untrained(folder / "recurrent", RECURRENT | {"n_layers": 2})
    counted_run(folder / "counted")
    return folder


def inspected(run, tmp_path, *flags) -> tuple[dict, str]:
    """(the numbers, the page)."""
    file = tmp_path / "i.json"
    argv = ["inspect", f"--run={run}", f"--json={file}", f"--out={tmp_path / 'out'}", *flags]
    assert main(argv) == 0
    return json.loads(file.read_text()), (tmp_path / "out" / "index.html").read_text()


def embedded(text: str) -> dict:
    """What the code of a page reads."""
    found = re.search(r'<script type="application/json" id="inspection">(.*?)</script>', text)
    return json.loads(found[1])


@pytest.fixture(scope="module")
def decoder(home, tmp_path_factory):
    return inspected(
        home / "decoder", tmp_path_factory.mktemp("of"), f"--text={TEXT}", "--noablate"
    )


def test_the_numbers_of_a_decoder_are_those_of_other_verbs(home, decoder, tmp_path):
    found, _ = decoder
    assert found["tokens"] == IDS and found["start"] == ["<end>"] and not found["cut"]
    shutil.copytree(home / "decoder", tmp_path / "plain")
    config = (tmp_path / "plain" / "config.json").read_text()
    (tmp_path / "plain" / "config.json").write_text(config.replace("splash", "xla"))
    assert (
        main(["score", f"--run={tmp_path / 'plain'}", f"--text={TEXT}", f"--json={tmp_path}/s"])
        == 0
    )
    (scored,) = json.loads((tmp_path / "s").read_text())["texts"]
    assert found["pieces"] == scored["pieces"]
    assert found["nats"] == pytest.approx([-one for one in scored["logprobs"]], abs=1e-5)
    assert found["loss"] == pytest.approx(scored["nats_per_token"], abs=1e-5)
    assert found["bits_per_byte"] == pytest.approx(scored["bits_per_byte"], abs=1e-5)
    for nats, rank, top_p, piece, top in zip(
        *(found[name] for name in ("nats", "rank", "top_p", "pieces", "top")), strict=True
    ):
        assert top_p == sorted(top_p)[::-1] and (rank == 1) == (piece == top[0])
        assert rank > 5 or top_p[rank - 1] == pytest.approx(np.exp(-nats), abs=1e-5)
    lens = found["lens"]
    assert lens["after"] == ["embedding", "layer 1", "layer 2"]
    assert lens["nats"][-1] == found["nats"] and lens["loss"][-1] == pytest.approx(
        found["loss"], abs=1e-5
    )
    assert lens["loss"][0] != lens["loss"][1] != lens["loss"][2]


def test_the_parts_of_a_decoder(decoder):
    found, text = decoder
    assert np.shape(found["attention"]["entropy"]) == (2, 2)
    assert found["attention"]["backend"] == "xla"  # splash, the run's own, has no weights
    assert "the run has model.attention=splash" in text
    induction = found["induction"]
    assert induction["tokens"] == 11  # two halves and one token before them in a context of 24
    score = np.array(induction["prefix_matching"])
    assert score.shape == (2, 2) and (score < 0.5).all()  # untrained: no induction head
    assert induction["saved"] == pytest.approx(
        induction["first_half"] - induction["second_half"], abs=1e-5
    )
    words = [one["word"] for one in found["embedding"]["map"]["words"]]
    assert words[0] in found["pieces"] and len(words) == len(set(words))
    assert "<end>" not in words and "\\n" not in words


@pytest.mark.slow
def test_the_ablations_of_a_decoder(home, decoder, tmp_path):
    assert decoder[0]["ablation"] is None and 'id="ablations"' not in decoder[1]
    found, text = inspected(home / "decoder", tmp_path, f"--text={TEXT}", "--neurons=3")
    ablation = found["ablation"]
    assert ablation["loss"] == pytest.approx(found["loss"], abs=1e-5)
    assert np.shape(ablation["heads"]["zero"]) == np.shape(ablation["heads"]["mean"]) == (2, 2)
    estimates = [abs(one["estimated_zero"]) for one in ablation["neurons"]]
    assert len(estimates) == 3 and estimates == sorted(estimates)[::-1]
    assert all(one["layer"] in (1, 2) and 1 <= one["neuron"] <= 32 for one in ablation["neurons"])
    assert '<section class="panel" id="ablations"' in text


def test_the_page_is_one_file_that_escapes_the_text(decoder):
    found, text = decoder
    body = text[text.index("<main") : text.index("</main>")]
    assert "<b>" not in re.sub(r"<b>(?=<code>)", "", body) and "</script>" not in body
    assert body.count('class="token"') == len(IDS)
    carried = embedded(text)
    assert carried["pieces"] == found["pieces"] and carried["attention"]["length"] == len(IDS) + 1
    assert not re.search(r'(src|href)="(?!#)', body)
    for part in ("tokens", "lens", "attention", "induction", "embedding", "made"):
        assert f'<section class="panel" id="{part}"' in body


def test_weights_are_one_byte_each_up_to_the_query(decoder):
    weights = np.zeros((1, 2, 3, 3))
    weights[0, 1, 2] = [0.5, 0.25, 0.25]
    codes = [*base64.b64decode(embedded(page(decoder[0], weights))["attention"]["codes"])]
    assert codes == [0] * 9 + [128, 64, 64]


@pytest.mark.slow
def test_a_long_text_is_cut_and_says_so(home, tmp_path, capsys):
    (tmp_path / "long.txt").write_text("to be or not to be " * 9)
    file = f"--file={tmp_path / 'long.txt'}"
    found, text = inspected(home / "decoder", tmp_path, file, "--noablate")
    assert len(found["tokens"]) == 23 and found["cut"] and found["ablation"] is None
    assert "the text goes on" in capsys.readouterr().out and "of a longer text" in text
    model = open_model(home / "decoder")
    few = texts.encoded(model, "to be or not", 5)
    assert few.cut and few.tokens.tolist() == [255, *b"to be"] and few.start == 1
    assert not texts.encoded(model, "to be", 5).cut


@pytest.mark.slow
def test_a_recurrent_model_has_tokens_and_the_lens(home, tmp_path):
    found, text = inspected(home / "recurrent", tmp_path, f"--text={TEXT}")
    assert found["lens"]["after"] == ["layer 1", "layer 2"]
    assert found["lens"]["nats"][-1] == found["nats"]
    assert found["attention"] is found["ablation"] is found["induction"] is None
    assert 'id="tokens"' in text and 'id="attention"' not in text


def test_a_counted_model_has_tokens(home, tmp_path):
    found, _ = inspected(home / "counted", tmp_path, f"--text={TEXT}")
    model = open_model(home / "counted")
    wanted = ngram.nats(model.fitted, np.array([255, *IDS]))[1:]
    assert found["nats"] == pytest.approx(wanted.tolist(), abs=1e-5) and found["lens"] is None


def test_bad_input_is_one_line(home, tmp_path, monkeypatch, capsys):
    (tmp_path / "latin.txt").write_bytes(b"K\xf6che")
    for flags, line in (
        ((), 'text is not given; use --text="A sentence." or --file=FILE'),
        (("--text=a", f"--file={tmp_path}/latin.txt"), "text and file are both given"),
        (("--text=",), "text ('') holds no token; give it some words"),
        ((f"--file={tmp_path}/none.txt",), "does not exist; name a file of text"),
        ((f"--file={tmp_path}",), "is no file; name a file of text"),
        ((f"--file={tmp_path}/latin.txt",), "is not UTF-8 (invalid start byte)"),
    ):
        assert main(["inspect", f"--run={home / 'decoder'}", *flags]) == 2
        error = capsys.readouterr().err
        assert line in error and len(error.splitlines()) == 1
    assert main(["inspect", f"--run={tmp_path}", "--text=a"]) == 2
    assert "holds no config.json" in capsys.readouterr().err
    monkeypatch.setattr(texts, "WEIGHTS", 400)
    assert main(["inspect", f"--run={home / 'decoder'}", f"--text={'a' * 20}"]) == 2
    assert "882 attention weights in 4 heads, above 400; use --tokens=13" in capsys.readouterr().err


def test_other_families_are_refused(tmp_path, capsys):
    (tmp_path / "config.json").write_text(
        json.dumps(
            {
                "model": {"family": "encoder", "vocab_size": 9, "d_ff": 8},
                "objective": {"name": "masked"},
            }
        )
    )
    assert main(["inspect", f"--run={tmp_path}", "--text=a"]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1 and "which score no next tokens" in error


def test_a_diverged_model_is_refused(home):
    model = open_model(home / "recurrent")
    broken = jax.tree.map(lambda x: np.full_like(x, np.nan), model.fitted)
    model, how = dataclasses.replace(model, fitted=broken), measured.How(0, True, 0)
    with pytest.raises(BadInput, match="no finite loss at step 7: it has diverged; use another"):
        measured.inspected(model, texts.encoded(model, TEXT, 9), how, lambda _: None)


def test_the_end_of_a_file_may_be_inside_a_character(tmp_path, monkeypatch):
    monkeypatch.setattr(texts, "CHARACTERS", 3)
    (tmp_path / "a.txt").write_text("aaü")
    assert texts.read(None, str(tmp_path / "a.txt")) == "aa"


def test_tokens_by_name():
    known = tokenizers.from_spec("bytes")
    assert texts.name(known, 255) == "<end>" and texts.name(known, 300) == "<300>"
    assert texts.name(known, 32) == "␣" and texts.name(known, ord("a")) == "a"
    assert texts.printable_tokens(known).tolist() == list(range(33, 127))
    letters = texts.printable_tokens(known, words=True).tolist()
    assert letters == [i for i in range(33, 127) if chr(i).isalnum()]
