import html
import json
import shlex

import numpy as np
import pytest

from launch.__main__ import main
from launch.phases import gathered
from tests.launch.chat.runs import DECODER, untrained

figures = pytest.importorskip("scaling.report.phases.figures")
FEW = ("--prompts=3", "--samples=4", "--k=1,2")
ROWS = [{"step": 1, "reward": 0.25, "kl": 0.0}, {"step": 2, "reward": 0.5, "kl": 0.125}]


@pytest.fixture
def runs(tmp_path, compiled_once):
    """A run of conversations, and one that trained on the rewards of a task."""
    first, second = untrained(tmp_path / "sft", DECODER), untrained(tmp_path / "<b>grpo", DECODER)
    config = json.loads((second / "config.json").read_text())
    config["objective"] = {"name": "grpo"}
    config["data"] = {"kind": "tasks", "task": "spelling_backwards", "size": 4, "corpora": []}
    (second / "config.json").write_text(json.dumps(config))
    (second / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    result = {"status": "done", "steps": 2, "seconds": 1.5, "rollout_tokens_per_second": 1234.5}
    (second / "result.json").write_text(json.dumps(result))
    return [str(first), str(second)]


def test_every_run_answers_the_same_prompts_and_the_page_has_them(runs, tmp_path, capsys):
    out = tmp_path / "page"
    assert main(["phases", *runs, *FEW, "--out", str(out), "--task=spelling_backwards"]) == 0
    shown = capsys.readouterr().out
    about = json.loads((out / "phases.json").read_text())
    first, second = about["phases"]
    assert about["task"] == "spelling_backwards" and about["size"] == 4
    assert [a["prompt"] for a in first["answers"]] == [a["prompt"] for a in second["answers"]]
    assert len(first["answers"]) == 3 and first["name"] == "sft"
    assert second["curve"] == ROWS and first["curve"] == []
    for phase in about["phases"]:
        assert [one["k"] for one in phase["pass_at_k"]] == [1, 2]
        assert 0 <= phase["pass_at_k"][0]["value"] <= phase["pass_at_k"][1]["value"] <= 1
        assert phase["name"] in shown
    page = (out / "index.html").read_text()
    assert f"--run={html.escape(shlex.quote(runs[1]))} --serve" in page
    assert second["rollout_tokens_per_second"] == 1234.5 and "<td>1,234</td>" in page
    assert first["rollout_tokens_per_second"] is None
    assert "&lt;b&gt;grpo" in page and "<b>grpo" not in page.split("<script")[0]
    assert {path.name for path in (out / "figures").iterdir()} >= {"passes.png", "reward.svg"}


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ({}, {"validation": 0.2}, 0.2),
        ({"kind": "conversations", "corpora": ["task:sorting:seed=1"]}, {"validation": 0.2}, 0.05),
        ({"kind": "preferences", "corpora": "task:letter_counting"}, {"validation": 0.2}, 0.2),
        ({}, {"validation": 0.0}, 0.0),
        ({}, {"task": "letter_counting"}, None),
    ],
)
def test_prompts_are_held_out_by_the_smallest_share(tmp_path, first, second, expected):
    data = ({"validation": 0.05, **first}, {"kind": "tasks", "task": "sorting", **second})
    for number, one in enumerate(data):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "config.json").write_text(json.dumps({"data": one}))
    runs = [tmp_path / "0", tmp_path / "1"]
    assert gathered.held_out(runs, "sorting") == expected
    said = {0.0: "a run that held out none", None: "none of these runs"}
    assert said.get(expected, "held out") in figures.held_out({"held_out": expected})


def test_pass_at_1_is_the_share_of_right_answers(runs, tmp_path, monkeypatch):
    """With answers that are right every other time, in place of the model's."""
    from launch.benchmarks.answerer import Answerer

    def half(self, prompts, n_tokens, samples, temperature, seed, count):
        count(len(prompts))
        words = [bytes(p for p in prompt if p < 128).decode() for prompt in prompts]
        right = [text.partition("reverse ")[2].partition(":")[0][::-1] for text in words]
        return [[answer if i % 2 else "wrong" for i in range(samples)] for answer in right]

    monkeypatch.setattr(Answerer, "answers", half)
    file = tmp_path / "phases.json"
    assert main(["phases", runs[1], *FEW, f"--json={file}"]) == 0
    values = [one["value"] for one in json.loads(file.read_text())["phases"][0]["pass_at_k"]]
    np.testing.assert_allclose(values, [1 / 2, 1 - (2 / 4) * (1 / 3)])


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "no run is given; name their folders, in the order of training"),
        (["SFT"], "no run was trained on the rewards of a task; give --task=NAME"),
        (["SFT", "--task=chess"], "'chess' is unknown; use one of addition_reversed"),
        (["SFT", "--task=mine.jsonl"], "'mine.jsonl' is unknown; use one of"),
        (["SFT", "--task=sorting", "--names=a,b"], "1 runs take 1 different names"),
        (["/no/such"], "/no/such holds no config.json; name folders of runs"),
        (["SFT", "--task=sorting", "--samples=2", "--k=3"], "must lie between 1 and --samples=2"),
    ],
)
def test_bad_input_is_one_line(runs, capsys, argv, message):
    argv = [part.replace("SFT", runs[0]) for part in argv]
    assert main(["phases", *argv]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error and "\n" not in error
