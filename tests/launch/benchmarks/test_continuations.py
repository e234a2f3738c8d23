"""Tests of scored continuations and of the interface of lm-evaluation-harness.

The harness's own loop is tested where it is installed; elsewhere its requests are stubs.
"""

import importlib.util
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest

from launch.__main__ import main
from launch.benchmarks import answerer, continuations, harness
from launch.evaluation.scored_model import open_model
from launch.evaluation.sentences import score
from tests.launch.verbs.models.test_sample import MODEL, counted_run, untrained

CONTEXT = MODEL["context_length"]
TEXTS = ("to be or not", "that is", "ab")
LONG = "to be or not to be that is the question of this long text"


@pytest.fixture(scope="module")
def home(tmp_path_factory, compiled_once):
    home = tmp_path_factory.mktemp("home")
    untrained(home / "decoder", MODEL)
    counted_run(home / "counted")
    return home


def requests(*args):
    return [SimpleNamespace(args=each) for each in args]


@pytest.mark.parametrize("name", ["decoder", "counted"])
def test_scores_are_the_sums_of_isoflop_score(home, name):
    """With an empty context, with a part of the text as context, and by windows."""
    model = open_model(home / name)
    asked = harness.Requests(model)
    wanted = score(model, TEXTS, False, CONTEXT, CONTEXT)
    whole = asked.loglikelihood(requests(*(("", text) for text in TEXTS)))
    assert [one for one, _ in whole] == pytest.approx([w["logprob"] for w in wanted], rel=1e-6)
    rolling = asked.loglikelihood_rolling(requests(*((text,) for text in TEXTS)))
    assert rolling == pytest.approx([w["logprob"] for w in wanted], rel=1e-6)
    (part,) = asked.loglikelihood(requests(("to be ", "or not")))
    # The space before the continuation is scored with it.
    assert part[0] == pytest.approx(sum(wanted[0]["logprobs"][5:]), rel=1e-6)
    assert abs(part[0] - sum(wanted[0]["logprobs"][6:])) > 1e-3
    (long,) = score(model, [LONG], False, CONTEXT, CONTEXT)
    (rolled,) = asked.loglikelihood_rolling(requests((LONG,)))
    assert rolled == pytest.approx(long["logprob"], rel=1e-6)


@pytest.mark.parametrize("name", [pytest.param("decoder", marks=pytest.mark.slow), "counted"])
def test_a_greedy_continuation_is_what_decoding_gives(home, name, monkeypatch):
    """Three prompts in two batches; the last batch is filled up. One other token is not greedy."""
    monkeypatch.setattr(answerer, "AT_ONCE", 4)
    model = open_model(home / name)
    drawn = answerer.open_answerer(home / name, stops=["\x00"])
    prompts = [[97], [98, 99, 100], [116, 111, 32]]
    found = drawn.answers([[*model.start, *p] for p in prompts], 6, 2, 0.0, 0)
    assert [len(texts) for texts in found] == [2, 2, 2]
    assert all(one == other for one, other in found)
    stream = answerer.draw.stream_of(drawn.family, 8)
    sampler = answerer.Sampler(0.0, vocab_size=256)
    pieces = stream(*drawn.model, [[*model.start, *p] for p in prompts], 6, sampler)
    tokens_PN = np.concatenate([piece.tokens_BN for piece in pieces], axis=1)
    assert [model.tokenizer.decode(row).partition("\x00")[0] for row in tokens_PN] == [
        texts[0] for texts in found
    ]
    pairs = [(p, row.tolist()) for p, row in zip(prompts, tokens_PN, strict=True)]
    assert all(one.greedy for one in continuations.score(model, pairs))
    other = [(p, [*row[:-1], (row[-1] + 1) % 250]) for p, row in pairs]
    assert not any(one.greedy for one in continuations.score(model, other))


def test_of_a_long_context_the_last_tokens_count(home):
    model = open_model(home / "decoder")
    ids = model.tokenizer.encode(LONG).tolist()
    long, short = continuations.score(
        model, [(ids[:-3], ids[-3:]), (ids[-CONTEXT - 1 : -3], ids[-3:])]
    )
    assert long.logprobs[-1] == pytest.approx(short.logprobs[-1], abs=1e-5)
    with pytest.raises(ValueError, match="continuation 1 has 25 tokens"):
        continuations.score(model, [([], [97] * (CONTEXT + 1))])
    with pytest.raises(ValueError, match="continuation 1 has 0 tokens"):
        continuations.score(model, [([97], [])])


def test_generation_ends_where_the_task_says(home):
    asked = harness.Requests(open_model(home / "counted"))
    whole, cut = asked.generate_until(
        requests(
            ("to b", {"max_gen_toks": 12, "until": []}),
            ("to b", {"max_gen_toks": 12, "until": ["to"]}),
        )
    )
    assert whole == "e to be to b" and cut == "e "
    drawn = [
        asked.generate_until(requests(("t", {"do_sample": True, "temperature": t}), ("t", {})))
        for t in (1e-4, 3.0)
    ]
    assert drawn[0][0][:20] == drawn[0][1][:20] != drawn[1][0][:20]


def test_without_the_harness_one_line_says_so(home, tmp_path, capsys, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        harness.importlib.util, "find_spec", lambda n: None if n == "lm_eval" else find(n)
    )
    run = f"--run={home / 'counted'}"
    assert main(["evaluate", run, "--tasks=lm_eval:x", f"--lm_eval_path={tmp_path}"]) == 2
    error = capsys.readouterr().err
    assert "pip install isoflop[lm_eval]" in error and error.count("\n") == 1


def test_metrics_of_a_result():
    found = {"alias": "x", "acc,none": 0.5, "acc_stderr,none": 0.1, "f1,strict": 0.2,
             "f1_stderr,strict": "N/A"}  # fmt: skip
    results = {"results": {"x": found}, "n-samples": {"x": {"effective": 3}}, "n-shot": {"x": 0}}
    assert harness.entry("x", results) == {
        "task": "x",
        "rows": 3,
        "shots": 0,
        "metrics": {"acc": {"value": 0.5, "se": 0.1}, "f1 (strict)": {"value": 0.2, "se": None}},
    }


TASK = """task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: {type}
doc_to_text: "{text}"
doc_to_target: "{target}"
metric_list:
  - metric: {metric}
"""


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("lm_eval") is None, reason="this machine has no lm_eval"
)
def test_the_harness_runs_local_tasks(home, tmp_path, capsys):
    rows = [{"text": text, "asked": text[:4], "answer": "e to"} for text in TEXTS]
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, kind, text, target, metric in (
        ("rolled", "loglikelihood_rolling", "", "{{text}}", "bits_per_byte"),
        ("generated", "generate_until", "{{asked}}", "{{answer}}", "exact_match"),
    ):
        task = TASK.format(name=name, data=data, type=kind, text=text, target=target, metric=metric)
        more = 'generation_kwargs: {until: ["\\n"], max_gen_toks: 4}\n' * (name == "generated")
        (tmp_path / f"{name}.yaml").write_text(task + more)
    flags = (f"--run={home / 'counted'}", f"--lm_eval_path={tmp_path}")
    out = tmp_path / "e.json"
    tasks = "--tasks=lm_eval:rolled,lm_eval:generated"
    assert main(["evaluate", *flags, tasks, f"--json={out}"]) == 0
    rolled, generated = json.loads(out.read_text())["lm_eval"]
    wanted = score(open_model(home / "counted"), TEXTS, False, 8, 8)
    bits = -sum(one["logprob"] for one in wanted) / math.log(2) / sum(map(len, TEXTS))
    assert rolled["metrics"]["bits_per_byte"]["value"] == pytest.approx(bits, rel=1e-6)
    assert generated["metrics"]["exact_match"]["value"] == pytest.approx(1 / 3)
    assert "lm-evaluation-harness" in capsys.readouterr().out
    assert main(["evaluate", *flags, "--tasks=lm_eval:other"]) == 2
    assert "lm_eval:other is unknown" in capsys.readouterr().err
