"""Tests the verbs fill and classify: what they refuse, and from pre-training to classes."""

import json

import pytest

from launch import __main__ as command
from launch.__main__ import module_of
from launch.errors import BadInput


def run(*argv: str) -> int:
    return module_of(argv[0]).main(list(argv[1:]))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("fill", "--run=r"), "--text is not given"),
        (("fill", "--run=r", "--text=a b"), "text='a b' has no [MASK], so there is nothing to"),
        (("fill", "--run=r", "--text=[MASK]"), "run=r holds no config.json"),
        (("classify", "--run=r"), "--text is not given"),
        (("classify", "--run=r", "--text= "), "text=' ' is empty"),
        (("classify", "--run=r", "--file=lines.txt"), "file=lines.txt line 2 is empty"),
        (("classify", "--run=r", "--text=a"), "run=r holds no config.json"),
    ],
)
def test_what_cannot_be_read_is_one_line(argv, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lines.txt").write_text("a\n\nb\n")
    with pytest.raises(BadInput) as error:
        run(*argv)
    assert message in str(error.value)


BASE = (
    *("--config=configs/base.py", "--config.data.cache=cache", "--config.train.batch_size=16"),
    *("--config.eval.sequences=64", "--config.eval.every=100%", "--config.checkpoint.every=100%"),
)
MASKED = (
    *(
        "--config.model.family=encoder",
        "--config.objective.name=masked",
        "--config.data.kind=masked_text",
    ),
    *("--config.data.corpora=synthetic_sentiment:texts=2000", "--config.data.tokenizer=bytes"),
    *("--config.model.n_layers=1", "--config.model.d_model=16", "--config.model.n_heads=2"),
    *("--config.model.context_length=120", "--config.train.duration=4 steps"),
)


@pytest.mark.slow
def test_from_masked_text_to_classes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert command.main(["train", *BASE, *MASKED, "--workdir=pre"]) == 0
    capsys.readouterr()
    text = "the soup was [MASK]ood ."
    assert command.main(["fill", "--run=pre", f"--text={text}", "--top=3", "--json=f.json"]) == 0
    (found,) = json.loads((tmp_path / "f.json").read_text())["texts"]
    (mask,) = found["masks"]
    assert len(mask) == 3 and found["filled"] == text.replace("[MASK]", mask[0]["text"])
    assert all(token["token"] < 256 for token in mask)
    assert capsys.readouterr().out.startswith("the soup was ")
    for verb in ("sample", "evaluate"):
        assert command.main([verb, "--run=pre"]) == 2
        assert "use isoflop fill --run=pre" in capsys.readouterr().err
    assert command.main(["classify", "--run=pre", "--text=a"]) == 2
    assert "--run=pre has no classes" in capsys.readouterr().err

    tuning = [
        *("train", *BASE, "--config.train.init_from=pre", "--config.data.tokenizer=bytes"),
        *("--config.objective.name=classify", "--config.data.kind=labelled", "--workdir=fine"),
        *("--config.data.corpora=synthetic_sentiment:texts=100", "--config.train.duration=3 steps"),
    ]
    assert command.main(tuning) == 0
    assert "fresh: classes; left out: head, transform, transform_norm" in capsys.readouterr().out
    result = json.loads((tmp_path / "fine" / "result.json").read_text())
    assert result["metrics"]["accuracy"]["se"] > 0 and result["params"]["classes"] == 34
    (tmp_path / "lines.txt").write_text("the soup was bad .\nthe bed was not bad .\n")
    argv = ["classify", "--run=fine", "--file=lines.txt", "--text=good", "--json=c.json"]
    assert command.main(argv) == 0
    texts = json.loads((tmp_path / "c.json").read_text())["texts"]
    assert texts[0]["text"] == "good" and len(texts) == 3
    for one in texts:
        assert sorted(one["probabilities"]) == ["negative", "positive"]
        assert sum(one["probabilities"].values()) == pytest.approx(1, abs=1e-6)
        assert one["probabilities"][one["label"]] >= 0.5
    assert command.main(["fill", "--run=fine", "--text=[MASK]"]) == 2
    assert "use isoflop classify --run=fine" in capsys.readouterr().err
    assert command.main(["classify", "--run=fine", f"--text={'x' * 200}"]) == 2
    assert "has 202 tokens with its marks, but model.context_length=120" in capsys.readouterr().err


@pytest.mark.slow
def test_a_decoder_is_a_classifier_and_an_encoder_a_tagger(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    decoder = [
        *("train", *BASE, "--config.objective.name=classify", "--config.data.kind=labelled"),
        *("--config.data.corpora=synthetic_sentiment:texts=100", "--config.data.frame=end"),
        *("--config.model.n_layers=1", "--config.model.d_model=16", "--workdir=decoder"),
        *("--config.model.context_length=120", "--config.train.duration=2 steps"),
    ]
    assert command.main(decoder) == 0
    assert json.loads((tmp_path / "decoder" / "result.json").read_text())["params"]["classes"] == 34
    assert command.main(["classify", "--run=decoder", "--text=the soup was bad ."]) == 0
    rows = [{"text": "the cat saw a dog", "label": "D N V D N"}, {"text": "a cat", "label": "D N"}]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tagger = [
        *("train", *BASE, *MASKED, "--config.objective.name=tag", "--config.data.kind=tagged"),
        *("--config.data.corpora=t.jsonl", "--config.data.held_out=t.jsonl", "--workdir=tagger"),
    ]
    assert command.main(tagger) == 0
    capsys.readouterr()
    argv = ["classify", "--run=tagger", "--text=the  dog", "--json=w.json"]
    assert command.main(argv) == 0
    (one,) = json.loads((tmp_path / "w.json").read_text())["texts"]
    assert [word["text"] for word in one["words"]] == ["the", "dog"]
    assert {word["label"] for word in one["words"]} <= {"D", "N", "V"}
