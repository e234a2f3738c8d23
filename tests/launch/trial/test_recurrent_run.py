"""Tests the verbs on runs of recurrent models that carry their state from step to step."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from launch.__main__ import main
from launch.evaluation.scored_model import open_model
from model.recurrent import language_model as recurrent
from tests import spawn
from tests.train.test_loop import numbers
from train.checkpoint import restore_params

CONTEXT = 8
TINY = {
    "model.family": "recurrent", "model.cell": "gru", "model.d_model": 16, "model.n_layers": 1,
    "model.context_length": CONTEXT, "model.carry_state": "true", "optimizer.learning_rate": 0.02,
    "train.batch_size": 4, "train.duration": "60 steps", "train.chunk": 10, "eval.sequences": 32,
    "eval.batch_size": 8, "log.tensorboard": "false", "data.validation": 0.2,
}  # fmt: skip


def trained(home, name: str, **changes) -> None:
    assert main(spawn.arguments(home, name, TINY | changes)) == 0


@pytest.fixture(scope="module")
def home(text_folder, compiled_once):
    """A folder with the run `whole`."""
    trained(text_folder, "whole")
    return text_folder


def result(home, name: str) -> dict:
    return json.loads((home / name / "result.json").read_text())


@pytest.mark.slow
def test_a_run_that_stops_goes_on_with_its_state(home):
    trained(home, "halves", **{"checkpoint.stop_at": "30 steps"})
    trained(home, "halves")
    curves = [
        [row for row in numbers(home / name) if not row.get("extra")]
        for name in ("halves", "whole")
    ]
    assert curves[0] == curves[1]
    params = [restore_params(home / name / "checkpoints")[0] for name in ("halves", "whole")]
    assert all(map(np.array_equal, *map(jax.tree.leaves, params)))


@pytest.mark.slow
def test_reset_states_give_other_numbers_and_samples_are_written(home):
    changes = {"model.carry_state": "false", "log.samples": "60 steps", "log.sample_tokens": 4}
    trained(home, "reset", **changes)
    assert result(home, "reset")["eval_loss"] != result(home, "whole")["eval_loss"]
    assert (home / "reset" / "samples.jsonl").read_text().count("\n") == 1


def evaluated(home, tmp_path, *flags: str) -> dict:
    file = tmp_path / "out.json"
    assert main(["evaluate", f"--run={home / 'whole'}", f"--json={file}", *flags]) == 0
    return json.loads(file.read_text())


def test_evaluation_carries_the_state(home, tmp_path):
    about, recorded = evaluated(home, tmp_path), result(home, "whole")
    assert about["eval_loss"] == pytest.approx(recorded["eval_loss"], abs=1e-5)
    assert sum(one["tokens"] for one in about["by_position"]) == about["tokens"] == 32 * CONTEXT


def test_a_document_is_read_in_one_go(home, tmp_path):
    documents = ["to be or not", "that " * 9, "or", "be not to " * 11] * 5  # more than rows
    (home / "other.jsonl").write_text("".join(json.dumps({"text": d}) + "\n" for d in documents))
    about = evaluated(home, tmp_path, f"--data={home / 'other.jsonl'}", "--ngram=0")
    model = open_model(home / "whole")
    for number in (1, 2, 3):
        text = np.array([255, *documents[number].encode(), 255])
        pad = np.zeros(128 - len(text), int)  # one program for all lengths
        tokens = np.concatenate([text, pad])[None]
        nats = model.nats(tokens[:, :-1], tokens[:, 1:])[0, : len(text) - 1]
        assert about["by_text"][number]["loss"] == pytest.approx(nats.mean(), rel=1e-5)
    tokens[:, CONTEXT] = 0  # Negative control: another token in an earlier window
    other = model.nats(tokens[:, :-1], tokens[:, 1:])[0, CONTEXT + 1 : len(text) - 1]
    assert np.abs(other - nats[CONTEXT + 1 :]).max() > 1e-3


@pytest.mark.slow
def test_sampling_is_that_of_the_whole_text(home, tmp_path):
    file, prompt = tmp_path / "s.json", "to be"
    flags = (f"--prompt={prompt}", "--tokens=12", "--temperature=0", f"--json={file}")
    assert main(["sample", f"--run={home / 'whole'}", *flags]) == 0
    (drawn,) = json.loads(file.read_text())["samples"]
    model = open_model(home / "whole")
    tokens = [*prompt.encode(), *drawn["tokens"]]
    x_BTH = recurrent.hidden(model.cfg, model.fitted, {"tokens": jnp.array([tokens[:-1]])})
    logits_TV = recurrent.logits(model.cfg, recurrent.head(model.cfg, model.fitted), x_BTH)[0]
    assert len(drawn["tokens"]) == 12  # longer than the context
    assert logits_TV[len(prompt) - 1 :].argmax(-1).tolist() == drawn["tokens"]
    logprobs = jax.nn.log_softmax(logits_TV).max(-1)[len(prompt) - 1 :]
    assert np.abs(logprobs - np.array(drawn["logprobs"])).max() < 1e-5


def test_the_score_of_a_long_text_names_no_windows(home, capsys):
    assert main(["score", f"--run={home / 'whole'}", f"--text={'to be ' * CONTEXT}"]) == 0
    assert "windows" not in capsys.readouterr().err


BAD = {
    "beams": (["sample", "--beams=2"], "needs a decoder"),
    "stride": (["evaluate", "--data=stdlib", "--stride=4"], "stride=4 rereads tokens"),
    "score": (["score", "--text=to be", "--stride=4"], "stride=4 rereads tokens"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_a_recurrent_run_cannot_do(home, capsys, name):
    (verb, *flags), message = BAD[name]
    assert main([verb, f"--run={home / 'whole'}", *flags]) == 2
    assert message in capsys.readouterr().err


WRONG = {
    "cell": ({"model.cell": "rnn"}, "use one of elman, jordan, gru, lstm"),
    "tied": ({"model.d_hidden": 8}, "model.tie_embeddings=True needs model.d_hidden=8 to equal"),
    "mesh": ({"mesh.sequence": 2, "mesh.fsdp": 1}, "mesh.sequence=2"),
    "mixture": (
        {"data.corpora": "('a.txt','a.txt')", "data.weights": "(1.0,1.0)"},
        "reads one text",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_bad_input(home, capsys, name):
    changes, message = WRONG[name]
    if name == "mixture":
        changes = changes | {"data.corpora": f"('{home}/text.txt','{home}/text.txt')"}
    assert main(spawn.arguments(home, f"wrong_{name}", TINY | changes)) == 2
    assert message in capsys.readouterr().err.replace("\n", " ")
